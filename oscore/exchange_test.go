package oscore

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/oscorelay/oscorelay/internal/coap"
	"github.com/oscorelay/oscorelay/internal/proof"
)

// TestEveryAlgorithm runs a whole exchange under every AEAD and HKDF, with and
// without ID Context, in both roles on the same contexts.
func TestEveryAlgorithm(t *testing.T) {
	proof.Checklist(t, "O-3.1-1", "O-3.2.1-1", "O-8.1-1", "O-8.2-1", "O-8.3-1", "O-8.4-1")
	for _, a := range AEADs() {
		for _, h := range HKDFs() {
			for _, idContext := range [][]byte{nil, {}, []byte("37cbf321")} {
				t.Run(fmt.Sprintf("%v/%v/%x", a, h, idContext), func(t *testing.T) {
					p := testParams()
					p.AEAD, p.HKDF, p.IDContext = a, h, idContext
					one, other := newPair(t, p, p.Swap())
					for range 3 {
						x := request(t, one, other, get)
						sameMessage(t, x.opened, get)
						kid := keyID(t, x.sealed)
						equal(t, "kid", kid, p.SenderID)
						sameMessage(t, must(x.p.Open(nil, x.seal(t, content)))(t), content)
						_, err := x.p.Open(nil, x.number(t, content))
						want(t, err, ErrAnswered)
						// The other way round: IDs stay where they are.
						y := request(t, other, one, get)
						equal(t, "kid", keyID(t, y.sealed), p.RecipientID)
						sameMessage(t, must(y.p.Open(nil, y.number(t, content)))(t), content)
					}
					// Somebody with another secret, salt, HKDF or ID is refused.
					for name, change := range map[string]func(*Params){
						"secret": func(p *Params) { p.MasterSecret = Secret("another secret !") },
						"salt":   func(p *Params) { p.MasterSalt = nil },
						"HKDF":   func(p *Params) { p.HKDF = HKDFSHA256 + (p.HKDF-HKDFSHA256+1)%3 },
					} {
						q := p.Clone()
						change(&q)
						stranger, _ := newPair(t, q, q.Swap())
						stranger.jump(100)
						var pending Pending
						var r Request
						_, err := other.OpenRequest(nil, &r, must(stranger.SealRequest(nil, &pending, get))(t))
						wantNamed(t, name, err, ErrDecrypt)
					}
				})
			}
		}
	}
}

func keyID(t *testing.T, m Message) []byte {
	t.Helper()
	o, _, err := FindOption(m)
	if err != nil {
		t.Fatal(err)
	}
	return o.KID
}

// TestResponsesInSwappedOrder: each response opens with its own request only.
func TestResponsesInSwappedOrder(t *testing.T) {
	proof.Checklist(t, "O-8-1", "O-5-6")
	client, server := testPair(t)
	a, b := request(t, client, server, get), request(t, client, server, get)
	for _, numbered := range []bool{false, true} {
		var ra, rb Message
		if numbered {
			ra, rb = a.number(t, content), b.number(t, content)
		} else {
			ra, rb = a.seal(t, content), b.seal(t, content)
		}
		_, err := a.p.Open(nil, rb)
		want(t, err, ErrDecrypt)
		_, err = b.p.Open(nil, ra)
		want(t, err, ErrDecrypt)
		for _, m := range []Message{ra, rb} {
			if o, _, _ := FindOption(m); o.KID != nil || o.KIDContext != nil {
				t.Errorf("a response carries kid %x and kid context %x", o.KID, o.KIDContext)
			}
		}
		sameMessage(t, must(b.p.Open(nil, rb))(t), content)
		sameMessage(t, must(a.p.Open(nil, ra))(t), content)
		a.p.done, b.p.done = false, false
	}
}

