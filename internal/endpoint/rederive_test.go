package endpoint

import (
	"bytes"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/oscorelay/oscorelay/internal/coap"
	"github.com/oscorelay/oscorelay/internal/proof"
	"github.com/oscorelay/oscorelay/oscore"
)

var bothRoles = oscore.Settings{Rederive: oscore.RoleClient | oscore.RoleServer}

func echoHandler(t testing.TB) func(*Incoming) oscore.Message {
	return func(r *Incoming) oscore.Message { return content(payloadOf(t, r.Message)) }
}

// beginRun starts a run of the client and returns request #1.
func (p *pair) beginRun(body string) (*Exchange, oscore.Message) {
	p.t.Helper()
	x, m, err := p.client.Begin(p.now, "server", message(p.t, coap.POST, "/x", []byte(body)), RequestOptions{Rederive: true})
	if err != nil {
		p.t.Fatal(err)
	}
	return x, m
}

// The wire form that Californium speaks: kid contexts are CBOR byte strings, R1
// has 8 bytes, R2 16, response #1 no Partial IV, and afterwards none is sent.
func TestRederiveOnTheWire(t *testing.T) {
	proof.Checklist(t, "O-B.2-1")
	p := newPair(t, Config{}, Config{}, bothRoles)
	p.handle = echoHandler(t)
	kidContext := func(m oscore.Message) (raw, id []byte, opt oscore.Option) {
		opt, _, err := oscore.FindOption(m)
		if err != nil {
			t.Fatal(err)
		}
		if opt.KIDContext != nil {
			if id, err = oscore.UnwrapBstr(opt.KIDContext); err != nil {
				t.Fatal(err)
			}
		}
		return opt.KIDContext, id, opt
	}
	x, m := p.beginRun("one")
	_, r1, _ := kidContext(m)
	answer, _ := p.serve(m, "1")
	raw, r2, opt := kidContext(answer)
	if len(r1) != 8 || len(r2) != 16 || raw[0] != 0x50 || opt.PartialIV != nil || opt.KID != nil {
		t.Errorf("R1 %x, kid context %x, option %+v", r1, raw, opt)
	}
	s := x.Receive(p.now, answer)
	if s.Kind != Send {
		t.Fatalf("%+v", s)
	}
	_, id3, opt := kidContext(s.Message)
	if len(id3) != 24 || !bytes.HasPrefix(id3, r2) || opt.Sequence() != 0 {
		t.Errorf("request #2: %x %+v", id3, opt)
	}
	if s = p.run(x, s.Message, "2"); s.Kind != Response || string(payloadOf(t, s.Message)) != "one" {
		t.Fatalf("%+v", s)
	}
	p.do(message(t, coap.GET, "/x", nil))
	if raw, _, _ := kidContext(p.sent[len(p.sent)-1]); raw != nil {
		t.Errorf("kid context %x after the run", raw)
	}
}

// Every message of a run delivered again, at every time, is acted on never.
func TestRederiveReplays(t *testing.T) {
	proof.Checklist(t, "O-B.2-3", "O-B.2-4", "O-B.2.1-1")
	proof.Requirement(t, "in-memory endpoint", "E2E-3")
	p := newPair(t, Config{}, Config{}, bothRoles)
	p.handle = echoHandler(t)
	r2s := map[string]bool{}
	again := func(when string, calls int) {
		t.Helper()
		for i, m := range append([]oscore.Message(nil), p.sent...) {
			answer, ok := p.serve(m, "r")
			if ok {
				if opt, _, _ := oscore.FindOption(answer); opt.KIDContext != nil {
					if r2s[string(opt.KIDContext)] {
						t.Errorf("%s: R2 %x came twice", when, opt.KIDContext)
					}
					r2s[string(opt.KIDContext)] = true
				}
			}
			if p.last().Verified {
				t.Errorf("%s: replay %d left a trace: %+v", when, i, p.last())
			}
		}
		if p.calls != calls {
			t.Fatalf("%s: the handler ran %d times", when, p.calls)
		}
	}
	x, m := p.beginRun("one")
	first, _ := p.serve(m, "1")
	again("before response #1 arrives", 0)
	s := x.Receive(p.now, first)
	if s.Kind != Send {
		t.Fatalf("%+v", s)
	}
	if s = p.run(x, s.Message, "2"); s.Kind != Response {
		t.Fatalf("%+v", s)
	}
	again("after completion", 1)
	p.server = New(p.server.cfg, p.now) // the process anew
	again("after a restart", 1)
	p.sp.lose(t) // and its window lost
	again("after a lost window", 1)
	p.now = p.now.Add(time.Minute)
	if s := p.do(message(t, coap.POST, "/x", []byte("two"))); s.Kind != Response || p.calls != 2 {
		t.Fatalf("%+v", s)
	}
	again("after its recovery", 2)
	x, m = p.beginRun("three")
	if s := p.run(x, m, "3"); s.Kind != Response {
		t.Fatalf("%+v", s)
	}
	again("after the next run", 3)
	if s := p.do(message(t, coap.POST, "/x", []byte("four"))); s.Kind != Response {
		t.Fatalf("%+v", s)
	}
}

