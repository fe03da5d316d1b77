package message

import (
	"testing"
	"time"

	"github.com/oscorelay/oscorelay/internal/coap"
)

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
