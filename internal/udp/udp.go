package udp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
)

// Packet is a datagram. Addresses of IPv4 are never in their IPv6-mapped form.
type Packet struct {
	Peer  netip.AddrPort
	Local netip.Addr // the address it came to, or is to leave from; the zero Addr lets the kernel choose
	Data  []byte
}

// Options say what a socket can do. The zero value is a plain socket.
type Options struct {
	ReusePort bool // others may listen on the same address; the kernel spreads peers over them (SO_REUSEPORT)
	Local     bool // fill in and honour Packet.Local
	Freebind  bool // an IPv6 Packet.Local need not be configured on an interface (IPV6_FREEBIND); a route makes it local

	ReadBuffer, WriteBuffer int // bytes that the kernel keeps; 0: its default (net.core.rmem_default)
	MaxDatagram             int // longer datagrams are dropped and counted by TooLong; 2048 bytes
}

// ErrOption is wrapped by errors of [Listen] that an option caused.
var ErrOption = errors.New("udp: option")

// defaultMaxDatagram holds a CoAP message of any size that RFC 7252 §4.6
// recommends, and a full Ethernet frame.
const defaultMaxDatagram = 2048

// maxUDP is the length of the longest datagram, with room for IPv6 jumbograms
// left out.
const maxUDP = 65535

// Listen opens a socket. A wildcard IPv6 address ("[::]:5683") or no address
// at all listens on IPv4 too, "0.0.0.0:5683" on IPv4 alone.
func Listen(addr netip.AddrPort, o Options) (*Socket, error) {
	switch {
	case o.MaxDatagram == 0:
		o.MaxDatagram = defaultMaxDatagram
	case o.MaxDatagram < 0 || o.MaxDatagram > maxUDP:
		return nil, fmt.Errorf("%w: MaxDatagram is %d: give 1 to %d bytes", ErrOption, o.MaxDatagram, maxUDP)
	}
	network := "udp"
	switch ip := addr.Addr(); {
	case !ip.IsValid():
		addr = netip.AddrPortFrom(netip.IPv6Unspecified(), addr.Port())
	case ip.Unmap().Is4():
		network, addr = "udp4", netip.AddrPortFrom(ip.Unmap(), addr.Port())
	case !ip.IsUnspecified():
		network = "udp6"
	}
	var refused error
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		if err := c.Control(func(fd uintptr) { refused = prepare(fd, o) }); err != nil {
			return err
		}
		return refused
	}}
	conn, err := lc.ListenPacket(context.Background(), network, addr.String())
	if err != nil {
		return nil, fmt.Errorf("udp: %w", err)
	}
	s, err := newSocket(conn.(*net.UDPConn), o)
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	return s, nil
}

// Addr returns the address that the socket listens on.
func (s *Socket) Addr() netip.AddrPort { return s.addr }

// TooLong returns how many datagrams were dropped since they were longer than
// [Options].MaxDatagram: a part of one is never delivered.
func (s *Socket) TooLong() uint64 { return s.tooLong.Load() }

// boundTo returns the address that a connection is bound to.
func boundTo(conn *net.UDPConn) netip.AddrPort {
	a := conn.LocalAddr().(*net.UDPAddr).AddrPort()
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}
