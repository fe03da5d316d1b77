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
)

func withOSCORE(value []byte, payload []byte) oscore.Message {
	return oscore.Message{Code: byte(coap.POST), Body: coap.AppendBody(nil, coap.Options{option(coap.OSCORE, value...)}, payload)}
}

// §8.2's table, byte by byte, and what a refusal must not do.
func TestRefusals(t *testing.T) {
	proof.Checklist(t, "O-2-2", "O-7.4-2", "O-8.2-1", "O-8.2-2", "O-8.2-3", "O-4.1.3.2-1", "O-3.3-3")
	proof.Requirement(t, "in-memory endpoint", "E2E-1", "E2E-3", "E2E-4")
	ct := bytes.Repeat([]byte{0xaa}, 20)
	replayed := func(p *pair) oscore.Message {
		p.do(message(t, coap.GET, "/x", nil))
		return p.sent[0]
	}
	as := func(m oscore.Message) func(*pair) oscore.Message { return func(*pair) oscore.Message { return m } }
	decode, context := "\x82\xffFailed to decode COSE", "\x81\xffSecurity context not found"
	replay, decrypt := "\x81\xd0\x01\xffReplay detected", "\x80\xd0\x01\xffDecryption failed"
	for _, c := range []struct {
		name   string
		m      func(*pair) oscore.Message
		reason Reason
		want   string // code and body
	}{
		{"empty option", as(withOSCORE(nil, ct)), ReasonDecode, decode},
		{"flags zero", as(withOSCORE([]byte{0}, ct)), ReasonDecode, decode},
		{"reserved bit", as(withOSCORE([]byte{0x89, 1, 1}, ct)), ReasonDecode, decode},
		{"n = 6", as(withOSCORE([]byte{0x0e, 0, 0, 0, 0, 0, 1, 1}, ct)), ReasonDecode, decode},
		{"n = 7", as(withOSCORE([]byte{0x0f, 0, 0, 0, 0, 0, 0, 1, 1}, ct)), ReasonDecode, decode},
		{"leading zero", as(withOSCORE([]byte{0x0a, 0, 1, 1}, ct)), ReasonDecode, decode},
		{"no kid", as(withOSCORE([]byte{0x01, 1}, ct)), ReasonDecode, decode},
		{"no Partial IV", as(withOSCORE([]byte{0x08, 1}, ct)), ReasonDecode, decode},
		{"kid context cut short", as(withOSCORE([]byte{0x19, 1, 9, 1}, ct)), ReasonDecode, decode},
		{"no payload", as(withOSCORE([]byte{0x09, 9, 1}, nil)), ReasonDecode, decode},
		{"twice", as(oscore.Message{Code: 2, Body: []byte("\x93\x09\x09\x01\x03\x09\x09\x01\xff01234567890123456789")}), ReasonDecode, decode},
		{"unknown kid", as(withOSCORE([]byte{0x09, 9, 7}, ct)), ReasonNoContext, context},
		{"empty kid", as(withOSCORE([]byte{0x09, 9}, ct)), ReasonNoContext, context},
		{"unknown kid context", as(withOSCORE([]byte{0x19, 9, 1, 0, 1}, ct)), ReasonNoContext, context},
		{"empty kid context", as(withOSCORE([]byte{0x19, 9, 0, 1}, ct)), ReasonNoContext, context},
		{"replay", replayed, ReasonReplay, replay},
		{"garbage", as(withOSCORE([]byte{0x09, 9, 1}, ct)), ReasonDecrypt, decrypt},
		{"too short", as(withOSCORE([]byte{0x09, 9, 1}, ct[:8])), ReasonDecrypt, decrypt},
	} {
		t.Run(c.name, func(t *testing.T) {
			var events []Event
			p := newPair(t, Config{}, Config{Event: func(e Event) { events = append(events, e) }}, oscore.Settings{})
			p.handle = func(*Incoming) oscore.Message { return content(nil) }
			m := c.m(p)
			events = nil
			calls := p.calls
			window, _ := p.sp.ctx.WindowState()
			res := p.server.Receive(p.now, Inbound{Source: "s", Token: []byte("t"), Message: m})
			if got := string(res.Message.Code) + string(res.Message.Body); res.Verdict != Reply || string([]byte{res.Message.Code})+string(res.Message.Body) != c.want {
				t.Errorf("%v %q", res.Verdict, got)
			}
			if res.Verified || res.Reason != c.reason || res.Incoming != nil || p.calls != calls {
				t.Errorf("%+v", res)
			}
			if after, _ := p.sp.ctx.WindowState(); fmt.Sprint(after) != fmt.Sprint(window) {
				t.Error("the window moved")
			}
			if len(events) != 1 || events[0].Reason != c.reason || events[0].Source != "s" {
				t.Errorf("%+v", events)
			}
			if s := p.do(message(t, coap.GET, "/x", nil)); s.Kind != Response {
				t.Errorf("the genuine one afterwards: %+v", s)
			}
		})
	}
}

