package message

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/oscorelay/oscorelay/internal/coap"
)

func ack(mid uint16) []byte {
	return coap.Datagram{Type: coap.Acknowledgement, MessageID: mid}.Append(nil)
}

// TestHeldOfAnother: a message that was held for a peer that is not known to
// receive, was ended by its owner and has become another peer's is not given up
// with the first peer's ping.
func TestHeldOfAnother(t *testing.T) {
	l := New[string](Config{Amplification: 3, Reuse: true})
	held, err := l.Send(start, "silent", request(coap.NonConfirmable, 0, "t", "x"), "one")
	if err != nil {
		t.Fatal(err)
	}
	if d := one(t, l); d.Code != coap.Empty {
		t.Fatalf("%+v, want the ping", d)
	}
	l.Forget(start, held)
	later := start.Add(time.Second)
	in, err := l.AcceptRequest(later, l.Receive(later, "other", request(coap.NonConfirmable, 1, "t", "x").Append(nil)))
	if err != nil {
		t.Fatal(err)
	}
	l.Release(in)
	o, err := l.Send(later, "other", request(coap.NonConfirmable, 0, "u", "y"), "two")
	if err != nil {
		t.Fatal(err)
	}
	for at := later; at.Before(start.Add(94 * time.Second)); at = at.Add(time.Second) {
		l.Advance(at, func(ev Event[string]) {
			t.Errorf("%v of %v is given up with the ping to %v", ev.Sent.Tag, ev.Sent.Peer(), ev.Peer)
		})
	}
	if o.state == done {
		t.Error("the other peer's message has ended")
	}
}

// TestAnswersLeaveNothing: a response that was acknowledged can be referred to
// by nothing, and leaves its place to others at once.
func TestAnswersLeaveNothing(t *testing.T) {
	l := New[string](Config{MaxSent: 10})
	for i := range uint16(1000) {
		in, err := l.AcceptRequest(start, l.Receive(start, "c", request(coap.Confirmable, i, "t", "x").Append(nil)))
		if err != nil {
			t.Fatal(err)
		}
		l.Acknowledge(in)
		l.Output()
		o, err := l.Respond(start, in, coap.Confirmable, coap.Content, nil, nil)
		if err != nil {
			t.Fatalf("separate response %d: %v", i, err)
		}
		if ev := l.Receive(start, "c", ack(one(t, l).MessageID)); ev.Kind != Acknowledged || ev.Sent != o {
			t.Fatalf("%+v", ev)
		}
	}
	if _, _, sent := l.Size(); sent != 0 {
		t.Errorf("%d messages are kept", sent)
	}
}

// TestNotificationsGiveWay: non-confirmable notifications are kept for a Reset
// alone: they give way to what must arrive, from the oldest on.
func TestNotificationsGiveWay(t *testing.T) {
	for _, cfg := range []Config{{MaxSent: 40}, {MaxBytes: 12_000}, {PeerSent: 4}} {
		l := New[string](cfg)
		send := func(typ coap.Type, to string) *Outgoing[string] {
			t.Helper()
			o, err := l.Send(start, to, coap.Datagram{Type: typ, Code: coap.Content, Token: []byte("t")}, to)
			if err != nil {
				t.Fatalf("%+v: %v to %s: %v", cfg, typ, to, err)
			}
			l.Output()
			return o
		}
		var last *Outgoing[string]
		for i := range 200 {
			last = send(coap.NonConfirmable, fmt.Sprint(i%20))
		}
		send(coap.Confirmable, "genuine")
		if ev := l.Receive(start, "19", coap.Datagram{Type: coap.Reset, MessageID: last.mid}.Append(nil)); ev.Kind != Reset || ev.Sent != last {
			t.Errorf("%+v: the latest notification is not known: %+v", cfg, ev)
		}
	}
}

// TestSilentPeer: answers that wait for a peer that acknowledges nothing go with
// the first that is given up, rather than one by one for hours.
func TestSilentPeer(t *testing.T) {
	for _, alive := range []bool{false, true} {
		l := New[string](Config{})
		for i := range 100 {
			if _, err := l.Send(start, "c", coap.Datagram{Type: coap.Confirmable, Code: coap.Content}, i); err != nil {
				t.Fatal(err)
			}
		}
		asked, err := l.Send(start, "c", request(coap.Confirmable, 0, "t", "x"), "request")
		if err != nil {
			t.Fatal(err)
		}
		var gone []any
		for now := start; now.Before(start.Add(94 * time.Second)); now = now.Add(time.Second) {
			if alive && now.Equal(start.Add(50*time.Second)) {
				if _, err := l.AcceptRequest(now, l.Receive(now, "c", request(coap.Confirmable, 1, "t", "x").Append(nil))); err != nil {
					t.Fatal(err)
				}
			}
			l.Advance(now, func(ev Event[string]) { gone = append(gone, ev.Sent.Tag) })
		}
		if want := map[bool]int{false: 100, true: 1}[alive]; len(gone) != want {
			t.Errorf("alive %v: %d given up, want %d", alive, len(gone), want)
		}
		if asked.state == done {
			t.Error("a request is its owner's to end")
		}
	}
}

