package proxy

import (
	"net/netip"
	"sync"
)

// address is a peer together with the address of ours that it talks to, from
// which what goes back must leave. It holds no pointer, so that tables of
// hundreds of thousands cost the collector nothing.
type address struct {
	peer, local [16]byte // IPv4 in its mapped form; local is zero where the kernel chooses
	zone, port  uint32
}

// zones are the names of link-local scopes by number, from 1.
type zones struct {
	mu    sync.Mutex
	names []string
}

// maxZones is far above the interfaces of a machine.
const maxZones = 1 << 12

func (z *zones) number(name string) uint32 {
	z.mu.Lock()
	defer z.mu.Unlock()
	for i, n := range z.names {
		if n == name {
			return uint32(i + 1)
		}
	}
	if len(z.names) >= maxZones {
		return 0
	}
	z.names = append(z.names, name)
	return uint32(len(z.names))
}

func (z *zones) name(number uint32) string {
	z.mu.Lock()
	defer z.mu.Unlock()
	return z.names[number-1]
}

func (p *Proxy) address(peer netip.AddrPort, local netip.Addr) address {
	a := address{peer: peer.Addr().As16(), port: uint32(peer.Port())}
	if zone := peer.Addr().Zone(); zone != "" {
		a.zone = p.zones.number(zone)
	}
	if local.IsValid() && !local.IsMulticast() {
		a.local = local.As16()
	}
	return a
}

// remote returns the peer.
func (p *Proxy) remote(a *address) netip.AddrPort {
	ip := netip.AddrFrom16(a.peer).Unmap()
	if a.zone != 0 {
		ip = ip.WithZone(p.zones.name(a.zone))
	}
	return netip.AddrPortFrom(ip, uint16(a.port))
}

// from returns the address of ours, the zero Addr where the kernel chooses.
func (a *address) from() netip.Addr {
	if a.local == [16]byte{} {
		return netip.Addr{}
	}
	return netip.AddrFrom16(a.local).Unmap()
}
