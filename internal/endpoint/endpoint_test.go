package endpoint

import (
	"bytes"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/oscorelay/oscorelay/internal/coap"
	"github.com/oscorelay/oscorelay/oscore"
)

// testPeer is an oscore.Peer without storage.
type testPeer struct {
	mu       sync.Mutex
	name     string
	params   oscore.Params
	settings oscore.Settings
	ctx      *oscore.Context
	taint    bool
}

func newPeer(t testing.TB, name string, p oscore.Params, s oscore.Settings) *testPeer {
	t.Helper()
	ctx, err := oscore.New(p)
	if err != nil {
		t.Fatal(err)
	}
	ctx.Begin()
	return &testPeer{name: name, params: p, settings: s, ctx: ctx}
}

// lose makes the peer forget its window, as a restart does; its numbers go on.
func (p *testPeer) lose(t testing.TB) {
	t.Helper()
	next := p.ctx.NextSequence()
	ctx, err := oscore.New(p.params)
	if err != nil {
		t.Fatal(err)
	}
	if err := ctx.Extend(next+100, oscore.MaxSequence); err != nil {
		t.Fatal(err)
	}
	p.ctx = ctx
}

// forgetAll makes the peer lose its numbers too.
func (p *testPeer) forgetAll(t testing.TB) {
	t.Helper()
	ctx, err := oscore.New(p.params)
	if err != nil {
		t.Fatal(err)
	}
	p.ctx, p.taint = ctx, true
}

func (p *testPeer) Name() string              { return p.name }
func (p *testPeer) Settings() oscore.Settings { return p.settings }
func (p *testPeer) Usage() oscore.Usage       { return p.ctx.Usage() }
func (p *testPeer) Tainted() bool             { return p.taint }
func (p *testPeer) IDContext() []byte         { return p.ctx.IDContext() }

func (p *testPeer) SealRequest(dst []byte, q *oscore.Pending, m oscore.Message) (oscore.Message, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ctx.SealRequest(dst, q, m)
}

func (p *testPeer) SealRequestAs(dst []byte, q *oscore.Pending, inner, outer oscore.Message) (oscore.Message, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ctx.SealRequestAs(dst, q, inner, outer)
}

func (p *testPeer) OpenRequest(dst []byte, r *oscore.Request, m oscore.Message) (oscore.Message, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ctx.OpenRequest(dst, r, m)
}

func (p *testPeer) SealResponse(dst []byte, r *oscore.Request, m oscore.Message) (oscore.Message, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ctx.SealResponse(dst, r, m)
}

func (p *testPeer) SealChallenge(dst []byte, r *oscore.Request, echo []byte) (oscore.Message, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ctx.SealChallenge(dst, r, echo)
}

func (p *testPeer) AcceptEcho(r *oscore.Request) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ctx.AcceptEcho(r)
}

func (p *testPeer) Derive(idContext, kidContext []byte) (*oscore.Context, error) {
	q := p.params
	q.IDContext = idContext
	ctx, err := oscore.New(q)
	if err == nil {
		ctx.SetKIDContext(kidContext)
	}
	return ctx, err
}

func (p *testPeer) Adopt(c *oscore.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	c.SetKIDContext(nil)
	p.params.IDContext = c.IDContext()
	p.ctx, p.taint = c, false
	return nil
}

// testRing is a Keyring of few peers.
type testRing []*testPeer

func (r testRing) Find(dst []oscore.Peer, kid, kidContext []byte) ([]oscore.Peer, oscore.Match) {
	match := oscore.MatchNone
	for _, p := range r {
		if !bytes.Equal(p.params.RecipientID, kid) {
			continue
		}
		wrapped, err := oscore.UnwrapBstr(kidContext)
		switch {
		case kidContext == nil:
			dst, match = append(dst, p), oscore.MatchKID
		case p.params.IDContext != nil && (bytes.Equal(kidContext, p.params.IDContext) || err == nil && bytes.Equal(wrapped, p.params.IDContext)):
			return append(dst[:0], p), oscore.MatchExact
		case err == nil && p.settings.Rederive&oscore.RoleServer != 0:
			dst, match = append(dst, p), oscore.MatchRederive
		}
	}
	return dst, match
}

