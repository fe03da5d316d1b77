package endpoint

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/oscorelay/oscorelay/internal/coap"
	"github.com/oscorelay/oscorelay/internal/proof"
	"github.com/oscorelay/oscorelay/oscore"
	"pgregory.net/rapid"
)

// world is two endpoints in both roles with a hostile relay between them: it
// holds every message ever sent, and delivers what it likes, when it likes, as
// often as it likes, flipped if it likes.
type world struct {
	t     *rapid.T
	now   time.Time
	nodes [2]*node
	wire  []*packet
	// under is what each request number of each node's context carried, and
	// each response: the nonces of the wire.
	under map[string]string
	next  int
}

// node is one endpoint and what it knows.
type node struct {
	w         *world
	n         int
	e         *Endpoint
	peer      *testPeer
	exchanges map[string]*flight
	delivered map[string]bool // requests that reached a handler, by their ciphertext
	acted     map[string]bool // bodies that an unsafe method brought
	notify    []*watched
}

// flight is an exchange under way and what its answer must be.
type flight struct {
	x         *Exchange
	id        string
	body      []byte
	cancelled bool
	parent    *flight // the observation whose notification's blocks these are
}

type watched struct {
	o    *Observation
	body []byte
}

type packet struct {
	to      int
	request bool
	token   string
	m       oscore.Message
}

func (w *world) fatalf(format string, args ...any) {
	w.t.Helper()
	w.t.Fatalf(format, args...)
}

// put takes a message that a node sends, and checks that its nonce is new: no
// (key, Partial IV) carries two different texts.
func (w *world) put(from int, request bool, token string, m oscore.Message, answers *packet) {
	opt, protected, err := oscore.FindOption(m)
	if err != nil {
		w.fatalf("a node sent %x: %v", m.Body, err)
	}
	if !protected {
		if request || coap.Code(m.Code).Class() == 2 {
			w.fatalf("a node sent %v in plain", coap.Code(m.Code))
		}
	} else {
		_, text, _ := coap.Split(m.Body)
		// The key: of the node, and of the ID Context under which it seals.
		key := fmt.Sprintf("%d %x ", from, w.nodes[from].peer.IDContext())
		switch {
		case request:
			key = fmt.Sprintf("%d %x %x", from, opt.KIDContext, opt.PartialIV)
			if opt.KIDContext == nil {
				key = fmt.Sprintf("%d %x %x", from, oscore.WrapBstr(w.nodes[from].peer.IDContext()), opt.PartialIV)
			}
		case opt.PartialIV != nil:
			key = fmt.Sprintf("%d %x %x", from, oscore.WrapBstr(w.nodes[from].peer.IDContext()), opt.PartialIV)
		case opt.KIDContext != nil: // response #1: the second context is its own
			key += fmt.Sprintf("first %x", opt.KIDContext)
		default: // under the nonce of the request, which its text names
			_, asked, _ := coap.Split(answers.m.Body)
			key += fmt.Sprintf("answer to %x", asked)
		}
		if before, ok := w.under[key]; ok && before != string(text) {
			w.fatalf("a nonce carries two texts: %s", key)
		}
		w.under[key] = string(text)
	}
	w.wire = append(w.wire, &packet{1 - from, request, token, m})
}

// expect is the answer to a body: it tells the body, and may be long.
func expect(body []byte) []byte {
	n := 20
	if len(body) > 0 {
		n = int(body[0]) * 4
	}
	return bytes.Repeat(append([]byte("re:"), body[:min(len(body), 12)]...), n/15+1)
}

// deliver hands a message to its node.
func (w *world) deliver(p *packet) {
	n := w.nodes[p.to]
	if p.request {
		n.request(p)
		return
	}
	f := n.exchanges[p.token]
	if f == nil {
		return
	}
	n.step(f, p.token, f.x.Receive(w.now, p.m))
}

func (n *node) request(p *packet) {
	w := n.w
	res := n.e.Receive(w.now, Inbound{Source: "relay", Token: []byte(p.token), Message: p.m})
	switch res.Verdict {
	case NotProtected:
		return // the node serves nothing in plain
	case Reply:
		w.put(n.n, false, p.token, res.Message, p)
		return
	case Drop:
		return
	}
	_, text, _ := coap.Split(p.m.Body)
	if n.delivered[string(text)] {
		w.fatalf("a request was delivered twice")
	}
	n.delivered[string(text)] = true
	m := res.Incoming.Message
	_, body, err := coap.Split(m.Body)
	if err != nil || !n.known(body) && coap.Code(m.Code) != coap.GET {
		w.fatalf("a handler got what nobody sent: %x", body)
	}
	if coap.Code(m.Code) == coap.GET {
		v, _ := coap.Find(m.Body, coap.URIQuery)
		body = bytes.Clone(v)
	} else {
		body = bytes.Clone(body)
	}
	if unsafe(m.Code) {
		if n.acted[string(body)] {
			w.fatalf("%.20x was acted on twice", body)
		}
		n.acted[string(body)] = true
	}
	var opts []coap.Option
	if res.Incoming.Observes() {
		opts = append(opts, option(coap.Observe))
	}
	out, send, err := res.Incoming.Respond(w.now, content(expect(body), opts...))
	if err != nil {
		return // its context may be gone
	}
	if o := res.Incoming.Observation(); o != nil {
		n.notify = append(n.notify, &watched{o, body})
	}
	if send {
		w.put(n.n, false, p.token, out, p)
	}
}

