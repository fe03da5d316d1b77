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

// tb is what helpers need of a test, be it rapid's.
type tb interface {
	Helper()
	Fatal(...any)
}

// testPeer is an oscore.Peer without storage.
type testPeer struct {
	mu       sync.Mutex
	adopted  map[string]bool
	fail     error // what sealing and adopting answer, as storage may
	name     string
	params   oscore.Params
	settings oscore.Settings
	ctx      *oscore.Context
	taint    bool
}

func newPeer(t tb, name string, p oscore.Params, s oscore.Settings) *testPeer {
	t.Helper()
	ctx, err := oscore.New(p)
	if err != nil {
		t.Fatal(err)
	}
	ctx.Begin()
	return &testPeer{name: name, params: p, settings: s, ctx: ctx}
}

// lose makes the peer forget its window, as a restart does; its numbers go on.
func (p *testPeer) lose(t tb) {
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
func (p *testPeer) forgetAll(t tb) {
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

func (p *testPeer) Tainted() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.taint
}

func (p *testPeer) IDContext() []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ctx.IDContext()
}

// failure is what storage answers before a message is sealed.
func (p *testPeer) failure() error {
	if p.taint {
		return ErrTainted
	}
	return p.fail
}

func (p *testPeer) SealRequest(dst []byte, q *oscore.Pending, m oscore.Message) (oscore.Message, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.failure(); err != nil {
		return oscore.Message{}, err
	}
	return p.ctx.SealRequest(dst, q, m)
}

func (p *testPeer) SealRequestAs(dst []byte, q *oscore.Pending, inner, outer oscore.Message) (oscore.Message, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.failure(); err != nil {
		return oscore.Message{}, err
	}
	return p.ctx.SealRequestAs(dst, q, inner, outer)
}

func (p *testPeer) Resume(pending *oscore.Pending, sealed oscore.Message) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ctx.Resume(pending, sealed)
}

func (p *testPeer) OpenRequest(dst []byte, r *oscore.Request, m oscore.Message) (oscore.Message, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ctx.OpenRequest(dst, r, m)
}

func (p *testPeer) SealResponse(dst []byte, r *oscore.Request, m oscore.Message) (oscore.Message, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.failure(); err != nil {
		return oscore.Message{}, err
	}
	return p.ctx.SealResponse(dst, r, m)
}

func (p *testPeer) SealChallenge(dst []byte, r *oscore.Request, echo []byte) (oscore.Message, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.failure(); err != nil {
		return oscore.Message{}, err
	}
	return p.ctx.SealChallenge(dst, r, echo)
}

func (p *testPeer) AcceptEcho(r *oscore.Request) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ctx.AcceptEcho(r)
}

func (p *testPeer) Derive(idContext, kidContext []byte) (*oscore.Context, error) {
	p.mu.Lock()
	q := p.params
	p.mu.Unlock()
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
	if p.fail != nil {
		return p.fail
	}
	id := string(c.IDContext())
	if p.adopted[id] {
		return errAdoptedTwice
	}
	if p.adopted == nil {
		p.adopted = map[string]bool{}
	}
	p.adopted[id] = true
	c.SetKIDContext(nil)
	p.params.IDContext = c.IDContext()
	p.ctx, p.taint = c, false
	return nil
}

var errAdoptedTwice = errors.New("an ID Context was adopted twice: its numbers begin anew")

// testRing is a Keyring of few peers.
type testRing []*testPeer

func (r testRing) Find(dst []oscore.Peer, kid, kidContext []byte) ([]oscore.Peer, oscore.Match) {
	match := oscore.MatchNone
	for _, p := range r {
		if !bytes.Equal(p.params.RecipientID, kid) {
			continue
		}
		wrapped, err := oscore.UnwrapBstr(kidContext)
		id := p.IDContext()
		switch {
		case kidContext == nil:
			dst, match = append(dst, p), oscore.MatchKID
		case id != nil && (bytes.Equal(kidContext, id) || err == nil && bytes.Equal(wrapped, id)):
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

func message(t tb, code coap.Code, path string, payload []byte, more ...coap.Option) oscore.Message {
	t.Helper()
	opts, err := coap.Options(more).AddPath(path)
	if err != nil {
		t.Fatal(err)
	}
	return oscore.Message{Code: byte(code), Body: coap.AppendBody(nil, opts, payload)}
}

func payloadOf(t tb, m oscore.Message) []byte {
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

// ask seals an inner request with the client's context, without its endpoint,
// and returns the opened answer; ok is false where there was none.
func (p *pair) ask(m oscore.Message, token string) (resp oscore.Message, ok bool) {
	p.t.Helper()
	pending := new(oscore.Pending)
	out, err := p.cp.SealRequest(nil, pending, m)
	if err != nil {
		p.t.Fatal(err)
	}
	answer, ok := p.serve(out, token)
	if !ok {
		return resp, false
	}
	if resp, err = pending.Open(nil, answer); err != nil {
		p.t.Fatal(err, p.last())
	}
	return resp, true
}

// last returns the server's last result.
func (p *pair) last() Result { return p.verdicts[len(p.verdicts)-1] }

// reply opens a request of the client's endpoint with the server's context,
// without its endpoint, and seals an answer.
func (p *pair) reply(m oscore.Message, answer func(inner oscore.Message) oscore.Message) oscore.Message {
	p.t.Helper()
	req := new(oscore.Request)
	inner, err := p.sp.OpenRequest(nil, req, m)
	if err != nil {
		p.t.Fatal(err)
	}
	out, err := p.sp.SealResponse(nil, req, answer(inner))
	if err != nil {
		p.t.Fatal(err)
	}
	return out
}

// drive passes the messages of an exchange to a server that answers by hand,
// until it is over.
func (p *pair) drive(x *Exchange, m oscore.Message, answer func(inner oscore.Message) oscore.Message) Step {
	p.t.Helper()
	for range 5000 {
		s := x.Receive(p.now, p.reply(m, answer))
		if s.Kind != Send {
			return s
		}
		m = s.Message
	}
	p.t.Fatal("exchange does not end")
	return Step{}
}

// begin starts an exchange of the client.
func (p *pair) begin(m oscore.Message) (*Exchange, oscore.Message) {
	p.t.Helper()
	x, out, err := p.client.Begin(p.now, "server", m, RequestOptions{})
	if err != nil {
		p.t.Fatal(err)
	}
	return x, out
}

func option(number uint16, value ...byte) coap.Option {
	return coap.Option{Number: number, Value: value}
}

func block(number uint16, num uint32, more bool, szx uint8) coap.Option {
	return option(number, coap.Block{Num: num, More: more, SZX: szx}.Append(nil)...)
}

func optionOf(m oscore.Message, number uint16) ([]byte, bool) { return coap.Find(m.Body, number) }

func changed() oscore.Message { return oscore.Message{Code: byte(coap.Changed)} }