func (r testRing) Peer(name string) (oscore.Peer, bool) {
	for _, p := range r {
		if p.name == name {
			return p, true
		}
	}
	return nil, false
}

// pair is a client and a server endpoint with one peer each.
type pair struct {
	t              testing.TB
	now            time.Time
	client, server *Endpoint
	cp, sp         *testPeer
	handle         func(*Incoming) oscore.Message
	calls          int
	observations   []*Observation
	verdicts       []Result
	sent           []oscore.Message // every protected request as sent
}

func newPair(t testing.TB, ccfg, scfg Config, settings oscore.Settings) *pair {
	t.Helper()
	params := oscore.Params{MasterSecret: oscore.Secret("0123456789abcdef"), MasterSalt: []byte("salt"), SenderID: []byte{1}, RecipientID: []byte{2}}
	p := &pair{t: t, now: time.Unix(1e9, 0)}
	p.cp, p.sp = newPeer(t, "server", params, settings), newPeer(t, "client", params.Swap(), settings)
	ccfg.Keyring, scfg.Keyring = testRing{p.cp}, testRing{p.sp}
	p.client, p.server = New(ccfg, p.now), New(scfg, p.now)
	return p
}

// serve passes a request to the server and returns its answer, if any.
func (p *pair) serve(m oscore.Message, token string) (oscore.Message, bool) {
	p.t.Helper()
	p.sent = append(p.sent, m)
	res := p.server.Receive(p.now, Inbound{Source: "client", Token: []byte(token), Message: m})
	p.verdicts = append(p.verdicts, res)
	switch res.Verdict {
	case Reply:
		return res.Message, true
	case Deliver:
		p.calls++
		out, send, err := res.Incoming.Respond(p.now, p.handle(res.Incoming))
		if err != nil {
			p.t.Fatal(err)
		}
		if o := res.Incoming.Observation(); o != nil {
			p.observations = append(p.observations, o)
		}
		return out, send
	}
	return oscore.Message{}, false
}

// run drives an exchange to its end or its first notification.
func (p *pair) run(x *Exchange, m oscore.Message, token string) Step {
	p.t.Helper()
	for range 1000 {
		answer, ok := p.serve(m, token)
		if !ok {
			return Step{Kind: Wait}
		}
		step := x.Receive(p.now, answer)
		if step.Kind != Send {
			return step
		}
		m = step.Message
	}
	p.t.Fatal("exchange does not end")
	return Step{}
}

// do is a whole exchange.
func (p *pair) do(m oscore.Message) Step {
	p.t.Helper()
	x, out, err := p.client.Begin(p.now, "server", m, RequestOptions{})
	if err != nil {
		return Step{Kind: Failed, Err: err}
	}
	return p.run(x, out, "t")
}

func message(t testing.TB, code coap.Code, path string, payload []byte, more ...coap.Option) oscore.Message {
	t.Helper()
	opts, err := coap.Options(more).AddPath(path)
	if err != nil {
		t.Fatal(err)
	}
	return oscore.Message{Code: byte(code), Body: coap.AppendBody(nil, opts, payload)}
}

func payloadOf(t testing.TB, m oscore.Message) []byte {
	t.Helper()
	_, payload, err := coap.Split(m.Body)
	if err != nil {
		t.Fatal(err)
	}
	return payload
}

func content(payload []byte, more ...coap.Option) oscore.Message {
	return oscore.Message{Code: byte(coap.Content), Body: coap.AppendBody(nil, more, payload)}
}

