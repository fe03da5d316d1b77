package message

import (
	"container/heap"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/oscorelay/oscorelay/internal/coap"
	"pgregory.net/rapid"
)

// flight is a datagram or an action at its time.
type flight struct {
	at time.Time
	do func(now time.Time)
}

type flights []flight

func (f flights) Len() int           { return len(f) }
func (f flights) Less(i, j int) bool { return f[i].at.Before(f[j].at) }
func (f flights) Swap(i, j int)      { f[i], f[j] = f[j], f[i] }
func (f *flights) Push(x any)        { *f = append(*f, x.(flight)) }
func (f *flights) Pop() any          { x := (*f)[len(*f)-1]; *f = (*f)[:len(*f)-1]; return x }

// fate is what became of a request.
type fate struct {
	con                              bool
	delivered, answered, acked, lost int
}

// network is two layers with a network between them that loses, duplicates,
// delays, reorders and forges.
type network struct {
	t                *rapid.T
	r                *rand.Rand
	loss, dup, forge int // in 100
	delay            time.Duration
	queue            flights
	ends             [2]*Layer[string]
	fates            map[string]*fate
	now              time.Time
}

var names = [2]string{"client", "server"}

func (n *network) after(d time.Duration, do func(time.Time)) {
	heap.Push(&n.queue, flight{n.now.Add(d), do})
}

// flush puts what an end has to send onto the network.
func (n *network) flush(from int) {
	for _, p := range n.ends[from].Output() {
		data := p.Data
		for range 1 + n.times(n.dup) {
			if n.r.IntN(100) < n.loss {
				continue
			}
			n.after(time.Duration(n.r.Int64N(int64(n.delay))), func(now time.Time) { n.arrive(now, 1-from, data) })
		}
		// A forger sees the datagram and sends one with the same header first.
		if d, err := coap.ParseDatagram(data); err == nil && d.Code != coap.Empty && n.r.IntN(100) < n.forge {
			d.Body = coap.AppendPayload(nil, []byte("forged"))
			forged := d.Append(nil)
			n.after(0, func(now time.Time) { n.arrive(now, 1-from, forged) })
		}
	}
}

func (n *network) times(percent int) int {
	k := 0
	for n.r.IntN(100) < percent {
		k++
	}
	return k
}

func payload(d coap.Datagram) string {
	w := coap.Walk(d.Body)
	for w.Next() {
	}
	return string(w.Payload())
}

// arrive gives a datagram to an end, which verifies it after a while.
func (n *network) arrive(now time.Time, at int, data []byte) {
	l := n.ends[at]
	ev := l.Receive(now, names[1-at], data)
	n.flush(at)
	if ev.Kind != Request && ev.Kind != Response {
		n.event(ev)
		return
	}
	verify := func(now time.Time) {
		name := payload(ev.Message)
		if name == "forged" {
			return // does not verify: no trace
		}
		f := n.fates[name]
		if f == nil {
			n.t.Fatalf("%q was never sent", name)
		}
		if ev.Kind == Response {
			err := l.AcceptResponse(now, ev)
			switch {
			case err == nil:
				f.answered++
				if o, ok := n.outgoing(name); ok {
					l.Forget(now, o)
				}
			case !errors.Is(err, ErrDuplicate):
				n.t.Fatal(err)
			}
			n.flush(at)
			return
		}
		in, err := l.AcceptRequest(now, ev)
		if errors.Is(err, ErrDuplicate) {
			return
		}
		if err != nil {
			n.t.Fatal(err)
		}
		f.delivered++
		body := coap.AppendPayload(nil, []byte(name))
		n.after(time.Duration(n.r.Int64N(int64(3*time.Second))), func(now time.Time) {
			if _, err := l.Respond(now, in, coap.Confirmable, coap.Content, body, nil); err != nil {
				n.t.Fatal(err)
			}
			n.flush(at)
		})
	}
	if n.r.IntN(2) == 0 {
		verify(now)
	} else {
		n.after(time.Duration(n.r.Int64N(int64(50*time.Millisecond))), verify)
	}
}

