package terminate

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"sync"

	"github.com/oscorelay/oscorelay/internal/udp"
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

// upstream is how the gateway speaks to the backend as any of its devices.
//
//	a network:       one socket, an address a device
//	a port a device: a socket each
type upstream interface {
	// of returns what the backend knows a device by; ok is false if there is no
	// room for it.
	of(index uint32) (addr netip.AddrPort, ok bool)
	// enter makes ready to speak as a device.
	enter(index uint32) error
	// leave ends that.
	leave(index uint32)
	// write sends datagrams; Packet.Local and the index say as whom.
	write(p []udp.Packet, index []uint32) (lost int)
	// overrun is how many datagrams of the backend the system had no room for.
	overrun() uint64
	// backlog is which share of the system's room for them is taken.
	backlog() float64
	// serve begins to read.
	serve()
	close()
}

func (g *Gateway) listenUpstream(buffer int) (upstream, error) {
	wildcard := netip.IPv4Unspecified()
	if g.cfg.Backend.Addr().Is6() {
		wildcard = netip.IPv6Unspecified()
	}
	if g.cfg.UpstreamPorts > 0 {
		return &ports{g: g, any: wildcard, sockets: map[uint32]*udp.Socket{}}, nil
	}
	s, err := udp.Listen(netip.AddrPortFrom(wildcard, g.cfg.UpstreamPort), udp.Options{
		Local: true, Freebind: !wildcard.Is4(), MaxDatagram: g.cfg.MaxDatagram, ReadBuffer: buffer, WriteBuffer: buffer,
	})
	if err != nil {
		return nil, fmt.Errorf("terminate: upstream port %d: %w", g.cfg.UpstreamPort, err)
	}
	return &network{g, s}, nil
}

// network is an upstream with an address a device.
type network struct {
	g      *Gateway
	socket *udp.Socket
}

func (n *network) of(index uint32) (netip.AddrPort, bool) {
	addr, ok := upstreamAddr(n.g.cfg.Upstream, index)
	return netip.AddrPortFrom(addr, n.g.cfg.UpstreamPort), ok
}

func (n *network) serve() {
	g := n.g
	var turn sync.Mutex
	for range g.cfg.Workers {
		g.workers.Go(func() { g.read(n.socket, &turn, &work{in: make([]udp.Packet, batch)}, g.fromBack) })
	}
}

func (n *network) enter(uint32) error { return nil }
func (n *network) leave(uint32)       {}
func (n *network) backlog() float64   { return n.socket.Backlog() }
func (n *network) overrun() uint64    { return n.socket.Overrun() }
func (n *network) close()             { _ = n.socket.Close() }

func (n *network) write(p []udp.Packet, index []uint32) (lost int) {
	for i := range p {
		p[i].Local, _ = upstreamAddr(n.g.cfg.Upstream, index[i])
	}
	_, lost = n.socket.Write(p)
	return lost
}

// ports is an upstream with a port a device.
type ports struct {
	g   *Gateway
	any netip.Addr

	mu      sync.Mutex
	sockets map[uint32]*udp.Socket
	serving bool
	closed  bool
	gone    uint64 // overrun of those that are closed
}

func (u *ports) of(index uint32) (netip.AddrPort, bool) {
	return netip.AddrPortFrom(u.any, u.g.cfg.UpstreamPort+uint16(index)), int64(index) < int64(u.g.cfg.UpstreamPorts)
}

func (u *ports) enter(index uint32) error {
	addr, _ := u.of(index)
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.closed || u.sockets[index] != nil {
		return nil
	}
	s, err := udp.Listen(addr, udp.Options{MaxDatagram: u.g.cfg.MaxDatagram})
	if err != nil {
		return err
	}
	u.sockets[index] = s
	if u.serving {
		u.start(index, s)
	}
	return nil
}

func (u *ports) start(index uint32, s *udp.Socket) {
	g := u.g
	g.workers.Go(func() {
		g.read(s, new(sync.Mutex), &work{in: make([]udp.Packet, 4), index: index, fixed: true}, g.fromBack)
	})
}

func (u *ports) serve() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.serving = true
	for index, s := range u.sockets {
		u.start(index, s)
	}
}

func (u *ports) leave(index uint32) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if s := u.sockets[index]; s != nil {
		u.gone += s.Overrun()
		_ = s.Close()
		delete(u.sockets, index)
	}
}

func (u *ports) write(p []udp.Packet, index []uint32) (lost int) {
	for i := range p {
		u.mu.Lock()
		s := u.sockets[index[i]]
		u.mu.Unlock()
		if s == nil {
			lost++
			continue
		}
		_, errs := s.Write(p[i : i+1])
		lost += errs
	}
	return lost
}

// backlog is not asked of each: a device's answers fit its socket.
func (u *ports) backlog() float64 { return 0 }

func (u *ports) overrun() (n uint64) {
	u.mu.Lock()
	defer u.mu.Unlock()
	n = u.gone
	for _, s := range u.sockets {
		n += s.Overrun()
	}
	return n
}

func (u *ports) close() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.closed = true
	for _, s := range u.sockets {
		_ = s.Close()
	}
}