func TestPlainAnswersAreLimited(t *testing.T) {
	garbage := withOSCORE([]byte{0x09, 9, 1}, bytes.Repeat([]byte{1}, 20))
	send := func(p *pair, source string) bool {
		return p.server.Receive(p.now, Inbound{Source: source, Message: garbage}).Verdict == Reply
	}
	p := newPair(t, Config{}, Config{ErrorRate: 5, ErrorRateTotal: 12}, oscore.Settings{})
	count := func(source string, n int) (answers int) {
		for range n {
			if send(p, source) {
				answers++
			}
		}
		return answers
	}
	if n := count("a", 100); n != 5 {
		t.Errorf("one source got %d answers", n)
	}
	if n := count("b", 100); n != 5 {
		t.Errorf("another got %d", n)
	}
	total := 0
	for i := range 1000 {
		total += count(fmt.Sprint("s", i), 1)
	}
	if total != 2 {
		t.Errorf("all others got %d", total)
	}
	p.now = p.now.Add(time.Second)
	if n := count("a", 100); n != 5 {
		t.Errorf("a second later %d", n)
	}
	p = newPair(t, Config{}, Config{Silent: true}, oscore.Settings{})
	if send(p, "a") {
		t.Error("Silent answered")
	}
	// A verified request is served whatever was spent.
	p = newPair(t, Config{}, Config{ErrorRate: 1, ErrorRateTotal: 1}, oscore.Settings{})
	p.handle = func(*Incoming) oscore.Message { return content(nil) }
	count("client", 50)
	if s := p.do(message(t, coap.GET, "/x", nil)); s.Kind != Response {
		t.Errorf("%+v", s)
	}
}

