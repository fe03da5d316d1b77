package message

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/oscorelay/oscorelay/internal/coap"
)

// owed is an answer of n bytes of payload to a request that peer sent.
func owed(t *testing.T, l *Layer[string], typ coap.Type, mid uint16, n int) ([]byte, error) {
	t.Helper()
	raw := request(typ, mid, "t", "x").Append(nil)
	in, err := l.AcceptRequest(start, l.Receive(start, "c", raw))
	if err != nil {
		t.Fatal(err)
	}
	_, err = l.Respond(start, in, coap.NonConfirmable, coap.Content, coap.AppendPayload(nil, make([]byte, n)), nil)
	return raw, err
}

// TestReach: a peer that has not shown that it receives is answered at once up
// to 136 bytes, and beyond it once it has answered a ping.
func TestReach(t *testing.T) {
	for _, typ := range []coap.Type{coap.Confirmable, coap.NonConfirmable} {
		t.Run(typ.String(), func(t *testing.T) {
			l := New[string](Config{Amplification: 3})
			if _, err := owed(t, l, typ, 1, 120); err != nil {
				t.Fatal(err)
			}
			if d := one(t, l); d.Code != coap.Content {
				t.Fatalf("%+v", d)
			}
			l = New[string](Config{Amplification: 3})
			raw, err := owed(t, l, typ, 1, 500)
			if err != nil {
				t.Fatal(err)
			}
			ping := one(t, l)
			if ping.Type != coap.Confirmable || ping.Code != coap.Empty || l.Withheld() != 1 {
				t.Fatalf("%+v, %d withheld", ping, l.Withheld())
			}
			l.Receive(start, "c", raw) // a copy gets nothing more
			none(t, l)
			l.Receive(start, "elsewhere", coap.Datagram{Type: coap.Reset, MessageID: ping.MessageID}.Append(nil))
			none(t, l)
			if ev := l.Receive(start, "c", coap.Datagram{Type: coap.Reset, MessageID: ping.MessageID}.Append(nil)); ev.Kind != None {
				t.Fatalf("%+v", ev)
			}
			if d := one(t, l); d.Code != coap.Content || len(d.Body) != 501 {
				t.Fatalf("%+v", d)
			}
			if _, err := owed(t, l, typ, 2, 900); err != nil { // it is known now
				t.Fatal(err)
			}
			if d := one(t, l); d.Code != coap.Content {
				t.Fatalf("%+v", d)
			}
		})
	}
}

// TestReachGuess: who sees nothing of what we send cannot try message IDs until
// one fits.
func TestReachGuess(t *testing.T) {
	l := New[string](Config{Amplification: 3})
	if _, err := owed(t, l, coap.NonConfirmable, 1, 500); err != nil {
		t.Fatal(err)
	}
	mid := one(t, l).MessageID
	for guess := range uint16(1000) {
		l.Receive(start, "c", coap.Datagram{Type: coap.Reset, MessageID: mid + 500 - guess}.Append(nil))
	}
	none(t, l)
}

// TestReachBound: what one source is sent is at most three times what came
// from there and five pings, whatever it asks for: answers, copies, errors,
// separate answers that are retransmitted, notifications.
func TestReachBound(t *testing.T) {
	l := New[string](Config{Amplification: 3})
	in, out := 0, 0
	count := func() {
		for _, p := range l.Output() {
			out += len(p.Data) + headers
		}
	}
	for i := range uint16(200) {
		raw := request(coap.Type(i%2), i, fmt.Sprint(i), "x").Append(nil)
		for range 3 {
			in += len(raw) + headers
			ev := l.Receive(start, "c", raw)
			switch {
			case ev.Kind == Request && i%5 == 0:
				l.Refuse(ev, coap.BadRequest, coap.AppendPayload(nil, make([]byte, 1000)))
			case ev.Kind == Request:
				x, err := l.AcceptRequest(start, ev)
				if err != nil {
					t.Fatal(err)
				}
				if i%3 == 0 {
					l.Acknowledge(x)
				}
				var tag any
				if i%7 == 0 {
					tag = "notification"
				}
				if _, err := l.Respond(start, x, coap.Type(i%2), coap.Content, coap.AppendPayload(nil, make([]byte, 1000)), tag); err != nil && !errors.Is(err, ErrFull) {
					t.Fatal(err)
				}
			}
			count()
		}
	}
	gaveUp := 0
	for now := start; now.Before(start.Add(200 * time.Second)); now = now.Add(time.Second) {
		l.Advance(now, func(Event[string]) { gaveUp++ })
		count()
	}
	if limit := 3*in + 2*5*(4+headers); out > limit {
		t.Fatalf("%d bytes came, %d were sent, the limit is %d", in, out, limit)
	}
	if gaveUp == 0 {
		t.Error("nothing that waited for the ping was given up")
	}
	l.Advance(start.Add(2*l.lifetime), func(Event[string]) {})
	l.Advance(start.Add(5*l.lifetime), func(Event[string]) {})
	if p, r, s := l.Size(); p+r+s+l.bytes != 0 {
		t.Fatalf("%d peers, %d received, %d sent, %d bytes are left", p, r, s, l.bytes)
	}
}

// TestSharedLimit: layers that count together stay below their limit together.
func TestSharedLimit(t *testing.T) {
	kept := 0
	cfg := Config{MaxBytes: 20_000, Kept: &kept}
	a, b := New[string](cfg), New[string](cfg)
	for i := range uint16(300) {
		for _, l := range []*Layer[string]{a, b} {
			if in, err := l.AcceptRequest(start, l.Receive(start, "c", request(coap.Confirmable, i, "t", "x").Append(nil))); err == nil {
				_, _ = l.Respond(start, in, coap.NonConfirmable, coap.Content, bytes.Repeat([]byte{1}, 100), nil)
			}
			l.Output()
		}
		if kept > 20_000 || kept != a.bytes+b.bytes {
			t.Fatalf("%d kept, %d and %d", kept, a.bytes, b.bytes)
		}
	}
}
