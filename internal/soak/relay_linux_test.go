//go:build soak

package soak

import (
	"bufio"
	"bytes"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/oscorelay/oscorelay/internal/capture"
)

// relay is the path between devices and the daemon. It captures what they send,
// counts it, and sends old datagrams again, either way.
type relay struct {
	t      *testing.T
	front  *net.UDPConn
	server netip.AddrPort

	mu     sync.Mutex
	file   *os.File
	buf    *bufio.Writer
	pcap   *capture.Writer
	backs  map[netip.AddrPort]*net.UDPConn
	order  []netip.AddrPort
	old    map[netip.AddrPort]*[2][][]byte // down, up
	tap    func()
	n      int
	closed bool
	wg     sync.WaitGroup
}

// keptOld is how many datagrams of a device there are to be sent again, each way.
const keptOld = 512

func newRelay(t *testing.T, server netip.AddrPort, name string) *relay {
	t.Helper()
	front, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{t: t, front: front, server: server, backs: map[netip.AddrPort]*net.UDPConn{}, old: map[netip.AddrPort]*[2][][]byte{}}
	if r.file, err = os.Create(name); err != nil {
		t.Fatal(err)
	}
	r.buf = bufio.NewWriterSize(r.file, 1<<20)
	if r.pcap, err = capture.NewWriter(r.buf); err != nil {
		t.Fatal(err)
	}
	r.wg.Go(r.fromDevices)
	return r
}

func (r *relay) addr() netip.AddrPort { return r.front.LocalAddr().(*net.UDPAddr).AddrPort() }

// setTap has f called at each datagram, before it goes on.
func (r *relay) setTap(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tap = f
}

// note captures a datagram.
func (r *relay) note(up bool, device netip.AddrPort, b []byte) {
	p := capture.Packet{From: device, To: r.server, Data: b}
	if !up {
		p.From, p.To = p.To, p.From
	}
	r.mu.Lock()
	p.At = time.Now() // in the order of the file
	if err := r.pcap.Write(p); err != nil {
		r.t.Errorf("capture: %v", err)
	}
	r.n++
	if len(b) > 4 {
		if r.old[device] == nil {
			r.old[device] = &[2][][]byte{}
		}
		way := 0
		if up {
			way = 1
		}
		if all := &r.old[device][way]; len(*all) < keptOld {
			*all = append(*all, bytes.Clone(b))
		} else {
			(*all)[r.n%keptOld] = bytes.Clone(b)
		}
	}
	tap := r.tap
	r.mu.Unlock()
	if tap != nil {
		tap()
	}
}

func (r *relay) fromDevices() {
	buf := make([]byte, 1<<16)
	for {
		n, device, err := r.front.ReadFromUDPAddrPort(buf)
		if err != nil {
			if r.isClosed() {
				return
			}
			continue
		}
		r.note(true, device, buf[:n])
		if back := r.back(device); back != nil {
			_, _ = back.WriteToUDPAddrPort(buf[:n], r.server) // a daemon that is dead hears nothing
		}
	}
}

func (r *relay) fromServer(device netip.AddrPort, back *net.UDPConn) {
	buf := make([]byte, 1<<16)
	for {
		n, _, err := back.ReadFromUDPAddrPort(buf)
		if err != nil {
			if r.isClosed() {
				return
			}
			continue
		}
		r.note(false, device, buf[:n])
		_, _ = r.front.WriteToUDPAddrPort(buf[:n], device)
	}
}

func (r *relay) isClosed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.closed
}

func (r *relay) back(device netip.AddrPort) *net.UDPConn {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil
	}
	c := r.backs[device]
	if c == nil {
		var err error
		if c, err = net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}); err != nil {
			r.t.Errorf("relay: %v", err)
			return nil
		}
		r.backs[device] = c
		r.order = append(r.order, device)
		r.wg.Go(func() { r.fromServer(device, c) })
	}
	return c
}

// replay sends old datagrams again: n toward the daemon, n toward devices. They
// are no part of the capture: nobody sealed them now.
func (r *relay) replay(rng *rand.Rand, n int) (sent int) {
	for range n {
		for way := range 2 {
			r.mu.Lock()
			if len(r.order) == 0 {
				r.mu.Unlock()
				return sent
			}
			device := r.order[rng.IntN(len(r.order))]
			back := r.backs[device]
			var b []byte
			if all := r.old[device]; all != nil && len(all[way]) > 0 {
				b = all[way][rng.IntN(len(all[way]))]
			}
			r.mu.Unlock()
			switch {
			case b == nil:
				continue
			case way == 1:
				_, _ = back.WriteToUDPAddrPort(b, r.server)
			default:
				_, _ = r.front.WriteToUDPAddrPort(b, device)
			}
			sent++
		}
	}
	return sent
}

// end closes it and its file.
func (r *relay) end() {
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		return
	}
	r.closed = true
	r.front.Close()
	for _, c := range r.backs {
		c.Close()
	}
	r.mu.Unlock()
	r.wg.Wait()
	if err := r.buf.Flush(); err != nil {
		r.t.Errorf("capture: %v", err)
	}
	if err := r.file.Close(); err != nil {
		r.t.Errorf("capture: %v", err)
	}
}
