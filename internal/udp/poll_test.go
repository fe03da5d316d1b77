package udp

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"
)

func newPoll[T any](t *testing.T) *Poll[T] {
	t.Helper()
	p, err := NewPoll[T]()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

func loopback(t *testing.T, o Options) *Socket {
	t.Helper()
	s, err := Listen(netip.MustParseAddrPort("127.0.0.1:0"), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// gather takes in n datagrams and returns what was added with each one's
// socket.
func gather(t *testing.T, p *Poll[int], socks []*Socket, n int) map[string]int {
	t.Helper()
	got := map[string]int{}
	in, inbox := make([]Packet, 2), Inbox{}
	for end := time.Now().Add(10 * time.Second); len(got) < n; {
		ready, err := p.Wait(time.Until(end))
		if err != nil || time.Now().After(end) {
			t.Fatalf("%d of %d datagrams: %v", len(got), n, err)
		}
		for _, v := range ready {
			k, err := socks[v].Take(&inbox, in)
			if err != nil {
				t.Fatal(err)
			}
			for _, one := range in[:k] {
				got[string(one.Data)] = v
			}
		}
	}
	return got
}

// Every datagram is found at its socket, more of them than one Take holds, from
// more sockets than one Wait reports, through one Inbox for sockets of
// different lengths.
func TestPollFindsEveryDatagram(t *testing.T) {
	const socks, each = 100, 5
	p, out := newPoll[int](t), loopback(t, Options{})
	all := make([]*Socket, socks)
	for i := range all {
		all[i] = loopback(t, Options{MaxDatagram: 100 + i})
		if err := p.Add(all[i], i); err != nil {
			t.Fatal(err)
		}
		for k := range each {
			out.Write([]Packet{{Peer: all[i].Addr(), Data: fmt.Appendf(nil, "%d to %d", k, i)}})
		}
	}
	got := gather(t, p, all, socks*each)
	for i := range all {
		for k := range each {
			if at, ok := got[fmt.Sprintf("%d to %d", k, i)]; !ok || at != i {
				t.Errorf("datagram %d of socket %d: at %d, %t", k, i, at, ok)
			}
		}
	}
}

// A socket in a Poll sends as any other.
func TestPollSends(t *testing.T) {
	p, a, b := newPoll[int](t), loopback(t, Options{}), loopback(t, Options{})
	for i, s := range []*Socket{a, b} {
		if err := p.Add(s, i); err != nil {
			t.Fatal(err)
		}
	}
	if sent, errs := a.Write([]Packet{{Peer: b.Addr(), Data: []byte("x")}, {Peer: netip.AddrPort{}, Data: []byte("y")}}); sent != 1 || errs != 1 {
		t.Errorf("%d sent, %d errors", sent, errs)
	}
	if got := gather(t, p, []*Socket{a, b}, 1); got["x"] != 1 {
		t.Error(got)
	}
}

func TestPollWakes(t *testing.T) {
	p := newPoll[int](t)
	p.Wake()
	for _, most := range []time.Duration{time.Hour, time.Millisecond} { // woken; the time is over
		if ready, err := p.Wait(most); err != nil || len(ready) > 0 {
			t.Error(ready, err)
		}
	}
	done := make(chan error)
	go func() {
		_, err := p.Wait(time.Hour)
		done <- err
	}()
	p.Wake()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// A socket that is closed is heard of no more, its place is another's, and
// nothing is read from or sent by what its number in the system has become.
func TestPollForgetsClosedSockets(t *testing.T) {
	p, out := newPoll[int](t), loopback(t, Options{})
	in, inbox := make([]Packet, 1), Inbox{}
	var open []*Socket
	for i := range 20 {
		s := loopback(t, Options{})
		if err := p.Add(s, i); err != nil {
			t.Fatal(err)
		}
		open = append(open, s)
		out.Write([]Packet{{Peer: s.Addr(), Data: []byte(s.Addr().String())}})
		if i%2 == 1 {
			continue
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if err := s.Close(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("closed again: %v", err)
		}
		if _, err := s.Take(&inbox, in); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Take of a closed socket: %v", err)
		}
		if sent, errs := s.Write([]Packet{{Peer: out.Addr(), Data: []byte("no")}}); sent != 0 || errs != 1 {
			t.Errorf("Write to a closed socket: %d sent, %d errors", sent, errs)
		}
	}
	for name, at := range gather(t, p, open, 10) {
		if at%2 == 0 || open[at].Addr().String() != name {
			t.Errorf("%s at %d", name, at)
		}
	}
}

func TestPollRefuses(t *testing.T) {
	p, s := newPoll[int](t), loopback(t, Options{})
	if err := p.Add(s, 1); err != nil {
		t.Fatal(err)
	}
	if err := p.Add(s, 2); !errors.Is(err, ErrOption) {
		t.Errorf("added twice: %v", err)
	}
	p.Close()
	if err := p.Add(loopback(t, Options{}), 3); !errors.Is(err, net.ErrClosed) {
		t.Errorf("added to a closed Poll: %v", err)
	}
}
