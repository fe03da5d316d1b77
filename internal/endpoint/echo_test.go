package endpoint

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/oscorelay/oscorelay/internal/coap"
	"github.com/oscorelay/oscorelay/internal/proof"
	"github.com/oscorelay/oscorelay/oscore"
)

func always(f Freshness) func(string, coap.Code, string) Freshness {
	return func(string, coap.Code, string) Freshness { return f }
}

// Echo values are the server's affair: of any length they come back unchanged.
func TestEchoOfAnyLength(t *testing.T) {
	proof.Checklist(t, "E-01", "E-05")
	for _, n := range []int{1, 8, 40} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			p := newPair(t, Config{}, Config{}, oscore.Settings{})
			value := bytes.Repeat([]byte{0xe0}, n)
			x, m := p.begin(message(t, coap.PUT, "/x", []byte("v")))
			rounds := 0
			s := p.drive(x, m, func(inner oscore.Message) oscore.Message {
				rounds++
				if got, ok := optionOf(inner, coap.Echo); ok {
					if !bytes.Equal(got, value) || string(payloadOf(t, inner)) != "v" {
						t.Errorf("Echo %x, payload %q", got, payloadOf(t, inner))
					}
					return changed()
				}
				return oscore.Message{Code: byte(coap.Unauthorized), Body: coap.AppendBody(nil, coap.Options{option(coap.Echo, value...)}, nil)}
			})
			if s.Kind != Response || rounds != 2 {
				t.Errorf("%+v after %d rounds", s, rounds)
			}
		})
	}
	for _, n := range []int{0, 41} {
		t.Run(fmt.Sprint(n, " is none"), func(t *testing.T) {
			p := newPair(t, Config{}, Config{}, oscore.Settings{})
			x, m := p.begin(message(t, coap.PUT, "/x", nil))
			s := p.drive(x, m, func(oscore.Message) oscore.Message {
				return oscore.Message{Code: byte(coap.Unauthorized), Body: coap.AppendBody(nil, coap.Options{option(coap.Echo, make([]byte, n)...)}, nil)}
			})
			if s.Kind != Response || coap.Code(s.Message.Code) != coap.Unauthorized {
				t.Errorf("%+v", s)
			}
		})
	}
}

func TestEchoRoundsEnd(t *testing.T) {
	p := newPair(t, Config{}, Config{}, oscore.Settings{})
	x, m := p.begin(message(t, coap.PUT, "/x", nil))
	rounds := 0
	s := p.drive(x, m, func(oscore.Message) oscore.Message {
		rounds++
		return oscore.Message{Code: byte(coap.Unauthorized), Body: coap.AppendBody(nil, coap.Options{option(coap.Echo, byte(rounds))}, nil)}
	})
	if !errors.Is(s.Err, ErrEcho) || rounds != 1+maxEchoRounds {
		t.Errorf("%+v after %d rounds", s, rounds)
	}
}

// An Echo in any other response goes into the next request, once, and to the
// same peer only.
func TestEchoOffered(t *testing.T) {
	proof.Checklist(t, "E-06", "E-07")
	p := newPair(t, Config{}, Config{}, oscore.Settings{})
	other := newPeer(t, "other", oscore.Params{MasterSecret: oscore.Secret("another secret.."), SenderID: []byte{1}, RecipientID: []byte{3}}, oscore.Settings{})
	far := newPeer(t, "far", oscore.Params{MasterSecret: oscore.Secret("another secret.."), SenderID: []byte{3}, RecipientID: []byte{1}}, oscore.Settings{})
	p.client.cfg.Keyring = testRing{p.cp, other}
	x, m := p.begin(message(t, coap.GET, "/x", nil))
	s := p.drive(x, m, func(oscore.Message) oscore.Message { return content([]byte("a"), option(coap.Echo, 7, 7)) })
	if s.Kind != Response {
		t.Fatal(s)
	}
	if _, ok := optionOf(s.Message, coap.Echo); ok {
		t.Error("the application saw the Echo")
	}
	_, m, err := p.client.Begin(p.now, "other", message(t, coap.GET, "/x", nil), RequestOptions{})
	if err != nil {
		t.Fatal(err)
	}
	inner, err := far.OpenRequest(nil, new(oscore.Request), m)
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := optionOf(inner, coap.Echo); ok {
		t.Error("another peer got the Echo")
	}
	for i, want := range []bool{true, false} {
		x, m := p.begin(message(t, coap.GET, "/x", nil))
		p.drive(x, m, func(inner oscore.Message) oscore.Message {
			if v, ok := optionOf(inner, coap.Echo); ok != want || ok && !bytes.Equal(v, []byte{7, 7}) {
				t.Errorf("request %d: Echo %x %v", i, v, ok)
			}
			return changed()
		})
	}
}

