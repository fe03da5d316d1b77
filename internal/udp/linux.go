//go:build linux

package udp

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// maxBatch is how many datagrams one call takes; the kernel's own limit is
// 1024 (UIO_MAXIOV).
const maxBatch = 128

// mmsghdr is struct mmsghdr of recvmmsg(2).
type mmsghdr struct {
	hdr unix.Msghdr
	n   uint32 // bytes received
}

// slot is what a header points to. The order keeps control at a multiple of a
// word's length, as its headers need.
type slot struct {
	iov     unix.Iovec
	control control
	name    sockaddr
}

// vector is the kernel's view of a batch.
type vector struct {
	hdrs  []mmsghdr
	slots []slot

	from, to int // what a call is about
	n        int // its result
	errno    syscall.Errno
	call     func(fd uintptr) bool
}

// grow makes room for n datagrams. Headers point into slots, so both move
// together.
func (v *vector) grow(n int) {
	if n <= len(v.hdrs) {
		return
	}
	v.hdrs, v.slots = make([]mmsghdr, n), make([]slot, n)
	for i := range v.hdrs {
		h, s := &v.hdrs[i].hdr, &v.slots[i]
		h.Name = (*byte)(unsafe.Pointer(&s.name))
		h.Iov = &s.iov
		h.SetIovlen(1)
	}
}

// Socket is a UDP socket. One goroutine may read at a time; any may write.
type Socket struct {
	conn    *net.UDPConn
	raw     syscall.RawConn
	addr    netip.AddrPort
	inet6   bool // its family: IPv4 addresses are mapped
	local   bool
	max     int
	tooLong atomic.Uint64
	scopes  scopes

	in Inbox // of Read

	// Of a socket in a Poll, which the runtime's poller does not watch.
	taking sync.Mutex // held by Take
	fd     int
	leave  func() // takes it out of the Poll; nil: it is in none
	closed atomic.Bool

	mu  sync.Mutex // of what follows
	out vector
}

// Inbox is room for the datagrams of one call. Sockets may share one.
type Inbox struct {
	v       vector
	max     int
	buffers []byte
}

// fit makes room for n datagrams of a length.
func (b *Inbox) fit(n, longest int) {
	if n <= len(b.v.hdrs) && longest == b.max {
		return
	}
	n = max(n, len(b.v.hdrs))
	b.v.hdrs, b.max, b.buffers = nil, longest, make([]byte, n*longest)
	b.v.grow(n)
	for i := range b.v.slots {
		b.v.slots[i].iov.Base = &b.buffers[i*longest]
		b.v.slots[i].iov.SetLen(longest)
	}
	b.v.rearm(n)
}

// prepare sets what must be set before the socket is bound.
func prepare(fd uintptr, o Options) error {
	if o.ReusePort {
		if err := unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); err != nil {
			return os.NewSyscallError("setsockopt SO_REUSEPORT", err)
		}
	}
	return nil
}

func newSocket(conn *net.UDPConn, o Options) (*Socket, error) {
	s := &Socket{conn: conn, addr: boundTo(conn), local: o.Local, max: o.MaxDatagram}
	var err error
	if s.raw, err = conn.SyscallConn(); err != nil {
		return nil, fmt.Errorf("udp: %w", err)
	}
	var refused error
	if err := s.raw.Control(func(fd uintptr) { refused = s.configure(int(fd), o) }); err != nil {
		return nil, fmt.Errorf("udp: %w", err)
	}
	if refused != nil {
		return nil, fmt.Errorf("udp: %w", refused)
	}
	s.in.v.call, s.out.call = s.in.v.receive, s.out.send
	return s, nil
}

