//go:build interop

package interop

import (
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/oscorelay/oscorelay/interop/peer"
)

// forwarderEnv makes the test binary a forwarder: "PORT ORIGIN-PORT".
const forwarderEnv = "INTEROP_FORWARDER"

func init() {
	v := os.Getenv(forwarderEnv)
	if v == "" {
		return
	}
	var port, origin int
	if _, err := fmt.Sscan(v, &port, &origin); err == nil {
		forward(port, origin)
	}
	os.Exit(1)
}

// bareForwarder starts the least that can stand between a client and a server:
// it looks at nothing, and sends the answers back in the order of the requests.
// Its system calls are those of a program in C with one thread, which waits on
// both sockets at once and takes in and sends up to 32 datagrams a call; the
// socket toward the server is connected. What it takes is the limit of any
// proxy on two sockets.
func bareForwarder(b *testing.B, port, origin uint16) *peer.Process {
	b.Helper()
	p := peer.Start(b, peer.Spec{
		Name: "forwarder", Path: os.Args[0],
		Env: []string{forwarderEnv + "=" + strconv.Itoa(int(port)) + " " + strconv.Itoa(int(origin)), "GODEBUG=asyncpreemptoff=1", "GOGC=off"},
	})
	p.AwaitLine("ready")
	return p
}

const (
	forwarderBatch = 32
	forwarderRing  = 1 << 12
)

// datagrams are what one call takes in or sends.
type datagrams struct {
	hdrs [forwarderBatch]struct {
		unix.Msghdr
		n uint32
	}
	iov   [forwarderBatch]unix.Iovec
	bytes [forwarderBatch][2048]byte
}

// call is recvmmsg or sendmmsg, without a word to the runtime.
func (d *datagrams) call(number uintptr, fd, n int) int {
	got, _, errno := unix.RawSyscall6(number, uintptr(fd), uintptr(unsafe.Pointer(&d.hdrs)), uintptr(n), unix.MSG_DONTWAIT, 0, 0)
	if errno != 0 {
		return 0
	}
	return int(got)
}

func forward(port, origin int) {
	must := func(err error) {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	loopback := netip.MustParseAddr("127.0.0.1").As4()
	front, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	must(err)
	must(unix.Bind(front, &unix.SockaddrInet4{Port: port, Addr: loopback}))
	back, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	must(err)
	must(unix.Connect(back, &unix.SockaddrInet4{Port: origin, Addr: loopback}))
	poll, err := unix.EpollCreate1(0)
	must(err)
	for _, fd := range []int{front, back} {
		must(unix.EpollCtl(poll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)}))
	}
	fmt.Println("ready")

	d, clients, head, tail := new(datagrams), new([forwarderRing]unix.RawSockaddrInet4), 0, 0
	for i := range d.hdrs {
		d.iov[i].Base = &d.bytes[i][0]
		d.hdrs[i].Iov = &d.iov[i]
		d.hdrs[i].SetIovlen(1)
	}
	var events [2]unix.EpollEvent
	for {
		n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(poll), uintptr(unsafe.Pointer(&events)), uintptr(len(events)), ^uintptr(0), 0, 0)
		if errno == unix.EINTR {
			continue
		} else if errno != 0 {
			must(errno)
		}
		for _, e := range events[:n] {
			from, to := int(e.Fd), front
			if from == front {
				to = back
			}
			for i := range d.hdrs {
				d.iov[i].SetLen(len(d.bytes[i]))
				d.hdrs[i].Name, d.hdrs[i].Namelen = nil, 0
				if from == front {
					d.hdrs[i].Name, d.hdrs[i].Namelen = (*byte)(unsafe.Pointer(&clients[(head+i)%forwarderRing])), unix.SizeofSockaddrInet4
				}
			}
			got := d.call(unix.SYS_RECVMMSG, from, forwarderBatch)
			for i := range got {
				d.iov[i].SetLen(int(d.hdrs[i].n))
				if to == front {
					d.hdrs[i].Name, d.hdrs[i].Namelen = (*byte)(unsafe.Pointer(&clients[tail%forwarderRing])), unix.SizeofSockaddrInet4
					tail++
				} else {
					d.hdrs[i].Name, d.hdrs[i].Namelen = nil, 0
					head++
				}
			}
			if got > 0 {
				d.call(unix.SYS_SENDMMSG, to, got) // what finds no room is lost
			}
		}
	}
}