func TestExchange(t *testing.T) {
	p := newPair(t, Config{}, Config{}, oscore.Settings{})
	p.handle = func(r *Incoming) oscore.Message {
		if path := coap.Path(r.Message.Body); path != "/a/b" {
			t.Errorf("path %q", path)
		}
		return content([]byte("hello"))
	}
	s := p.do(message(t, coap.GET, "/a/b", nil))
	if s.Kind != Response || string(payloadOf(t, s.Message)) != "hello" {
		t.Fatalf("%+v", s)
	}
}

func TestLargeBodies(t *testing.T) {
	up, down := bytes.Repeat([]byte("firmware"), 2500), bytes.Repeat([]byte("answer.."), 2600)
	for _, code := range []coap.Code{coap.GET, coap.PUT, coap.POST, coap.FETCH, coap.IPATCH} {
		t.Run(code.String(), func(t *testing.T) {
			p := newPair(t, Config{}, Config{BlockSize: 256}, oscore.Settings{})
			body := up
			if code == coap.GET {
				body = nil
			}
			p.handle = func(r *Incoming) oscore.Message {
				if !bytes.Equal(payloadOf(t, r.Message), body) {
					t.Error("request body differs")
				}
				return content(down)
			}
			for range 2 {
				s := p.do(message(t, code, "/fw", body))
				if s.Kind != Response || !bytes.Equal(payloadOf(t, s.Message), down) {
					t.Fatalf("%v %v", s.Kind, s.Err)
				}
			}
			if p.calls != 2 {
				t.Errorf("handler ran %d times", p.calls)
			}
		})
	}
}

func TestEchoAfterLostWindow(t *testing.T) {
	p := newPair(t, Config{}, Config{}, oscore.Settings{})
	p.handle = func(*Incoming) oscore.Message { return oscore.Message{Code: byte(coap.Changed)} }
	if s := p.do(message(t, coap.PUT, "/x", []byte("1"))); s.Kind != Response {
		t.Fatal(s)
	}
	old := p.sent[0]
	p.sp.lose(t)
	if s := p.do(message(t, coap.PUT, "/x", []byte("2"))); s.Kind != Response || p.calls != 2 {
		t.Fatal(s, p.calls)
	}
	if p.verdicts[1].Reason != ReasonChallenge {
		t.Errorf("no challenge: %+v", p.verdicts[1])
	}
	for i, m := range append([]oscore.Message{old}, p.sent...) {
		p.serve(m, "t")
		if last := p.verdicts[len(p.verdicts)-1]; !errors.Is(last.Err, oscore.ErrReplay) {
			t.Errorf("replay %d: %+v", i, last)
		}
	}
	if p.calls != 2 {
		t.Errorf("handler ran %d times", p.calls)
	}
}

func TestFreshnessOfUnsafeRequests(t *testing.T) {
	p := newPair(t, Config{}, Config{Freshness: func(string, coap.Code, string) Freshness { return FreshUnsafe }}, oscore.Settings{})
	p.handle = func(*Incoming) oscore.Message { return oscore.Message{Code: byte(coap.Changed)} }
	for range 3 {
		if s := p.do(message(t, coap.PUT, "/x", bytes.Repeat([]byte("1"), 5000))); s.Kind != Response {
			t.Fatal(s)
		}
	}
	challenges := 0
	for _, v := range p.verdicts {
		if v.Reason == ReasonChallenge {
			challenges++
		}
	}
	if challenges != 1 || p.calls != 3 {
		t.Errorf("%d challenges, %d calls", challenges, p.calls)
	}
	// Held back for longer than the Echo lives: challenged anew, not applied.
	x, m, err := p.client.Begin(p.now, "server", message(t, coap.PUT, "/x", []byte("late")), RequestOptions{})
	if err != nil {
		t.Fatal(err)
	}
	p.now = p.now.Add(time.Hour)
	answer, _ := p.serve(m, "t")
	if p.calls != 3 {
		t.Error("a request held back was applied")
	}
	if s := x.Receive(p.now, answer); s.Kind != Send {
		t.Errorf("%+v", s)
	}
}

