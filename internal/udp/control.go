//go:build linux

package udp

import (
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// controlLen has room for IPV6_PKTINFO, which is longer than IP_PKTINFO.
const controlLen = 48

// control is the ancillary data of one datagram (cmsg(3)).
type control [controlLen]byte

// cmsgData is where a message's data begins.
var cmsgData = unix.CmsgLen(0)

// local returns the address that a datagram came to, from the first n bytes.
func (c *control) local(n int) netip.Addr {
	b := c[:min(n, controlLen)]
	for len(b) >= unix.SizeofCmsghdr {
		h := (*unix.Cmsghdr)(unsafe.Pointer(&b[0]))
		size := int(h.Len)
		if size < cmsgData || size > len(b) {
			break
		}
		data := b[cmsgData:size]
		switch {
		case h.Level == unix.IPPROTO_IP && h.Type == unix.IP_PKTINFO && len(data) >= unix.SizeofInet4Pktinfo:
			info := (*unix.Inet4Pktinfo)(unsafe.Pointer(&data[0]))
			// The header's destination, but for a broadcast the address of
			// the interface: an answer can leave from that alone.
			if to := netip.AddrFrom4(info.Addr); to.IsMulticast() {
				return to
			}
			return netip.AddrFrom4(info.Spec_dst)
		case h.Level == unix.IPPROTO_IPV6 && h.Type == unix.IPV6_PKTINFO && len(data) >= unix.SizeofInet6Pktinfo:
			info := (*unix.Inet6Pktinfo)(unsafe.Pointer(&data[0]))
			return netip.AddrFrom16(info.Addr).Unmap()
		}
		b = b[min(len(b), unix.CmsgSpace(size-cmsgData)):]
	}
	return netip.Addr{}
}

// set writes the address that a datagram is to leave from and returns the
// length, 0 where the kernel is to choose. A socket of IPv6 takes an IPv4
// address in its mapped form.
func (c *control) set(a netip.Addr, inet6 bool) int {
	if !a.IsValid() || a.IsUnspecified() || a.IsMulticast() {
		return 0
	}
	h := (*unix.Cmsghdr)(unsafe.Pointer(&c[0]))
	if inet6 {
		*h = unix.Cmsghdr{Level: unix.IPPROTO_IPV6, Type: unix.IPV6_PKTINFO}
		h.SetLen(unix.CmsgLen(unix.SizeofInet6Pktinfo))
		*(*unix.Inet6Pktinfo)(unsafe.Pointer(&c[cmsgData])) = unix.Inet6Pktinfo{Addr: a.As16()}
		return unix.CmsgSpace(unix.SizeofInet6Pktinfo)
	}
	if a = a.Unmap(); !a.Is4() {
		return 0
	}
	*h = unix.Cmsghdr{Level: unix.IPPROTO_IP, Type: unix.IP_PKTINFO}
	h.SetLen(unix.CmsgLen(unix.SizeofInet4Pktinfo))
	*(*unix.Inet4Pktinfo)(unsafe.Pointer(&c[cmsgData])) = unix.Inet4Pktinfo{Spec_dst: a.As4()}
	return unix.CmsgSpace(unix.SizeofInet4Pktinfo)
}
