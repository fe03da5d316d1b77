package message

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/oscorelay/oscorelay/internal/coap"
)

var start = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

func request(typ coap.Type, mid uint16, token, payload string) coap.Datagram {
	return coap.Datagram{Type: typ, Code: coap.POST, MessageID: mid, Token: []byte(token), Body: coap.AppendPayload(nil, []byte(payload))}
}

func seeded(n uint64) func() uint64 { return rand.New(rand.NewPCG(n, 0)).Uint64 }

// parse decodes what a layer sent.
func parse(t *testing.T, p Packet[string]) coap.Datagram {
	t.Helper()
	d, err := coap.ParseDatagram(p.Data)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// one returns the only datagram in the output.
func one(t *testing.T, l *Layer[string]) coap.Datagram {
	t.Helper()
	out := l.Output()
	if len(out) != 1 {
		t.Fatalf("%d datagrams, want 1", len(out))
	}
	return parse(t, out[0])
}

func none(t *testing.T, l *Layer[string]) {
	t.Helper()
	if out := l.Output(); len(out) != 0 {
		t.Fatalf("unexpected output %x", out)
	}
}

func noEvent(t *testing.T) func(Event[string]) {
	return func(ev Event[string]) { t.Fatalf("unexpected event %+v", ev) }
}

// TestDefaults: the values that RFC 7252 §4.8.2 derives.
func TestDefaults(t *testing.T) {
	var c Config
	for name, v := range map[string][2]time.Duration{
		"MAX_TRANSMIT_SPAN": {c.MaxTransmitSpan(), 45 * time.Second},
		"MAX_TRANSMIT_WAIT": {c.MaxTransmitWait(), 93 * time.Second},
		"EXCHANGE_LIFETIME": {c.ExchangeLifetime(), 247 * time.Second},
		"NON_LIFETIME":      {c.NonLifetime(), 145 * time.Second},
	} {
		if v[0] != v[1] {
			t.Errorf("%s is %v, want %v", name, v[0], v[1])
		}
	}
}

// TestBackoff: five transmissions, each interval twice the last, the first
// between ACK_TIMEOUT and 1.5 times it; then the loss is reported (§4.2).
func TestBackoff(t *testing.T) {
	for seed := range uint64(50) {
		l := New[string](Config{Rand: seeded(seed)})
		o, err := l.Send(start, "s", request(coap.Confirmable, 0, "t", "x"), "tag")
		if err != nil {
			t.Fatal(err)
		}
		first := l.Output()[0].Data
		var at []time.Duration
		gaveUp := false
		for !gaveUp {
			next, ok := l.Next()
			if !ok {
				t.Fatal("neither sent again nor given up")
			}
			l.Advance(next, func(ev Event[string]) {
				if ev.Kind != GaveUp || ev.Sent != o || ev.Sent.Tag != "tag" {
					t.Fatalf("event %+v", ev)
				}
				gaveUp = true
			})
			at = append(at, next.Sub(start))
			for _, p := range l.Output() {
				if !bytes.Equal(p.Data, first) {
					t.Fatal("retransmission differs from the first transmission")
				}
			}
		}
		if len(at) != 5 || at[0] < 2*time.Second || at[0] > 3*time.Second {
			t.Fatalf("deadlines %v", at)
		}
		for i := range at {
			if want := at[0] * time.Duration(int(2)<<i-1); at[i] != want {
				t.Fatalf("deadline %d at %v, want %v", i, at[i], want)
			}
		}
		if _, _, sent := l.Size(); sent != 0 || l.bytes != 0 {
			t.Fatalf("%d messages, %d bytes kept after giving up", sent, l.bytes)
		}
	}
}

// TestForgedRequestLeavesNoTrace: a datagram with the genuine message ID and
// token that does not verify changes nothing for the genuine one.
func TestForgedRequestLeavesNoTrace(t *testing.T) {
	l := New[string](Config{})
	forged := request(coap.Confirmable, 7, "tk", "forged").Append(nil)
	genuine := request(coap.Confirmable, 7, "tk", "genuine").Append(nil)
	if ev := l.Receive(start, "c", forged); ev.Kind != Request {
		t.Fatalf("%+v", ev)
	}
	if p, r, s := l.Size(); p+r+s != 0 {
		t.Fatalf("a datagram that was not accepted left %d, %d, %d", p, r, s)
	}
	ev := l.Receive(start, "c", genuine)
	in, err := l.AcceptRequest(start, ev)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.AcceptRequest(start, ev); !errors.Is(err, ErrDuplicate) {
		t.Fatalf("second acceptance: %v", err)
	}
	none(t, l)
	if _, err := l.Respond(start, in, coap.Confirmable, coap.Content, nil, nil); err != nil {
		t.Fatal(err)
	}
	if d := one(t, l); d.Type != coap.Acknowledgement || d.MessageID != 7 || string(d.Token) != "tk" || d.Code != coap.Content {
		t.Fatalf("%+v", d)
	}
	if ev := l.Receive(start, "c", genuine); ev.Kind != None || !errors.Is(ev.Err, ErrDuplicate) {
		t.Fatalf("%+v", ev)
	}
	if d := one(t, l); d.Code != coap.Content {
		t.Fatalf("a duplicate was answered with %+v", d)
	}
	if ev := l.Receive(start, "c", forged); ev.Kind != Request {
		t.Fatal("another message with the message ID of an accepted one is no duplicate of it")
	}
	if ev := l.Receive(start, "other", genuine); ev.Kind != Request {
		t.Fatal("the same bytes from another peer are no duplicate")
	}
	if ev := l.Receive(start.Add(l.lifetime), "c", genuine); ev.Kind != Request {
		t.Fatal("remembered beyond EXCHANGE_LIFETIME")
	}
}

// TestForgedResponseLeavesNoTrace: a piggybacked response that is not accepted
// does not end the retransmission, and a forged empty acknowledgement does not
// shut out the genuine response.
func TestForgedResponseLeavesNoTrace(t *testing.T) {
	l := New[string](Config{})
	o, err := l.Send(start, "s", request(coap.Confirmable, 0, "t", "x"), nil)
	if err != nil {
		t.Fatal(err)
	}
	mid := one(t, l).MessageID
	answer := coap.Datagram{Type: coap.Acknowledgement, Code: coap.Content, MessageID: mid, Token: []byte("t")}.Append(nil)
	if ev := l.Receive(start, "s", answer); ev.Kind != Response || ev.Sent != o {
		t.Fatalf("%+v", ev)
	}
	at, _ := l.Next()
	l.Advance(at, noEvent(t))
	one(t, l) // still retransmitted
	if ev := l.Receive(at, "s", coap.Datagram{Type: coap.Acknowledgement, MessageID: mid}.Append(nil)); ev.Kind != Acknowledged {
		t.Fatalf("%+v", ev)
	}
	ev := l.Receive(at, "s", answer)
	if err := l.AcceptResponse(at, ev); err != nil {
		t.Fatal(err)
	}
	if err := l.AcceptResponse(at, ev); !errors.Is(err, ErrDuplicate) {
		t.Fatal(err)
	}
	if ev := l.Receive(at, "s", answer); ev.Kind != None {
		t.Fatal("delivered twice")
	}
}

// TestSeparate: an answer that takes longer than AckDelay travels on its own
// (§5.2.2), and a duplicate of the request gets the empty acknowledgement.
func TestSeparate(t *testing.T) {
	l := New[string](Config{})
	raw := request(coap.Confirmable, 7, "tk", "x").Append(nil)
	in, err := l.AcceptRequest(start, l.Receive(start, "c", raw))
	if err != nil {
		t.Fatal(err)
	}
	at, _ := l.Next()
	if at != start.Add(500*time.Millisecond) {
		t.Fatalf("acknowledged at %v", at)
	}
	l.Advance(at, noEvent(t))
	if d := one(t, l); d.Type != coap.Acknowledgement || d.Code != coap.Empty || d.MessageID != 7 {
		t.Fatalf("%+v", d)
	}
	l.Receive(at, "c", raw)
	if d := one(t, l); d.Code != coap.Empty || d.Type != coap.Acknowledgement {
		t.Fatalf("%+v", d)
	}
	o, err := l.Respond(at, in, coap.Confirmable, coap.Content, nil, nil)
	if err != nil || o == nil {
		t.Fatal(o, err)
	}
	d := one(t, l)
	if d.Type != coap.Confirmable || string(d.Token) != "tk" {
		t.Fatalf("%+v", d)
	}
	if ev := l.Receive(at, "c", coap.Datagram{Type: coap.Reset, MessageID: d.MessageID}.Append(nil)); ev.Kind != Reset || ev.Sent != o {
		t.Fatalf("%+v", ev)
	}
}

// TestMalformed: what cannot be understood is reset if it was confirmable, and
// ignored otherwise (§4.2, §4.3); a ping is answered.
func TestMalformed(t *testing.T) {
	for name, c := range map[string]struct {
		raw   []byte
		reset bool
	}{
		"ping":                    {[]byte{0x40, 0, 1, 2}, true},
		"empty NON":               {[]byte{0x50, 0, 1, 2}, false},
		"not CoAP":                {[]byte{0xff, 0, 1, 2}, false},
		"three bytes":             {[]byte{0x40, 0, 1}, false},
		"CON, token length 15":    {[]byte{0x4f, 1, 1, 2}, true},
		"NON, token length 15":    {[]byte{0x5f, 1, 1, 2}, false},
		"CON, marker, no payload": {[]byte{0x40, 1, 1, 2, 0xff}, true},
		"CON, option cut short":   {[]byte{0x40, 1, 1, 2, 0xb5, 'a'}, true},
		"CON, reserved class 1":   {[]byte{0x40, 0x21, 1, 2}, true},
		"CON, signal":             {[]byte{0x40, 0xe1, 1, 2}, true},
		"ACK out of nowhere":      {[]byte{0x60, 0x45, 1, 2}, false},
		"RST out of nowhere":      {[]byte{0x70, 0, 1, 2}, false},
	} {
		t.Run(name, func(t *testing.T) {
			l := New[string](Config{})
			if ev := l.Receive(start, "c", c.raw); ev.Kind != None {
				t.Fatalf("%+v", ev)
			}
			if c.reset {
				if d := one(t, l); d.Type != coap.Reset || d.Code != coap.Empty || d.MessageID != 0x0102 {
					t.Fatalf("%+v", d)
				}
			} else {
				none(t, l)
			}
			if p, r, s := l.Size(); p+r+s != 0 {
				t.Fatal("left a trace")
			}
		})
	}
}

// TestNStart: the second confirmable message waits for the first (§4.7).
func TestNStart(t *testing.T) {
	l := New[string](Config{})
	for i := range 3 {
		if _, err := l.Send(start, "s", request(coap.Confirmable, 0, fmt.Sprint(i), "x"), nil); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 3 {
		d := one(t, l)
		if string(d.Token) != fmt.Sprint(i) {
			t.Fatalf("token %q in turn %d", d.Token, i)
		}
		l.Receive(start, "s", coap.Datagram{Type: coap.Acknowledgement, MessageID: d.MessageID}.Append(nil))
	}
	none(t, l)
}

// TestMessageIDs: none is used twice toward a peer within EXCHANGE_LIFETIME
// (§4.4), and all come back after it.
func TestMessageIDs(t *testing.T) {
	l := New[string](Config{Rand: func() uint64 { return 0x1234 }})
	seen := map[uint16]bool{}
	send := func(now time.Time) error {
		o, err := l.Send(now, "s", request(coap.NonConfirmable, 0, "", "x"), "tag")
		if err == nil {
			seen[o.mid] = true
			l.Forget(now, o)
		}
		l.Output()
		return err
	}
	n := 0
	for ; ; n++ {
		if err := send(start); err != nil {
			if !errors.Is(err, ErrNoMessageID) {
				t.Fatal(err)
			}
			break
		}
	}
	if n != len(seen) || n < 65536-256 {
		t.Fatalf("%d messages with %d IDs", n, len(seen))
	}
	if err := send(start.Add(l.lifetime)); !errors.Is(err, ErrNoMessageID) {
		t.Fatal(err)
	}
	if err := send(start.Add(l.lifetime + 3*time.Second)); err != nil {
		t.Fatal(err)
	}
	l = New[string](Config{ReuseIDs: true})
	for range 1 << 17 {
		if err := send(start); err != nil {
			t.Fatal(err)
		}
	}
}

// TestBounds: a peer that sends without end, and peers without end, cost no
// more than the limits.
func TestBounds(t *testing.T) {
	l := New[string](Config{MaxPeers: 10, MaxReceived: 40, PeerReceived: 8, MaxSent: 20, PeerSent: 5, MaxBytes: 12_000})
	full := 0
	for i := range 5000 {
		peer := fmt.Sprint(i % 50)
		ev := l.Receive(start, peer, request(coap.Type(i%2), uint16(i), "tok", "payload").Append(nil))
		in, err := l.AcceptRequest(start, ev)
		if err == nil {
			_, err = l.Respond(start, in, coap.Confirmable, coap.Content, make([]byte, 100), nil)
		}
		if err != nil {
			if !errors.Is(err, ErrFull) {
				t.Fatal(err)
			}
			full++
		}
		if p, r, s := l.Size(); p > 10 || r > 40 || s > 20 || l.bytes > 12_000 {
			t.Fatalf("%d peers, %d received, %d sent, %d bytes", p, r, s, l.bytes)
		}
		l.Output()
	}
	if full == 0 {
		t.Fatal("nothing was refused")
	}
	for range 100 {
		if at, ok := l.Next(); ok {
			l.Advance(at, func(Event[string]) {})
		}
	}
	l.Advance(start.Add(2*l.lifetime), func(Event[string]) {})
	l.Advance(start.Add(4*l.lifetime), func(Event[string]) {})
	if p, r, s := l.Size(); p+r+s+l.bytes+len(l.again)+l.delayed.n+l.ending[0].n+l.ending[1].n+l.ending[2].n+l.order.n+l.under != 0 {
		t.Fatalf("%d peers, %d received, %d sent, %d bytes after their lifetime", p, r, s, l.bytes)
	}
}

// FuzzReceive: no datagram makes a layer panic, answer with more than it got,
// or remember what was not accepted.
func FuzzReceive(f *testing.F) {
	f.Add([]byte{0x40, 1, 1, 2}, []byte{0x60, 0x45, 0, 0})
	f.Add([]byte{0x51, 2, 1, 2, 9, 0xff, 1}, []byte{0x70, 0, 0, 0})
	f.Fuzz(func(t *testing.T, a, b []byte) {
		l := New[string](Config{Rand: func() uint64 { return 0 }})
		if _, err := l.Send(start, "p", request(coap.Confirmable, 0, "t", "x"), nil); err != nil {
			t.Fatal(err)
		}
		l.Output()
		for _, raw := range [][]byte{a, b, a} {
			ev := l.Receive(start, "p", raw)
			if _, r, _ := l.Size(); r != 0 {
				t.Fatal("remembered what was not accepted")
			}
			out := l.Output()
			if len(out) > 1 || len(out) == 1 && len(out[0].Data) > len(raw) {
				t.Fatalf("%x answered with %x", raw, out)
			}
			if ev.Kind == Request && (!ev.Message.Code.IsRequest() || ev.Message.Type > coap.NonConfirmable) {
				t.Fatalf("%+v", ev)
			}
		}
		for _, raw := range [][]byte{a, b} {
			switch ev := l.Receive(start, "p", raw); ev.Kind {
			case Request:
				if in, err := l.AcceptRequest(start, ev); err == nil {
					_, _ = l.Respond(start, in, coap.Confirmable, coap.Content, nil, nil)
				}
			case Response:
				_ = l.AcceptResponse(start, ev)
			}
		}
		for range 20 {
			if at, ok := l.Next(); ok {
				l.Advance(at, func(Event[string]) {})
			}
		}
	})
}