// What the server takes for its own: fresh, of this peer, of this process.
func TestEchoRefused(t *testing.T) {
	proof.Checklist(t, "E-02", "E-03", "E-04", "E-08", "E-09", "E-11", "E-29", "E-30", "E-31", "E-32", "E-34")
	proof.Requirement(t, "in-memory endpoint", "E2E-6")
	setup := func(t *testing.T) (*pair, func(echo []byte) (coap.Code, []byte)) {
		p := newPair(t, Config{}, Config{Freshness: always(FreshUnsafe)}, oscore.Settings{})
		p.handle = func(*Incoming) oscore.Message { return changed() }
		return p, func(echo []byte) (coap.Code, []byte) {
			t.Helper()
			opts := []coap.Option{}
			if echo != nil {
				opts = append(opts, option(coap.Echo, echo...))
			}
			resp, ok := p.ask(message(t, coap.PUT, "/x", []byte("1"), opts...), "t")
			if !ok {
				t.Fatal("no answer")
			}
			v, _ := optionOf(resp, coap.Echo)
			if outer, ok := optionOf(p.last().Message, coap.Echo); ok {
				t.Errorf("outer Echo %x", outer)
			}
			return coap.Code(resp.Code), v
		}
	}
	t.Run("fresh", func(t *testing.T) {
		_, put := setup(t)
		code, echo := put(nil)
		if code != coap.Unauthorized || len(echo) < 8 {
			t.Fatalf("%v %x", code, echo)
		}
		if code, next := put(echo); code != coap.Changed || len(next) < 8 {
			t.Errorf("%v %x", code, next)
		}
	})
	for _, c := range []struct {
		name string
		make func(p *pair, echo []byte) []byte
	}{
		{"made up", func(_ *pair, echo []byte) []byte { return bytes.Repeat([]byte{1}, len(echo)) }},
		{"short", func(*pair, []byte) []byte { return []byte{1} }},
		{"a bit changed", func(_ *pair, echo []byte) []byte { echo[0] ^= 1; return echo }},
		{"MAC changed", func(_ *pair, echo []byte) []byte { echo[len(echo)-1] ^= 1; return echo }},
		{"longer", func(_ *pair, echo []byte) []byte { return append(echo, 0) }},
		{"old", func(p *pair, echo []byte) []byte { p.now = p.now.Add(31 * time.Second); return echo }},
		{"of another peer", func(p *pair, _ []byte) []byte { return p.server.echo.value(p.now, "another") }},
		{"of the process before", func(p *pair, echo []byte) []byte {
			p.server = New(p.server.cfg, p.now)
			return echo
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, put := setup(t)
			_, echo := put(nil)
			value := c.make(p, bytes.Clone(echo))
			code, next := put(value)
			if code != coap.Unauthorized || p.calls != 0 || len(next) < 8 {
				t.Errorf("%v, %d calls", code, p.calls)
			}
			if bytes.Equal(next, value) {
				t.Error("the refusal repeats the value")
			}
		})
	}
	t.Run("outer", func(t *testing.T) {
		p, put := setup(t)
		_, echo := put(nil)
		m, err := p.cp.SealRequest(nil, new(oscore.Pending), message(t, coap.PUT, "/x", []byte("1")))
		if err != nil {
			t.Fatal(err)
		}
		opts, payload, _ := coap.Split(m.Body)
		m.Body = coap.AppendBody(nil, opts.Add(coap.Echo, echo), payload)
		p.serve(m, "t")
		if p.calls != 0 || p.last().Reason != ReasonChallenge {
			t.Errorf("%+v, %d calls", p.last(), p.calls)
		}
	})
}