// TestOldestGoesFirst: of confirmable and non-confirmable messages the one that
// was accepted first is forgotten first.
func TestOldestGoesFirst(t *testing.T) {
	for _, types := range [][2]coap.Type{{coap.Confirmable, coap.NonConfirmable}, {coap.NonConfirmable, coap.Confirmable}} {
		l := New[string](Config{MaxReceived: 2})
		raw := func(i int) []byte { return request(types[min(i, 1)], uint16(i), "t", "x").Append(nil) }
		for i := range 3 {
			now := start.Add(time.Duration(i) * 10 * time.Second)
			in, err := l.AcceptRequest(now, l.Receive(now, "c", raw(i)))
			if err != nil {
				t.Fatal(err)
			}
			l.Release(in)
		}
		now := start.Add(30 * time.Second)
		for i, want := range []Kind{Request, None, None} {
			if ev := l.Receive(now, "c", raw(i)); ev.Kind != want {
				t.Errorf("%v, then %v: the message of %d s is %v, want %v", types[0], types[1], 10*i, ev.Kind, want)
			}
		}
	}
}

// TestGaveUpEnds: a caller that sends anew whenever it is told that a message
// was given up does not keep Advance from its end.
func TestGaveUpEnds(t *testing.T) {
	l := New[string](Config{Amplification: 3})
	send := func(now time.Time) {
		if _, err := l.Send(now, "c", request(coap.Confirmable, 0, "t", "x"), "tag"); err != nil {
			t.Fatal(err)
		}
	}
	send(start)
	n := 0
	for now := start; now.Before(start.Add(95 * time.Second)); now = now.Add(time.Second) {
		l.Advance(now, func(Event[string]) {
			if n++; n > 1000 {
				t.Fatal("Advance does not end")
			}
			send(now)
		})
	}
	if n == 0 {
		t.Error("nothing was given up")
	}
}

// TestSeenShrinks: the table of a peer that sent much once does not stay for as
// long as the peer does.
func TestSeenShrinks(t *testing.T) {
	l := New[string](Config{MaxReceived: 2000})
	flood := func(peer string, n int) {
		for i := range n {
			in, err := l.AcceptRequest(start, l.Receive(start, peer, request(coap.NonConfirmable, uint16(i), fmt.Sprint(i), "x").Append(nil)))
			if err != nil {
				t.Fatal(err)
			}
			l.Release(in)
		}
	}
	for i := range 50 {
		flood(fmt.Sprint(i), 1024)
	}
	places := 0
	for _, p := range l.peers {
		places += len(p.seen.places)
	}
	if places > 8*2000+16*50 {
		t.Errorf("%d places for %d messages", places, l.remembered)
	}
	flood("chain", 1) // and one whose places are too few for what they hold
	for i := range 400 {
		in, err := l.AcceptRequest(start, l.Receive(start, "chain", request(coap.NonConfirmable, 7, fmt.Sprint(i), "x").Append(nil)))
		if err != nil {
			t.Fatal(err)
		}
		l.Release(in)
	}
	l.Advance(start.Add(3*l.lifetime), noEvent(t))
	if _, r, _ := l.Size(); r != 0 {
		t.Errorf("%d are left", r)
	}
}

// TestClose: a layer that is done with leaves nothing in a count that others
// share, whatever still happens to it.
func TestClose(t *testing.T) {
	kept := 0
	cfg := Config{Kept: &kept}
	a, b := New[string](cfg), New[string](cfg)
	var open *Incoming[string]
	for _, l := range []*Layer[string]{a, b} {
		for i := range uint16(10) {
			in, err := l.AcceptRequest(start, l.Receive(start, "c", request(coap.NonConfirmable, i, "t", "x").Append(nil)))
			if err != nil {
				t.Fatal(err)
			}
			if open == nil {
				open = in
			} else {
				l.Release(in)
			}
		}
		if _, err := l.Send(start, "c", request(coap.Confirmable, 0, "t", "x"), "tag"); err != nil {
			t.Fatal(err)
		}
	}
	a.Close()
	a.Close()
	if kept != b.bytes || kept == 0 {
		t.Errorf("%d are kept, by the other %d", kept, b.bytes)
	}
	if _, err := a.Respond(start, open, coap.Confirmable, coap.Content, nil, nil); err != nil {
		t.Error(err)
	}
	a.Advance(start.Add(a.lifetime*2), func(Event[string]) {})
	if kept != b.bytes {
		t.Errorf("%d are kept, by the other %d", kept, b.bytes)
	}
}