func (s *Socket) configure(fd int, o Options) error {
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return os.NewSyscallError("getsockname", err)
	}
	_, s.inet6 = sa.(*unix.SockaddrInet6)
	set := func(on bool, level, option int, name string) {
		if on && err == nil {
			err = os.NewSyscallError("setsockopt "+name, unix.SetsockoptInt(fd, level, option, 1))
		}
	}
	set(o.Local && s.inet6, unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, "IPV6_RECVPKTINFO")
	set(o.Local && !s.inet6, unix.IPPROTO_IP, unix.IP_PKTINFO, "IP_PKTINFO")
	set(o.Freebind && s.inet6, unix.IPPROTO_IPV6, unix.IPV6_FREEBIND, "IPV6_FREEBIND")
	set(o.Freebind, unix.IPPROTO_IP, unix.IP_FREEBIND, "IP_FREEBIND")
	if err != nil {
		return err
	}
	// The forced option goes beyond net.core.rmem_max and takes CAP_NET_ADMIN;
	// the plain one takes what the system allows.
	buffer := func(bytes, forced, plain int) {
		if bytes > 0 && err == nil && unix.SetsockoptInt(fd, unix.SOL_SOCKET, forced, bytes) != nil {
			err = os.NewSyscallError("setsockopt buffer size", unix.SetsockoptInt(fd, unix.SOL_SOCKET, plain, bytes))
		}
	}
	buffer(o.ReadBuffer, unix.SO_RCVBUFFORCE, unix.SO_RCVBUF)
	buffer(o.WriteBuffer, unix.SO_SNDBUFFORCE, unix.SO_SNDBUF)
	return err
}

// Read waits for datagrams and fills dst with those that are there, as many as
// it holds. Data is valid until the next Read.
func (s *Socket) Read(dst []Packet) (int, error) {
	if len(dst) == 0 {
		return 0, io.ErrShortBuffer
	}
	n := min(len(dst), maxBatch)
	s.in.fit(n, s.max)
	for {
		s.in.v.to = n
		if err := s.raw.Read(s.in.v.call); err != nil {
			return 0, err
		}
		if s.in.v.errno != 0 {
			return 0, os.NewSyscallError("recvmmsg", s.in.v.errno)
		}
		if got := s.take(&s.in, dst); got > 0 {
			return got, nil
		}
	}
}

// Take fills dst with the datagrams that are there, as many as it holds, and
// does not wait: it returns 0 if there are none. The socket must be in a
// [Poll]. Data stands in the Inbox and is valid until its next use.
func (s *Socket) Take(in *Inbox, dst []Packet) (int, error) {
	s.taking.Lock()
	defer s.taking.Unlock()
	if s.closed.Load() {
		return 0, net.ErrClosed
	}
	n := min(len(dst), maxBatch)
	in.fit(n, s.max)
	in.v.to = n
	if !in.v.receive(uintptr(s.fd)) {
		return 0, nil
	}
	if in.v.errno != 0 {
		return 0, os.NewSyscallError("recvmmsg", in.v.errno)
	}
	return s.take(in, dst), nil
}

// detach takes the socket from the runtime's poller.
func (s *Socket) detach() error {
	if s.conn == nil {
		return fmt.Errorf("%w: the socket is in a Poll already", ErrOption)
	}
	var failed error
	err := s.raw.Control(func(fd uintptr) {
		s.fd, failed = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0)
	})
	if err == nil {
		err = os.NewSyscallError("fcntl", failed)
	}
	if err != nil {
		return fmt.Errorf("udp: %w", err)
	}
	_ = s.conn.Close()
	s.conn, s.raw = nil, nil
	return nil
}

// Close ends the socket: Read and Take return net.ErrClosed.
func (s *Socket) Close() error {
	if s.conn != nil {
		return s.conn.Close()
	}
	if s.closed.Swap(true) {
		return net.ErrClosed
	}
	s.taking.Lock()
	defer s.taking.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.leave != nil {
		s.leave()
	}
	return os.NewSyscallError("close", unix.Close(s.fd))
}

// Overrun returns how many datagrams the kernel dropped since they came in while
// the socket's buffer (Options.ReadBuffer) was full: the process did not keep up.
func (s *Socket) Overrun() uint64 {
	info := s.memory()
	return uint64(info[memoryDrops])
}

// Backlog returns which share of its buffer the socket has full of datagrams that
// are still to be read, 0 where that is not known.
func (s *Socket) Backlog() float64 {
	info := s.memory()
	return float64(info[memoryAlloc]) / float64(max(1, info[memoryBuffer]))
}

// What SO_MEMINFO tells: SK_MEMINFO_RMEM_ALLOC, _RCVBUF and _DROPS of
// linux/sock_diag.h.
const (
	memoryAlloc  = 0
	memoryBuffer = 1
	memoryDrops  = 8
)

// memory returns it, all zero of a socket that is closed.
func (s *Socket) memory() (info [memoryDrops + 1]uint32) {
	size := uint32(unsafe.Sizeof(info))
	ask := func(fd uintptr) {
		_, _, _ = unix.Syscall6(unix.SYS_GETSOCKOPT, fd, unix.SOL_SOCKET, unix.SO_MEMINFO,
			uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0)
	}
	if s.conn != nil {
		_ = s.raw.Control(ask)
		return info
	}
	s.taking.Lock() // against Close
	defer s.taking.Unlock()
	if !s.closed.Load() {
		ask(uintptr(s.fd))
	}
	return info
}

