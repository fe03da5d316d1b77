package oscoretest

import (
	"bytes"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/oscorelay/oscorelay/internal/coap"
	"github.com/oscorelay/oscorelay/oscore"
)

// echo answers with the path and the payload.
func echo(m Message) Message {
	return Respond(Content, append([]byte(m.Path+" "), m.Payload...))
}

func (p *Pair) want(x *Exchange, payload string) {
	p.t.Helper()
	if m, err := x.Answer(); err != nil || string(m.Payload) != payload {
		p.t.Errorf("answer %q, %v, want %q", m.Payload, err, payload)
	}
}

func (p *Pair) wantNone(x *Exchange, why error) {
	p.t.Helper()
	if m, err := x.Answer(); !errors.Is(err, ErrNoAnswer) || why != nil && !errors.Is(err, why) {
		p.t.Errorf("answer %+v, %v, want none for %v", m, err, why)
	}
}

// wantHandled compares the payloads that reached the server's handler.
func (p *Pair) wantHandled(payloads ...string) {
	p.t.Helper()
	var got []string
	for _, m := range p.Server.Handled() {
		got = append(got, string(m.Payload))
	}
	if !slices.Equal(got, payloads) {
		p.t.Errorf("handled %q, want %q", got, payloads)
	}
}

func TestDrop(t *testing.T) {
	p := NewPair(t, Config{Server: echo})
	p.Relay.To(ToServer, Once(Drop))
	x := p.Client.Send(Post("/x", []byte("1")))
	p.wantNone(x, nil)
	p.wantHandled()
	if len(p.Relay.Capture()) != 1 {
		t.Error("the capture does not hold what was dropped")
	}
	x.Retransmit()
	p.want(x, "/x 1")
	p.wantHandled("1")
}

func TestDuplicate(t *testing.T) {
	p := NewPair(t, Config{Server: echo})
	p.Relay.To(ToServer, Duplicate)
	p.Relay.To(ToClient, Duplicate)
	p.want(p.Client.Send(Post("/x", []byte("1"))), "/x 1")
	p.wantHandled("1")
	if got := p.Server.Reasons(); !slices.Equal(got, []string{"replay"}) {
		t.Error(got)
	}
}

func TestDelay(t *testing.T) {
	p := NewPair(t, Config{Server: echo})
	begin := p.Now()
	p.Relay.To(ToServer, Delay(2*time.Second))
	p.Relay.To(ToClient, Delay(time.Second))
	a := p.Client.Send(Post("/x", []byte("a")))
	p.Relay.To(ToServer, Delay(time.Second))
	b := p.Client.Send(Post("/x", []byte("b")))
	p.Advance(time.Second - 1)
	p.wantHandled()
	p.Advance(1)
	p.wantHandled("b")
	p.wantNone(b, nil)
	p.Advance(time.Second)
	p.wantHandled("b", "a")
	p.want(b, "/x b")
	p.wantNone(a, nil)
	p.Advance(time.Hour)
	p.want(a, "/x a")
	if d := p.Now().Sub(begin); d != time.Hour+2*time.Second {
		t.Errorf("the clock went on by %v", d)
	}
}

func TestReverse(t *testing.T) {
	p := NewPair(t, Config{Server: echo})
	p.Relay.To(ToServer, Reverse(3))
	var xs []*Exchange
	for _, s := range []string{"a", "b", "c"} {
		xs = append(xs, p.Client.Send(Post("/x", []byte(s))))
	}
	p.wantHandled("c", "b", "a")
	for i, s := range []string{"a", "b", "c"} {
		p.want(xs[i], "/x "+s)
	}
}

func TestFlip(t *testing.T) {
	p := Packet{Message: oscore.Message{Code: 2, Body: []byte{0xff, 0}}}
	if p.Bits() != 24 {
		t.Errorf("%d bits", p.Bits())
	}
	for bit := range p.Bits() {
		got := Flip(bit)(p.clone())[0].Message
		all := append([]byte{got.Code ^ p.Message.Code}, got.Body[0]^p.Message.Body[0], got.Body[1]^p.Message.Body[1])
		want := make([]byte, 3)
		want[bit/8] = 1 << (bit % 8)
		if !bytes.Equal(all, want) {
			t.Errorf("bit %d changes %x", bit, all)
		}
	}
	if got := Flip(24)(p.clone())[0].Message; got.Code != 2 || !bytes.Equal(got.Body, p.Message.Body) {
		t.Errorf("a bit beyond the end changes %+v", got)
	}
}

func TestSwap(t *testing.T) {
	p := NewPair(t, Config{Server: echo})
	p.Relay.To(ToClient, Swap())
	a, b := p.Client.Send(Get("/a")), p.Client.Send(Get("/b"))
	p.wantNone(a, oscore.ErrDecrypt)
	p.wantNone(b, oscore.ErrDecrypt)
	p.Relay.Deliver(p.Relay.Capture()[1], p.Relay.Capture()[3])
	p.want(a, "/a ")
	p.want(b, "/b ")
}