// Of request #2 many times at once, and of two runs, one is accepted.
func TestRederiveConcurrently(t *testing.T) {
	proof.Checklist(t, "O-B.2-4", "O-7.4-3")
	for round := range 50 {
		p := newPair(t, Config{}, Config{}, bothRoles)
		// Two clients of one context: a run each.
		var second []oscore.Message
		for i := range 2 {
			client := New(Config{Keyring: testRing{newPeer(t, "server", p.cp.params, bothRoles)}}, p.now)
			x, m, err := client.Begin(p.now, "server", message(t, coap.POST, "/x", []byte{byte(i)}), RequestOptions{Rederive: true})
			if err != nil {
				t.Fatal(err)
			}
			answer, _ := p.serve(m, "1")
			s := x.Receive(p.now, answer)
			if s.Kind != Send {
				t.Fatalf("%+v", s)
			}
			second = append(second, s.Message)
		}
		// Meanwhile others begin runs, so that there always is a key.
		other := New(Config{Keyring: testRing{newPeer(t, "server", p.cp.params, bothRoles)}}, p.now)
		_, first, err := other.Begin(p.now, "server", message(t, coap.POST, "/x", nil), RequestOptions{Rederive: true})
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		var mu sync.Mutex
		delivered := 0
		for i := range 8 {
			wg.Go(func() {
				for j := range 4 {
					m := second[i%2]
					if (i+j)%4 == 3 {
						m = first
					}
					res := p.server.Receive(p.now, Inbound{Source: "c", Token: []byte("t"), Message: m})
					if errors.Is(res.Err, errAdoptedTwice) {
						t.Error(res.Err)
					}
					if res.Verdict == Deliver {
						mu.Lock()
						delivered++
						mu.Unlock()
					}
				}
			})
		}
		wg.Wait()
		if delivered != 1 {
			t.Fatalf("round %d: %d requests #2 delivered", round, delivered)
		}
	}
}

// A request #2 that passed the MAC check before another won, and a new key
// issued between, must not be adopted again.
func TestClaimIsOneStep(t *testing.T) {
	p := newPair(t, Config{}, Config{}, bothRoles)
	r2, err := p.server.issue(p.now, "client")
	if err != nil {
		t.Fatal(err)
	}
	id := append(r2, 1, 2, 3, 4, 5, 6, 7, 8)
	if c := p.server.claim(p.now, "client", id); c != claimFresh {
		t.Fatal(c)
	}
	if _, err := p.server.issue(p.now, "client"); err != nil {
		t.Fatal(err)
	}
	if c := p.server.claim(p.now, "client", id); c != claimStale {
		t.Errorf("the same request #2: %v", c)
	}
	id[len(id)-1]++
	if c := p.server.claim(p.now, "client", id); c != claimNone {
		t.Errorf("the same R2: %v", c)
	}
}

func TestRederiveExpires(t *testing.T) {
	p := newPair(t, Config{}, Config{}, bothRoles)
	p.handle = echoHandler(t)
	x, m := p.beginRun("held back")
	first, _ := p.serve(m, "1")
	s := x.Receive(p.now, first)
	p.now = p.now.Add(time.Hour)
	if p.serve(s.Message, "2"); p.calls != 0 {
		t.Error("a request #2 held back for an hour was acted on")
	}
}

