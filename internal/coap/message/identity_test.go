package message

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/oscorelay/oscorelay/internal/coap"
	"pgregory.net/rapid"
)

// letter is a message of the model's: whose it is, and whether it has ended.
type letter struct {
	name  string
	peer  string
	con   bool
	out   *Outgoing[string] // what Send returned, until the owner lets go of it
	mid   uint16
	known bool // it has gone out, under that message ID
	ended string
}

// opened is a request that its owner has not answered yet.
type opened struct {
	in    *Incoming[string]
	whose string
}

// office is one layer that uses messages again, with owners that hold on to
// them, and peers that say anything.
type office struct {
	*rapid.T
	l       *Layer[string]
	now     time.Time
	letters map[string]*letter
	held    []*letter
	open    []opened
	late    []Event[string] // verified later
	raw     [][]byte        // what peers have sent
	from    []string
	n       int
}

var peers = []string{"anna", "bert", "cora", "dora"}

// event checks what the layer tells of a message: it is the one that its owner
// holds, of that peer, and it had not ended.
func (o *office) event(ev Event[string]) {
	if ev.Kind == None || ev.Sent == nil {
		return
	}
	x, ok := ev.Sent.Tag.(*letter)
	if !ok {
		o.Fatalf("%v of a message without an owner: %+v", ev.Kind, ev.Sent)
	}
	if x.peer != ev.Peer || ev.Sent.Peer() != ev.Peer {
		o.Fatalf("kind %d: %s of %s is told of with %s", ev.Kind, x.name, x.peer, ev.Peer)
	}
	if x.out != ev.Sent {
		o.Fatalf("kind %d: %s is told of in another's place", ev.Kind, x.name)
	}
	if x.ended != "" {
		o.Fatalf("kind %d: %s has ended before: %s", ev.Kind, x.name, x.ended)
	}
	if ev.Kind == GaveUp || ev.Kind == Reset {
		x.ended = fmt.Sprint("kind ", ev.Kind)
	}
}

// collect checks what goes out: a message reaches its own peer alone, and none
// after its end.
func (o *office) collect() {
	for _, p := range o.l.Output() {
		d, err := coap.ParseDatagram(p.Data)
		if err != nil {
			o.Fatal(err)
		}
		name := payload(d)
		owner, _, _ := strings.Cut(name, "/")
		if name != "" && owner != p.Peer {
			o.Fatalf("%q goes to %s", name, p.Peer)
		}
		if x := o.letters[name]; x != nil {
			if x.ended != "" {
				o.Fatalf("%s goes out after its end: %s", name, x.ended)
			}
			x.mid, x.known = d.MessageID, true
		}
	}
}

func (o *office) let(x *letter, why string) {
	if x.ended == "" {
		x.ended = why
	}
	x.out = nil
	for i, y := range o.held {
		if y == x {
			o.held = append(o.held[:i], o.held[i+1:]...)
		}
	}
}

func (o *office) peer() string { return rapid.SampledFrom(peers).Draw(o.T, "peer") }

// send sends a message of the model's own.
func (o *office) send() {
	o.n++
	x := &letter{peer: o.peer(), con: rapid.Bool().Draw(o.T, "con")}
	x.name = fmt.Sprintf("%s/%d", x.peer, o.n)
	size := rapid.SampledFrom([]int{0, 50, 2000}).Draw(o.T, "size")
	name := x.name
	d := coap.Datagram{Type: coap.NonConfirmable, Code: coap.POST, Token: make([]byte, size), Body: coap.AppendPayload(nil, []byte(name))}
	if x.con {
		d.Type = coap.Confirmable
	}
	if rapid.Bool().Draw(o.T, "response") {
		d.Code = coap.Content
	}
	o.letters[name] = x
	out, err := o.l.Send(o.now, x.peer, d, x)
	if err != nil {
		x.ended = "refused"
		if !errors.Is(err, ErrFull) || out != nil {
			o.Fatal(err, out)
		}
		return
	}
	x.out = out
	o.held = append(o.held, x)
}

func (o *office) forget() {
	if len(o.held) == 0 {
		return
	}
	x := rapid.SampledFrom(o.held).Draw(o.T, "letter")
	o.l.Forget(o.now, x.out)
	if x.ended == "" {
		x.ended = "forgotten"
	}
	o.let(x, "")
}

// receive gives the layer an acknowledgement, a Reset or a response: for what
// went out, or at random, from its peer or another.
func (o *office) receive() {
	d := coap.Datagram{Type: rapid.SampledFrom([]coap.Type{coap.Acknowledgement, coap.Reset}).Draw(o.T, "type"), MessageID: uint16(rapid.IntRange(0, 65535).Draw(o.T, "mid"))}
	if d.Type == coap.Acknowledgement && rapid.Bool().Draw(o.T, "piggybacked") {
		d.Code = coap.Content
	}
	from := o.peer()
	if len(o.held) > 0 && rapid.IntRange(0, 9).Draw(o.T, "guess") > 0 {
		x := rapid.SampledFrom(o.held).Draw(o.T, "letter")
		d.MessageID = x.mid
		if rapid.IntRange(0, 4).Draw(o.T, "liar") > 0 {
			from = x.peer
		}
	}
	ev := o.l.Receive(o.now, from, d.Append(nil))
	o.event(ev)
	if ev.Kind == Response {
		o.late = append(o.late, ev)
	}
}