func TestStrip(t *testing.T) {
	p := NewPair(t, Config{Server: echo})
	p.Relay.To(ToServer, Strip(9))
	x := p.Client.Send(Put("/x", []byte("1")))
	var plain *PlainError
	if _, err := x.Answer(); !errors.As(err, &plain) || plain.Code != Unauthorized {
		t.Error(err)
	}
	if got := p.Server.Reasons(); !slices.Equal(got, []string{"unprotected"}) {
		t.Error(got)
	}
	p.wantHandled()
	p.Relay.Reset()
	p.Relay.To(ToClient, Strip(9))
	p.wantNone(p.Client.Send(Get("/x")), nil)
}

func TestSetOption(t *testing.T) {
	p := NewPair(t, Config{Server: echo})
	// What OSCORE leaves outside may change and is not handed on as inner.
	p.Relay.To(ToServer, SetOption(coap.URIPath, []byte("forged")))
	p.Relay.To(ToClient, SetOption(coap.MaxAge, []byte{200}))
	p.want(p.Client.Send(Get("/x")), "/x ")
	if got := p.Server.Handled(); len(got) != 1 || got[0].Path != "/x" {
		t.Errorf("%+v", got)
	}
	p.Relay.To(ToServer, SetOption(coap.OSCORE, []byte{0x09, 0x14, 'q'}))
	p.wantNone(p.Client.Send(Get("/x")), nil)
	if got := p.Server.Reasons(); !slices.Equal(got, []string{"no_context"}) {
		t.Error(got)
	}
}

func TestOnlyAndOnce(t *testing.T) {
	p := NewPair(t, Config{Server: echo})
	n := 0
	p.Relay.To(ToServer, Only(func(p Packet) bool { n++; return n == 2 }, Drop))
	p.want(p.Client.Send(Get("/1")), "/1 ")
	p.wantNone(p.Client.Send(Get("/2")), nil)
	p.want(p.Client.Send(Get("/3")), "/3 ")
	p.Relay.To(ToServer, Once(Drop))
	p.wantNone(p.Client.Send(Get("/4")), nil)
	p.want(p.Client.Send(Get("/5")), "/5 ")
}

func TestCaptureIsTheTestsOwn(t *testing.T) {
	p := NewPair(t, Config{Server: echo})
	x := p.Client.Send(Post("/x", nil))
	p.want(x, "/x ")
	for _, q := range p.Relay.Capture() {
		clear(q.Message.Body)
		clear(q.Token)
	}
	q, ok := p.Relay.Last(ToServer)
	if !ok || !q.Protected() || !q.IsRequest() || !bytes.Equal(q.Token, x.token) {
		t.Errorf("%+v", q)
	}
}

func TestLargeBodies(t *testing.T) {
	stored := []byte{}
	p := NewPair(t, Config{BlockSize: 64, Server: func(m Message) Message {
		if m.Code == PUT {
			stored = m.Payload
			return Respond(Changed, nil)
		}
		return Respond(Content, stored)
	}})
	body := make([]byte, 5000)
	for i := range body {
		body[i] = byte(i * 7 >> 3)
	}
	if m, err := p.Client.Do(Put("/large", body)); err != nil || m.Code != Changed {
		t.Fatal(m, err)
	}
	if m, err := p.Client.Do(Get("/large")); err != nil || !bytes.Equal(m.Payload, body) {
		t.Fatal(len(m.Payload), err)
	}
	if n := len(p.Relay.Capture()); n < 4*5000/64 {
		t.Errorf("%d messages", n)
	}
	x := p.Client.Observe(Get("/large"))
	if n := p.Server.Notify("/large", Respond(Content, body[:1000])); n != 1 {
		t.Errorf("%d notified", n)
	}
	stored = body[:1000]
	if m, err := x.Answer(); err != nil || !bytes.Equal(m.Payload, body) {
		t.Error(len(m.Payload), err)
	}
	if n := x.Notifications(); len(n) != 1 || !bytes.Equal(n[0].Payload, body[:1000]) {
		t.Errorf("%d notifications", len(n))
	}
}

func TestBothRoles(t *testing.T) {
	p := NewPair(t, Config{Server: echo, Client: echo})
	p.want(p.Server.Send(Get("/3/0/0")), "/3/0/0 ")
	p.want(p.Client.Send(Get("/rd")), "/rd ")
	if len(p.Client.Handled()) != 1 || len(p.Server.Handled()) != 1 {
		t.Error(p.Client.Handled(), p.Server.Handled())
	}
	p = NewPair(t, Config{})
	if m, err := p.Server.Do(Get("/")); err != nil || m.Code != NotFound {
		t.Error(m, err)
	}
}