// outgoing finds a request that is still under way.
func (n *network) outgoing(name string) (*Outgoing[string], bool) {
	p := n.ends[0].peers[names[1]]
	if p == nil {
		return nil, false
	}
	for _, o := range p.slots {
		if o != nil && o.Tag == name {
			return o, true
		}
	}
	return nil, false
}

func (n *network) event(ev Event[string]) {
	if ev.Sent == nil || ev.Sent.Tag == nil {
		return
	}
	f := n.fates[ev.Sent.Tag.(string)]
	switch ev.Kind {
	case Acknowledged:
		f.acked++
	case GaveUp:
		f.lost++
	case Reset:
		n.t.Fatal("reset of a request that nobody refused")
	}
}

// run lets time pass until nothing is left to do.
func (n *network) run() {
	for {
		next, which := time.Time{}, -1
		if len(n.queue) > 0 {
			next, which = n.queue[0].at, 2
		}
		for i, l := range n.ends {
			if at, ok := l.Next(); ok && (which < 0 || at.Before(next)) {
				next, which = at, i
			}
		}
		if which < 0 {
			return
		}
		if next.After(n.now) {
			n.now = next
		}
		if which == 2 {
			heap.Pop(&n.queue).(flight).do(n.now)
			continue
		}
		n.ends[which].Advance(n.now, n.event)
		n.flush(which)
	}
}

// TestRandomNetwork: whatever the network does, each request is accepted at
// most once, each response at most once, a confirmable request has a known end,
// with a network that loses nothing every request is answered, and nothing
// stays in memory.
func TestRandomNetwork(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := &network{
			t: t, r: rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1)),
			loss: rapid.SampledFrom([]int{0, 0, 10, 40, 80}).Draw(t, "loss"), dup: rapid.IntRange(0, 60).Draw(t, "duplication"),
			forge: rapid.SampledFrom([]int{0, 30, 100}).Draw(t, "forgery"),
			delay: rapid.SampledFrom([]time.Duration{time.Millisecond, time.Second, 20 * time.Second}).Draw(t, "delay"),
			fates: map[string]*fate{}, now: start,
		}
		cfg := Config{NStart: rapid.IntRange(1, 4).Draw(t, "NSTART"), Rand: n.r.Uint64}
		cfg.Reuse = rapid.Bool().Draw(t, "reuse")
		n.ends[0] = New[string](cfg)
		cfg.Amplification = rapid.SampledFrom([]int{0, 1, 3}).Draw(t, "amplification")
		n.ends[1] = New[string](cfg)
		for i := range rapid.IntRange(1, 30).Draw(t, "requests") {
			name := fmt.Sprint("request ", i)
			f := &fate{con: n.r.IntN(3) > 0}
			n.fates[name] = f
			n.after(time.Duration(n.r.Int64N(int64(20*time.Second))), func(now time.Time) {
				typ := coap.NonConfirmable
				if f.con {
					typ = coap.Confirmable
				}
				if _, err := n.ends[0].Send(now, names[1], request(typ, 0, name, name), name); err != nil {
					t.Fatal(err)
				}
				n.flush(0)
			})
		}
		n.run()
		for name, f := range n.fates {
			if f.delivered > 1 || f.answered > 1 || f.lost > 1 || f.answered > f.delivered {
				t.Fatalf("%s: %+v", name, *f)
			}
			if f.con && f.answered+f.acked+f.lost == 0 {
				t.Fatalf("%s came to no end: %+v", name, *f)
			}
			if n.loss == 0 && f.answered != 1 {
				t.Fatalf("%s is not answered though nothing was lost: %+v", name, *f)
			}
		}
		for i, l := range n.ends {
			l.Advance(n.now.Add(2*l.lifetime), func(Event[string]) {})
			l.Advance(n.now.Add(4*l.lifetime), func(Event[string]) {})
			if p, r, s := l.Size(); p+r+s+l.bytes+len(l.again)+l.delayed.n+l.ending[0].n+l.ending[1].n+l.ending[2].n+l.order.n+l.byAge[0].n+l.byAge[1].n+l.under != 0 {
				t.Fatalf("%s keeps %d peers, %d received, %d sent, %d bytes", names[i], p, r, s, l.bytes)
			}
		}
	})
}