// TestReachByWhatWasSent: a peer shows that it receives by naming what was sent
// to it; whoever sees nothing of it does not by naming one of many messages that
// only wait.
func TestReachByWhatWasSent(t *testing.T) {
	l := New[string](Config{Amplification: 3})
	for i := range uint16(4000) {
		in, err := l.AcceptRequest(start, l.Receive(start, "c", request(coap.Confirmable, i, "t", "x").Append(nil)))
		if err != nil {
			t.Fatal(err)
		}
		l.Acknowledge(in)
		if _, err := l.Respond(start, in, coap.Confirmable, coap.Content, coap.AppendPayload(nil, make([]byte, 1000)), nil); err != nil && !errors.Is(err, ErrFull) {
			t.Fatal(err)
		}
	}
	sent := map[uint16]bool{}
	for _, p := range l.Output() {
		if d := parse(t, p); d.Type == coap.Confirmable {
			sent[d.MessageID] = true
		}
	}
	tried := 0
	for _, o := range l.peers["c"].slots {
		if o == nil || sent[o.mid] {
			continue
		}
		for _, typ := range []coap.Type{coap.Acknowledgement, coap.Reset} {
			if ev := l.Receive(start, "c", coap.Datagram{Type: typ, MessageID: o.mid}.Append(nil)); ev.Kind != None || ev.Sent != nil {
				t.Fatalf("a message that was never sent is answered: %+v", ev)
			}
		}
		if tried++; tried == 7 {
			break
		}
	}
	if tried == 0 || l.peers["c"].reach.shown {
		t.Fatalf("%d guesses, believed: %v", tried, l.peers["c"].reach.shown)
	}
}

// TestReachNotLocked: a forger who names wrong message IDs in a peer's name
// cannot keep it from ever being believed.
func TestReachNotLocked(t *testing.T) {
	l := New[string](Config{Amplification: 3})
	raw, err := owed(t, l, coap.Confirmable, 1, 5000)
	if err != nil {
		t.Fatal(err)
	}
	mid := one(t, l).MessageID
	for guess := range uint16(maxWrong) {
		l.Receive(start, "c", coap.Datagram{Type: coap.Reset, MessageID: mid + 500 + guess}.Append(nil))
	}
	l.Receive(start, "c", coap.Datagram{Type: coap.Reset, MessageID: mid}.Append(nil))
	none(t, l)                                                  // it may have been guessed
	for now := start; ; now = now.Add(500 * time.Millisecond) { // the client repeats its request
		if now.After(start.Add(30 * time.Second)) {
			t.Fatal("it is not asked again")
		}
		l.Advance(now, noEvent(t))
		l.Receive(now, "c", raw)
		out := l.Output()
		if len(out) == 0 {
			continue
		}
		ping := parse(t, out[0])
		if ping.MessageID == mid {
			t.Fatal("it is asked with a message ID that may have been guessed")
		}
		l.Receive(now, "c", coap.Datagram{Type: coap.Reset, MessageID: ping.MessageID}.Append(nil))
		if d := one(t, l); d.Code != coap.Content {
			t.Fatalf("%+v", d)
		}
		return
	}
}

// TestMessageIDsClockBack: a call that brings an earlier time than the one
// before draws no message ID a second time.
func TestMessageIDsClockBack(t *testing.T) {
	l := New[string](Config{})
	later := start.Add(10 * time.Second)
	var err error
	l.Advance(start, noEvent(t))
	for range 1 << 17 {
		if _, err = l.Send(later, "s", request(coap.NonConfirmable, 0, "", "x"), nil); err != nil {
			break
		}
		l.Output()
	}
	if !errors.Is(err, ErrNoMessageID) {
		t.Fatal(err)
	}
	if _, err := l.Send(later.Add(-5*time.Second), "s", request(coap.NonConfirmable, 0, "", "x"), nil); !errors.Is(err, ErrNoMessageID) {
		t.Fatal(err)
	}
}
