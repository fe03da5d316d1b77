package udp_test

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"testing"

	"github.com/oscorelay/oscorelay/internal/udp"
)

func listen(t testing.TB, addr string, o udp.Options) *udp.Socket {
	t.Helper()
	s, err := udp.Listen(netip.MustParseAddrPort(addr), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// linux skips a test of what other systems do not have.
func linux(t testing.TB) {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("ReusePort, Local and Freebind are there on Linux alone")
	}
}

// inet6 skips a test on a machine without IPv6.
func inet6(t testing.TB) {
	t.Helper()
	c, err := net.ListenPacket("udp6", "[::1]:0")
	if err != nil {
		t.Skipf("no IPv6 here: %v", err)
	}
	_ = c.Close()
}

// one sends a datagram and fails the test if it cannot be sent.
func one(t testing.TB, s *udp.Socket, p udp.Packet) {
	t.Helper()
	if sent, errs := s.Write([]udp.Packet{p}); sent != 1 || errs != 0 {
		t.Fatalf("%d sent, %d not", sent, errs)
	}
}

// next takes in one datagram.
func next(t testing.TB, s *udp.Socket) udp.Packet {
	t.Helper()
	var p [1]udp.Packet
	if n, err := s.Read(p[:]); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	return p[0]
}

func at(s *udp.Socket, addr string) netip.AddrPort {
	return netip.AddrPortFrom(netip.MustParseAddr(addr), s.Addr().Port())
}

// TestSourceAddress: a datagram leaves from the address it names, and the
// answer to it says that it came there. On every family of socket.
func TestSourceAddress(t *testing.T) {
	linux(t)
	for _, c := range []struct{ name, listen, source, server string }{
		{"IPv4", "0.0.0.0:0", "127.7.1.2", "127.0.0.1"},
		{"dual stack, IPv4", "[::]:0", "127.7.1.2", "127.0.0.1"},
		{"dual stack, mapped", "[::]:0", "::ffff:127.7.1.2", "127.0.0.1"},
		{"dual stack, IPv6", "[::]:0", "::1", "::1"},
		{"IPv6", "[::1]:0", "::1", "::1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			source := netip.MustParseAddr(c.source)
			if source.Unmap().Is6() {
				inet6(t)
			}
			s := listen(t, c.listen, udp.Options{Local: true})
			server := listen(t, netip.AddrPortFrom(netip.MustParseAddr(c.server), 0).String(), udp.Options{Local: true})
			one(t, s, udp.Packet{Peer: server.Addr(), Local: source, Data: []byte("ask")})
			in := next(t, server)
			if want := netip.AddrPortFrom(source.Unmap(), s.Addr().Port()); in.Peer != want || in.Local != server.Addr().Addr() || string(in.Data) != "ask" {
				t.Fatalf("%q from %v at %v, want from %v", in.Data, in.Peer, in.Local, want)
			}
			one(t, server, udp.Packet{Peer: in.Peer, Local: in.Local, Data: []byte("answer")})
			in = next(t, s)
			if in.Local != source.Unmap() || in.Peer != server.Addr() || string(in.Data) != "answer" {
				t.Fatalf("%q from %v at %v, want at %v", in.Data, in.Peer, in.Local, source.Unmap())
			}
		})
	}
}

// TestKernelChooses: without a Local, or with one that nothing leaves from.
func TestKernelChooses(t *testing.T) {
	linux(t)
	s := listen(t, "0.0.0.0:0", udp.Options{Local: true})
	for _, local := range []netip.Addr{{}, netip.IPv4Unspecified(), netip.MustParseAddr("224.0.1.187"), netip.MustParseAddr("::1")} {
		one(t, s, udp.Packet{Peer: at(s, "127.0.0.9"), Local: local, Data: []byte("x")})
		if in := next(t, s); in.Local != netip.MustParseAddr("127.0.0.9") || !in.Peer.Addr().IsLoopback() {
			t.Errorf("with %v: at %v from %v", local, in.Local, in.Peer)
		}
	}
}

