//go:build interop

package interop

import (
	"bytes"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/oscorelay/oscorelay/interop/ours"
	"github.com/oscorelay/oscorelay/interop/peer"
)

var post = peer.Request{Method: "POST", Path: "/oscore/hello/6", Format: peer.Int(0), Payload: []byte{0x4a}}

// TestLoss drops the first copy of a request, then the first answer: the same
// bytes come again, and the resource is reached once.
func TestLoss(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, o opponent, direction string) {
		ctx := peer.Interop(false)
		m := o.meet(t, direction, ctx, ctx, ours.Config{})
		var mu sync.Mutex
		lost := map[bool]bool{}
		m.relay.Forward(func(d peer.Datagram) [][]byte {
			mu.Lock()
			defer mu.Unlock()
			if !lost[d.ToServer] {
				lost[d.ToServer] = true
				return nil
			}
			return [][]byte{d.Bytes}
		})
		r := m.client.Do(t, post)
		if r.Answer.Code != "2.04" || !r.Answer.Sealed || !bytes.Equal(r.Answer.Payload, post.Payload) {
			t.Errorf("%+v", r)
		}
		if n := m.server.Handled("/oscore/hello/6"); n != 1 {
			t.Errorf("the request reached the resource %d times", n)
		}
		c := m.relay.Capture()
		if n := len(c.Requests(t)); n < 3 {
			t.Errorf("%d copies of the request, want 3 at least", n)
		}
		c.Sealed(t)
		c.SingleUse(t)
		o.record(t, direction, "lost request, lost answer: retransmission")
	})
}

// TestDuplicates delivers every datagram twice.
func TestDuplicates(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, o opponent, direction string) {
		ctx := peer.Interop(false)
		m := o.meet(t, direction, ctx, ctx, ours.Config{})
		m.relay.Forward(func(d peer.Datagram) [][]byte { return [][]byte{d.Bytes, d.Bytes} })
		m.pair.record = nil
		if direction == toUs && o.component != "aiocoap" {
			// Californium's client, and libOSCORE's program, take a first response
			// that comes twice for a notification.
			m.lacks = append([]string{"6", "7"}, m.lacks...)
		}
		m.run(t, exchanges)
		for _, path := range []string{"/oscore/hello/2", "/oscore/hello/6", "/oscore/test"} {
			if n := m.server.Handled(path); n != 1 {
				t.Errorf("one request reached %s %d times", path, n)
			}
		}
		o.record(t, direction, "every datagram twice: acted on once")
	})
}

// TestReordering lets four requests of ours arrive in reverse order, and one of
// the peer's after a later one.
func TestReordering(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, o opponent, direction string) {
		if direction == toUs && o.component == "liboscore" {
			t.Skip("its client cannot be told to give a request up")
		}
		ctx := peer.Interop(false)
		if direction == fromUs {
			reorderOurs(t, o.meet(t, direction, ctx, ctx, ours.Config{}))
		} else {
			reorderIts(t, o.meet(t, direction, ctx, ctx, ours.Config{Patience: time.Second}))
		}
		o.record(t, direction, "requests in another order: each acted on once")
	})
}

func reorderOurs(t *testing.T, m *meeting) {
	const n = 4
	var mu sync.Mutex
	var held [][]byte
	m.relay.Forward(func(d peer.Datagram) [][]byte {
		mu.Lock()
		defer mu.Unlock()
		if !d.ToServer || len(held) >= n {
			return [][]byte{d.Bytes}
		}
		if held = append(held, d.Bytes); len(held) < n {
			return nil
		}
		slices.Reverse(held)
		return held
	})
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			q := post
			q.Payload = []byte{byte(i + 1)}
			if r := m.client.Do(t, q); r.Answer.Code != "2.04" || !bytes.Equal(r.Answer.Payload, q.Payload) {
				t.Errorf("request %d: %+v", i, r)
			}
		})
	}
	all.Wait()
	if got := m.server.Handled("/oscore/hello/6"); got != n {
		t.Errorf("%d requests reached the resource %d times", n, got)
	}
	m.relay.Capture().Sealed(t)
	m.relay.Capture().SingleUse(t)
}

func reorderIts(t *testing.T, m *meeting) {
	m.relay.Forward(func(d peer.Datagram) [][]byte {
		if d.ToServer {
			// An empty acknowledgement, or the client would send nothing else.
			m.relay.SendBack(d.Client, []byte{0x60, 0, d.Bytes[2], d.Bytes[3]})
			return nil
		}
		return [][]byte{d.Bytes}
	})
	if r := m.client.Do(t, post); r.Error == "" {
		t.Fatalf("an answer to what was held back: %+v", r)
	}
	held := m.relay.Capture()[0]
	m.relay.Forward(nil)
	if r := m.client.Do(t, post); r.Answer.Code != "2.04" {
		t.Fatalf("%+v", r)
	}
	answer := replay(t, m.relay, held)
	if _, sealed := answer.Option(peer.OptOSCORE); !sealed {
		t.Errorf("the late request got %s", answer)
	}
	if n := m.server.Handled("/oscore/hello/6"); n != 2 {
		t.Errorf("two requests reached the resource %d times", n)
	}
	if answer := replay(t, m.relay, held); answer.Code != 0x81 {
		t.Errorf("the late request once more got %s", answer)
	}
	if n := m.server.Handled("/oscore/hello/6"); n != 2 {
		t.Errorf("after a replay the resource was reached %d times", n)
	}
	m.relay.Capture().SealedRequests(t)
	m.relay.Capture().SingleUse(t)
}
