package endpoint

import (
	"bytes"
	"testing"
	"time"

	"github.com/oscorelay/oscorelay/internal/coap"
	"github.com/oscorelay/oscorelay/oscore"
)

// What strip and insert make of a body is what taking it apart makes of it, and
// neither touches what it was not given.
func FuzzStripAndInsert(f *testing.F) {
	echo := bytes.Repeat([]byte{0xe5}, echoLen)
	for _, opts := range []coap.Options{
		nil,
		{option(coap.Echo, echo...)},
		{option(coap.URIPath, 'r', 'd'), option(coap.Echo, echo...), option(coap.NoResponse, 2)},
		{option(coap.URIPath, 'r', 'd'), option(coap.Echo), option(coap.Echo, 1), option(coap.RequestTag, 7), option(2048, 3)},
		{option(coap.ContentFormat, 42), option(65000, 1)},
	} {
		f.Add(coap.AppendBody(nil, opts, nil), uint16(coap.Echo))
		f.Add(coap.AppendBody(nil, opts, []byte("payload")), uint16(coap.Echo))
	}
	f.Fuzz(func(t *testing.T, body []byte, number uint16) {
		opts, payload, err := coap.Split(body)
		if err != nil {
			return
		}
		dst := []byte("before")
		got := insert(dst, body, number, echo)
		want := coap.AppendBody(nil, opts.Add(number, echo), payload)
		if !bytes.Equal(got[:len(dst)], dst) || !bytes.Equal(got[len(dst):], want) {
			t.Fatalf("insert %d: % x, want % x", number, got[len(dst):], want)
		}
		want = coap.AppendBody(nil, opts.Without(number), payload)
		room := append(bytes.Clone(body), 0xaa)
		if got := strip(room[:len(body)], number); !bytes.Equal(got, want) || room[len(body)] != 0xaa {
			t.Fatalf("strip %d: % x, want % x", number, got, want)
		}
	})
}

// A gateway's answers offer the Echo that the request had while it is young, and
// a new one afterwards; never one that did not prove the request fresh.
func TestOfferedEchoIsYoung(t *testing.T) {
	p := newPair(t, Config{}, Config{Transparent: true, Fresh: FreshUnsafe}, oscore.Settings{})
	p.handle = func(*Incoming) oscore.Message { return changed() }
	ask := func(echo []byte) (offered []byte, code coap.Code) {
		t.Helper()
		resp, ok := p.ask(message(t, coap.PUT, "/x", []byte("v"), option(coap.Echo, echo...)), "t")
		if !ok {
			t.Fatal("no answer")
		}
		offered, _ = optionOf(resp, coap.Echo)
		return bytes.Clone(offered), coap.Code(resp.Code)
	}
	forged := bytes.Repeat([]byte{1}, echoLen)
	first, code := ask(forged)
	if code != coap.Unauthorized || len(first) != echoLen || bytes.Equal(first, forged) {
		t.Fatalf("a forged Echo: %v, offered %x", code, first)
	}
	p.now = p.now.Add(p.server.cfg.EchoLifetime / 4)
	if again, code := ask(first); !code.IsSuccess() || !bytes.Equal(again, first) {
		t.Errorf("young: %v, offered %x, want %x", code, again, first)
	}
	p.now = p.now.Add(time.Millisecond)
	second, code := ask(first)
	if !code.IsSuccess() || len(second) != echoLen || bytes.Equal(second, first) {
		t.Errorf("older: %v, offered %x, had %x", code, second, first)
	}
	p.now = p.now.Add(p.server.cfg.EchoLifetime)
	if _, code := ask(first); code != coap.Unauthorized {
		t.Errorf("beyond its lifetime: %v", code)
	}
	if _, code := ask(second); !code.IsSuccess() {
		t.Errorf("at the end of its lifetime: %v", code)
	}
}

// A request and its answer hold nothing of the transport's bytes: those are its
// own again when Receive returns.
func TestReceiveKeepsNoBytes(t *testing.T) {
	for _, size := range []int{0, 16, 200} {
		p := newPair(t, Config{}, Config{Transparent: true, Fresh: FreshUnsafe}, oscore.Settings{})
		payload := bytes.Repeat([]byte{0x33}, size)
		request := message(t, coap.POST, "/3/0/0", payload, option(coap.Echo, p.server.echo.value(p.now, "client")...))
		var pending oscore.Pending
		m, err := p.cp.SealRequest(nil, &pending, request)
		if err != nil {
			t.Fatal(err)
		}
		token, want := []byte("a token!"), "a token!"
		res := p.server.Receive(p.now, Inbound{Source: "s", Into: new(Incoming), Token: token, Message: m})
		if res.Verdict != Deliver {
			t.Fatal(res.Reason, res.Err)
		}
		for _, b := range [][]byte{token, m.Body} {
			for i := range b {
				b[i] = 0xa5
			}
		}
		r := res.Incoming
		if string(r.Token) != want || r.opt.Sequence() != pending.PartialIV() || !bytes.Equal(payloadOf(t, r.Message), payload) {
			t.Errorf("%d bytes: token %q, number %d, payload % x", size, r.Token, r.opt.Sequence(), payloadOf(t, r.Message))
		}
		if _, has := optionOf(r.Message, coap.Echo); has {
			t.Error("the application sees the Echo")
		}
		room := make([]byte, 0, 1024)
		out, send, err := r.RespondInto(room, p.now, oscore.Message{Code: byte(coap.Changed), Body: coap.AppendPayload(nil, payload)})
		if err != nil || !send {
			t.Fatal(send, err)
		}
		inner, err := pending.Open(nil, out)
		if err != nil {
			t.Fatal(err)
		}
		echo, _ := optionOf(inner, coap.Echo)
		if !bytes.Equal(payloadOf(t, inner), payload) || len(echo) != echoLen {
			t.Errorf("the answer: payload % x, Echo %x", payloadOf(t, inner), echo)
		}
	}
}