// rearm makes the first n headers ready to be filled.
func (v *vector) rearm(n int) {
	for i := range n {
		h := &v.hdrs[i].hdr
		h.Namelen, h.Flags = sockaddrLen, 0
		h.Control = &v.slots[i].control[0]
		h.SetControllen(controlLen)
	}
}

// receive is one recvmmsg; false: nothing is there yet.
func (v *vector) receive(fd uintptr) bool {
	for {
		n, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&v.hdrs[0])), uintptr(v.to), unix.MSG_DONTWAIT, 0, 0)
		switch errno {
		case unix.EINTR:
			continue
		case unix.EAGAIN:
			return false
		}
		v.n, v.errno = int(n), errno
		return true
	}
}

// take hands out what was received.
func (s *Socket) take(in *Inbox, dst []Packet) (kept int) {
	v := &in.v
	if v.errno != 0 {
		return 0
	}
	for i := range v.n {
		m := &v.hdrs[i]
		if m.hdr.Flags&unix.MSG_TRUNC != 0 {
			s.tooLong.Add(1)
			continue
		}
		p := &dst[kept]
		p.Peer = v.slots[i].name.addrPort(&s.scopes)
		p.Local = netip.Addr{}
		if s.local {
			p.Local = v.slots[i].control.local(int(m.hdr.Controllen))
		}
		at := i * in.max
		p.Data = in.buffers[at : at+int(m.n) : at+in.max]
		kept++
	}
	v.rearm(v.n)
	return kept
}

// Write sends datagrams in their order and returns how many were. Those that
// cannot be sent are counted in errs and skipped, which for their receiver is
// loss. It waits while the socket's buffer is full. Local must be a unicast
// address of the socket's family, else the kernel chooses.
func (s *Socket) Write(p []Packet) (sent, errs int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v := &s.out
	for len(p) > 0 {
		n := min(len(p), maxBatch)
		v.grow(n)
		for i := range p[:n] {
			s.put(v, i, &p[i])
		}
		for v.from, v.to = 0, n; v.from < v.to; {
			switch err := s.transmit(); {
			case err != nil: // closed
				v.release(n)
				return sent, errs + (n - v.from) + len(p) - n
			case v.errno != 0 || v.n == 0: // it is about the first one
				errs++
				v.from++
			default:
				sent += v.n
				v.from += v.n
			}
		}
		v.release(n)
		p = p[n:]
	}
	return sent, errs
}

// transmit is one sendmmsg, when the socket's buffer has room.
func (s *Socket) transmit() error {
	if s.conn != nil {
		return s.raw.Write(s.out.call)
	}
	for !s.closed.Load() {
		if s.out.send(uintptr(s.fd)) {
			return nil
		}
		_, _ = unix.Poll([]unix.PollFd{{Fd: int32(s.fd), Events: unix.POLLOUT}}, 10)
	}
	return net.ErrClosed
}

// put writes a datagram's header.
func (s *Socket) put(v *vector, i int, p *Packet) {
	h, sl := &v.hdrs[i].hdr, &v.slots[i]
	h.Namelen = sl.name.set(p.Peer, s.inet6, &s.scopes)
	sl.iov.Base = unsafe.SliceData(p.Data)
	sl.iov.SetLen(len(p.Data))
	if n := sl.control.set(p.Local, s.inet6); n > 0 && s.local {
		h.Control = &sl.control[0]
		h.SetControllen(n)
	} else {
		h.Control = nil
		h.SetControllen(0)
	}
}

// release lets go of what was sent.
func (v *vector) release(n int) {
	for i := range n {
		v.slots[i].iov.Base = nil
	}
}

// send is one sendmmsg; false: the buffer is full.
func (v *vector) send(fd uintptr) bool {
	for {
		n, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, fd, uintptr(unsafe.Pointer(&v.hdrs[v.from])), uintptr(v.to-v.from), unix.MSG_DONTWAIT, 0, 0)
		switch errno {
		case unix.EINTR:
			continue
		case unix.EAGAIN:
			return false
		}
		v.n, v.errno = int(n), errno
		return true
	}
}
