package endpoint

import (
	"bytes"
	"errors"
	"testing"

	"github.com/oscorelay/oscorelay/internal/coap"
	"github.com/oscorelay/oscorelay/internal/proof"
	"github.com/oscorelay/oscorelay/oscore"
)

// observe registers an observation of the client and returns both its ends.
func (p *pair) observe(m oscore.Message, token string) (*Exchange, *Observation) {
	p.t.Helper()
	if p.handle == nil {
		p.handle = func(*Incoming) oscore.Message { return content([]byte("first"), option(coap.Observe)) }
	}
	n := len(p.observations)
	x, out := p.begin(m)
	if s := p.run(x, out, token); s.Kind != Notification {
		p.t.Fatalf("%+v", s)
	}
	if len(p.observations) != n+1 {
		p.t.Fatal("no observation")
	}
	return x, p.observations[n]
}

func (p *pair) notify(o *Observation, payload string) oscore.Message {
	p.t.Helper()
	m, err := o.Notify(p.now, content([]byte(payload)))
	if err != nil {
		p.t.Fatal(err)
	}
	return m
}

// Wrong turn 12: notifications are ordered by their whole Partial IV, whatever
// the outer Observe value says.
func TestWrongTurn12_OrderByPartialIV(t *testing.T) {
	proof.Checklist(t, "O-4.1.3.5.2-2", "O-4.1.3.5.2-4", "O-4.1.3.5.2-5", "O-7.4.1-2", "O-7.4.1-3", "O-7.4.1-4")
	p := newPair(t, Config{}, Config{}, oscore.Settings{})
	x, o := p.observe(message(t, coap.GET, "/o", nil, option(coap.Observe)), "o")
	var n []oscore.Message
	for i := range 300 { // past a byte of Partial IV
		n = append(n, p.notify(o, string(rune('a'+i%26))))
	}
	swapObserve := func(m oscore.Message, v uint32) oscore.Message {
		opts, payload, err := coap.Split(m.Body)
		if err != nil {
			t.Fatal(err)
		}
		return oscore.Message{Code: m.Code, Body: coap.AppendBody(nil, opts.Without(coap.Observe).AddUint(coap.Observe, v), payload)}
	}
	for _, c := range []struct {
		index int
		outer uint32
		kind  StepKind
	}{
		{5, 0, Notification},         // the outer value says it is old
		{5, 1 << 20, Wait},           // the same once more
		{3, 0xffffff, Wait},          // older, under an outer value that says newest
		{254, 1, Notification},       // newer
		{253, 1 << 22, Wait},         // older
		{299, 0, Notification},       // two bytes of Partial IV
		{100, 1 << 23, Wait},         // whose last byte is above the newest's
		{298, 1<<24 - 1, Wait},       // older
		{299, 1<<23 + 1<<22, Wait},   // twice
		{0, 1<<23 + 1<<22 + 1, Wait}, // the first of all
	} {
		s := x.Receive(p.now, swapObserve(n[c.index], c.outer))
		if s.Kind != c.kind || c.kind == Wait && !errors.Is(s.Err, oscore.ErrStale) {
			t.Errorf("notification %d: %v %v", c.index, s.Kind, s.Err)
		}
	}
}

// Wrong turn 13: a replayed registration neither ends the observation nor gets
// an answer that a proxy could take for its end.
func TestWrongTurn13_ReplayedRegistration(t *testing.T) {
	proof.Checklist(t, "O-4.1.3.5-4", "O-7.4-2")
	p := newPair(t, Config{}, Config{}, oscore.Settings{})
	x, o := p.observe(message(t, coap.GET, "/o", nil, option(coap.Observe)), "o")
	registration := p.sent[len(p.sent)-1]
	for range 3 {
		if answer, ok := p.serve(registration, "o"); ok || o.Ended() {
			t.Fatalf("answered %v, ended %v", answer, o.Ended())
		}
	}
	if s := x.Receive(p.now, p.notify(o, "on")); s.Kind != Notification {
		t.Errorf("%+v", s)
	}
	// Under a token that is no observation's the replay is refused as ever.
	if _, ok := p.serve(registration, "another"); !ok || p.last().Reason != ReasonReplay {
		t.Errorf("%+v", p.last())
	}
}