// Wrong turn 16: a message that does not verify leaves no trace: no state of
// its peer, no bytes, nothing that the transport may remember.
func TestWrongTurn16_ForgedLeavesNoTrace(t *testing.T) {
	proof.Checklist(t, "O-8.4-2", "O-7.2-1")
	proof.Requirement(t, "in-memory endpoint", "E2E-1")
	p := newPair(t, Config{}, Config{Freshness: always(FreshUnsafe)}, bothRoles)
	p.handle = echoHandler(t)
	run := func(m oscore.Message) {
		for i := range m.Body {
			for bit := range 8 {
				f := oscore.Message{Code: m.Code, Body: bytes.Clone(m.Body)}
				f.Body[i] ^= 1 << bit
				res := p.server.Receive(p.now, Inbound{Source: "m", Token: []byte("t"), Message: f})
				if res.Verdict == NotProtected {
					continue // option 9 became another option: the caller refuses it
				}
				if res.Verified || res.Incoming != nil || res.Verdict == Deliver {
					t.Fatalf("byte %d bit %d: %+v", i, bit, res)
				}
				if res.Verdict == Reply {
					switch coap.Code(res.Message.Code) {
					case coap.BadRequest, coap.Unauthorized, coap.BadOption:
					default:
						t.Fatalf("byte %d bit %d: %v", i, bit, coap.Code(res.Message.Code))
					}
				}
			}
		}
		if len(p.server.peers) != 0 || p.calls != 0 {
			t.Errorf("%d peers, %d calls", len(p.server.peers), p.calls)
		}
	}
	x, m := p.begin(message(t, coap.POST, "/x", []byte("genuine"), option(coap.Block2, 6)))
	run(m)
	_, first := p.beginRunOf("other")
	run(first)
	if s := p.run(x, m, "t"); s.Kind != Response || p.calls != 1 {
		t.Fatalf("the genuine one: %+v", s)
	}
	// The client's side: every flip of the answer, then the answer.
	x, m = p.begin(message(t, coap.GET, "/x", nil))
	answer, _ := p.serve(m, "t")
	for i := range answer.Body {
		f := oscore.Message{Code: answer.Code, Body: bytes.Clone(answer.Body)}
		f.Body[i] ^= 1
		if s := x.Receive(p.now, f); s.Kind != Wait || s.Err == nil {
			t.Fatalf("byte %d: %+v", i, s)
		}
	}
	if s := x.Receive(p.now, answer); s.Kind != Response {
		t.Errorf("the genuine answer: %+v", s)
	}
}

// beginRunOf begins a run of Appendix B.2 of a second client process.
func (p *pair) beginRunOf(body string) (*Exchange, oscore.Message) {
	p.t.Helper()
	e := New(Config{Keyring: testRing{newPeer(p.t, "server", p.cp.params, bothRoles)}}, p.now)
	x, m, err := e.Begin(p.now, "server", message(p.t, coap.POST, "/x", []byte(body)), RequestOptions{Rederive: true})
	if err != nil {
		p.t.Fatal(err)
	}
	return x, m
}

// Up to four peers may share a kid: the one whose key fits is found, a replay
// is told from a forgery, and the wrong ones are left as they were.
func TestSharedKID(t *testing.T) {
	var ring testRing
	var clients []*testPeer
	for i := range oscore.MaxCandidates {
		params := oscore.Params{MasterSecret: oscore.Secret(fmt.Sprint("secret number ", i)), SenderID: []byte{2}, RecipientID: []byte{1}, IDContext: []byte{byte(i)}}
		ring = append(ring, newPeer(t, fmt.Sprint("peer", i), params, oscore.Settings{}))
		client := params.Swap()
		c := newPeer(t, "server", client, oscore.Settings{})
		c.ctx.SetKIDContext(nil)
		clients = append(clients, c)
	}
	now := time.Unix(1e9, 0)
	e := New(Config{Keyring: ring, ErrorRate: 1000}, now)
	var sent []oscore.Message
	for round := range 3 {
		for i, c := range clients {
			pending := new(oscore.Pending)
			m, err := c.SealRequest(nil, pending, message(t, coap.GET, "/x", nil))
			if err != nil {
				t.Fatal(err)
			}
			sent = append(sent, m)
			res := e.Receive(now, Inbound{Source: "s", Message: m})
			if res.Verdict != Deliver || res.Peer != fmt.Sprint("peer", i) {
				t.Fatalf("round %d client %d: %+v", round, i, res)
			}
			out, _, err := res.Incoming.Respond(now, content([]byte("x")))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := pending.Open(nil, out); err != nil {
				t.Error(err)
			}
		}
	}
	for i, m := range sent {
		res := e.Receive(now, Inbound{Source: "s", Message: m})
		if res.Reason != ReasonReplay || res.Verified {
			t.Errorf("replay %d: %+v", i, res)
		}
		m.Body[len(m.Body)-1] ^= 1
		opt, _, _ := oscore.FindOption(m)
		if res = e.Receive(now, Inbound{Source: "s", Message: m}); res.Reason != ReasonReplay || opt.Sequence() > 2 {
			t.Errorf("a forgery under a number seen: %+v", res)
		}
	}
	forged := withOSCORE([]byte{0x09, 99, 1}, bytes.Repeat([]byte{1}, 20))
	if res := e.Receive(now, Inbound{Source: "s", Message: forged}); res.Reason != ReasonDecrypt {
		t.Errorf("%+v", res)
	}
}