func TestObserveRequest(t *testing.T) {
	proof.Checklist(t, "O-4.1.3.5-1", "O-4.1.3.5-5", "O-4.1.3.5.1-1", "O-4.1.3.5.1-2", "O-4.2-2")
	client, server := testPair(t)
	for _, c := range []struct {
		value     string
		registers bool
	}{{"", true}, {"\x00", true}, {"\x01", false}, {"\x02", false}} {
		m := msg(coap.GET, "", option{coap.Observe, c.value}, option{coap.URIPath, "temp"})
		x := request(t, client, server, m)
		if x.sealed.Code != byte(coap.FETCH) {
			t.Errorf("outer code %x, want FETCH", x.sealed.Code)
		}
		outer, ok := coap.Find(x.sealed.Body, coap.Observe)
		if !ok || string(outer) != c.value {
			t.Errorf("outer Observe %x %v, want %x", outer, ok, c.value)
		}
		sameMessage(t, x.opened, m)
		if x.r.Observes() != c.registers || x.p.Observes() != c.registers {
			t.Errorf("Observe %x registers: %v and %v, want %v", c.value, x.r.Observes(), x.p.Observes(), c.registers)
		}
	}
	// Stripping or changing the outer Observe changes nothing (§4.1.3.5.1).
	for _, change := range []func(coap.Options) coap.Options{
		func(o coap.Options) coap.Options { return o.Without(coap.Observe) },
		func(o coap.Options) coap.Options { return o.Without(coap.Observe).AddUint(coap.Observe, 1) },
	} {
		var p Pending
		sealed := must(client.SealRequest(nil, &p, observe))(t)
		opts, payload, _ := coap.Split(sealed.Body)
		var r Request
		opened := must(server.OpenRequest(nil, &r, Message{codePOST, coap.AppendBody(nil, change(opts), payload)}))(t)
		if sameMessage(t, opened, observe); !r.Observes() {
			t.Error("a proxy turned a registration into something else")
		}
	}
	// An intermediary cannot make a registration of a request.
	var p Pending
	sealed := must(client.SealRequest(nil, &p, get))(t)
	opts, payload, _ := coap.Split(sealed.Body)
	var r Request
	sameMessage(t, must(server.OpenRequest(nil, &r, Message{codeFETCH, coap.AppendBody(nil, opts.AddUint(coap.Observe, 0), payload)}))(t), get)
	if r.Observes() {
		t.Error("an outer Observe registered")
	}
	for _, v := range []string{"\x01\x02\x03\x04", "\x00\x00\x00\x00\x00"} {
		_, err := client.SealRequest(nil, &p, msg(coap.GET, "", option{coap.Observe, v}))
		want(t, err, coap.ErrFormat)
	}
	_, err := client.SealRequest(nil, &p, msg(coap.GET, "", option{coap.Observe, ""}, option{coap.Observe, ""}))
	want(t, err, coap.ErrFormat)
}

func TestNotifications(t *testing.T) {
	proof.Checklist(t, "O-4.1.3.5-2", "O-4.1.3.5-5", "O-4.1.3.5.2-1", "O-4.1.3.5.2-3", "O-4.1.3.5.2-4", "O-7.4.1-1", "O-8.4.2-1")
	// Options before and after Observe, so that it is rewritten in the middle.
	m := msg(coap.Content, "payload", option{coap.ETag, "tag"}, option{coap.Observe, "\x12\x34"}, option{coap.ContentFormat, "\x3c"}, option{coap.MaxAge, "\x05"})
	for _, outer := range []bool{false, true} {
		x := newTrip(t, observe)
		for i, n := range []uint64{0, 1, 255, 256, 1 << 16, 1 << 24, 1<<24 + 0x010203, MaxSequence} {
			x.server.jump(n)
			sealed := x.number(t, m)
			if sealed.Code != byte(coap.Content) {
				t.Errorf("outer code %x, want 2.05", sealed.Code)
			}
			if v, _ := coap.Find(sealed.Body, coap.Observe); string(v) != "\x12\x34" {
				t.Errorf("outer Observe %x", v)
			}
			var buf [maxPIVLen]byte
			piv := buf[:putPIV(&buf, n)]
			if o, _, _ := FindOption(sealed); !bytes.Equal(o.PartialIV, piv) {
				t.Errorf("Partial IV %x, want %x", o.PartialIV, piv)
			}
			plaintext := x.client.plaintext(t, sealed, x.server.nonce[:13], x.p.aadBytes())
			if v, ok := coap.Find(plaintext[1:], coap.Observe); !ok || len(v) != 0 {
				t.Errorf("inner Observe %x %v, want empty", v, ok)
			}
			var more []option
			if outer {
				opts, payload, _ := coap.Split(sealed.Body)
				sealed.Body = coap.AppendBody(nil, opts.Add(coap.URIHost, []byte("host")).Add(coap.ProxyScheme, []byte("coap")), payload)
				more = []option{{coap.URIHost, "host"}, {coap.ProxyScheme, "coap"}}
			}
			value := string(coap.AppendUint(nil, uint32(n&0xffffff)))
			wanted := msg(coap.Content, "payload", append(more, option{coap.ETag, "tag"}, option{coap.Observe, value}, option{coap.ContentFormat, "\x3c"}, option{coap.MaxAge, "\x05"})...)
			// With just the capacity that the documentation asks for.
			dst := append(make([]byte, 0, 3+len(sealed.Body)), "abc"...)
			opened := must(x.p.Open(dst, sealed))(t)
			sameMessage(t, opened, wanted)
			if string(dst) != "abc" {
				t.Fatal("dst's own bytes changed")
			}
			if i > 0 {
				_, err := x.p.Open(nil, sealed)
				want(t, err, ErrStale)
			}
		}
	}
}