func TestNotificationForm(t *testing.T) {
	proof.Checklist(t, "O-4.1.3.5-1", "O-4.1.3.5-2", "O-4.1.3.5-5", "O-4.1.3.5.1-1", "O-4.1.3.5.2-1", "O-4.1.3.5.2-3")
	p := newPair(t, Config{}, Config{}, oscore.Settings{})
	pending := new(oscore.Pending)
	m, err := p.cp.SealRequest(nil, pending, message(t, coap.GET, "/o", nil, option(coap.Observe)))
	if err != nil {
		t.Fatal(err)
	}
	p.handle = func(*Incoming) oscore.Message { return content([]byte("1"), option(coap.Observe)) }
	first, _ := p.serve(m, "o")
	if v, ok := optionOf(m, coap.Observe); coap.Code(m.Code) != coap.FETCH || !ok || len(v) != 0 {
		t.Errorf("registration %v %x", coap.Code(m.Code), v)
	}
	last := uint32(0)
	for i, n := range []oscore.Message{first, p.notify(p.observations[0], "2"), p.notify(p.observations[0], "3")} {
		opt, _, err := oscore.FindOption(n)
		if err != nil || (opt.PartialIV == nil) != (i == 0) || coap.Code(n.Code) != coap.Content {
			t.Errorf("%d: %v %+v %v", i, coap.Code(n.Code), opt, err)
		}
		v, _ := optionOf(n, coap.Observe)
		if outer, _ := coap.Uint(v); outer <= last {
			t.Errorf("%d: outer Observe %d after %d", i, outer, last)
		} else {
			last = outer
		}
		if _, err := pending.Open(nil, n); err != nil {
			t.Error(i, err)
		}
	}
}

// One notification without a Partial IV is taken, as the oldest.
func TestNotificationWithoutPartialIV(t *testing.T) {
	proof.Checklist(t, "O-7.4.1-1")
	p := newPair(t, Config{}, Config{}, oscore.Settings{})
	x, m := p.begin(message(t, coap.GET, "/o", nil, option(coap.Observe)))
	p.handle = func(*Incoming) oscore.Message { return content([]byte("1"), option(coap.Observe)) }
	first, _ := p.serve(m, "o")
	second := p.notify(p.observations[0], "2")
	if s := x.Receive(p.now, second); s.Kind != Notification {
		t.Fatalf("%+v", s)
	}
	if s := x.Receive(p.now, first); s.Kind != Wait || !errors.Is(s.Err, oscore.ErrStale) {
		t.Errorf("the oldest after a newer: %+v", s)
	}
	if s := x.Receive(p.now, p.notify(p.observations[0], "3")); s.Kind != Notification {
		t.Errorf("%+v", s)
	}
}

// A forged or broken notification ends nothing (RFC 8613 §8.4.2); an error
// notification does.
func TestNotificationErrors(t *testing.T) {
	proof.Checklist(t, "O-8.4.2-1", "O-7.2-1")
	p := newPair(t, Config{}, Config{}, oscore.Settings{})
	x, o := p.observe(message(t, coap.GET, "/o", nil, option(coap.Observe)), "o")
	n := p.notify(o, "2")
	for i := range n.Body {
		f := oscore.Message{Code: n.Code, Body: bytes.Clone(n.Body)}
		f.Body[i] ^= 0x10
		if s := x.Receive(p.now, f); s.Kind == Notification {
			v, _ := optionOf(n, coap.Observe)
			if w, ok := optionOf(f, coap.Observe); ok && !bytes.Equal(v, w) {
				// The outer Observe value is nobody's: the notification is
				// genuine, and was taken.
				n = p.notify(o, "2")
				continue
			}
			t.Errorf("byte %d flipped: delivered", i)
		} else if s.Kind != Wait {
			t.Errorf("byte %d flipped: %+v", i, s)
		}
	}
	if s := x.Receive(p.now, n); s.Kind != Notification {
		t.Fatalf("the genuine one: %+v", s)
	}
	end, err := o.Notify(p.now, oscore.Message{Code: byte(coap.NotFound)})
	if err != nil || !o.Ended() {
		t.Fatal(err, o.Ended())
	}
	if opt, _, _ := oscore.FindOption(end); opt.PartialIV == nil {
		t.Error("the error has no Partial IV")
	}
	if s := x.Receive(p.now, end); s.Kind != Response || coap.Code(s.Message.Code) != coap.NotFound {
		t.Errorf("%+v", s)
	}
	if s := x.Receive(p.now, n); s.Kind != Failed || !errors.Is(s.Err, ErrEnded) {
		t.Errorf("after the end: %+v", s)
	}
}

