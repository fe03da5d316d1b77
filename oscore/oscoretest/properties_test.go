package oscoretest

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/oscorelay/oscorelay/internal/coap"
	"github.com/oscorelay/oscorelay/internal/proof"
	"github.com/oscorelay/oscorelay/oscore"
)

// The six properties of OMA's requirements, with the sealed endpoint in both
// ends and the relay between them.
const path = "in-memory"

func TestIntegrity(t *testing.T) {
	proof.Requirement(t, path, "E2E-1")
	request := Put("/3303/0/5900", []byte("setpoint 23"))
	request.Options = []Option{{coap.ContentFormat, nil}}
	measure := NewPair(t, Config{Server: echo})
	measure.want(measure.Client.Send(request), "/3303/0/5900 setpoint 23")
	for d, sent := range []Packet{measure.Relay.Capture()[0], measure.Relay.Capture()[1]} {
		for bit := range sent.Bits() {
			p := NewPair(t, Config{Server: echo})
			p.Relay.To(Direction(d), Once(Flip(bit)))
			x := p.Client.Send(request)
			if bit < 8 && len(p.Server.Handled()) == 1 && x.answer != nil {
				// The outer code protects nothing: it says nothing either.
				p.want(x, "/3303/0/5900 setpoint 23")
				p.wantHandled("setpoint 23")
				continue
			}
			p.wantNone(x, nil)
			if Direction(d) == ToServer {
				p.wantHandled()
				for _, q := range p.Relay.Capture()[1:] {
					code := q.Outer().Code
					if q.Protected() || code != BadRequest && code != Unauthorized && code != BadOption {
						t.Errorf("bit %d is answered %v", bit, code)
					}
				}
			} else if n := len(p.Relay.Capture()); n != 2 && bit != 6 { // which makes a request of it, without a kid
				t.Errorf("bit %d of the answer: %d messages on the wire", bit, n)
			}
			// The genuine message still works.
			p.Relay.Reset()
			p.Relay.Deliver(p.Relay.Capture()[d])
			p.want(x, "/3303/0/5900 setpoint 23")
			p.wantHandled("setpoint 23")
			if t.Failed() {
				t.Fatalf("direction %d, bit %d", d, bit)
			}
		}
	}
}

func TestEncryption(t *testing.T) {
	proof.Requirement(t, path, "E2E-2")
	p := NewPair(t, Config{Server: func(Message) Message {
		m := Respond(Content, []byte("the reading"))
		m.Options = []Option{{coap.ContentFormat, []byte("\x2d\x16")}, {coap.ETag, []byte("the-etag")}}
		return m
	}})
	for _, method := range []Code{GET, POST, PUT, DELETE, FETCH, PATCH, IPATCH} {
		m := Message{Code: method, Path: "/location/latitude", Payload: []byte("the position")}
		m.Options = []Option{{coap.URIQuery, []byte("the-query")}, {coap.ContentFormat, []byte("\x2d\x16")}}
		if method == GET || method == DELETE {
			m.Payload = nil
		}
		x := p.Client.Send(m)
		p.want(x, "the reading")
		if got, _ := x.Answer(); len(got.Options) != 2 {
			t.Errorf("options %+v", got.Options)
		}
	}
	if n := len(p.Relay.Capture()); n != 14 {
		t.Fatalf("%d messages", n)
	}
	for i, q := range p.Relay.Capture() {
		for _, s := range []string{"location", "latitude", "the-query", "the position", "the reading", "the-etag", "\x2d\x16"} {
			if q.Shows(s) {
				t.Errorf("message %d shows %q", i, s)
			}
		}
		outer := q.Outer()
		if want := []Code{POST, Changed}[i%2]; outer.Code != want {
			t.Errorf("message %d has outer code %v, want %v", i, outer.Code, want)
		}
		if len(outer.Options) != 1 || outer.Options[0].Number != coap.OSCORE {
			t.Errorf("message %d has outer options %+v", i, outer.Options)
		}
	}
}

func TestReplay(t *testing.T) {
	proof.Requirement(t, path, "E2E-3")
	p := NewPair(t, Config{Server: echo})
	p.want(p.Client.Send(Post("/x", []byte("once"))), "/x once")
	captured := p.Relay.Capture()[0]
	otherToken := captured.clone()
	otherToken.Token = []byte("another")
	for _, q := range []Packet{captured, otherToken} {
		p.Relay.Deliver(q)
		answer, _ := p.Relay.Last(ToClient)
		age, ok := answer.Outer().Option(coap.MaxAge)
		if answer.Protected() || answer.Outer().Code != Unauthorized || !ok || len(age) != 0 {
			t.Errorf("the replay is answered %+v", answer.Outer())
		}
		p.wantHandled("once")
	}
	// The server crashes: it knows nothing of the message, and asks.
	p.Server.Restart()
	for range 3 {
		p.Relay.Deliver(otherToken)
		if answer, _ := p.Relay.Last(ToClient); !answer.Protected() {
			t.Errorf("after the restart the replay is answered %+v", answer.Outer())
		}
	}
	p.wantHandled("once")
	p.want(p.Client.Send(Post("/x", []byte("new"))), "/x new")
	p.Relay.Deliver(otherToken)
	p.wantHandled("once", "new")
	if got := p.Server.Reasons(); got[len(got)-1] != "replay" {
		t.Error(got)
	}
}