// TestFreebind: an IPv6 source that is on no interface.
func TestFreebind(t *testing.T) {
	linux(t)
	inet6(t)
	source := netip.MustParseAddr("fd6f:7363:6f72:6500::17")
	server := listen(t, "[::1]:0", udp.Options{})
	bound := listen(t, "[::]:0", udp.Options{Local: true})
	if sent, errs := bound.Write([]udp.Packet{{Peer: server.Addr(), Local: source, Data: []byte("x")}}); sent != 0 || errs != 1 {
		t.Fatalf("without Freebind: %d sent, %d not", sent, errs)
	}
	free := listen(t, "[::]:0", udp.Options{Local: true, Freebind: true})
	one(t, free, udp.Packet{Peer: server.Addr(), Local: source, Data: []byte("x")})
	if in := next(t, server); in.Peer != netip.AddrPortFrom(source, free.Addr().Port()) {
		t.Fatalf("from %v", in.Peer)
	}
}

// TestBatches: what is written in one batch is read in batches no longer than
// asked for, in order, each datagram whole.
func TestBatches(t *testing.T) {
	for _, size := range []int{1, 7, 32, 128, 300} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			a, b := listen(t, "127.0.0.1:0", udp.Options{ReadBuffer: 1 << 20}), listen(t, "127.0.0.1:0", udp.Options{ReadBuffer: 1 << 20})
			want := make([]udp.Packet, size)
			for round := range 3 {
				for i := range want {
					want[i] = udp.Packet{Peer: b.Addr(), Data: bytes.Repeat([]byte{byte(i), byte(round)}, i)}
				}
				if sent, errs := a.Write(want); sent != size || errs != 0 {
					t.Fatalf("%d sent, %d not, of %d", sent, errs, size)
				}
				in := make([]udp.Packet, 20)
				for got := 0; got < size; {
					n, err := b.Read(in)
					if err != nil {
						t.Fatal(err)
					}
					for _, p := range in[:n] {
						if p.Peer != a.Addr() || !bytes.Equal(p.Data, want[got].Data) {
							t.Fatalf("number %d: %x from %v", got, p.Data, p.Peer)
						}
						got++
					}
				}
			}
		})
	}
}

// TestTooLong: a datagram that does not fit is dropped whole and counted; one
// of exactly the limit passes.
func TestTooLong(t *testing.T) {
	a, b := listen(t, "127.0.0.1:0", udp.Options{}), listen(t, "127.0.0.1:0", udp.Options{MaxDatagram: 10})
	a.Write([]udp.Packet{
		{Peer: b.Addr(), Data: make([]byte, 11)},
		{Peer: b.Addr(), Data: make([]byte, 10)},
		{Peer: b.Addr(), Data: make([]byte, 9000)},
		{Peer: b.Addr(), Data: []byte{}},
	})
	var lengths []int
	in := make([]udp.Packet, 8)
	for len(lengths) < 2 {
		n, err := b.Read(in)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range in[:n] {
			lengths = append(lengths, len(p.Data))
		}
	}
	if lengths[0] != 10 || lengths[1] != 0 || b.TooLong() != 2 {
		t.Fatalf("lengths %v, %d too long", lengths, b.TooLong())
	}
}

// TestUnsendable: what cannot be sent is skipped, what stands around it is not.
// TestOverrun: what the kernel has no room for is counted.
func TestOverrun(t *testing.T) {
	linux(t)
	from, to := listen(t, "127.0.0.1:0", udp.Options{}), listen(t, "127.0.0.1:0", udp.Options{ReadBuffer: 4096})
	const all = 1000
	p := udp.Packet{Peer: to.Addr(), Data: make([]byte, 1000)}
	for range all {
		one(t, from, p)
	}
	lost := to.Overrun()
	if lost == 0 || lost >= all {
		t.Errorf("%d of %d are counted as lost", lost, all)
	}
	if full := to.Backlog(); full < 0.5 {
		t.Errorf("the buffer is %.2f full", full)
	}
	in := make([]udp.Packet, 1)
	for range all - lost { // the others are there
		if _, err := to.Read(in); err != nil {
			t.Fatal(err)
		}
	}
	if left := to.Backlog(); left != 0 {
		t.Errorf("the buffer is %.2f full when all is read", left)
	}
	_ = to.Close()
	if n := to.Overrun(); n != 0 {
		t.Errorf("a closed socket lost %d", n)
	}
}