// A cancellation repeats all options but Observe and ETag, under the token;
// anything else leaves the observation alone.
func TestCancellation(t *testing.T) {
	proof.Checklist(t, "O-4.1.3.5-3", "O-D.5.2-1")
	base := []coap.Option{option(coap.URIQuery, 'a'), option(coap.Accept, 60), option(coap.ETag, 1)}
	for _, c := range []struct {
		name  string
		token string
		code  coap.Code
		path  string
		body  string
		more  []coap.Option
		ends  bool
	}{
		{"the same", "o", coap.FETCH, "/o", "q", base, true},
		{"another ETag", "o", coap.FETCH, "/o", "q", []coap.Option{base[0], base[1], option(coap.ETag, 2)}, true},
		{"no ETag", "o", coap.FETCH, "/o", "q", base[:2], true},
		{"another Echo", "o", coap.FETCH, "/o", "q", append(base[:3:3], option(coap.Echo, 1)), true},
		{"another token", "p", coap.FETCH, "/o", "q", base, false},
		{"another path", "o", coap.FETCH, "/p", "q", base, false},
		{"another method", "o", coap.GET, "/o", "", base, false},
		{"another payload", "o", coap.FETCH, "/o", "r", base, false},
		{"another query", "o", coap.FETCH, "/o", "q", []coap.Option{option(coap.URIQuery, 'b'), base[1]}, false},
		{"no Accept", "o", coap.FETCH, "/o", "q", base[:1], false},
		{"an unknown option more", "o", coap.FETCH, "/o", "q", append(base[:2:2], option(65000, 1)), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newPair(t, Config{}, Config{}, oscore.Settings{})
			_, o := p.observe(message(t, coap.FETCH, "/o", []byte("q"), append(base[:3:3], option(coap.Observe))...), "o")
			p.handle = func(r *Incoming) oscore.Message {
				if r.Observes() {
					t.Error("a cancellation observes")
				}
				return content(nil)
			}
			if _, ok := p.ask(message(t, c.code, c.path, []byte(c.body), append(c.more[:len(c.more):len(c.more)], option(coap.Observe, 1))...), c.token); !ok {
				t.Fatal("no answer")
			}
			if o.Ended() != c.ends {
				t.Errorf("ended %v", o.Ended())
			}
		})
	}
}

func TestCancel(t *testing.T) {
	p := newPair(t, Config{}, Config{}, oscore.Settings{})
	x, o := p.observe(message(t, coap.GET, "/o", nil, option(coap.Observe), option(coap.URIHost, 'h')), "o")
	c, err := x.Cancel(p.now)
	if err != nil {
		t.Fatal(err)
	}
	late := p.notify(o, "late")
	if s := x.Receive(p.now, late); s.Kind != Notification {
		t.Errorf("a notification that crossed the cancellation: %+v", s)
	}
	answer, ok := p.serve(c, "o")
	if !ok || !o.Ended() {
		t.Fatal("not cancelled")
	}
	if s := x.Receive(p.now, answer); s.Kind != Response {
		t.Errorf("%+v", s)
	}
	if _, err := x.Cancel(p.now); !errors.Is(err, ErrEnded) {
		t.Error(err)
	}
}

// A server that wants every request fresh gets the cancellation with an Echo,
// under the same token.
func TestCancelWithEcho(t *testing.T) {
	p := newPair(t, Config{}, Config{}, oscore.Settings{})
	x, o := p.observe(message(t, coap.GET, "/o", nil, option(coap.Observe)), "o")
	p.server.cfg.Freshness = always(FreshAlways)
	c, err := x.Cancel(p.now)
	if err != nil {
		t.Fatal(err)
	}
	answer, _ := p.serve(c, "o")
	if o.Ended() {
		t.Error("cancelled unproven")
	}
	s := x.Receive(p.now, answer)
	if s.Kind != Send || !s.SameToken {
		t.Fatalf("%+v", s)
	}
	answer, _ = p.serve(s.Message, "o")
	if s = x.Receive(p.now, answer); s.Kind != Response || !o.Ended() {
		t.Errorf("%+v %v", s, o.Ended())
	}
	if _, ok := optionOf(s.Message, coap.Echo); ok {
		t.Error("the application saw the Echo")
	}
}