// known reports whether the other node sent the body.
func (n *node) known(body []byte) bool {
	for _, f := range n.w.nodes[1-n.n].exchanges {
		if bytes.Equal(f.body, body) {
			return true
		}
	}
	return false
}

// step does what an exchange says.
func (n *node) step(f *flight, token string, s Step) {
	w := n.w
	switch s.Kind {
	case Send:
		n.send(f, s.Message, token, s.SameToken)
	case Response, Notification:
		if s.More != nil {
			more := &flight{x: s.More, id: f.id, body: f.body, parent: f}
			n.send(more, s.Message, "", false)
			return
		}
		_, got, err := coap.Split(s.Message.Body)
		if err != nil || coap.Code(s.Message.Code) != coap.Content && coap.Code(s.Message.Code).IsSuccess() {
			w.fatalf("%+v", s)
		}
		if len(got) == 0 && f.cancelled {
			return // the answer to a cancellation may be without its payload
		}
		if coap.Code(s.Message.Code) == coap.Content && !bytes.Equal(got, expect(f.body)) {
			w.fatalf("the answer to %.20x is %.40q", f.body, got)
		}
		f.id = "answered"
		if f.parent != nil {
			f.parent.id = "answered"
		}
	case Failed:
		if !errors.Is(s.Err, ErrEnded) {
			f.id = "failed"
		}
	}
}

// send sends a message of an exchange under a new token.
func (n *node) send(f *flight, m oscore.Message, token string, same bool) {
	if !same {
		n.w.next++
		token = fmt.Sprint(n.w.next)
	}
	n.exchanges[token] = f
	n.w.put(n.n, true, token, m, nil)
}

// begin starts an exchange of the node.
func (n *node) begin(kind int, derive bool) *flight {
	w := n.w
	w.next++
	id := fmt.Sprintf("%c%d.%d", byte(kind*41), n.n, w.next)
	body := []byte(id)
	code, opts := coap.POST, []coap.Option{}
	switch kind {
	case 1:
		body = append(body, bytes.Repeat([]byte{'.'}, 100)...)
	case 2:
		code, body = coap.FETCH, append(body, bytes.Repeat([]byte{'-'}, 80)...)
	case 3:
		code, opts = coap.FETCH, append(opts, option(coap.Observe))
	case 4:
		code, opts = coap.GET, append(opts, option(coap.URIQuery, body...))
	}
	payload := body
	if code == coap.GET {
		payload = nil
	}
	x, m, err := n.e.Begin(w.now, n.peer.name, message(w.t, code, "/x", payload, opts...), RequestOptions{Rederive: derive})
	if err != nil {
		var busy *BusyError
		if !errors.As(err, &busy) {
			w.fatalf("%v", err)
		}
		return nil
	}
	f := &flight{x: x, id: id, body: body}
	n.send(f, m, "", false)
	return f
}

func newWorld(t *rapid.T) *world {
	w := &world{t: t, now: time.Unix(1e9, 0), under: map[string]string{}}
	params := oscore.Params{MasterSecret: oscore.Secret("0123456789abcdef"), SenderID: []byte{0}, RecipientID: []byte{1}}
	peers := [2]*testPeer{newPeer(t, "1", params, bothRoles), newPeer(t, "0", params.Swap(), bothRoles)}
	for i, p := range peers {
		n := &node{w: w, n: i, peer: p, exchanges: map[string]*flight{}, delivered: map[string]bool{}, acted: map[string]bool{}}
		w.nodes[i] = n
		n.start()
	}
	return w
}

func (n *node) start() {
	n.e = New(Config{
		Keyring: testRing{n.peer}, BlockSize: 32, MaxBody: 4096, RederiveAfter: 1 << 30,
		Freshness: func(_ string, c coap.Code, _ string) Freshness {
			if c == coap.POST {
				return FreshUnsafe
			}
			return FreshWindow
		},
	}, n.w.now)
}

