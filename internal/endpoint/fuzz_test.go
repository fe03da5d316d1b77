package endpoint

import (
	"bytes"
	"testing"
	"time"

	"github.com/oscorelay/oscorelay/internal/coap"
	"github.com/oscorelay/oscorelay/oscore"
)

// FuzzReceive: bytes of anybody at the server, and the same bytes as the
// plaintext of a peer that is authentic and hostile. Nothing panics, nothing
// that does not verify leaves state, and what a peer can make grow is bounded.
func FuzzReceive(f *testing.F) {
	f.Add(byte(coap.POST), []byte("\x93\x09\x09\x01\xff01234567890123456789"))
	f.Add(byte(coap.POST), []byte("\x97\x19\x09\x03\x42ab\x01\xff01234567890123456789"))
	f.Add(byte(coap.PUT), message(f, coap.PUT, "/x", make([]byte, 16), block(coap.Block1, 0, true, 0), option(coap.RequestTag, 1)).Body)
	f.Add(byte(coap.PUT), message(f, coap.PUT, "/x", make([]byte, 8), block(coap.Block1, 1, false, 0), option(coap.RequestTag, 1)).Body)
	f.Add(byte(coap.GET), message(f, coap.GET, "/x", nil, block(coap.Block2, 3, false, 2), option(coap.Echo, 1)).Body)
	f.Add(byte(coap.FETCH), message(f, coap.FETCH, "/x", []byte("q"), option(coap.Observe), option(coap.ETag, 1)).Body)
	f.Add(byte(coap.FETCH), message(f, coap.FETCH, "/x", []byte("q"), option(coap.Observe, 1)).Body)
	f.Add(byte(coap.Ping), []byte{0x20})
	p := newPair(f, Config{}, Config{MaxBody: 256, MaxTransfers: 4, MaxObservations: 4, ErrorRate: 1e6, ErrorRateTotal: 1e6, Freshness: func(_ string, c coap.Code, _ string) Freshness { return Freshness(c % 4) }}, bothRoles)
	a := NewReassembler(512, 4096, time.Minute)
	n := 0
	f.Fuzz(func(t *testing.T, code byte, body []byte) {
		p.t = t
		n++
		p.now = p.now.Add(time.Millisecond)
		m := oscore.Message{Code: code, Body: body}
		in := Inbound{Source: "s", Token: []byte{byte(n)}, Reliable: n%2 == 0, Message: m}
		before := len(p.server.peers)
		if res := p.server.Receive(p.now, in); res.Verified || res.Incoming != nil || len(p.server.peers) != before {
			t.Fatalf("forged, and verified: %+v", res)
		}
		if out, whole := a.Request(p.now, "s", m); whole && !bytes.Equal(out.Body, m.Body) && len(out.Body) > 4096 {
			t.Fatalf("%d bytes", len(out.Body))
		}
		a.Response(p.now, "s", m)
		if a.held > 4096 || a.idle.Len() != len(a.parts) {
			t.Fatalf("%d bytes held", a.held)
		}
		pending := new(oscore.Pending)
		sealed, err := p.cp.SealRequest(nil, pending, m)
		if err != nil {
			return // no request
		}
		in.Message = sealed
		res := p.server.Receive(p.now, in)
		answer := res.Message
		if res.Verdict == Deliver {
			if err := coap.Check(res.Incoming.Message.Body); err != nil {
				t.Fatal(err)
			}
			answer, _, err = res.Incoming.Respond(p.now, content(body, option(coap.Observe)))
			if err != nil {
				t.Fatal(err)
			}
			if o := res.Incoming.Observation(); o != nil {
				if _, err := o.Notify(p.now, content(body)); err != nil {
					t.Fatal(err)
				}
			}
		}
		if answer.Body != nil {
			if _, err := pending.Open(nil, answer); err != nil {
				t.Fatalf("the answer: %v", err)
			}
		}
		if s := p.server.find("client"); s != nil {
			held := 0
			for _, u := range s.transfers.uploads {
				held += len(u.body)
			}
			for _, d := range s.transfers.downloads {
				held += len(d.resp.payload)
			}
			if held != s.transfers.held || held > 4*256 || len(s.transfers.uploads) > 4 || len(s.transfers.downloads) > 4 || len(s.observations) > 4 {
				t.Fatalf("%d bytes held, %d counted, %d observations", held, s.transfers.held, len(s.observations))
			}
		}
	})
}

// FuzzExchangeReceive: bytes of anybody at the client, and the same bytes as
// the plaintext of a hostile server, three times over.
func FuzzExchangeReceive(f *testing.F) {
	f.Add(byte(coap.Content), content(make([]byte, 16), block(coap.Block2, 0, true, 0), option(coap.ETag, 1)).Body, uint8(0))
	f.Add(byte(coap.Content), content(make([]byte, 16), block(coap.Block2, 0, true, 0), option(coap.Observe)).Body, uint8(1))
	f.Add(byte(coap.Continue), code(coap.Continue, block(coap.Block1, 0, true, 0)).Body, uint8(2))
	f.Add(byte(coap.RequestEntityTooLarge), code(coap.RequestEntityTooLarge, block(coap.Block1, 0, true, 0)).Body, uint8(2))
	f.Add(byte(coap.RequestEntityIncomplete), []byte{}, uint8(2))
	f.Add(byte(coap.Unauthorized), code(coap.Unauthorized, option(coap.Echo, 1)).Body, uint8(3))
	f.Add(byte(coap.Unauthorized), []byte("\x96\x10\x05\x44abcd\xff0123456789"), uint8(4))
	f.Fuzz(func(t *testing.T, code byte, body []byte, kind uint8) {
		p := newPair(t, Config{MaxBody: 256}, Config{}, bothRoles)
		request := message(t, coap.GET, "/x", nil)
		switch kind % 5 {
		case 1:
			request = message(t, coap.FETCH, "/x", []byte("q"), option(coap.Observe))
		case 2:
			request = message(t, coap.PUT, "/x", make([]byte, 3000))
		case 3:
			request = message(t, coap.POST, "/x", []byte("q"), block(coap.Block2, 0, false, 2))
		}
		x, m, err := p.client.Begin(p.now, "server", request, RequestOptions{Rederive: kind%5 == 4})
		if err != nil {
			t.Fatal(err)
		}
		forged := oscore.Message{Code: code, Body: body}
		for range 2 {
			if s := x.Receive(p.now, forged); s.Kind != Wait || s.Err == nil {
				t.Fatalf("forged: %+v", s)
			}
		}
		if kind%5 == 4 {
			return
		}
		for range 3 {
			req := new(oscore.Request)
			if _, err := p.sp.OpenRequest(nil, req, m); err != nil {
				t.Fatal(err)
			}
			answer, err := p.sp.SealResponse(nil, req, forged)
			if err != nil {
				return // no response
			}
			s := x.Receive(p.now, answer)
			switch {
			case s.Kind == Send:
				m = s.Message
				continue
			case s.More != nil:
				x, m = s.More, s.Message
				continue
			case s.Kind == Response || s.Kind == Notification:
				if err := coap.Check(s.Message.Body); err != nil {
					t.Fatal(err)
				}
			}
			return
		}
	})
}