// Whatever message of a run is lost, the caller's next try succeeds.
func TestRederiveLosses(t *testing.T) {
	for lost := range 4 {
		t.Run(fmt.Sprint("message ", lost), func(t *testing.T) {
			p := newPair(t, Config{}, Config{}, bothRoles)
			p.handle = echoHandler(t)
			x, m := p.beginRun("lost")
			if lost > 0 {
				answer, _ := p.serve(m, "1")
				if lost > 1 {
					s := x.Receive(p.now, answer)
					if lost > 2 {
						p.serve(s.Message, "2") // response #2 is lost
					}
				}
			}
			calls := p.calls
			x.Abandon()
			for range p.client.cfg.RederiveAfter + 1 {
				if s := p.do(message(t, coap.POST, "/x", []byte("next"))); s.Kind == Response {
					if p.calls != calls+1 {
						t.Errorf("%d calls", p.calls)
					}
					return
				}
				y, _, err := p.client.Begin(p.now, "server", message(t, coap.POST, "/x", nil), RequestOptions{})
				if err != nil {
					t.Fatal(err)
				}
				y.Abandon()
			}
			t.Error("traffic did not go on")
		})
	}
}

func TestRederiveNeedsRandomness(t *testing.T) {
	proof.Checklist(t, "O-B.2-2")
	t.Run("client", func(t *testing.T) {
		p := newPair(t, Config{Rand: failingReader{}}, Config{}, bothRoles)
		if _, _, err := p.client.Begin(p.now, "server", message(t, coap.GET, "/x", nil), RequestOptions{Rederive: true}); err == nil {
			t.Error("a run without randomness")
		}
		if _, _, err := p.client.Begin(p.now, "server", message(t, coap.GET, "/x", nil), RequestOptions{}); err != nil {
			t.Errorf("the peer stays locked: %v", err)
		}
	})
	t.Run("server", func(t *testing.T) {
		p := newPair(t, Config{}, Config{Rand: failingReader{}}, bothRoles)
		_, m := p.beginRun("x")
		if _, ok := p.serve(m, "1"); ok || p.last().Err == nil {
			t.Errorf("%+v", p.last())
		}
	})
}

// While a run is under way nothing else goes out to the peer; when it is over
// everybody may, under the new context.
func TestBusy(t *testing.T) {
	p := newPair(t, Config{}, Config{}, bothRoles)
	p.handle = echoHandler(t)
	x, m := p.beginRun("one")
	_, _, err := p.client.Begin(p.now, "server", message(t, coap.GET, "/x", nil), RequestOptions{})
	var busy *BusyError
	if !errors.As(err, &busy) {
		t.Fatal(err)
	}
	select {
	case <-busy.Done:
		t.Fatal("done already")
	default:
	}
	if s := p.run(x, m, "1"); s.Kind != Response {
		t.Fatalf("%+v", s)
	}
	<-busy.Done
	if s := p.do(message(t, coap.POST, "/x", []byte("two"))); s.Kind != Response {
		t.Errorf("%+v", s)
	}
	// Given up, failed or forgotten: nobody waits for ever.
	for name, end := range map[string]func(*Exchange){
		"abandoned": (*Exchange).Abandon, "closed": (*Exchange).Close,
		"forgotten": func(x *Exchange) { p.client.Forget("server"); x.Close() },
	} {
		x, _ := p.beginRun("one")
		_, _, err := p.client.Begin(p.now, "server", message(t, coap.GET, "/x", nil), RequestOptions{})
		if !errors.As(err, &busy) {
			t.Fatal(name, err)
		}
		end(x)
		<-busy.Done
	}
}

