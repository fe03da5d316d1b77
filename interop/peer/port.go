package peer

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Ports are taken from below the range that the system gives to clients, so
// that no socket of somebody else's comes between the choice and its use.
const (
	portMin = 12000
	portMax = 32000
)

var (
	portsMu sync.Mutex
	ports   = map[uint16]bool{} // given away by this process
)

// FreePort gives a UDP port of loopback that nobody holds, and whose TCP twin
// is free as well, since some servers open both. No port is given twice.
func FreePort(t testing.TB) uint16 {
	t.Helper()
	portsMu.Lock()
	defer portsMu.Unlock()
	// A process that is being started holds copies of all sockets until its
	// exec, so that a closed port would look taken for a moment.
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	for range 200 {
		port := uint16(portMin + rand.IntN(portMax-portMin))
		if ports[port] {
			continue
		}
		u, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(Loopback(port)))
		if err != nil {
			continue
		}
		c, err := net.Listen("tcp4", fmt.Sprintf("127.0.0.1:%d", port))
		u.Close()
		if err == nil {
			c.Close()
			ports[port] = true
			return port
		}
	}
	t.Fatal("no port of loopback is free for both UDP and TCP")
	return 0
}

// Loopback is 127.0.0.1 with the port.
func Loopback(port uint16) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), port)
}

// listening reports whether some UDP socket is bound to the port. A dual-stack
// socket shows in udp6 alone.
func listening(port uint16) bool {
	suffix := fmt.Sprintf(":%04X", port)
	for _, name := range []string{"/proc/net/udp", "/proc/net/udp6"} {
		f, err := os.Open(name)
		if err != nil {
			continue
		}
		for s := bufio.NewScanner(f); s.Scan(); {
			if w := strings.Fields(s.Text()); len(w) > 1 && strings.HasSuffix(w[1], suffix) {
				f.Close()
				return true
			}
		}
		f.Close()
	}
	return false
}

// Ping sends a CoAP ping (RFC 7252 section 4.3) and reports whether the Reset
// came within the time.
func Ping(to netip.AddrPort, within time.Duration) bool {
	c, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(to))
	if err != nil {
		return false
	}
	defer c.Close()
	if _, err := c.Write([]byte{0x40, 0, 0x50, 0x69}); err != nil {
		return false
	}
	if err := c.SetReadDeadline(time.Now().Add(within)); err != nil {
		return false
	}
	b := make([]byte, 64)
	n, err := c.Read(b)
	return err == nil && n >= 4 && b[0] == 0x70 && b[1] == 0 && b[2] == 0x50 && b[3] == 0x69
}