func TestCancelOfAnUpload(t *testing.T) {
	p := newPair(t, Config{}, Config{}, oscore.Settings{})
	x, _ := p.observe(message(t, coap.FETCH, "/o", make([]byte, 3000), option(coap.Observe)), "o")
	if _, err := x.Cancel(p.now); !errors.Is(err, ErrTooLarge) {
		t.Error(err)
	}
}

// Observations with one token and different options live side by side; the
// same registered anew takes the earlier one's place, under its own request.
func TestRegistrations(t *testing.T) {
	proof.Checklist(t, "O-4.1.3.5.1-2", "O-7.3-1", "O-8-2")
	proof.Requirement(t, "in-memory endpoint", "E2E-5", "RMo-002")
	p := newPair(t, Config{}, Config{}, oscore.Settings{})
	xa, oa := p.observe(message(t, coap.GET, "/a", nil, option(coap.Observe)), "o")
	xb, ob := p.observe(message(t, coap.GET, "/b", nil, option(coap.Observe)), "o")
	na := p.notify(oa, "a")
	if s := xb.Receive(p.now, na); s.Kind != Wait || !errors.Is(s.Err, oscore.ErrDecrypt) {
		t.Errorf("a notification of another observation: %+v", s)
	}
	if s := xa.Receive(p.now, na); s.Kind != Notification {
		t.Errorf("%+v", s)
	}
	for range 100 {
		p.do(message(t, coap.GET, "/x", nil))
	}
	xa2, oa2 := p.observe(message(t, coap.GET, "/a", nil, option(coap.Observe)), "o")
	if !oa.Ended() || ob.Ended() || oa2.Ended() {
		t.Error(oa.Ended(), ob.Ended(), oa2.Ended())
	}
	if _, err := oa.Notify(p.now, content(nil)); !errors.Is(err, ErrEnded) {
		t.Error(err)
	}
	oa.End() // which is over already, must not end its successor
	if oa2.Ended() {
		t.Error("ended by its predecessor")
	}
	n := p.notify(oa2, "2")
	if s := xa.Receive(p.now, n); s.Kind != Wait {
		t.Errorf("under the earlier request: %+v", s)
	}
	if s := xa2.Receive(p.now, n); s.Kind != Notification {
		t.Errorf("%+v", s)
	}
	if s := xb.Receive(p.now, p.notify(ob, "b")); s.Kind != Notification {
		t.Errorf("%+v", s)
	}
}

// A registration that the application answers without Observe, or with an
// error, registers nothing.
func TestNoRegistration(t *testing.T) {
	for name, answer := range map[string]oscore.Message{
		"without Observe": content(nil),
		"error":           {Code: byte(coap.NotFound), Body: coap.AppendBody(nil, coap.Options{option(coap.Observe, 5)}, nil)},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPair(t, Config{}, Config{}, oscore.Settings{})
			p.handle = func(*Incoming) oscore.Message { return answer }
			if s := p.do(message(t, coap.GET, "/o", nil, option(coap.Observe))); s.Kind != Response || len(p.observations) != 0 {
				t.Errorf("%+v", s)
			}
		})
	}
	t.Run("not asked for", func(t *testing.T) {
		p := newPair(t, Config{}, Config{}, oscore.Settings{})
		p.handle = func(*Incoming) oscore.Message { return content(nil, option(coap.Observe, 5)) }
		if s := p.do(message(t, coap.GET, "/o", nil)); s.Kind != Response || len(p.observations) != 0 {
			t.Errorf("%+v", s)
		}
	})
	t.Run("of a further block", func(t *testing.T) {
		p := newPair(t, Config{}, Config{}, oscore.Settings{})
		p.handle = func(*Incoming) oscore.Message { return content(make([]byte, 3000), option(coap.Observe, 5)) }
		if resp, _ := p.ask(message(t, coap.GET, "/o", nil, option(coap.Observe), block(coap.Block2, 1, false, 6)), "t"); len(payloadOf(t, resp)) != 1024 || len(p.observations) != 0 {
			t.Errorf("%+v", resp)
		}
	})
}

func TestObservationsAreBounded(t *testing.T) {
	p := newPair(t, Config{}, Config{MaxObservations: 3}, oscore.Settings{})
	p.handle = func(*Incoming) oscore.Message { return content(nil, option(coap.Observe)) }
	for i := range 5 {
		resp, _ := p.ask(message(t, coap.GET, "/o", nil, option(coap.Observe)), string(rune('a'+i)))
		if _, ok := optionOf(resp, coap.Observe); ok != (i < 3) {
			t.Errorf("registration %d: %v", i, ok)
		}
	}
	p.observations[0].End()
	if resp, _ := p.ask(message(t, coap.GET, "/o", nil, option(coap.Observe)), "z"); len(p.observations) != 4 {
		t.Errorf("%+v", resp)
	}
}

