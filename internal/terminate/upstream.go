package terminate

import (
	"encoding/binary"
	"net/netip"
)

// firstHost is the place in the prefix of the device with index 0: below are
// addresses that mean something else, such as the network's own.
const firstHost = 256

// upstreamAddr returns the address of the device with an index; ok is false if
// the prefix has no place for it.
func upstreamAddr(prefix netip.Prefix, index uint32) (addr netip.Addr, ok bool) {
	n := uint64(index) + firstHost
	if bits := prefix.Addr().BitLen() - prefix.Bits(); bits < 64 && n >= 1<<bits-1 { // the last may be a broadcast address
		return addr, false
	}
	if prefix.Addr().Is4() {
		b := prefix.Masked().Addr().As4()
		binary.BigEndian.PutUint32(b[:], binary.BigEndian.Uint32(b[:])|uint32(n))
		return netip.AddrFrom4(b), true
	}
	b := prefix.Masked().Addr().As16()
	binary.BigEndian.PutUint64(b[8:], binary.BigEndian.Uint64(b[8:])|n)
	return netip.AddrFrom16(b), true
}

// upstreamIndex is the inverse.
func upstreamIndex(prefix netip.Prefix, addr netip.Addr) (index uint32, ok bool) {
	if !prefix.Contains(addr) {
		return 0, false
	}
	a, b := addr.As16(), prefix.Masked().Addr().As16()
	n := binary.BigEndian.Uint64(a[8:]) ^ binary.BigEndian.Uint64(b[8:])
	if n < firstHost || n-firstHost > 1<<32-1 || [8]byte(a[:8]) != [8]byte(b[:8]) {
		return 0, false
	}
	return uint32(n - firstHost), true
}