// Whatever the relay does: no request is acted on twice, no answer is another's,
// no nonce carries two texts, every body is as it was sent; and when it stops,
// traffic goes on.
func TestHostileRelay(t *testing.T) {
	proof.Checklist(t, "O-7.2-1", "O-7.4-1", "O-8-1", "O-7.5-1", "O-3.1-1")
	proof.Requirement(t, "in-memory endpoint", "E2E-1", "E2E-3", "E2E-5")
	rapid.Check(t, hostileRelay)
}

func hostileRelay(t *rapid.T) {
	w := newWorld(t)
	w.nodes[0].begin(0, false) // there is always something to play with
	pick := func() *packet {
		return w.wire[rapid.IntRange(0, len(w.wire)-1).Draw(t, "packet")]
	}
	who := func() *node { return w.nodes[rapid.IntRange(0, 1).Draw(t, "node")] }
	t.Repeat(map[string]func(*rapid.T){
		"begin": func(t *rapid.T) { who().begin(rapid.IntRange(0, 4).Draw(t, "kind"), false) },
		"derive": func(t *rapid.T) {
			who().begin(0, true)
		},
		"last": func(t *rapid.T) { // the newest message: what a friendly relay would do
			if len(w.wire) == 0 {
				return
			}
			w.deliver(w.wire[len(w.wire)-1])
		},
		"several": func(*rapid.T) {
			for range 6 {
				if n := len(w.wire); n > 0 {
					w.deliver(w.wire[n-1])
				}
			}
		},
		"any": func(*rapid.T) { w.deliver(pick()) },
		"flip": func(t *rapid.T) {
			p := *pick()
			if len(p.m.Body) == 0 {
				return
			}
			p.m.Body = bytes.Clone(p.m.Body)
			i := rapid.IntRange(0, len(p.m.Body)-1).Draw(t, "byte")
			p.m.Body[i] ^= 1 << rapid.IntRange(0, 7).Draw(t, "bit")
			w.deliver(&p)
		},
		"swap token": func(*rapid.T) {
			p, q := *pick(), pick()
			p.token = q.token
			w.deliver(&p)
		},
		"reflect": func(*rapid.T) {
			p := *pick()
			p.to = 1 - p.to
			w.deliver(&p)
		},
		"notify": func(*rapid.T) {
			n := who()
			for _, o := range n.notify {
				if m, err := o.o.Notify(w.now, content(expect(o.body))); err == nil {
					w.put(n.n, false, string(o.o.Token()), m, nil)
				}
			}
		},
		"cancel": func(*rapid.T) {
			n := who()
			for token, f := range n.exchanges {
				if f.x.Observes() && f.id == "answered" {
					if m, err := f.x.Cancel(w.now); err == nil {
						f.cancelled = true
						n.send(f, m, token, true)
					}
				}
			}
		},
		"abandon": func(*rapid.T) {
			for _, f := range who().exchanges {
				f.x.Abandon()
			}
		},
		"restart": func(*rapid.T) {
			n := who()
			for _, f := range n.exchanges {
				f.x.Close() // the process ends
			}
			n.peer.lose(t)
			n.start()
			// A client whose answer was lost with the server is challenged by
			// its successor, and rightly asks once more: what was acted on
			// before is acted on anew, by another message (delivered tells).
			n.acted = map[string]bool{}
		},
		"time": func(t *rapid.T) {
			w.now = w.now.Add(time.Duration(rapid.IntRange(1, 600).Draw(t, "seconds")) * time.Second)
			for _, n := range w.nodes {
				n.e.Expire(w.now)
			}
		},
	})
	// The hostility stops. What is under way is given up; then every message
	// is delivered once, in order.
	for _, n := range w.nodes {
		for _, f := range n.exchanges {
			f.x.Close()
		}
	}
	w.now = w.now.Add(10 * time.Second)
	for i, n := range w.nodes {
		for kind := range 5 {
			// A context that only one side adopted is mended by the next run.
			answered := false
			for _, derive := range []bool{false, true} {
				f := n.begin(kind, derive)
				if f == nil {
					t.Fatal("a run of an exchange that is over is under way")
				}
				for sent := 0; sent < 1000 && f.id != "answered" && f.id != "failed"; sent++ {
					before := len(w.wire)
					w.deliver(w.wire[before-1])
					if len(w.wire) == before {
						break
					}
				}
				if answered = f.id == "answered"; answered {
					break
				}
				f.x.Abandon()
			}
			if !answered {
				t.Fatalf("node %d, kind %d: no traffic after the hostility", i, kind)
			}
		}
	}
}

func FuzzHostileRelay(f *testing.F) { f.Fuzz(rapid.MakeFuzz(hostileRelay)) }