// What a peer may not do is refused under protection, before anything else.
func TestAccess(t *testing.T) {
	proof.Checklist(t, "O-8.3-1")
	p := newPair(t, Config{}, Config{Freshness: always(FreshAlways), Allow: func(peer string, method coap.Code, path string) bool {
		return peer == "client" && (method == coap.GET || path == "/mine")
	}}, oscore.Settings{})
	p.handle = func(*Incoming) oscore.Message { return changed() }
	for _, c := range []struct {
		code coap.Code
		path string
		more []coap.Option
		ok   bool
	}{
		{coap.GET, "/other", nil, true},
		{coap.PUT, "/mine", nil, true},
		{coap.PUT, "/other", nil, false},
		{coap.PUT, "/", nil, false},
		{coap.PUT, "/other", []coap.Option{block(coap.Block1, 0, true, 0)}, false},
		{coap.PUT, "/other", []coap.Option{block(coap.Block2, 1, false, 0)}, false},
		{coap.FETCH, "/other", []coap.Option{option(coap.Observe)}, false},
		{coap.Code(31), "/other", nil, false},
	} {
		calls := p.calls
		resp, _ := p.ask(message(t, c.code, c.path, make([]byte, 16), append(c.more, option(coap.Echo, p.server.echo.value(p.now, "client")...))...), "t")
		if got := coap.Code(resp.Code); c.ok != (got == coap.Changed) || !c.ok && (got != coap.Forbidden || p.calls != calls || payloadOf(t, resp) != nil) {
			t.Errorf("%v %s: %v", c.code, c.path, got)
		}
	}
	if n := len(p.server.find("client").transfers.uploads); n != 0 {
		t.Errorf("%d uploads of what is forbidden", n)
	}
}

// No-Response is the client's, inside; outside it is nobody's.
func TestNoResponse(t *testing.T) {
	proof.Checklist(t, "O-4.1.3.6-1", "O-4.1.3.6-2", "O-4.1.3.6-3")
	codes := []coap.Code{coap.Content, coap.NotFound, coap.InternalServerError}
	for _, c := range []struct {
		value []byte
		sent  [3]bool
	}{
		{nil, [3]bool{true, true, true}},
		{[]byte{}, [3]bool{true, true, true}},
		{[]byte{2}, [3]bool{false, true, true}},
		{[]byte{8}, [3]bool{true, false, true}},
		{[]byte{16}, [3]bool{true, true, false}},
		{[]byte{26}, [3]bool{}},
		{[]byte{0, 26}, [3]bool{true, true, true}}, // too long: no No-Response
	} {
		for i, answer := range codes {
			p := newPair(t, Config{}, Config{}, oscore.Settings{})
			p.handle = func(*Incoming) oscore.Message { return code(answer) }
			var more []coap.Option
			if c.value != nil {
				more = append(more, option(coap.NoResponse, c.value...))
			}
			_, m := p.begin(message(t, coap.PUT, "/x", nil, more...))
			if _, ok := optionOf(m, coap.NoResponse); ok {
				t.Error("outer No-Response")
			}
			if _, ok := p.serve(m, "t"); ok != c.sent[i] || p.calls != 1 {
				t.Errorf("%x, %v: sent %v", c.value, answer, ok)
			}
		}
	}
	t.Run("outer", func(t *testing.T) {
		p := newPair(t, Config{}, Config{}, oscore.Settings{})
		p.handle = func(*Incoming) oscore.Message { return changed() }
		_, m := p.begin(message(t, coap.PUT, "/x", nil))
		opts, payload, _ := coap.Split(m.Body)
		m.Body = coap.AppendBody(nil, opts.Add(coap.NoResponse, []byte{26}), payload)
		if _, ok := p.serve(m, "t"); !ok {
			t.Error("the outer option was heeded")
		}
	})
	t.Run("in blocks", func(t *testing.T) {
		p := newPair(t, Config{}, Config{}, oscore.Settings{})
		p.handle = func(*Incoming) oscore.Message { return changed() }
		if s := p.do(message(t, coap.PUT, "/x", pattern(5000), option(coap.NoResponse, 2))); s.Kind != Wait || p.calls != 1 {
			t.Errorf("%+v, %d calls", s, p.calls)
		}
	})
	t.Run("challenge", func(t *testing.T) {
		p := newPair(t, Config{}, Config{Freshness: always(FreshAlways)}, oscore.Settings{})
		p.handle = func(*Incoming) oscore.Message { return changed() }
		if s := p.do(message(t, coap.PUT, "/x", nil, option(coap.NoResponse, 26))); s.Kind != Wait || p.calls != 1 {
			t.Errorf("%+v, %d calls", s, p.calls)
		}
	})
}

