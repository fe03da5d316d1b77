//go:build !linux

package udp

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"runtime"
	"sync/atomic"
	"syscall"
)

// Socket is a UDP socket. One goroutine may read at a time; any may write.
type Socket struct {
	conn    *net.UDPConn
	addr    netip.AddrPort
	max     int
	tooLong atomic.Uint64
	buffer  []byte
	in      *polled // nil: it is in no Poll
}

func prepare(_ uintptr, o Options) error {
	for _, missing := range []struct {
		asked bool
		name  string
	}{{o.ReusePort, "ReusePort"}, {o.Local, "Local"}, {o.Freebind, "Freebind"}} {
		if missing.asked {
			return fmt.Errorf("%w: %s is there on Linux alone, not on %s: %w", ErrOption, missing.name, runtime.GOOS, errors.ErrUnsupported)
		}
	}
	return nil
}

func newSocket(conn *net.UDPConn, o Options) (*Socket, error) {
	if o.ReadBuffer > 0 {
		if err := conn.SetReadBuffer(o.ReadBuffer); err != nil {
			return nil, fmt.Errorf("udp: %w", err)
		}
	}
	if o.WriteBuffer > 0 {
		if err := conn.SetWriteBuffer(o.WriteBuffer); err != nil {
			return nil, fmt.Errorf("udp: %w", err)
		}
	}
	// One byte more tells a datagram that fits from one that was cut.
	return &Socket{conn: conn, addr: boundTo(conn), max: o.MaxDatagram, buffer: make([]byte, o.MaxDatagram+1)}, nil
}

// What Windows says of a datagram that was cut, and of one sent earlier to a
// port where nobody listens: neither is about the socket.
const (
	wsaMsgSize   = syscall.Errno(10040)
	wsaConnReset = syscall.Errno(10054)
)

// Read waits for a datagram. Data is valid until the next Read.
func (s *Socket) Read(dst []Packet) (int, error) {
	if len(dst) == 0 {
		return 0, io.ErrShortBuffer
	}
	for {
		n, from, err := s.conn.ReadFromUDPAddrPort(s.buffer)
		switch {
		case runtime.GOOS == "windows" && errors.Is(err, wsaConnReset):
			continue
		case n > s.max, runtime.GOOS == "windows" && errors.Is(err, wsaMsgSize):
			s.tooLong.Add(1)
			continue
		case err != nil:
			return 0, err
		}
		dst[0] = Packet{Peer: netip.AddrPortFrom(from.Addr().Unmap(), from.Port()), Data: s.buffer[:n:n]}
		return 1, nil
	}
}

// Write sends datagrams in their order and returns how many were. Those that
// cannot be sent are counted in errs and skipped, which for their receiver is
// loss.
func (s *Socket) Write(p []Packet) (sent, errs int) {
	for i := range p {
		if _, err := s.conn.WriteToUDPAddrPort(p[i].Data, p[i].Peer); err != nil {
			errs++
		} else {
			sent++
		}
	}
	return sent, errs
}

// Overrun and Backlog are known on Linux alone.
func (s *Socket) Overrun() uint64  { return 0 }
func (s *Socket) Backlog() float64 { return 0 }
