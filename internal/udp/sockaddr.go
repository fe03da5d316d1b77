//go:build linux

package udp

import (
	"encoding/binary"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// sockaddr is struct sockaddr_in6, or struct sockaddr_in in its first bytes.
type sockaddr unix.RawSockaddrInet6

const (
	sockaddrLen      = unix.SizeofSockaddrInet6
	sockaddrInet4Len = unix.SizeofSockaddrInet4
)

// addrPort reads what the kernel wrote.
func (sa *sockaddr) addrPort(z *scopes) netip.AddrPort {
	port := portOf(sa.Port)
	if sa.Family == unix.AF_INET {
		return netip.AddrPortFrom(netip.AddrFrom4((*unix.RawSockaddrInet4)(unsafe.Pointer(sa)).Addr), port)
	}
	a := netip.AddrFrom16(sa.Addr).Unmap()
	if sa.Scope_id != 0 && a.Is6() {
		a = a.WithZone(z.name(sa.Scope_id))
	}
	return netip.AddrPortFrom(a, port)
}

// set writes an address for a socket of the given family and returns its
// length. An address that the family cannot hold gets a length that the kernel
// refuses.
func (sa *sockaddr) set(a netip.AddrPort, inet6 bool, z *scopes) uint32 {
	ip := a.Addr()
	if !inet6 {
		ip = ip.Unmap()
		if !ip.Is4() {
			return 0
		}
		v4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(sa))
		*v4 = unix.RawSockaddrInet4{Family: unix.AF_INET, Port: portOf(a.Port()), Addr: ip.As4()}
		return sockaddrInet4Len
	}
	if !ip.IsValid() {
		return 0
	}
	*sa = sockaddr{Family: unix.AF_INET6, Port: portOf(a.Port()), Addr: ip.As16()}
	if zone := ip.Zone(); zone != "" {
		sa.Scope_id = z.id(zone)
	}
	return sockaddrLen
}

// portOf turns a port's bytes around where the machine's order asks for it;
// it is its own inverse.
func portOf(p uint16) uint16 {
	return binary.BigEndian.Uint16((*[2]byte)(unsafe.Pointer(&p))[:])
}

// scopes are the zones of link-local addresses, whose names take a system call
// to find.
type scopes struct {
	names sync.Map // uint32: string
	ids   sync.Map // string: uint32
}

func (z *scopes) name(id uint32) string {
	if v, ok := z.names.Load(id); ok {
		return v.(string)
	}
	name := strconv.FormatUint(uint64(id), 10)
	if i, err := net.InterfaceByIndex(int(id)); err == nil {
		name = i.Name
	}
	z.names.Store(id, name)
	return name
}

func (z *scopes) id(name string) uint32 {
	if v, ok := z.ids.Load(name); ok {
		return v.(uint32)
	}
	id, err := strconv.ParseUint(name, 10, 32)
	if err != nil {
		i, err := net.InterfaceByName(name)
		if err != nil {
			return 0 // the kernel refuses it, this time
		}
		id = uint64(i.Index)
	}
	z.ids.Store(name, uint32(id))
	return uint32(id)
}