func TestFirstNotificationWithoutPartialIV(t *testing.T) {
	proof.Checklist(t, "O-7.4.1-1", "O-4.1.3.5.2-1")
	t.Run("first", func(t *testing.T) {
		x := newTrip(t, observe)
		opened := must(x.p.Open(nil, x.seal(t, notify)))(t)
		if v, ok := coap.Find(opened.Body, coap.Observe); !ok || len(v) != 0 {
			t.Errorf("Observe of a notification without Partial IV: %x %v, want 0", v, ok)
		}
		if _, ok := x.p.Notification(); ok {
			t.Error("it has a Notification Number")
		}
		if _, err := x.p.Open(nil, x.number(t, notify)); err != nil {
			t.Error("a notification with Partial IV 0 after it:", err)
		}
	})
	t.Run("late", func(t *testing.T) {
		x := newTrip(t, observe)
		late := x.seal(t, notify)
		must(x.p.Open(nil, x.number(t, notify)))(t)
		_, err := x.p.Open(nil, late)
		want(t, err, ErrStale)
	})
}

func TestResponseWithoutObserveEndsTheObservation(t *testing.T) {
	x := newTrip(t, observe)
	must(x.p.Open(nil, x.number(t, notify)))(t)
	refused := x.number(t, msg(coap.NotFound, ""))
	late := x.number(t, notify)
	sameMessage(t, must(x.p.Open(nil, refused))(t), msg(coap.NotFound, ""))
	if !x.p.Done() {
		t.Error("the observation goes on")
	}
	_, err := x.p.Open(nil, late)
	want(t, err, ErrAnswered)
}

func TestNotificationToWhatDidNotRegister(t *testing.T) {
	x := newTrip(t, get)
	_, err := x.r.Seal(nil, notify)
	want(t, err, ErrNotification)
	_, err = x.server.SealResponse(nil, &x.r, notify)
	want(t, err, ErrNotification)
	if x.server.NextSequence() != 0 {
		t.Error("a refused response spent a number")
	}
	_, err = x.p.Open(nil, x.forgeResponse(t, []byte("\x45\x60\xffx"), &Option{}))
	want(t, err, ErrNotification)
	sameMessage(t, must(x.p.Open(nil, x.seal(t, content)))(t), content)
}

// TestOneResponse: a request gets a single response, however many are sealed.
func TestOneResponse(t *testing.T) {
	x := newTrip(t, get)
	first, second := x.seal(t, content), x.number(t, content)
	must(x.p.Open(nil, second))(t)
	_, err := x.p.Open(nil, first)
	want(t, err, ErrAnswered)
}