func TestNoRandomnessIsNeverFresh(t *testing.T) {
	p := newPair(t, Config{}, Config{Freshness: always(FreshAlways), Rand: failingReader{}}, oscore.Settings{})
	p.handle = func(*Incoming) oscore.Message { return changed() }
	if s := p.do(message(t, coap.PUT, "/x", nil)); s.Kind != Wait || p.calls != 0 {
		t.Errorf("%+v, %d calls", s, p.calls)
	}
}

type failingReader struct{}

func (failingReader) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

func TestFreshnessPolicies(t *testing.T) {
	// challenged[policy] tells which of GET, PUT, GET, PUT are challenged, when
	// no answer's Echo is used.
	for _, c := range []struct {
		policy     Freshness
		challenged [4]bool
	}{
		{FreshWindow, [4]bool{}},
		{FreshFirst, [4]bool{true, true, true, true}},
		{FreshUnsafe, [4]bool{false, true, false, true}},
		{FreshAlways, [4]bool{true, true, true, true}},
	} {
		t.Run(fmt.Sprint(c.policy), func(t *testing.T) {
			p := newPair(t, Config{}, Config{Freshness: always(c.policy)}, oscore.Settings{})
			p.handle = func(*Incoming) oscore.Message { return changed() }
			var echo []byte
			for i, code := range []coap.Code{coap.GET, coap.PUT, coap.GET, coap.PUT} {
				resp, _ := p.ask(message(t, code, "/x", nil), "t")
				got := coap.Code(resp.Code) == coap.Unauthorized
				if got != c.challenged[i] {
					t.Errorf("%v %d: challenged %v", code, i, got)
				}
				if v, ok := optionOf(resp, coap.Echo); ok {
					echo = bytes.Clone(v)
				}
			}
			if c.policy == FreshWindow {
				return
			}
			for i := range 2 { // and with it all are served, more than once
				if resp, _ := p.ask(message(t, coap.PUT, "/x", nil, option(coap.Echo, echo...)), "t"); coap.Code(resp.Code) != coap.Changed {
					t.Errorf("%d with Echo: %v", i, coap.Code(resp.Code))
				}
			}
			resp, _ := p.ask(message(t, coap.PUT, "/x", nil), "t")
			if want := c.policy != FreshFirst; (coap.Code(resp.Code) == coap.Unauthorized) != want {
				t.Errorf("after a proof: %v", coap.Code(resp.Code))
			}
		})
	}
}

// A request that needs no proof proves nothing for one that does: a Register
// held back since before the start is challenged.
func TestFreshFirstNeedsAProof(t *testing.T) {
	proof.Requirement(t, "in-memory endpoint", "E2E-6")
	p := newPair(t, Config{}, Config{Freshness: func(_ string, _ coap.Code, path string) Freshness {
		if path == "/rd" {
			return FreshFirst
		}
		return FreshWindow
	}}, oscore.Settings{})
	p.handle = func(*Incoming) oscore.Message { return changed() }
	held, err := p.cp.SealRequest(nil, new(oscore.Pending), message(t, coap.POST, "/rd", []byte("old")))
	if err != nil {
		t.Fatal(err)
	}
	p.ask(message(t, coap.GET, "/x", nil), "a")
	p.ask(message(t, coap.PUT, "/x", make([]byte, 16), block(coap.Block1, 1, true, 0)), "b")
	calls := p.calls
	if p.serve(held, "c"); p.calls != calls || p.last().Reason != ReasonChallenge {
		t.Errorf("%+v", p.last())
	}
}

// A challenge to a request that the window accepted is never withheld: its
// retransmission would look like a replay. After a lost window it may be.
func TestChallengeLimits(t *testing.T) {
	p := newPair(t, Config{}, Config{Freshness: always(FreshAlways)}, oscore.Settings{})
	p.handle = func(*Incoming) oscore.Message { return changed() }
	for i := range 5 * challengeRate {
		if resp, ok := p.ask(message(t, coap.GET, "/x", nil), "t"); !ok || coap.Code(resp.Code) != coap.Unauthorized || !p.last().Verified {
			t.Fatalf("%d: %+v", i, p.last())
		}
	}
	old := p.sent
	p.sp.lose(t)
	spent := p.sp.ctx.NextSequence()
	for _, m := range old {
		if p.serve(m, "t"); p.last().Verified {
			t.Fatal("what may be a replay was called verified")
		}
	}
	if n := p.sp.ctx.NextSequence() - spent; n != challengeRate {
		t.Errorf("%d numbers spent on replays", n)
	}
	p.now = p.now.Add(time.Second)
	if s := p.do(message(t, coap.GET, "/x", nil)); s.Kind != Response {
		t.Errorf("%+v", s)
	}
}