func TestAuthentication(t *testing.T) {
	proof.Requirement(t, path, "E2E-4")
	params := defaultParams()
	wrong := params.Swap()
	wrong.MasterSecret = oscore.Secret("another secret altogether")
	for name, c := range map[string]struct {
		server oscore.Params
		reason string
	}{
		"another secret":     {wrong, "decrypt"},
		"IDs not swapped":    {params, "no_context"},
		"another salt":       {func() oscore.Params { q := params.Swap(); q.MasterSalt = []byte("pepper"); return q }(), "decrypt"},
		"another ID context": {func() oscore.Params { q := params.Swap(); q.IDContext = []byte("x"); return q }(), "decrypt"},
		"another peer's ID":  {func() oscore.Params { q := params.Swap(); q.RecipientID = []byte("d"); return q }(), "no_context"},
	} {
		t.Run(name, func(t *testing.T) {
			p := NewPair(t, Config{Server: echo, ServerParams: c.server})
			p.wantNone(p.Client.Send(Get("/x")), nil)
			p.wantHandled()
			if got := p.Server.Reasons(); !slices.Equal(got, []string{c.reason}) {
				t.Errorf("refused for %v, want %s", got, c.reason)
			}
		})
	}
	t.Run("a server with another secret", func(t *testing.T) {
		p := NewPair(t, Config{Server: echo})
		q := NewPair(t, Config{Server: func(Message) Message { return Respond(Content, []byte("forged")) }, Params: wrong.Swap()})
		p.Relay.To(ToServer, Drop)
		x := p.Client.Send(Get("/x"))
		q.want(q.Client.Send(Get("/x")), "forged")
		forged, _ := q.Relay.Last(ToClient)
		forged.Token = p.Relay.Capture()[0].Token
		p.Relay.Deliver(forged)
		p.wantNone(x, oscore.ErrDecrypt)
		p.Relay.Deliver(p.Relay.Capture()[0])
		p.want(x, "/x ")
	})
}

func TestBinding(t *testing.T) {
	proof.Requirement(t, path, "E2E-5")
	t.Run("responses", func(t *testing.T) {
		p := NewPair(t, Config{Server: echo})
		p.want(p.Client.Send(Get("/first")), "/first ")
		earlier := p.Relay.Capture()[1]
		p.Relay.To(ToServer, Drop)
		x := p.Client.Send(Get("/second"))
		request, _ := p.Relay.Last(ToServer)
		earlier.Token = request.Token
		p.Relay.Deliver(earlier)
		p.wantNone(x, oscore.ErrDecrypt)
		p.Relay.Deliver(request)
		p.want(x, "/second ")
	})
	t.Run("notifications", func(t *testing.T) {
		p := NewPair(t, Config{Server: echo})
		a, b := p.Client.Observe(Get("/a")), p.Client.Observe(Get("/b"))
		p.Relay.To(ToClient, Swap())
		p.Server.Notify("/a", Respond(Content, []byte("of a")))
		p.Server.Notify("/b", Respond(Content, []byte("of b")))
		for _, x := range []*Exchange{a, b} {
			if n := x.Notifications(); len(n) != 0 || !errors.Is(errors.Join(x.Refused()...), oscore.ErrDecrypt) {
				t.Errorf("%+v, refused %v", n, x.Refused())
			}
		}
		p.Relay.Reset()
		p.Server.Notify("/a", Respond(Content, []byte("of a again")))
		if n := a.Notifications(); len(n) != 1 || string(n[0].Payload) != "of a again" {
			t.Errorf("%+v", n)
		}
	})
	t.Run("blocks", func(t *testing.T) {
		bodies := map[string][]byte{"/a": bytes.Repeat([]byte("a"), 64), "/b": bytes.Repeat([]byte("b"), 64)}
		p := NewPair(t, Config{BlockSize: 16, Server: func(m Message) Message { return Respond(Content, bodies[m.Path]) }})
		// The second blocks of both change places.
		var xs []*Exchange
		for _, path := range []string{"/a", "/b"} {
			n := 0
			p.Relay.To(ToClient, Only(func(Packet) bool { n++; return n == 2 }, Drop))
			xs = append(xs, p.Client.Send(Get(path)))
		}
		all := p.Relay.Capture()
		fromA, fromB := all[3], all[7]
		fromA.Token, fromB.Token = fromB.Token, fromA.Token
		p.Relay.Reset()
		p.Relay.Deliver(fromA, fromB)
		for _, x := range xs {
			p.wantNone(x, oscore.ErrDecrypt)
		}
		p.Relay.Deliver(all[3], all[7])
		p.want(xs[0], string(bodies["/a"]))
		p.want(xs[1], string(bodies["/b"]))
	})
}

func TestFreshness(t *testing.T) {
	proof.Requirement(t, path, "E2E-6")
	for _, policy := range []Freshness{FreshUnsafe, FreshAlways} {
		t.Run(fmt.Sprint(policy), func(t *testing.T) {
			p := NewPair(t, Config{Server: echo, EchoLifetime: 10 * time.Second, Freshness: func(Code, string) Freshness { return policy }})
			p.want(p.Client.Send(Put("/valve", []byte("shut"))), "/valve shut") // an Echo is at hand now
			p.Relay.To(ToServer, Drop)
			x := p.Client.Send(Put("/valve", []byte("open")))
			held, _ := p.Relay.Last(ToServer)
			p.Advance(time.Hour)
			p.Relay.To(ToClient, Drop)
			p.Relay.Deliver(held)
			p.wantNone(x, nil)
			p.wantHandled("shut")
			challenge, _ := p.Relay.Last(ToClient)
			if got := p.Server.Reasons(); got[len(got)-1] != "echo_challenge" || !challenge.Protected() {
				t.Errorf("%v, %+v", got, challenge.Outer())
			}
			p.Relay.Deliver(held)
			p.wantHandled("shut")
			// The client that still wants it says so.
			p.Relay.Reset()
			p.Relay.Deliver(challenge)
			p.want(x, "/valve open")
			p.wantHandled("shut", "open")
		})
	}
}