func TestHeaderFieldsAndPayload(t *testing.T) {
	proof.Checklist(t, "O-4.2-1", "O-4.2-2", "O-4.2-3", "O-4.2-6", "O-2-1", "O-5-3", "O-5-4")
	client, server := testPair(t)
	for code := range 256 {
		m := Message{byte(code), msg(coap.GET, "payload").Body}
		var p Pending
		sealed, err := client.SealRequest(nil, &p, m)
		if c := coap.Code(code); c.IsRequest() || c.IsSignal() {
			if err != nil || sealed.Code != byte(coap.POST) {
				t.Fatalf("%v: outer %x, %v", c, sealed.Code, err)
			}
			if bytes.Contains(sealed.Body, []byte("payload")) {
				t.Fatal("the payload is readable")
			}
			if o, _, _ := FindOption(sealed); o.PartialIV == nil || o.KID == nil {
				t.Fatal("a request lacks Partial IV or kid")
			}
			var r Request
			sealed.Code = byte(code) ^ 0xff // whatever a proxy makes of it
			sameMessage(t, must(server.OpenRequest(nil, &r, sealed))(t), m)
		} else {
			want(t, err, ErrCode)
		}
		x := request(t, client, server, get)
		sealed, err = x.r.Seal(nil, m)
		if coap.Code(code).IsResponse() {
			if err != nil || sealed.Code != byte(coap.Changed) {
				t.Fatalf("%v: outer %x, %v", coap.Code(code), sealed.Code, err)
			}
			if value, _ := coap.Find(sealed.Body, coap.OSCORE); len(value) != 0 {
				t.Fatalf("option %x, want zero length", value)
			}
			sealed.Code = byte(code) ^ 0xff
			sameMessage(t, must(x.p.Open(nil, sealed))(t), m)
		} else {
			want(t, err, ErrCode)
		}
	}
	t.Run("request lacks Partial IV or kid", func(t *testing.T) {
		var p Pending
		m := must(client.SealRequest(nil, &p, get))(t)
		for _, value := range [][]byte{{}, {0x08, 0x01}, {0x01, 0x01}, {0x10, 0x00}, {0x18, 0x00, 0x01}} {
			var r Request
			_, err := server.OpenRequest(nil, &r, withOption(t, m, value))
			want(t, err, ErrDecode)
		}
	})
}

// TestSignalling is CoAP over reliable transports (§4.3).
func TestSignalling(t *testing.T) {
	proof.Checklist(t, "O-4.3-2", "O-4.3-3", "O-4.3-4")
	client, server := testPair(t)
	// Numbers mean other things here: 6 is Extended-Token-Length of a CSM
	// (RFC 8974 §2.2.2), 2 is Custody of a Ping. All go inside.
	ping := msg(coap.Ping, "", option{2, ""}, option{3, "x"}, option{coap.Observe, "\x01\x02\x03\x04\x05"}, option{39, "x"})
	x := request(t, client, server, ping)
	if x.sealed.Code != byte(coap.POST) {
		t.Errorf("outer code %x, want POST", x.sealed.Code)
	}
	if outer := options(t, x.sealed.Body); len(outer) != 1 || outer[0].Number != coap.OSCORE {
		t.Errorf("outer options %v, want OSCORE alone", outer)
	}
	sameMessage(t, x.opened, ping)
	if x.r.Observes() || x.p.Observes() {
		t.Error("a signal registers an observation")
	}
	pong := msg(coap.Pong, "", option{2, ""}, option{3, "y"}, option{coap.Observe, "\x07"})
	sealed := x.seal(t, pong)
	if sealed.Code != byte(coap.Changed) {
		t.Errorf("outer code %x, want 2.04", sealed.Code)
	}
	if outer := options(t, sealed.Body); len(outer) != 1 {
		t.Errorf("outer options %v, want OSCORE alone", outer)
	}
	// Outer options that somebody adds do not become signalling options.
	opts, payload, _ := coap.Split(sealed.Body)
	sealed.Body = coap.AppendBody(nil, opts.Add(coap.URIHost, []byte("evil")).Add(coap.URIPort, []byte("e")).Add(coap.ProxyScheme, []byte("evil")), payload)
	sameMessage(t, must(x.p.Open(nil, sealed))(t), pong)

	y := request(t, client, server, get)
	_, err := y.r.Seal(nil, pong)
	want(t, err, ErrCode)
	_, err = y.p.Open(nil, y.forgeResponse(t, []byte{byte(coap.Pong)}, &Option{}))
	want(t, err, ErrPlaintext)
	var p Pending
	_, err = client.SealRequest(nil, &p, msg(coap.CSM, "", option{coap.OSCORE, ""}))
	want(t, err, ErrNested)
	_, err = client.SealRequest(nil, &p, Message{byte(coap.CSM), []byte{0xff}})
	want(t, err, coap.ErrFormat)
}