// Wrong turn 2 at this floor: the proven request is the window's floor.
func TestWindowBeginsAtTheProof(t *testing.T) {
	proof.Checklist(t, "O-7.5-1", "O-B.1.2-1")
	proof.Requirement(t, "in-memory endpoint", "E2E-3")
	p := newPair(t, Config{}, Config{}, oscore.Settings{})
	p.handle = func(*Incoming) oscore.Message { return changed() }
	var held []oscore.Message
	for range 3 {
		m, err := p.cp.SealRequest(nil, new(oscore.Pending), message(t, coap.PUT, "/x", []byte("held")))
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, m)
	}
	p.sp.lose(t)
	if s := p.do(message(t, coap.PUT, "/x", []byte("new"))); s.Kind != Response || p.calls != 1 {
		t.Fatal(s)
	}
	challenge := p.verdicts[0].Message
	if opt, _, err := oscore.FindOption(challenge); err != nil || opt.PartialIV == nil {
		t.Errorf("the challenge has no Partial IV: %+v", opt)
	}
	for i, m := range held {
		if p.serve(m, "t"); !errors.Is(p.last().Err, oscore.ErrReplay) || p.calls != 1 {
			t.Errorf("held %d: %+v", i, p.last())
		}
	}
}

// Several requests are under way when the window is lost: each answers its own
// challenge, and the answers do not arrive in order. All are taken, each once.
func TestRequestsUnderWayAllProveThemselves(t *testing.T) {
	proof.Checklist(t, "O-B.1.2-1")
	p := newPair(t, Config{}, Config{}, oscore.Settings{})
	p.handle = func(*Incoming) oscore.Message { return changed() }
	p.sp.lose(t)
	var exchanges []*Exchange
	var first, again []oscore.Message
	for range 5 {
		x, out := p.begin(message(t, coap.POST, "/x", nil))
		exchanges, first = append(exchanges, x), append(first, out)
	}
	for i, x := range exchanges {
		challenge, _ := p.serve(first[i], "t")
		step := x.Receive(p.now, challenge)
		if step.Kind != Send {
			t.Fatalf("%+v", step)
		}
		again = append(again, step.Message)
	}
	for _, i := range []int{3, 4, 1, 0, 2} {
		answer, _ := p.serve(again[i], "t")
		if s := exchanges[i].Receive(p.now, answer); s.Kind != Response {
			t.Errorf("request %d: %+v", i, s)
		}
	}
	for i, m := range again {
		if p.serve(m, "t"); !errors.Is(p.last().Err, oscore.ErrReplay) || p.calls != 5 {
			t.Errorf("request %d once more: %+v, %d calls", i, p.last(), p.calls)
		}
	}
}

// A peer without Echo is not asked for it; after a lost window the server
// begins Appendix B.2 with it.
func TestPeerWithoutEcho(t *testing.T) {
	p := newPair(t, Config{}, Config{Freshness: always(FreshAlways)}, oscore.Settings{NoEcho: true, Rederive: oscore.RoleClient | oscore.RoleServer})
	p.handle = func(*Incoming) oscore.Message { return changed() }
	if s := p.do(message(t, coap.PUT, "/x", nil)); s.Kind != Response || len(p.verdicts) != 1 {
		t.Fatalf("%+v", s)
	}
	p.sp.lose(t)
	if s := p.do(message(t, coap.PUT, "/x", nil)); s.Kind != Response || p.calls != 2 {
		t.Fatalf("%+v", s)
	}
	if id := p.sp.IDContext(); len(id) != r2Len+saltLen || !bytes.Equal(id, p.cp.IDContext()) {
		t.Errorf("ID Context %x", id)
	}
}

