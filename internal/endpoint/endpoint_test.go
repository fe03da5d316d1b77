package endpoint

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/oscorelay/oscorelay/internal/coap"
	"github.com/oscorelay/oscorelay/oscore"
)

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
