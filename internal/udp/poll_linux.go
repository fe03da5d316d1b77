//go:build linux

package udp

import (
	"fmt"
	"net"
	"os"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// maxReady is how many sockets one call of Wait reports.
const maxReady = 64

// yieldEvery is how often Wait lets the runtime's scheduler see its goroutine.
// One that the scheduler has not seen for 10 ms has its processor taken at its
// next system call, and each time the runtime's monitor then wakes every 20 µs
// for a while: a tenth of all that a forwarder takes under light load.
const yieldEvery = 4 * time.Millisecond

// Poll waits for datagrams on many sockets at a time. A goroutine for each
// socket, which the runtime would wake, costs a look for nothing, a turn of the
// runtime's poller and often a second thread for every datagram that comes
// alone; here it is one system call (epoll(7)), and the thread stays.
//
// One goroutine may wait at a time; any may add sockets.
type Poll[T any] struct {
	fd, wake int
	events   [maxReady]unix.EpollEvent
	yielded  time.Time

	mu     sync.Mutex // of what follows
	places []place[T]
	free   []int32
	ready  []T
	closed bool
}

// place is where a socket stands in a Poll, or has stood.
type place[T any] struct {
	v     T
	taken bool
}

// woken is the place of what ends a wait.
const woken = -1

// NewPoll returns a Poll without sockets.
func NewPoll[T any]() (*Poll[T], error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("udp: %w", os.NewSyscallError("epoll_create1", err))
	}
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err == nil {
		err = unix.EpollCtl(fd, unix.EPOLL_CTL_ADD, wake, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: woken})
		if err != nil {
			_ = unix.Close(wake)
		}
	}
	if err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("udp: %w", os.NewSyscallError("eventfd", err))
	}
	return &Poll[T]{fd: fd, wake: wake}, nil
}

// Add has the Poll watch a socket, for which Wait returns v, until the socket
// is closed. From then on it is read by [Socket.Take] alone.
func (p *Poll[T]) Add(s *Socket, v T) error {
	if err := s.detach(); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return net.ErrClosed
	}
	at := int32(len(p.places))
	if n := len(p.free); n > 0 {
		at = p.free[n-1]
	}
	if err := unix.EpollCtl(p.fd, unix.EPOLL_CTL_ADD, s.fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: at}); err != nil {
		return fmt.Errorf("udp: %w", os.NewSyscallError("epoll_ctl", err))
	}
	if int(at) == len(p.places) {
		p.places = append(p.places, place[T]{})
	} else {
		p.free = p.free[:len(p.free)-1]
	}
	p.places[at] = place[T]{v, true}
	s.leave = func() { p.remove(s.fd, at) }
	return nil
}

// remove takes a socket out that is about to be closed. What Wait has already
// said of it may then be said of the one that takes its place, where Take finds
// nothing.
func (p *Poll[T]) remove(fd int, at int32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closed {
		_ = unix.EpollCtl(p.fd, unix.EPOLL_CTL_DEL, fd, nil)
	}
	p.places[at] = place[T]{}
	p.free = append(p.free, at)
}

// Wait returns what was added with the sockets that have datagrams, in turn if
// there are many, or nothing when the time is over or somebody has called
// [Poll.Wake]. The slice is used again by the next call.
func (p *Poll[T]) Wait(most time.Duration) ([]T, error) {
	if now := time.Now(); now.Sub(p.yielded) > yieldEvery {
		p.yielded = now
		runtime.Gosched()
	}
	n, err := unix.EpollWait(p.fd, p.events[:], int(max(0, (most+time.Millisecond-1)/time.Millisecond)))
	if err != nil && err != unix.EINTR {
		return nil, fmt.Errorf("udp: %w", os.NewSyscallError("epoll_wait", err))
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ready = p.ready[:0]
	for _, e := range p.events[:max(n, 0)] {
		if e.Fd == woken {
			var count [8]byte
			_, _ = unix.Read(p.wake, count[:])
			continue
		}
		if at := &p.places[e.Fd]; at.taken { // it may have been closed since
			p.ready = append(p.ready, at.v)
		}
	}
	return p.ready, nil
}

// Wake ends a Wait, or the next one.
func (p *Poll[T]) Wake() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closed {
		_, _ = unix.Write(p.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	}
}

// Close ends a Poll that nobody waits for any more. Its sockets stay open.
func (p *Poll[T]) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closed {
		p.closed = true
		_ = unix.Close(p.fd)
		_ = unix.Close(p.wake)
	}
}