// Anything in plain is reported and acted on never: not a success, not an
// error, not a proxy's 5.04.
func TestPlainResponses(t *testing.T) {
	proof.Checklist(t, "O-2-3", "O-4.1.3.6-4", "O-D.5.3-1")
	p := newPair(t, Config{}, Config{}, bothRoles)
	p.handle = func(*Incoming) oscore.Message { return content([]byte("genuine")) }
	x, m := p.begin(message(t, coap.GET, "/x", nil))
	for _, c := range []struct {
		m    oscore.Message
		text string
	}{
		{content([]byte("forged")), `endpoint: unprotected answer 2.05 Content ("forged")`},
		{code(coap.Unauthorized, option(coap.Echo, 1)), "endpoint: unprotected answer 4.01 Unauthorized"},
		{oscore.Message{Code: byte(coap.GatewayTimeout), Body: []byte("\xffproxy\ntext")}, `endpoint: unprotected answer 5.04 Gateway Timeout ("proxy")`},
		{oscore.Message{Code: byte(coap.BadGateway), Body: append([]byte{0xff}, bytes.Repeat([]byte("a"), 1000)...)}, "endpoint: unprotected answer 5.02 Bad Gateway (\"" + string(bytes.Repeat([]byte("a"), 100)) + "\")"},
	} {
		var plain *PlainError
		if s := x.Receive(p.now, c.m); s.Kind != Wait || !errors.As(s.Err, &plain) || plain.Error() != c.text {
			t.Errorf("%+v", s)
		}
	}
	answer, _ := p.serve(m, "t")
	if s := x.Receive(p.now, answer); s.Kind != Response {
		t.Errorf("%+v", s)
	}
}

// The response of one request is refused for another (RFC 8613 §8, property 5).
func TestResponsesAreBound(t *testing.T) {
	proof.Checklist(t, "O-8-1", "E-27")
	proof.Requirement(t, "in-memory endpoint", "E2E-5")
	for _, numbered := range []bool{false, true} {
		p := newPair(t, Config{}, Config{ResponsePIV: numbered}, oscore.Settings{})
		p.handle = func(r *Incoming) oscore.Message { return content([]byte(coap.Path(r.Message.Body))) }
		x1, m1 := p.begin(message(t, coap.GET, "/1", nil))
		x2, m2 := p.begin(message(t, coap.GET, "/2", nil))
		a2, _ := p.serve(m2, "2")
		a1, _ := p.serve(m1, "1")
		for _, c := range []struct {
			x    *Exchange
			m    oscore.Message
			kind StepKind
		}{{x1, a2, Wait}, {x2, a1, Wait}, {x1, a1, Response}, {x2, a2, Response}, {x1, a1, Failed}} {
			if s := c.x.Receive(p.now, c.m); s.Kind != c.kind {
				t.Errorf("numbered %v: %+v", numbered, s)
			}
		}
	}
}