// ping answers what the layer asks a peer.
func (o *office) ping() {
	from := o.peer()
	if p := o.l.peers[from]; p != nil && p.reach.ping != nil {
		if ev := o.l.Receive(o.now, from, coap.Datagram{Type: coap.Reset, MessageID: p.reach.ping.mid}.Append(nil)); ev.Kind != None || ev.Sent != nil {
			o.Fatalf("%+v", ev)
		}
	}
}

// ask is a request of a peer, new or a copy.
func (o *office) ask() {
	var raw []byte
	from := o.peer()
	if len(o.raw) > 0 && rapid.Bool().Draw(o.T, "copy") {
		i := rapid.IntRange(0, len(o.raw)-1).Draw(o.T, "which")
		raw, from = o.raw[i], o.from[i]
	} else {
		o.n++
		raw = request(coap.Type(rapid.IntRange(0, 1).Draw(o.T, "type")), uint16(o.n%40), from, fmt.Sprint(o.n)).Append(nil)
		o.raw, o.from = append(o.raw, raw), append(o.from, from)
	}
	ev := o.l.Receive(o.now, from, raw)
	if ev.Kind == Request {
		o.late = append(o.late, ev)
	}
}

// verify accepts what came some time ago.
func (o *office) verify() {
	if len(o.late) == 0 {
		return
	}
	i := rapid.IntRange(0, len(o.late)-1).Draw(o.T, "event")
	ev := o.late[i]
	o.late = append(o.late[:i], o.late[i+1:]...)
	if ev.Kind == Request {
		in, err := o.l.AcceptRequest(o.now, ev)
		if err == nil {
			for _, x := range o.open {
				if x.in == in {
					o.Fatalf("a request of %s stands where one of %s is open", ev.Peer, x.whose)
				}
			}
			o.open = append(o.open, opened{in, ev.Peer})
		}
		return
	}
	x := ev.Sent.Tag // before it is ended; nil if its owner did that
	err := o.l.AcceptResponse(o.now, ev)
	if err != nil {
		return
	}
	if y, ok := x.(*letter); !ok || y.peer != ev.Peer || y.ended != "" {
		o.Fatalf("a response of %s is accepted for %+v", ev.Peer, x)
	}
	o.let(x.(*letter), "answered")
}

// answer answers or releases an open request; what it says is its peer's.
func (o *office) answer() {
	if len(o.open) == 0 {
		return
	}
	for _, x := range o.open {
		if x.in.Peer() != x.whose || string(x.in.Token()) != x.whose {
			o.Fatalf("a request of %s became one of %s with the token %q", x.whose, x.in.Peer(), x.in.Token())
		}
	}
	in, whose := o.open[0].in, o.open[0].whose
	o.open = o.open[1:]
	if rapid.Bool().Draw(o.T, "release") {
		o.l.Release(in)
		return
	}
	o.n++
	x := &letter{peer: whose, name: fmt.Sprintf("%s/%d", whose, o.n)}
	o.letters[x.name] = x
	body := coap.AppendPayload(make([]byte, 0, 2000), []byte(x.name))
	typ := coap.Type(rapid.IntRange(0, 1).Draw(o.T, "answer type"))
	var tag any
	if rapid.Bool().Draw(o.T, "tag") {
		tag = x
	}
	out, err := o.l.Respond(o.now, in, typ, coap.Content, body, tag)
	if err != nil && !errors.Is(err, ErrFull) {
		o.Fatal(err)
	}
	if out != nil && tag != nil {
		x.out = out
		o.held = append(o.held, x)
	} else if out != nil {
		out.Tag = x // so that what is told of it is checked
		x.out = out
	}
}

func (o *office) pass() {
	o.now = o.now.Add(rapid.SampledFrom([]time.Duration{time.Millisecond, time.Second, 3 * time.Second, 40 * time.Second, 300 * time.Second}).Draw(o.T, "time"))
	o.l.Advance(o.now, func(ev Event[string]) {
		o.collect() // what went out before
		o.event(ev)
		if x := ev.Sent.Tag.(*letter); rapid.Bool().Draw(o.T, "owner ends it") {
			o.l.Forget(o.now, x.out)
			o.let(x, "")
		}
		if rapid.IntRange(0, 9).Draw(o.T, "owner ends another") == 0 {
			o.forget()
		}
		if rapid.IntRange(0, 4).Draw(o.T, "owner sends") == 0 {
			o.send()
		}
	})
}

