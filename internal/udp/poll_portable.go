//go:build !linux

package udp

import (
	"fmt"
	"net"
	"sync"
	"time"
)

// Poll waits for datagrams on many sockets at a time: here, a goroutine reads
// each of them and hands over one datagram at a time. One goroutine may wait;
// any may add sockets.
type Poll[T any] struct {
	found chan T
	wake  chan struct{}
	done  chan struct{}
	end   sync.Once
	ready [1]T
}

// NewPoll returns a Poll without sockets.
func NewPoll[T any]() (*Poll[T], error) {
	return &Poll[T]{found: make(chan T), wake: make(chan struct{}, 1), done: make(chan struct{})}, nil
}

// polled is what a socket in a Poll has beside.
type polled struct {
	one   chan Packet   // what was read and is not taken yet
	taken chan struct{} // the reader goes on
	done  chan struct{}
	end   sync.Once
}

// Add has the Poll watch a socket, for which Wait returns v, until the socket
// is closed. From then on it is read by [Socket.Take] alone.
func (p *Poll[T]) Add(s *Socket, v T) error {
	if s.in != nil {
		return fmt.Errorf("%w: the socket is in a Poll already", ErrOption)
	}
	select {
	case <-p.done:
		return net.ErrClosed
	default:
	}
	in := &polled{one: make(chan Packet, 1), taken: make(chan struct{}), done: make(chan struct{})}
	s.in = in
	go func() {
		var one [1]Packet
		for {
			switch _, err := s.Read(one[:]); {
			case s.closed():
				return
			case err != nil: // an earlier datagram found no receiver
				continue
			}
			in.one <- one[0]
			select {
			case p.found <- v:
			case <-in.done:
				return
			case <-p.done:
				return
			}
			select {
			case <-in.taken:
			case <-in.done:
				return
			}
		}
	}()
	return nil
}

// closed reports whether a socket in a Poll is closed.
func (s *Socket) closed() bool {
	select {
	case <-s.in.done:
		return true
	default:
		return false
	}
}

// Inbox is room for the datagrams of one call. Sockets may share one.
type Inbox struct{ buffer []byte }

// Take fills dst with the datagrams that are there, as many as it holds, and
// does not wait: it returns 0 if there are none. The socket must be in a
// [Poll]. Data stands in the Inbox and is valid until its next use.
func (s *Socket) Take(in *Inbox, dst []Packet) (int, error) {
	if s.closed() {
		return 0, net.ErrClosed
	}
	select {
	case dst[0] = <-s.in.one:
	default:
		return 0, nil
	}
	in.buffer = append(in.buffer[:0], dst[0].Data...)
	dst[0].Data = in.buffer
	select {
	case s.in.taken <- struct{}{}:
	case <-s.in.done:
	}
	return 1, nil
}

// Close ends the socket: Read and Take return net.ErrClosed.
func (s *Socket) Close() error {
	if s.in != nil {
		s.in.end.Do(func() { close(s.in.done) })
	}
	return s.conn.Close()
}

// Wait returns what was added with the sockets that have datagrams, in turn if
// there are many, or nothing when the time is over or somebody has called
// [Poll.Wake]. The slice is used again by the next call.
func (p *Poll[T]) Wait(most time.Duration) ([]T, error) {
	t := time.NewTimer(most)
	defer t.Stop()
	select {
	case p.ready[0] = <-p.found:
		return p.ready[:], nil
	case <-p.wake:
	case <-t.C:
	case <-p.done:
		return nil, net.ErrClosed
	}
	return nil, nil
}

// Wake ends a Wait, or the next one.
func (p *Poll[T]) Wake() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// Close ends a Poll that nobody waits for any more. Its sockets stay open.
func (p *Poll[T]) Close() { p.end.Do(func() { close(p.done) }) }