// The server lost its numbers while several requests were under way: one of
// them carries the run, the others are told to begin again.
func TestServerInitiatedOnce(t *testing.T) {
	p := newPair(t, Config{}, Config{}, bothRoles)
	p.handle = echoHandler(t)
	p.sp.forgetAll(t)
	x1, m1 := p.begin(message(t, coap.POST, "/x", []byte("1")))
	x2, m2 := p.begin(message(t, coap.POST, "/x", []byte("2")))
	a1, _ := p.serve(m1, "1")
	a2, _ := p.serve(m2, "2")
	s1, s2 := x1.Receive(p.now, a1), x2.Receive(p.now, a2)
	var busy *BusyError
	if s1.Kind != Send || s2.Kind != Failed || !errors.As(s2.Err, &busy) {
		t.Fatalf("%+v %+v", s1, s2)
	}
	if s := p.run(x1, s1.Message, "1"); s.Kind != Response || p.calls != 1 {
		t.Fatalf("%+v", s)
	}
	<-busy.Done
	if s := p.do(message(t, coap.POST, "/x", []byte("2"))); s.Kind != Response {
		t.Errorf("%+v", s)
	}
}

func TestTaintedServerWithoutRederivation(t *testing.T) {
	p := newPair(t, Config{}, Config{}, oscore.Settings{})
	p.sp.forgetAll(t)
	if s := p.do(message(t, coap.GET, "/x", nil)); s.Kind != Wait || !errors.Is(p.last().Err, ErrTainted) {
		t.Errorf("%+v %+v", s, p.last())
	}
}

// A context tainted while a handler runs, or with its window open, answers
// nothing.
func TestTaintWhileServing(t *testing.T) {
	p := newPair(t, Config{}, Config{}, oscore.Settings{})
	taint := func(v bool) {
		p.sp.mu.Lock()
		defer p.sp.mu.Unlock()
		p.sp.taint = v
	}
	_, m := p.begin(message(t, coap.GET, "/x", nil))
	res := p.server.Receive(p.now, Inbound{Message: m})
	taint(true)
	if out, send, err := res.Incoming.Respond(p.now, content(nil)); send || out.Body != nil || !errors.Is(err, ErrTainted) {
		t.Errorf("%v %v", send, err)
	}
	_, m = p.begin(message(t, coap.GET, "/x", nil))
	if res := p.server.Receive(p.now, Inbound{Message: m}); res.Verdict != Drop || !errors.Is(res.Err, ErrTainted) {
		t.Errorf("%+v", res)
	}
}

// Storage that fails: nothing is sent, nothing is counted as done.
func TestStorageFailure(t *testing.T) {
	boom := errors.New("disk full")
	t.Run("request", func(t *testing.T) {
		p := newPair(t, Config{}, Config{}, oscore.Settings{})
		p.cp.fail = boom
		if _, m, err := p.client.Begin(p.now, "server", message(t, coap.PUT, "/x", make([]byte, 5000)), RequestOptions{}); !errors.Is(err, boom) || m.Body != nil {
			t.Error(err)
		}
	})
	t.Run("challenge", func(t *testing.T) {
		p := newPair(t, Config{}, Config{}, oscore.Settings{})
		p.sp.lose(t)
		p.sp.fail = boom
		_, m := p.begin(message(t, coap.PUT, "/x", nil))
		if _, ok := p.serve(m, "t"); ok || !errors.Is(p.last().Err, boom) {
			t.Errorf("%+v", p.last())
		}
	})
	t.Run("response", func(t *testing.T) {
		p := newPair(t, Config{}, Config{ResponsePIV: true}, oscore.Settings{})
		_, m := p.begin(message(t, coap.GET, "/x", nil, option(coap.Observe)))
		res := p.server.Receive(p.now, Inbound{Message: m})
		p.sp.fail = boom
		if out, send, err := res.Incoming.Respond(p.now, content(nil, option(coap.Observe))); send || out.Body != nil || !errors.Is(err, boom) {
			t.Error(send, err)
		}
		if res.Incoming.Observation() != nil || len(p.server.find("client").observations) != 0 {
			t.Error("an observation that nobody was told of")
		}
	})
	t.Run("adoption, server", func(t *testing.T) {
		p := newPair(t, Config{}, Config{}, bothRoles)
		p.handle = echoHandler(t)
		x, m := p.beginRun("x")
		first, _ := p.serve(m, "1")
		s := x.Receive(p.now, first)
		p.sp.fail = boom
		if _, ok := p.serve(s.Message, "2"); ok || !errors.Is(p.last().Err, boom) || p.calls != 0 {
			t.Errorf("%+v", p.last())
		}
		p.sp.fail = nil
		if p.serve(s.Message, "2"); p.calls != 0 || !errors.Is(p.last().Err, oscore.ErrReplay) {
			t.Errorf("request #2 once more: %+v", p.last())
		}
	})
	t.Run("adoption, client", func(t *testing.T) {
		p := newPair(t, Config{}, Config{}, bothRoles)
		p.handle = echoHandler(t)
		x, m := p.beginRun("x")
		first, _ := p.serve(m, "1")
		s := x.Receive(p.now, first)
		second, _ := p.serve(s.Message, "2")
		p.cp.fail = boom
		if s := x.Receive(p.now, second); s.Kind != Failed || !errors.Is(s.Err, boom) || !errors.Is(s.Err, ErrRederive) {
			t.Errorf("%+v", s)
		}
		if p.client.find("server").started {
			t.Error("the run counts as done")
		}
	})
}

