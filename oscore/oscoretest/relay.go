package oscoretest

import (
	"bytes"
	"slices"
	"time"

	"github.com/oscorelay/oscorelay/internal/coap"
	"github.com/oscorelay/oscorelay/oscore"
)

// Direction says which way a message goes.
type Direction int

// The two directions.
const (
	ToServer Direction = iota
	ToClient
)

// Packet is a message on the wire, as an intermediary has it.
type Packet struct {
	Direction Direction
	Token     []byte
	Message   oscore.Message

	wait time.Duration // Delay
}

// IsRequest reports whether the outer code is a request's.
func (p Packet) IsRequest() bool { return coap.Code(p.Message.Code).IsRequest() }

// IsResponse reports whether the outer code is a response's.
func (p Packet) IsResponse() bool { return coap.Code(p.Message.Code).IsResponse() }

// Protected reports whether the message has an OSCORE option.
func (p Packet) Protected() bool {
	_, ok := coap.Find(p.Message.Body, coap.OSCORE)
	return ok
}

// Outer takes the message apart as far as an intermediary can.
func (p Packet) Outer() Message { return decode(p.Message) }

// Shows reports whether a text stands readable in the message.
func (p Packet) Shows(text string) bool {
	return bytes.Contains(p.Message.Body, []byte(text)) || bytes.Contains(p.Token, []byte(text))
}

// Bits is the number of bits that [Flip] can change.
func (p Packet) Bits() int { return 8 * (1 + len(p.Message.Body)) }

func (p Packet) clone() Packet {
	p.Token, p.Message.Body = bytes.Clone(p.Token), bytes.Clone(p.Message.Body)
	return p
}

// Relay is the hostile intermediary. It passes everything until it is told
// otherwise.
type Relay struct {
	pair    *Pair
	scripts [2]Script
	capture []Packet
	queue   []Packet
	late    []latePacket
}

type latePacket struct {
	at time.Time
	Packet
}

// To puts a script in place for a direction; nil passes everything.
func (r *Relay) To(d Direction, s Script) { r.scripts[d] = s }

// Reset passes everything again, both ways. What is delayed stays so.
func (r *Relay) Reset() { r.scripts = [2]Script{} }

// Capture returns every message that an end has sent, in order, unchanged.
func (r *Relay) Capture() []Packet {
	out := slices.Clone(r.capture)
	for i := range out {
		out[i] = out[i].clone()
	}
	return out
}

// Last returns the last message captured in a direction; ok is false if there
// is none.
func (r *Relay) Last(d Direction) (p Packet, ok bool) {
	for i := len(r.capture) - 1; i >= 0; i-- {
		if r.capture[i].Direction == d {
			return r.capture[i].clone(), true
		}
	}
	return Packet{}, false
}

// Deliver brings messages to the end that their direction says, past the
// script, and whatever comes of them: a captured one again, a dropped one late, a
// forged one.
func (r *Relay) Deliver(packets ...Packet) {
	for _, p := range packets {
		p.wait = 0
		r.queue = append(r.queue, p.clone())
	}
	r.run()
}

// send takes a message from an end.
func (r *Relay) send(p Packet) {
	r.capture = append(r.capture, p.clone())
	out := []Packet{p}
	if s := r.scripts[p.Direction]; s != nil {
		out = s(p.clone())
	}
	for _, p := range out {
		if p.wait > 0 {
			at := r.pair.now.Add(p.wait)
			p.wait = 0
			r.late = append(r.late, latePacket{at, p})
			continue
		}
		r.queue = append(r.queue, p)
	}
}

// run delivers until nothing is under way.
func (r *Relay) run() {
	r.pair.t.Helper()
	for n := 0; len(r.queue) > 0; n++ {
		if n == maxDeliveries {
			r.pair.t.Fatalf("oscoretest: %d messages, and still more: does a script answer itself?", n)
		}
		p := r.queue[0]
		r.queue = r.queue[1:]
		if p.Direction == ToServer {
			r.pair.Server.receive(p)
		} else {
			r.pair.Client.receive(p)
		}
	}
}

const maxDeliveries = 1 << 20

// due queues what was delayed until now, the earliest first.
func (r *Relay) due() {
	slices.SortStableFunc(r.late, func(a, b latePacket) int { return a.at.Compare(b.at) })
	for len(r.late) > 0 && !r.late[0].at.After(r.pair.now) {
		r.queue = append(r.queue, r.late[0].Packet)
		r.late = r.late[1:]
	}
}