func TestUnsetAndCopied(t *testing.T) {
	x := newTrip(t, get)
	var r Request
	var p Pending
	_, err := r.Seal(nil, content)
	want(t, err, ErrInvalid)
	_, err = p.Open(nil, content)
	want(t, err, ErrInvalid)
	want(t, x.server.AcceptEcho(&r), ErrInvalid)
	want(t, x.server.AcceptEcho(nil), ErrInvalid)
	_, err = x.server.SealResponse(nil, &r, content)
	want(t, err, ErrInvalid)
	_, err = x.server.SealChallenge(nil, &r, []byte("echo"))
	want(t, err, ErrInvalid)

	// A copy would have a nonce guard of its own.
	copied := &Request{exchange: x.r.exchange, self: x.r.self, proven: true}
	_, err = copied.Seal(nil, content)
	want(t, err, ErrInvalid)
	_, err = copied.SealUnder(nil, x.server, nil, content)
	want(t, err, ErrInvalid)
	_, err = x.server.SealResponse(nil, copied, content)
	want(t, err, ErrInvalid)
	sealed := x.seal(t, content)
	copiedPending := &Pending{exchange: x.p.exchange, self: x.p.self}
	_, err = copiedPending.Open(nil, sealed)
	want(t, err, ErrInvalid)
	_, err = copiedPending.OpenUnder(nil, x.client, sealed)
	want(t, err, ErrInvalid)
	if _, err := x.p.Open(nil, sealed); err != nil {
		t.Error(err)
	}
}

// TestUsedAgain: Request and Pending serve one exchange after another.
func TestUsedAgain(t *testing.T) {
	client, server := testPair(t)
	x := &trip{client: client, server: server}
	for i := range 5 {
		m := get
		if i%2 == 0 {
			m = observe
		}
		opened := must(server.OpenRequest(nil, &x.r, must(client.SealRequest(nil, &x.p, m))(t)))(t)
		sameMessage(t, opened, m)
		if x.r.Observes() != (i%2 == 0) || x.p.Observes() != (i%2 == 0) || x.p.Done() {
			t.Errorf("exchange %d has something of the one before", i)
		}
		sameMessage(t, must(x.p.Open(nil, x.seal(t, content)))(t), content)
		_, err := x.r.Seal(nil, content)
		want(t, err, ErrNonceSpent)
	}
	// After a refusal nothing of the exchange before can be used.
	_, err := server.OpenRequest(nil, &x.r, get)
	want(t, err, ErrUnprotected)
	_, err = server.SealResponse(nil, &x.r, content)
	want(t, err, ErrInvalid)
}

// TestBuffers: results are appended, in place if there is room, and dst's own
// bytes stay.
func TestBuffers(t *testing.T) {
	m := msg(coap.PUT, "payload", option{coap.URIHost, "host"}, option{coap.URIPath, "a"}, option{coap.ProxyScheme, "coap"})
	for room := range 160 {
		client, server := testPair(t)
		dst := append(make([]byte, 0, 4+room), "head"...)
		var p Pending
		sealed := must(client.SealRequest(dst, &p, m))(t)
		if string(dst) != "head" {
			t.Fatal("dst's own bytes changed")
		}
		inPlace := func(b []byte) bool { return cap(dst) > 4 && len(b) > 0 && &dst[:5][4] == &b[0] }
		if room >= len(m.Body)+Overhead && !inPlace(sealed.Body) {
			t.Errorf("sealed elsewhere with %d bytes of room", room)
		}
		sealed.Body = bytes.Clone(sealed.Body)
		var r Request
		opened := must(server.OpenRequest(dst, &r, sealed))(t)
		sameMessage(t, opened, m)
		if room >= len(sealed.Body) && !inPlace(opened.Body) {
			t.Errorf("opened elsewhere with %d bytes of room", room)
		}
		if string(dst) != "head" {
			t.Fatal("dst's own bytes changed")
		}
	}
}

func TestLengthLimit(t *testing.T) {
	for _, a := range AEADs() {
		p := testParams()
		p.AEAD = a
		client, server := newPair(t, p, p.Swap())
		// Code, marker and payload make up the plaintext.
		largest := Message{byte(coap.PUT), coap.AppendPayload(nil, make([]byte, 65535-2))}
		x := request(t, client, server, largest)
		sameMessage(t, x.opened, largest)
		larger := Message{byte(coap.PUT), coap.AppendPayload(nil, make([]byte, 65535-1))}
		var pending Pending
		_, err := client.SealRequest(nil, &pending, larger)
		answer := Message{byte(coap.Content), larger.Body}
		_, err2 := x.r.Seal(nil, answer)
		if a.NonceLen() == 13 {
			want(t, err, ErrTooLong)
			want(t, err2, ErrTooLong)
			if client.NextSequence() != 1 {
				t.Error("a refused message spent a number")
			}
			x.seal(t, content) // nor is the request's nonce spent
		} else if err != nil || err2 != nil {
			t.Errorf("%v: %v, %v", a, err, err2)
		}
	}
}