// An observation of the context before is over, and says so.
func TestObservationAfterRederivation(t *testing.T) {
	p := newPair(t, Config{}, Config{}, bothRoles)
	p.handle = func(*Incoming) oscore.Message { return content([]byte("1"), option(coap.Observe)) }
	x, m := p.begin(message(t, coap.GET, "/o", nil, option(coap.Observe)))
	if s := p.run(x, m, "o"); s.Kind != Notification {
		t.Fatalf("%+v", s)
	}
	y, m := p.beginRun("new")
	if s := p.run(y, m, "n"); s.Kind != Response {
		t.Fatalf("%+v", s)
	}
	o := p.observations[0]
	if _, err := o.Notify(p.now, content(nil)); !o.Ended() || !errors.Is(err, ErrEnded) {
		t.Error(o.Ended(), err)
	}
	if n := len(p.server.find("client").observations); n != 0 {
		t.Errorf("%d observations are kept", n)
	}
	x, m = p.begin(message(t, coap.GET, "/o", nil, option(coap.Observe)))
	if s := p.run(x, m, "o"); s.Kind != Notification {
		t.Fatalf("%+v", s)
	}
	if n, err := p.observations[1].Notify(p.now, content([]byte("2"))); err != nil || x.Receive(p.now, n).Kind != Notification {
		t.Error(err)
	}
}

// N requests without a protected answer begin a run; plain errors do not.
func TestRederiveAfterSilence(t *testing.T) {
	proof.Checklist(t, "O-D.5.3-1")
	p := newPair(t, Config{}, Config{}, bothRoles)
	derives := func() bool {
		x, m := p.begin(message(t, coap.GET, "/x", nil))
		defer x.Close()
		opt, _, _ := oscore.FindOption(m)
		return opt.KIDContext != nil
	}
	for range 10 {
		x, _ := p.begin(message(t, coap.GET, "/x", nil))
		x.Receive(p.now, oscore.Message{Code: byte(coap.Unauthorized), Body: []byte("\xffSecurity context not found")})
		x.Close()
	}
	if derives() {
		t.Fatal("plain errors began a run")
	}
	for range 10 {
		x, _ := p.begin(message(t, coap.GET, "/x", nil, option(coap.NoResponse, 26)))
		x.Abandon()
	}
	if derives() {
		t.Fatal("requests that asked for no response began a run")
	}
	for i := range 3 {
		if derives() {
			t.Fatalf("a run after %d", i)
		}
		x, _ := p.begin(message(t, coap.GET, "/x", nil))
		x.Abandon()
		x.Abandon()
	}
	if !derives() {
		t.Fatal("no run after three")
	}
}

func TestRederiveOnStart(t *testing.T) {
	s := bothRoles
	s.RederiveOnStart = true
	p := newPair(t, Config{}, Config{}, s)
	p.handle = echoHandler(t)
	for i, want := range []int{2, 1, 1} {
		n := len(p.sent)
		if s := p.do(message(t, coap.POST, "/x", []byte("1"))); s.Kind != Response || len(p.sent)-n != want {
			t.Errorf("%d: %+v, %d messages", i, s, len(p.sent)-n)
		}
	}
}