func TestUnsendable(t *testing.T) {
	a, b := listen(t, "127.0.0.1:0", udp.Options{}), listen(t, "127.0.0.1:0", udp.Options{})
	sent, errs := a.Write([]udp.Packet{
		{Peer: netip.MustParseAddrPort("[2001:db8::1]:5683"), Data: []byte("family")},
		{Peer: b.Addr(), Data: []byte("first")},
		{Peer: b.Addr(), Data: make([]byte, 1<<16)},
		{Data: []byte("nowhere")},
		{Peer: b.Addr(), Data: []byte("second")},
		{Peer: netip.AddrPortFrom(b.Addr().Addr(), 0), Data: []byte("port 0")},
	})
	if sent != 2 || errs != 4 {
		t.Fatalf("%d sent, %d not", sent, errs)
	}
	for _, want := range []string{"first", "second"} {
		if p := next(t, b); string(p.Data) != want {
			t.Fatalf("%q, want %q", p.Data, want)
		}
	}
}

// TestClose: a Read that waits ends, later calls fail.
func TestClose(t *testing.T) {
	s, err := udp.Listen(netip.AddrPort{}, udp.Options{})
	if err != nil {
		t.Fatal(err)
	}
	to := at(s, "127.0.0.1")
	ended := make(chan error)
	go func() {
		_, err := s.Read(make([]udp.Packet, 4))
		ended <- err
	}()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		t.Fatal(err)
	}
	if sent, errs := s.Write([]udp.Packet{{Peer: to}, {Peer: to}}); sent != 0 || errs != 2 {
		t.Fatalf("%d sent, %d not", sent, errs)
	}
}

// TestReusePort: several sockets share a port, and without the option they do
// not.
func TestReusePort(t *testing.T) {
	linux(t)
	a := listen(t, "127.0.0.1:0", udp.Options{ReusePort: true})
	b := listen(t, a.Addr().String(), udp.Options{ReusePort: true})
	if a.Addr() != b.Addr() {
		t.Fatal(a.Addr(), b.Addr())
	}
	if s, err := udp.Listen(a.Addr(), udp.Options{}); err == nil {
		_ = s.Close()
		t.Fatal("a third one without the option")
	}
}

// TestOptions: what a system does not have, and what makes no sense, is said.
func TestOptions(t *testing.T) {
	for name, o := range map[string]udp.Options{"negative": {MaxDatagram: -1}, "huge": {MaxDatagram: 65536}} {
		if _, err := udp.Listen(netip.MustParseAddrPort("127.0.0.1:0"), o); !errors.Is(err, udp.ErrOption) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if runtime.GOOS == "linux" {
		return
	}
	for name, o := range map[string]udp.Options{"ReusePort": {ReusePort: true}, "Local": {Local: true}, "Freebind": {Freebind: true}} {
		if _, err := udp.Listen(netip.MustParseAddrPort("127.0.0.1:0"), o); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestAllocations: neither way takes memory for a datagram.
func TestAllocations(t *testing.T) {
	linux(t)
	for _, addr := range []string{"127.0.0.1:0", "[::]:0"} {
		s := listen(t, addr, udp.Options{Local: true})
		to, local := at(s, "127.0.0.1"), netip.MustParseAddr("127.7.1.2")
		out, in := make([]udp.Packet, 16), make([]udp.Packet, 16)
		for i := range out {
			out[i] = udp.Packet{Peer: to, Local: local, Data: make([]byte, 100)}
		}
		allocs := testing.AllocsPerRun(100, func() {
			s.Write(out)
			for got := 0; got < len(out); {
				n, err := s.Read(in)
				if err != nil {
					t.Fatal(err)
				}
				got += n
			}
		})
		if allocs != 0 {
			t.Errorf("%s: %v allocations for %d datagrams", addr, allocs, len(out))
		}
	}
}

// BenchmarkLoopback is a datagram sent and taken in, by batch.
func BenchmarkLoopback(b *testing.B) {
	for _, size := range []int{1, 8, 32} {
		b.Run(fmt.Sprintf("batch=%d", size), func(b *testing.B) {
			s := listen(b, "127.0.0.1:0", udp.Options{ReadBuffer: 1 << 20})
			out, in := make([]udp.Packet, size), make([]udp.Packet, size)
			for i := range out {
				out[i] = udp.Packet{Peer: s.Addr(), Data: make([]byte, 100)}
			}
			b.ReportAllocs()
			for n := 0; n < b.N; n += size {
				s.Write(out)
				for got := 0; got < size; {
					k, err := s.Read(in)
					if err != nil {
						b.Fatal(err)
					}
					got += k
				}
			}
		})
	}
}