// A failure of the storage costs a notification, not the observation.
func TestNotifyAfterStorageFailure(t *testing.T) {
	p := newPair(t, Config{}, Config{}, oscore.Settings{})
	x, o := p.observe(message(t, coap.GET, "/o", nil, option(coap.Observe)), "o")
	boom := errors.New("disk full")
	p.sp.fail = boom
	for _, code := range []coap.Code{coap.Content, coap.NotFound} {
		if out, err := o.Notify(p.now, oscore.Message{Code: byte(code)}); !errors.Is(err, boom) || out.Body != nil || o.Ended() {
			t.Error(code, err, o.Ended())
		}
	}
	p.sp.fail = nil
	if s := x.Receive(p.now, p.notify(o, "on")); s.Kind != Notification {
		t.Errorf("%+v", s)
	}
}

// An observation keeps nothing of the request's body: it may live for years.
func TestObservationKeepsNoBody(t *testing.T) {
	p := newPair(t, Config{}, Config{}, oscore.Settings{})
	big := bytes.Repeat([]byte("q"), 3000)
	x, o := p.observe(message(t, coap.FETCH, "/o", big, option(coap.Observe)), "o")
	if o.in.Message.Body != nil || o.in.opened.Body != nil || o.in.taken.payload != nil || o.in.opt.KID != nil {
		t.Errorf("%+v", o.in)
	}
	// Its notifications in blocks are found all the same.
	state := bytes.Repeat([]byte("s"), 2500)
	n, err := o.Notify(p.now, content(state))
	if err != nil {
		t.Fatal(err)
	}
	s := x.Receive(p.now, n)
	calls := p.calls
	if s.Kind != Notification || s.More == nil {
		t.Fatalf("%+v", s)
	}
	if s = p.run(s.More, s.Message, "m"); s.Kind != Response || !bytes.Equal(payloadOf(t, s.Message), state) || p.calls != calls {
		t.Errorf("%v %v, %d calls", s.Kind, s.Err, p.calls-calls)
	}
}

// Blocks of one representation are never mixed with another's, and a bad block
// of a notification ends the attempt, not the observation.
func TestNotificationThatChangesUnderWay(t *testing.T) {
	proof.Checklist(t, "E-26")
	p := newPair(t, Config{}, Config{}, oscore.Settings{})
	x, o := p.observe(message(t, coap.GET, "/o", nil, option(coap.Observe)), "o")
	one, two := bytes.Repeat([]byte("1"), 2500), bytes.Repeat([]byte("2"), 2600)
	n1, err := o.Notify(p.now, content(one))
	if err != nil {
		t.Fatal(err)
	}
	s := x.Receive(p.now, n1)
	n2, err := o.Notify(p.now, content(two))
	if err != nil {
		t.Fatal(err)
	}
	p.handle = func(*Incoming) oscore.Message { return content(two) }
	if s := p.run(s.More, s.Message, "m"); s.Kind != Response || !bytes.Equal(payloadOf(t, s.Message), two) {
		t.Errorf("%v %v", s.Kind, s.Err)
	}
	s = x.Receive(p.now, n2)
	if s = p.run(s.More, s.Message, "m"); s.Kind != Response || !bytes.Equal(payloadOf(t, s.Message), two) {
		t.Errorf("%v %v", s.Kind, s.Err)
	}
}

func TestForget(t *testing.T) {
	p := newPair(t, Config{}, Config{}, oscore.Settings{})
	_, o := p.observe(message(t, coap.GET, "/o", nil, option(coap.Observe)), "o")
	p.ask(message(t, coap.PUT, "/u", make([]byte, 16), block(coap.Block1, 0, true, 0)), "u")
	p.server.Forget("client")
	if _, err := o.Notify(p.now, content(nil)); !errors.Is(err, ErrEnded) {
		t.Error(err)
	}
	o.End()
	if len(p.server.peers) != 0 {
		t.Errorf("%v", p.server.peers)
	}
	if resp, _ := p.ask(message(t, coap.PUT, "/u", nil, block(coap.Block1, 1, false, 0)), "u"); coap.Code(resp.Code) != coap.RequestEntityIncomplete {
		t.Error(coap.Code(resp.Code))
	}
}