// check holds the tables against each other.
func (o *office) check() {
	l := o.l
	free := map[any]bool{}
	for _, x := range l.freeOut {
		if free[x] || x.state != done || x.held {
			o.Fatalf("a message to be used again is in use: %+v", x)
		}
		free[x] = true
	}
	for _, x := range l.freeIn {
		if free[x] || x.open {
			o.Fatalf("an accepted message to be used again is in use: %+v", x)
		}
		free[x] = true
	}
	for _, x := range o.open {
		if free[x.in] {
			o.Fatal("an open request is to be used again")
		}
	}
	under, received, bytes := 0, 0, 0
	for addr, p := range l.peers {
		if p.addr != addr || p.gone {
			o.Fatalf("%s stands at %s", p.addr, addr)
		}
		sent, flying := 0, 0
		for i, x := range p.slots {
			if x == nil {
				continue
			}
			if free[x] || x.state == done || x.peer != p || int(x.mid)&(len(p.slots)-1) != i {
				o.Fatalf("slot %d of %s: %+v", i, addr, x)
			}
			sent++
			bytes += overhead + len(x.data)
			if x.state == inFlight {
				flying++
			}
		}
		places := 0
		for _, in := range p.seen.places {
			for ; in != nil; in = in.chain {
				if free[in] || in.gone || in.peer != p {
					o.Fatalf("%s has seen %+v", addr, in)
				}
				places++
				bytes += overhead + len(in.token) + len(in.reply)
			}
		}
		held := 0
		for _, h := range p.reach.holding {
			held += len(h.data)
			if h.out != nil && (free[h.out] || !h.out.held) {
				o.Fatalf("held: %+v", h.out)
			}
		}
		if sent != p.sent || flying != p.flying || places != p.received.n || held != p.reach.heldOut {
			o.Fatalf("%s: %d sent, %d flying, %d received, %d held; counted %d, %d, %d, %d", addr, sent, flying, places, held, p.sent, p.flying, p.received.n, p.reach.heldOut)
		}
		under, received, bytes = under+sent, received+places, bytes+held
	}
	// What belongs to peers that had to go is counted, and ends in its time.
	if under > l.under || received != l.remembered || bytes > l.bytes || l.bytes > l.cfg.MaxBytes+maxHeld*4096 {
		o.Fatalf("%d under way, %d received, %d bytes; counted %d, %d, %d", under, received, bytes, l.under, l.remembered, l.bytes)
	}
	for i, r := range l.again {
		if r.out.index != i+1 || free[r.out] || r.out.state != inFlight {
			o.Fatalf("deadline %d: %+v", i, r.out)
		}
	}
}

const inFlight = flying

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// TestIdentity: messages that are used again, peers that lie, tables that are
// full, owners that end messages at any time, from callbacks too: no byte goes
// to another peer, no event tells of another message, and the tables agree.
func TestIdentity(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		cfg := Config{
			Reuse: true, ReuseIDs: true, NStart: rapid.IntRange(1, 3).Draw(t, "NSTART"),
			Amplification: rapid.SampledFrom([]int{0, 3}).Draw(t, "amplification"),
			MaxPeers:      rapid.IntRange(2, 5).Draw(t, "peers"), MaxReceived: rapid.IntRange(1, 10).Draw(t, "received"),
			MaxSent: rapid.IntRange(1, 20).Draw(t, "sent"), PeerSent: rapid.IntRange(1, 20).Draw(t, "sent to one"),
			MaxBytes: rapid.SampledFrom([]int{3000, 1 << 20}).Draw(t, "bytes"),
			Rand:     rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1)).Uint64,
		}
		o := &office{T: t, l: New[string](cfg), now: start, letters: map[string]*letter{}}
		act := func(f func()) func(*rapid.T) {
			return func(t *rapid.T) {
				o.T = t
				f()
				o.collect()
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"send": act(o.send), "forget": act(o.forget), "receive": act(o.receive), "ping": act(o.ping),
			"ask": act(o.ask), "verify": act(o.verify), "answer": act(o.answer), "pass": act(o.pass),
			"": func(t *rapid.T) { o.T = t; o.check() },
		})
		o.T = t
		for _, x := range o.open {
			o.l.Release(x.in)
		}
		for {
			next, ok := o.l.Next()
			if !ok {
				break
			}
			o.now = later(o.now, next)
			o.l.Advance(o.now, func(ev Event[string]) {
				o.collect()
				o.event(ev)
			})
			o.collect()
		}
		o.l.Advance(o.now.Add(2*o.l.lifetime), o.event)
		o.l.Advance(o.now.Add(4*o.l.lifetime), o.event)
		if p, r, s := o.l.Size(); p+r+s+o.l.bytes+len(o.l.again) != 0 {
			t.Fatalf("%d peers, %d received, %d sent, %d bytes are left", p, r, s, o.l.bytes)
		}
	})
}