func TestObserve(t *testing.T) {
	p := newPair(t, Config{}, Config{}, oscore.Settings{})
	big := bytes.Repeat([]byte("0123456789"), 300)
	state := []byte("one")
	p.handle = func(r *Incoming) oscore.Message { return content(state, coap.Option{Number: coap.Observe}) }
	x, m, err := p.client.Begin(p.now, "server", message(t, coap.GET, "/o", nil, coap.Option{Number: coap.Observe}), RequestOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if s := p.run(x, m, "tok"); s.Kind != Notification || string(payloadOf(t, s.Message)) != "one" {
		t.Fatalf("%+v", s)
	}
	if len(p.observations) != 1 {
		t.Fatal("no observation")
	}
	state = big
	n, err := p.observations[0].Notify(p.now, content(state))
	if err != nil {
		t.Fatal(err)
	}
	s := x.Receive(p.now, n)
	if s.Kind != Notification || s.More == nil {
		t.Fatalf("%+v", s)
	}
	s = p.run(s.More, s.Message, "more")
	if s.Kind != Response || !bytes.Equal(payloadOf(t, s.Message), big) {
		t.Fatalf("%+v", s)
	}
	if _, ok := coap.Find(s.Message.Body, coap.Observe); !ok {
		t.Error("a notification of several blocks is not told from a response that ends the observation")
	}
	if s := x.Receive(p.now, n); s.Kind != Wait || !errors.Is(s.Err, oscore.ErrStale) {
		t.Errorf("a notification twice: %+v", s)
	}
	// Wrong turn 13: the replayed registration neither ends the observation nor
	// is it answered.
	if _, answered := p.serve(m, "tok"); answered || p.observations[0].Ended() {
		t.Error("a replayed registration ended the observation")
	}
	c, err := x.Cancel(p.now)
	if err != nil {
		t.Fatal(err)
	}
	if answer, ok := p.serve(c, "tok"); !ok || x.Receive(p.now, answer).Kind != Response {
		t.Error("cancellation not answered")
	}
	if !p.observations[0].Ended() {
		t.Error("cancellation did not end the observation")
	}
	if _, err := p.observations[0].Notify(p.now, content(nil)); !errors.Is(err, ErrEnded) {
		t.Error(err)
	}
}

// Clients and proxies that order by the outer Observe value (RFC 7641 §3.4)
// drop a notification whose value does not grow: aiocoap does.
func TestOuterObserveGrows(t *testing.T) {
	p := newPair(t, Config{}, Config{}, oscore.Settings{})
	p.handle = func(*Incoming) oscore.Message {
		return content([]byte("one"), coap.Option{Number: coap.Observe, Value: []byte{1}})
	}
	last := int64(-1)
	grows := func(m oscore.Message) {
		t.Helper()
		v, ok := coap.Find(m.Body, coap.Observe)
		if !ok || len(v) > 3 {
			t.Fatalf("outer Observe %x, %v", v, ok)
		}
		n := int64(0)
		for _, b := range v {
			n = n<<8 | int64(b)
		}
		if n <= last {
			t.Errorf("outer Observe %d after %d", n, last)
		}
		last = n
	}
	for range 2 { // the second time as a registration anew under the same token
		x, m, err := p.client.Begin(p.now, "server", message(t, coap.GET, "/o", nil, coap.Option{Number: coap.Observe}), RequestOptions{})
		if err != nil {
			t.Fatal(err)
		}
		first, ok := p.serve(m, "tok")
		if !ok || x.Receive(p.now, first).Kind != Notification {
			t.Fatal("not registered")
		}
		grows(first)
		for range 2 {
			n, err := p.observations[len(p.observations)-1].Notify(p.now, content([]byte("two"), coap.Option{Number: coap.Observe, Value: []byte{1}}))
			if err != nil {
				t.Fatal(err)
			}
			grows(n)
		}
	}
}

func TestRederive(t *testing.T) {
	both := oscore.Settings{Rederive: oscore.RoleClient | oscore.RoleServer}
	for _, c := range []struct {
		name   string
		break_ func(p *pair)
		opts   RequestOptions
	}{
		{"asked for", func(*pair) {}, RequestOptions{Rederive: true}},
		{"client lost its numbers", func(p *pair) { p.cp.forgetAll(t) }, RequestOptions{}},
		{"server lost its numbers", func(p *pair) { p.sp.forgetAll(t) }, RequestOptions{}},
		{"both lost them", func(p *pair) { p.sp.forgetAll(t); p.cp.forgetAll(t) }, RequestOptions{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newPair(t, Config{}, Config{}, both)
			p.handle = func(r *Incoming) oscore.Message { return content(payloadOf(t, r.Message)) }
			if s := p.do(message(t, coap.POST, "/x", []byte("before"))); s.Kind != Response {
				t.Fatal(s)
			}
			c.break_(p)
			x, m, err := p.client.Begin(p.now, "server", message(t, coap.POST, "/x", []byte("after")), c.opts)
			if err != nil {
				t.Fatal(err)
			}
			if s := p.run(x, m, "t"); s.Kind != Response || string(payloadOf(t, s.Message)) != "after" {
				t.Fatalf("%+v %+v", s, p.verdicts)
			}
			if p.cp.taint || p.sp.taint || p.calls != 2 {
				t.Errorf("taint %v %v, %d calls", p.cp.taint, p.sp.taint, p.calls)
			}
			if !bytes.Equal(p.cp.IDContext(), p.sp.IDContext()) || len(p.cp.IDContext()) < 16 {
				t.Errorf("ID Contexts %x and %x", p.cp.IDContext(), p.sp.IDContext())
			}
			for range 3 {
				if s := p.do(message(t, coap.POST, "/x", []byte("again"))); s.Kind != Response {
					t.Fatal(s)
				}
			}
			calls := p.calls
			for _, m := range p.sent {
				p.serve(m, "t")
			}
			if p.calls != calls {
				t.Error("a replay of the run was acted on")
			}
			if s := p.do(message(t, coap.POST, "/x", []byte("still"))); s.Kind != Response {
				t.Error("the replay broke the context", s)
			}
		})
	}
}

func TestForgedBeforeGenuine(t *testing.T) {
	p := newPair(t, Config{}, Config{}, oscore.Settings{})
	p.handle = func(*Incoming) oscore.Message { return content([]byte("genuine")) }
	x, m, err := p.client.Begin(p.now, "server", message(t, coap.GET, "/x", nil), RequestOptions{})
	if err != nil {
		t.Fatal(err)
	}
	answer, _ := p.serve(m, "t")
	forged := oscore.Message{Code: answer.Code, Body: bytes.Clone(answer.Body)}
	forged.Body[len(forged.Body)-1] ^= 1
	for _, f := range []oscore.Message{forged, {Code: byte(coap.Content), Body: []byte("\xffplain")}, {Code: byte(coap.Unauthorized)}} {
		if s := x.Receive(p.now, f); s.Kind != Wait || s.Err == nil {
			t.Errorf("forged: %+v", s)
		}
	}
	if s := x.Receive(p.now, answer); s.Kind != Response || string(payloadOf(t, s.Message)) != "genuine" {
		t.Errorf("%+v", s)
	}
}

func TestFailClosed(t *testing.T) {
	p := newPair(t, Config{}, Config{}, oscore.Settings{})
	if _, _, err := p.client.Begin(p.now, "nobody", message(t, coap.GET, "/", nil), RequestOptions{}); !errors.Is(err, ErrNoPeer) {
		t.Error(err)
	}
	p.cp.forgetAll(t)
	if _, _, err := p.client.Begin(p.now, "server", message(t, coap.GET, "/", nil), RequestOptions{}); !errors.Is(err, ErrTainted) {
		t.Error(err)
	}
}