func TestObserve(t *testing.T) {
	p := NewPair(t, Config{Server: echo})
	a, b := p.Client.Observe(Get("/a")), p.Client.Observe(Get("/b"))
	p.want(a, "/a ")
	p.want(b, "/b ")
	if n := p.Server.Notify("/a", Respond(Content, []byte("1"))); n != 1 {
		t.Errorf("%d notified", n)
	}
	if len(a.Notifications()) != 1 || len(b.Notifications()) != 0 {
		t.Error(a.Notifications(), b.Notifications())
	}
	if err := a.Cancel(); err != nil {
		t.Error(err)
	}
	if n := p.Server.Notify("/a", Respond(Content, []byte("2"))); n != 0 {
		t.Errorf("%d notified after the cancellation", n)
	}
	if n := p.Server.Notify("/b", Respond(NotFound, nil)) + p.Server.Notify("/b", Respond(Content, nil)); n != 1 {
		t.Errorf("%d notified of the end", n)
	}
	p = NewPair(t, Config{}) // refuses
	if m, err := p.Client.Observe(Get("/a")).Answer(); err != nil || m.Code != NotFound || p.Server.Notify("/a", Respond(Content, nil)) != 0 {
		t.Error(m, err)
	}
}

func TestRestart(t *testing.T) {
	p := NewPair(t, Config{Server: echo})
	p.Relay.To(ToServer, Drop)
	lost := p.Client.Send(Post("/x", []byte("lost")))
	p.Client.Restart()
	p.Relay.Reset()
	if _, err := lost.Answer(); !errors.Is(err, ErrRestarted) {
		t.Error(err)
	}
	p.want(p.Client.Send(Post("/x", []byte("1"))), "/x 1")
	p.Server.Restart()
	p.want(p.Client.Send(Post("/x", []byte("2"))), "/x 2")
	p.wantHandled("1", "2")
	var numbers []uint64
	for _, q := range p.Relay.Capture() {
		if opt, ok, err := oscore.FindOption(q.Message); err == nil && ok && q.IsRequest() {
			numbers = append(numbers, opt.Sequence())
		}
	}
	if len(numbers) != 4 || !slices.IsSorted(numbers) || len(slices.Compact(numbers)) != 4 {
		t.Errorf("Partial IVs %v", numbers)
	}
}

func TestLose(t *testing.T) {
	p := NewPair(t, Config{Server: echo})
	p.want(p.Client.Send(Get("/x")), "/x ")
	p.Client.Lose()
	n := len(p.Relay.Capture())
	if _, err := p.Client.Do(Get("/x")); !errors.Is(err, ErrTainted) {
		t.Error(err)
	}
	if len(p.Relay.Capture()) != n {
		t.Error("a tainted end sent something")
	}
	p = NewPair(t, Config{Server: echo, Settings: oscore.Settings{Rederive: oscore.RoleClient | oscore.RoleServer}})
	p.Server.Lose()
	p.want(p.Client.Send(Get("/server lost")), "/server lost ")
	p.Client.Lose()
	p.want(p.Client.Send(Get("/client lost")), "/client lost ")
	p.want(p.Client.Rederive(Get("/asked")), "/asked ")
}

// A test gives the same bytes each time.
func TestDeterministic(t *testing.T) {
	run := func() (out []byte) {
		p := NewPair(t, Config{Server: echo, Settings: oscore.Settings{Rederive: oscore.RoleClient | oscore.RoleServer}})
		for range 3 {
			p.Client.Send(Get("/x"))
			p.Server.Restart()
			p.Client.Rederive(Get("/x"))
		}
		for _, q := range p.Relay.Capture() {
			out = append(append(append(out, q.Token...), q.Message.Code), q.Message.Body...)
		}
		return out
	}
	if !bytes.Equal(run(), run()) {
		t.Error("two runs differ")
	}
}

func TestBadMessage(t *testing.T) {
	p := NewPair(t, Config{Server: echo})
	x := p.Client.Send(Get("/" + string(make([]byte, 256))))
	if _, err := x.Answer(); err == nil || len(p.Relay.Capture()) != 0 {
		t.Error(err)
	}
	x.Retransmit()
	if err := x.Cancel(); err == nil || len(p.Relay.Capture()) != 0 {
		t.Error(err)
	}
}

func TestKeyrings(t *testing.T) {
	client, server := Keyrings(t)
	c, ok := client.Peer("server")
	if !ok {
		t.Fatal("no peer")
	}
	var pending oscore.Pending
	m, err := c.SealRequest(nil, &pending, oscore.Message{Code: byte(GET)})
	if err != nil {
		t.Fatal(err)
	}
	opt, _, err := oscore.FindOption(m)
	if err != nil {
		t.Fatal(err)
	}
	peers, match := server.Find(nil, opt.KID, opt.KIDContext)
	if match != oscore.MatchKID || peers[0].Name() != "client" {
		t.Fatal(match, peers)
	}
	var request oscore.Request
	if _, err := peers[0].OpenRequest(nil, &request, m); err != nil {
		t.Error(err)
	}
}