// A request #2 proves its R2, hence its age: no Echo round trip follows.
func TestRederivationProvesFreshness(t *testing.T) {
	for _, c := range []struct {
		wait       time.Duration
		challenges int
	}{{time.Second, 0}, {29 * time.Second, 0}, {31 * time.Second, 1}, {60 * time.Second, 1}} {
		t.Run(c.wait.String(), func(t *testing.T) {
			p := newPair(t, Config{}, Config{Freshness: always(FreshFirst)}, oscore.Settings{Rederive: oscore.RoleClient | oscore.RoleServer})
			p.handle = func(*Incoming) oscore.Message { return changed() }
			p.now = p.now.Add(time.Minute)
			x, m, err := p.client.Begin(p.now, "server", message(t, coap.POST, "/rd", nil), RequestOptions{Rederive: true})
			if err != nil {
				t.Fatal(err)
			}
			first, _ := p.serve(m, "1")
			p.now = p.now.Add(c.wait)
			s := x.Receive(p.now, first)
			if s = p.run(x, s.Message, "2"); s.Kind != Response || p.calls != 1 {
				t.Fatalf("%+v", s)
			}
			n := -1 // response #1
			for _, v := range p.verdicts {
				if v.Reason == ReasonChallenge {
					n++
				}
			}
			if n != c.challenges {
				t.Errorf("%d challenges", n)
			}
		})
	}
}

func TestEchoValuesDiffer(t *testing.T) {
	proof.Checklist(t, "E-10")
	seen := map[string]bool{}
	for range 1000 {
		var k echoKey
		k.init(rand.Reader, time.Unix(0, 0))
		v := string(k.value(time.Unix(1, 0), "peer"))
		if seen[v] {
			t.Fatal("an Echo value came twice")
		}
		seen[v] = true
	}
}

// A message sealed anew is the same message: block, Echo and all.
func TestReseal(t *testing.T) {
	p := newPair(t, Config{}, Config{Freshness: always(FreshAlways), BlockSize: 16}, bothRoles)
	up, down := pattern(3000), pattern(50)
	p.handle = func(r *Incoming) oscore.Message {
		if !bytes.Equal(payloadOf(t, r.Message), up) {
			t.Error("body differs")
		}
		return content(down)
	}
	x, _, err := p.client.Begin(p.now, "server", message(t, coap.POST, "/x", up), RequestOptions{Rederive: true})
	if err != nil {
		t.Fatal(err)
	}
	challenges := 0
	for range 50 {
		m, err := x.Reseal()
		if err != nil {
			t.Fatal(err)
		}
		answer, ok := p.serve(m, "t")
		if !ok {
			t.Fatalf("%+v", p.last())
		}
		if p.last().Reason == ReasonChallenge {
			challenges++
		}
		s := x.Receive(p.now, answer)
		if s.Kind == Response {
			if !bytes.Equal(payloadOf(t, s.Message), down) || p.calls != 1 || challenges != 1 {
				t.Errorf("%d calls, %d challenges", p.calls, challenges)
			}
			if _, err := x.Reseal(); !errors.Is(err, ErrEnded) {
				t.Error(err)
			}
			return
		}
		if s.Kind != Send {
			t.Fatalf("%+v", s)
		}
	}
	t.Error("no end")
}

// Every answer under such a policy offers one Echo value.
func TestOneEchoAnAnswer(t *testing.T) {
	p := newPair(t, Config{}, Config{Freshness: always(FreshAlways), BlockSize: 16}, oscore.Settings{})
	p.handle = func(*Incoming) oscore.Message { return content(pattern(50)) }
	echo := option(coap.Echo, p.server.echo.value(p.now, "client")...)
	for i, m := range []oscore.Message{
		message(t, coap.GET, "/x", nil),
		message(t, coap.GET, "/x", nil, echo),
		message(t, coap.GET, "/x", nil, echo, block(coap.Block2, 1, false, 0)),
		message(t, coap.PUT, "/x", make([]byte, 16), echo, block(coap.Block1, 0, true, 0)),
		message(t, coap.PUT, "/x", make([]byte, 16), echo, block(coap.Block1, 1, false, 0)),
	} {
		resp, ok := p.ask(m, "t")
		n := 0
		for w := coap.Walk(resp.Body); w.Next(); {
			if w.Number == coap.Echo {
				n++
			}
		}
		if !ok || n != 1 {
			t.Errorf("answer %d: %d Echo options", i, n)
		}
	}
}
