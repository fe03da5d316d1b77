package handshake

import (
	"errors"
	"testing"
	"time"

	"github.com/oscorelay/oscorelay/internal/coap"
	"github.com/oscorelay/oscorelay/keys"
	"github.com/oscorelay/oscorelay/oscore"
)

// hostilePath is a server, two clients that it knows, and between them a path
// that does to their messages what a script says.
type hostilePath struct {
	t         testing.TB
	server    *party
	clients   [2]*party
	now       time.Time
	running   []*leg
	captured  []oscore.Message
	agreed    map[string]bool // OSCORE secrets of the clients' sessions, by peer name
	maxServer int
}

// leg is a handshake under way with its next request.
type leg struct {
	o    *Outgoing
	who  int
	next oscore.Message
}

var clientNames = [2]string{"device", "meter"}

func newHostilePath(t testing.TB) *hostilePath {
	p := &hostilePath{t: t, now: start, agreed: map[string]bool{}, maxServer: 4}
	p.server = newParty(t, "server", 0x0a, func(c *Config) {
		c.MaxSessions, c.Rate, c.RateTotal, c.OfferMessage4 = p.maxServer, 1e6, 1e6, true
		c.Established = func(e keys.Entry) error {
			if !p.agreed[e.Name+string(e.Params.MasterSecret)] {
				t.Errorf("the server has a context with %q that the client has not", e.Name)
			}
			return nil
		}
	})
	for i, name := range clientNames {
		p.clients[i] = newParty(t, name, byte(0x11+i), nil)
		if err := errors.Join(p.clients[i].store.Pin("server", p.server.id.Credential), p.server.store.Pin(name, p.clients[i].id.Credential)); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

// step feeds an answer to a handshake and takes its next request; what a client
// agreed on is noted before the server can learn of it.
func (p *hostilePath) step(l *leg, answer oscore.Message) {
	m, more, err := l.o.Next(p.now, false, answer)
	if s := l.o.Session(); s != nil {
		if e, err := s.Exported(); err == nil {
			p.agreed[Prefix+clientNames[l.who]+string(e.MasterSecret)] = true
		}
	}
	switch {
	case err != nil:
		p.drop(l)
	case more:
		l.next = m
		p.captured = append(p.captured, m)
	case l.o.Pending():
		peer, ok := p.clients[l.who].ring.Get(l.o.Name())
		if !ok {
			p.t.Fatal("a handshake is over and its context is not there")
		}
		var pending oscore.Pending
		sealed, err := peer.SealRequest(nil, &pending, oscore.Message{Code: byte(coap.GET)})
		if err != nil { // a later handshake has taken its place
			p.drop(l)
			return
		}
		if l.next, ok, err = l.o.Combine(sealed); err != nil || !ok {
			p.t.Fatal(ok, err)
		}
		p.captured = append(p.captured, l.next)
	default:
		l.o.Confirm()
		p.forget(l)
	}
}

func (p *hostilePath) drop(l *leg) {
	l.o.Close()
	p.forget(l)
}

func (p *hostilePath) forget(l *leg) {
	for i, x := range p.running {
		if x == l {
			p.running = append(p.running[:i:i], p.running[i+1:]...)
			return
		}
	}
}

// deliver has the server answer a request, combined ones too; ok is false for
// these if they came through.
func (p *hostilePath) deliver(from string, m oscore.Message) (answer oscore.Message, ok bool) {
	opts, _, err := coap.Split(m.Body)
	if err != nil {
		return answer, false
	}
	if _, combined := opts.Get(coap.EDHOC); !combined {
		return p.server.ask(p.now, from, false, m), true
	}
	done := make(chan struct{})
	p.server.ServeCombined(p.now, from, m, func(oscore.Message) { close(done) }, func(m oscore.Message) { answer, ok = m, true; close(done) })
	<-done
	return answer, ok
}

// flip changes a bit of the payload.
func flip(m oscore.Message, at byte) oscore.Message {
	opts, payload, err := coap.Split(m.Body)
	if err != nil || len(payload) == 0 {
		return m
	}
	payload = append([]byte{}, payload...)
	payload[int(at)%len(payload)] ^= 1 << (at % 8)
	return oscore.Message{Code: m.Code, Body: coap.AppendBody(nil, opts, payload)}
}

// splice puts one message's payload, behind its first byte, after another's.
func splice(a, b oscore.Message) oscore.Message {
	opts, first, err := coap.Split(a.Body)
	_, second, berr := coap.Split(b.Body)
	if err != nil || berr != nil || len(first) == 0 || len(second) == 0 {
		return a
	}
	return oscore.Message{Code: a.Code, Body: coap.AppendBody(nil, opts, append([]byte{first[0]}, second[1:]...))}
}

// run follows a script of three bytes a move: what, of whom, where.
func (p *hostilePath) run(script []byte) {
	const elsewhere = "198.51.100.7:40000"
	for ; len(script) >= 3; script = script[3:] {
		what, whom, where := script[0]%9, int(script[1]), script[2]
		if what == 0 {
			if len(p.running) == 8 {
				continue
			}
			l := &leg{who: whom % 2}
			l.o = to(p.t, p.clients[l.who], Peer{Name: "server", Combined: where&1 != 0, Message4: where&3 == 2})
			p.running = append(p.running, l)
			p.step(l, oscore.Message{})
			continue
		}
		if what == 1 {
			p.now = p.now.Add(time.Duration(where) * 200 * time.Millisecond)
			continue
		}
		if len(p.running) == 0 {
			continue
		}
		l := p.running[whom%len(p.running)]
		old := p.captured[int(where)%len(p.captured)]
		switch what {
		case 2, 3: // as it is
			answer, ok := p.deliver(source, l.next)
			if !ok {
				l.o.Confirm()
				p.forget(l)
				continue
			}
			p.step(l, answer)
		case 4: // the request is changed, the answer is lost
			p.deliver(source, flip(l.next, where))
		case 5: // the answer is changed
			answer, ok := p.deliver(source, l.next)
			if ok {
				p.step(l, flip(answer, where))
			} else {
				p.drop(l)
			}
		case 6: // an old one again, here or elsewhere
			p.deliver(map[bool]string{true: source, false: elsewhere}[whom&1 == 0], old)
		case 7: // of two sessions
			p.deliver(source, splice(l.next, old))
		case 8:
			p.drop(l)
		}
		if n := p.server.Sessions(); n > p.maxServer || p.server.ring.Len() > 2 {
			p.t.Fatalf("%d sessions, %d contexts", n, p.server.ring.Len())
		}
	}
	for len(p.running) > 0 {
		p.drop(p.running[0])
	}
	p.server.Expire(p.now.Add(time.Hour))
	if p.server.Sessions() != 0 {
		p.t.Fatalf("%d sessions are left", p.server.Sessions())
	}
	free(p.t, p.server.ring, 48-p.server.ring.Len())
	for _, c := range p.clients {
		free(p.t, c.ring, 48-c.ring.Len())
	}
}

// FuzzHostilePath: whatever a path does to handshakes, messages flipped, lost,
// replayed, spliced between sessions, late and from elsewhere: the server has no
// context that its peer has not, sessions stay within their bound, and no
// session and no identifier is left held.
func FuzzHostilePath(f *testing.F) {
	f.Add([]byte{0, 0, 0, 2, 0, 0, 2, 0, 0})
	f.Add([]byte{0, 0, 1, 0, 1, 1, 2, 0, 0, 2, 1, 0, 7, 0, 3, 4, 1, 9, 2, 0, 0, 2, 1, 0, 6, 1, 2})
	f.Add([]byte{0, 0, 2, 2, 0, 0, 5, 0, 40, 0, 1, 0, 1, 0, 200, 2, 0, 0, 8, 0, 0})
	f.Fuzz(func(t *testing.T, script []byte) {
		newHostilePath(t).run(script[:min(len(script), 150)])
	})
}

// TestQuietPath: what the fuzzing does to handshakes is done to handshakes that
// come to their end where nothing is.
func TestQuietPath(t *testing.T) {
	for flavour, script := range [][]byte{
		{0, 0, 0, 2, 0, 0, 2, 0, 0}, // message_3 alone
		{0, 1, 1, 2, 0, 0, 2, 0, 0}, // with a request
		{0, 0, 2, 2, 0, 0, 2, 0, 0}, // message_4
	} {
		p := newHostilePath(t)
		p.run(script)
		if n := p.server.reasons("established"); n != 1 || p.server.ring.Len() != 1 || p.clients[0].ring.Len()+p.clients[1].ring.Len() != 1 {
			t.Errorf("flavour %d: %d established, %d contexts", flavour, n, p.server.ring.Len())
		}
	}
}
