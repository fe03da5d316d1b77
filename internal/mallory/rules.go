package mallory

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/oscorelay/oscorelay/internal/coap"
)

// Out is a datagram to be sent on.
type Out struct {
	Direction Direction
	Client    string
	Data      []byte
	After     time.Duration
}

// Rules is a script that was read by [ParseRules]. A datagram goes through the
// rules from top to bottom; what one makes of it goes to the next. It is safe
// for concurrent use.
type Rules struct {
	Replays []Replay

	mu    sync.Mutex
	rules []*rule
	rand  *rand.Rand
	held  map[string][]Out
	late  func(Out) // sends what a timer lets go
}

func newRules() *Rules {
	r := &Rules{held: map[string][]Out{}, late: func(Out) {}}
	r.seed(1)
	return r
}

func (r *Rules) seed(n uint64) { r.rand = rand.New(rand.NewPCG(n, 0)) }

// Apply gives what is to be sent on for a datagram, and the lines of the rules
// that did something to it.
func (r *Rules) Apply(p Packet) (outs []Out, lines []int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	outs = []Out{{Direction: p.Direction, Client: p.Client, Data: p.Data}}
	for _, one := range r.rules {
		var next []Out
		acted := false
		for _, o := range outs {
			if !one.matches(o) {
				next = append(next, o)
				continue
			}
			acted = true
			next = append(next, one.do(o)...)
			next = next[:min(len(next), maxCopies)] // rules multiply
		}
		if acted {
			lines = append(lines, one.line)
		}
		outs = next
	}
	return outs, lines
}

// Release gives what a rule with the action hold kept back under a name.
func (r *Rules) Release(name string) []Out {
	r.mu.Lock()
	defer r.mu.Unlock()
	outs := r.held[name]
	delete(r.held, name)
	return outs
}

// rule is one line.
type rule struct {
	line  int
	r     *Rules
	which func(o Out, m *parsed) bool
	conds []func(o Out, m *parsed) bool
	// Of the datagrams that the conditions fit, these.
	nth, every, first int
	chance            float64
	seen              int
	do                func(o Out) []Out
}

// parsed is a datagram taken apart; ok is false if it is none.
type parsed struct {
	coap.Datagram
	opts    coap.Options
	payload []byte
	ok      bool
}

func (r *rule) matches(o Out) bool {
	m := &parsed{}
	m.Datagram, m.opts, m.payload, m.ok = Parse(o.Data)
	if !r.which(o, m) {
		return false
	}
	for _, c := range r.conds {
		if !c(o, m) {
			return false
		}
	}
	r.seen++
	switch {
	case r.nth > 0 && r.seen != r.nth, r.every > 0 && r.seen%r.every != 0, r.first > 0 && r.seen > r.first:
		return false
	case r.chance > 0:
		return r.r.rand.Float64() < r.chance
	}
	return true
}

// whiches are the words after on.
var whiches = map[string]func(o Out, m *parsed) bool{
	"any":       func(Out, *parsed) bool { return true },
	"to-server": func(o Out, _ *parsed) bool { return o.Direction == ToServer },
	"to-client": func(o Out, _ *parsed) bool { return o.Direction == ToClient },
	"request":   func(_ Out, m *parsed) bool { return m.ok && m.Code.IsRequest() },
	"response":  func(_ Out, m *parsed) bool { return m.ok && m.Code.IsResponse() },
	"empty":     func(_ Out, m *parsed) bool { return m.ok && m.Code == coap.Empty },
}

func (r *rule) parse(p *words) (err error) {
	w, err := p.want("which datagrams: any, to-server, to-client, request, response or empty", "on")
	if err != nil {
		return err
	}
	if r.which = whiches[w.text]; r.which == nil {
		return fmt.Errorf("on: unknown word %q: there are any, to-server, to-client, request, response and empty", w.text)
	}
	for {
		w, ok := p.next()
		if !ok {
			return fmt.Errorf("there is no action: write do and one of %s", actionNames)
		}
		if w.text == "do" {
			return r.parseAction(p)
		}
		if err := r.condition(w.text, p); err != nil {
			return err
		}
	}
}

func (r *rule) when(f func(o Out, m *parsed) bool) { r.conds = append(r.conds, f) }

// condition reads what a word demands.
func (r *rule) condition(name string, p *words) (err error) {
	switch name {
	case "sealed", "plain":
		r.when(func(o Out, m *parsed) bool {
			_, sealed := m.opts.Get(coap.OSCORE)
			return m.ok && m.Code != coap.Empty && sealed == (name == "sealed")
		})
	case "code":
		var c coap.Code
		c, err = p.code(name)
		r.when(func(_ Out, m *parsed) bool { return m.ok && m.Code == c })
	case "type":
		var t coap.Type
		t, err = p.messageType(name)
		r.when(func(_ Out, m *parsed) bool { return m.ok && m.Type == t })
	case "option":
		var n uint16
		n, err = p.option(name)
		r.when(func(_ Out, m *parsed) bool {
			_, ok := m.opts.Get(n)
			return m.ok && ok
		})
	case "token":
		var b []byte
		b, err = p.hex(name)
		r.when(func(_ Out, m *parsed) bool { return m.ok && bytes.Equal(m.Token, b) })
	case "kid":
		var b []byte
		b, err = p.hex(name)
		r.when(func(_ Out, m *parsed) bool {
			kid, _, ok := sender(m.opts)
			return ok && kid != nil && bytes.Equal(kid, b)
		})
	case "piv":
		var n int
		n, err = p.number(name, 0, 1<<40-1)
		r.when(func(_ Out, m *parsed) bool {
			_, piv, ok := sender(m.opts)
			return ok && piv == int64(n)
		})
	case "nth":
		r.nth, err = p.number(name, 1, 1<<31)
	case "every":
		r.every, err = p.number(name, 1, 1<<31)
	case "first":
		r.first, err = p.number(name, 1, 1<<31)
	case "chance":
		var n int
		if n, err = p.number(name, 1, 100); err == nil {
			r.chance = float64(n) / 100
		}
	default:
		return fmt.Errorf("unknown condition %q: there are sealed, plain, code, type, option, token, kid, piv, nth, every, first and chance; an action stands after do", name)
	}
	return err
}

// sender reads kid and Partial IV of an OSCORE option (RFC 8613 §6.1): -1 for no
// Partial IV.
func sender(opts coap.Options) (kid []byte, piv int64, ok bool) {
	v, ok := opts.Get(coap.OSCORE)
	if !ok || len(v) == 0 {
		return nil, -1, ok
	}
	flags, rest := v[0], v[1:]
	n := int(flags & 7)
	if n > 5 || len(rest) < n {
		return nil, -1, false
	}
	piv = -1
	if n > 0 {
		piv = 0
		for _, b := range rest[:n] {
			piv = piv<<8 | int64(b)
		}
	}
	rest = rest[n:]
	if flags&0x10 != 0 {
		if len(rest) < 1 || len(rest) < 1+int(rest[0]) {
			return nil, piv, false
		}
		rest = rest[1+int(rest[0]):]
	}
	if flags&8 != 0 {
		kid = append([]byte{}, rest...) // present, maybe empty
	}
	return kid, piv, true
}