// A request's nonce serves one response, whoever asks.
func TestRespondOnce(t *testing.T) {
	proof.Checklist(t, "O-8.3-2", "O-8.3-3")
	p := newPair(t, Config{}, Config{}, oscore.Settings{})
	_, m := p.begin(message(t, coap.GET, "/x", nil))
	res := p.server.Receive(p.now, Inbound{Message: m})
	if _, _, err := res.Incoming.Respond(p.now, oscore.Message{Code: byte(coap.Content), Body: []byte{0xff}}); !errors.Is(err, coap.ErrFormat) {
		t.Errorf("a broken response: %v", err)
	}
	if _, _, err := res.Incoming.Respond(p.now, oscore.Message{Code: byte(coap.GET)}); !errors.Is(err, oscore.ErrCode) {
		t.Errorf("a request for an answer: %v", err)
	}
	out, send, err := res.Incoming.Respond(p.now, content(nil))
	if opt, _, _ := oscore.FindOption(out); !send || err != nil || opt.PartialIV != nil {
		t.Errorf("%v %v %+v", send, err, opt)
	}
	if out, send, err := res.Incoming.Respond(p.now, content(nil)); send || !errors.Is(err, oscore.ErrNonceSpent) || out.Body != nil {
		t.Errorf("again: %v %v", send, err)
	}
}

// Protected signalling goes to the application over streams, and nowhere over
// datagrams (RFC 8613 §4.3).
func TestSignals(t *testing.T) {
	proof.Checklist(t, "O-4.3-2", "O-4.3-5")
	p := newPair(t, Config{}, Config{Freshness: always(FreshAlways), Allow: func(string, coap.Code, string) bool { return false }}, oscore.Settings{})
	ping := oscore.Message{Code: byte(coap.Ping), Body: coap.AppendBody(nil, coap.Options{option(2)}, nil)}
	for _, reliable := range []bool{false, true} {
		pending := new(oscore.Pending)
		m, err := p.cp.SealRequest(nil, pending, ping)
		if err != nil {
			t.Fatal(err)
		}
		res := p.server.Receive(p.now, Inbound{Reliable: reliable, Message: m})
		if (res.Verdict == Deliver) != reliable {
			t.Fatalf("reliable %v: %+v", reliable, res)
		}
		if !reliable {
			continue
		}
		if !bytes.Equal(res.Incoming.Message.Body, ping.Body) {
			t.Errorf("%x", res.Incoming.Message.Body)
		}
		out, _, err := res.Incoming.Respond(p.now, oscore.Message{Code: byte(coap.Pong)})
		if err != nil {
			t.Fatal(err)
		}
		if pong, err := pending.Open(nil, out); err != nil || coap.Code(pong.Code) != coap.Pong {
			t.Error(coap.Code(pong.Code), err)
		}
	}
}

func TestNotProtected(t *testing.T) {
	p := newPair(t, Config{}, Config{}, oscore.Settings{})
	if res := p.server.Receive(p.now, Inbound{Message: message(t, coap.GET, "/x", nil)}); res.Verdict != NotProtected || res.Verified {
		t.Errorf("%+v", res)
	}
	if res := p.server.Receive(p.now, Inbound{Message: oscore.Message{Code: 1, Body: []byte{0xf0}}}); res.Verdict != Reply || res.Reason != ReasonDecode {
		t.Errorf("broken framing: %+v", res)
	}
	p.server.cfg.Keyring = nil
	_, m := p.begin(message(t, coap.GET, "/x", nil))
	if res := p.server.Receive(p.now, Inbound{Message: m}); res.Reason != ReasonNoContext {
		t.Errorf("%+v", res)
	}
}
