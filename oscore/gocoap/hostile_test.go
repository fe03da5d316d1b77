package gocoap_test

import (
	"bytes"
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/oscorelay/oscorelay/internal/proof"
	"github.com/oscorelay/oscorelay/oscore/gocoap"
	"github.com/plgd-dev/go-coap/v3/message"
	"github.com/plgd-dev/go-coap/v3/message/codes"
	"github.com/plgd-dev/go-coap/v3/mux"
	"github.com/plgd-dev/go-coap/v3/options"
)

// plainTwin returns a datagram with the header and token of another, without
// protection.
func plainTwin(t testing.TB, d datagram, code codes.Code) []byte {
	return build(t, message.Message{Type: d.Type, MessageID: d.MessageID, Token: d.Token, Code: code, Payload: []byte("forged")})
}

func TestForgedResponseBeforeGenuine(t *testing.T) {
	w := newWorld(t, setup{client: gocoap.Config{PlainErrorWait: time.Minute}})
	w.relay.set(func(d datagram) [][]byte {
		if !isSealedResponse(d) {
			return [][]byte{d.raw}
		}
		wrongToken := build(t, message.Message{Type: d.Type, MessageID: d.MessageID, Token: message.Token("12345678"), Code: codes.Content})
		return [][]byte{
			plainTwin(t, d, codes.Unauthorized), plainTwin(t, d, codes.Content), plainTwin(t, d, codes.Continue),
			wrongToken, flip(d.raw, -1), flip(d.raw, 8+4), d.raw,
		}
	})
	for range 3 {
		w.mustPost("secret body")
	}
	w.wantCalls(3)
	proof.Checklist(t, "O-2-3", "O-8.4-2", "O-D.5.3-1")
}

// The genuine response is lost: the forged ones must not have stopped the
// retransmission.
func TestForgedResponseAndLoss(t *testing.T) {
	t.Parallel()
	w := newWorld(t, setup{client: gocoap.Config{PlainErrorWait: time.Minute}})
	lost := false
	w.relay.set(func(d datagram) [][]byte {
		if !isSealedResponse(d) || lost {
			return [][]byte{d.raw}
		}
		lost = true
		wrongToken := build(t, message.Message{Type: d.Type, MessageID: d.MessageID, Token: message.Token("12345678"), Code: codes.Content})
		non := build(t, message.Message{Type: message.NonConfirmable, MessageID: d.MessageID, Token: d.Token, Code: codes.Content})
		return [][]byte{plainTwin(t, d, codes.Unauthorized), flip(d.raw, -1), wrongToken, non}
	})
	w.mustPost("secret body")
	w.wantCalls(1)
	sent := w.relay.find(isSealedRequest)
	if len(sent) != 2 || !bytes.Equal(sent[0].raw, sent[1].raw) {
		t.Errorf("%d requests on the wire, want one and its retransmission, byte by byte", len(sent))
	}
	answers := w.relay.find(isSealedResponse)
	if len(answers) != 2 || !bytes.Equal(answers[0].raw, answers[1].raw) {
		t.Errorf("%d answers, want the same bytes twice", len(answers))
	}
	w.relay.checkSealed("secret")
}

func TestForgedRequestBeforeGenuine(t *testing.T) {
	for _, typ := range []message.Type{message.Confirmable, message.NonConfirmable} {
		t.Run(typ.String(), func(t *testing.T) {
			w := newWorld(t, setup{client: gocoap.Config{PlainErrorWait: time.Minute}})
			w.relay.set(func(d datagram) [][]byte {
				if !isSealedRequest(d) {
					return [][]byte{d.raw}
				}
				return [][]byte{plainTwin(t, d, codes.POST), flip(d.raw, -1), flip(d.raw, -2), d.raw}
			})
			req := w.request(codes.POST, "/secret-path", "secret body")
			req.SetType(typ)
			resp, err := w.client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			if bodyOf(t, resp) != "secret body" {
				t.Error(resp)
			}
			w.wantCalls(1)
			proof.Checklist(t, "O-8.2-3")
		})
	}
}

func TestReplay(t *testing.T) {
	w := newWorld(t, setup{})
	w.mustPost("secret body")
	original := w.relay.find(isSealedRequest)[0]
	again := original.Message
	again.MessageID, again.Token = (original.MessageID+1000)&0xffff, message.Token("replayed")
	for name, raw := range map[string][]byte{"same bytes, other source": original.raw, "other message ID and token": build(t, again)} {
		c := stranger(t, w.server)
		d := ask(t, c, raw)
		maxAge, err := d.Options.GetUint32(message.MaxAge)
		if d.Code != codes.Unauthorized || err != nil || maxAge != 0 || d.sealed() {
			t.Errorf("%s: %v", name, d.Message.String())
		}
		w.wantCalls(1)
	}
	// From the same source: other message ID.
	w.relay.send(fromClient, build(t, again))
	w.relay.await(1, func(d datagram) bool { return d.from == fromServer && d.Code == codes.Unauthorized })
	w.wantCalls(1)
	w.mustPost("the genuine client goes on")
	proof.Checklist(t, "O-7.4-1", "O-7.4-2")
}

func TestRetransmissionIsAnsweredFromMemory(t *testing.T) {
	w := newWorld(t, setup{})
	for range 3 {
		w.mustPost("secret body")
	}
	requests, answers := w.relay.find(isSealedRequest), w.relay.find(isSealedResponse)
	for i, d := range requests {
		w.relay.send(fromClient, d.raw)
		got := w.relay.await(len(answers)+i+1, isSealedResponse)
		if !bytes.Equal(got[len(got)-1].raw, answers[i].raw) {
			t.Errorf("request %d: %x, first answer was %x", i, got[len(got)-1].raw, answers[i].raw)
		}
	}
	w.wantCalls(3)
}

// A datagram that the network doubles is verified once, and its copy never
// answered by a replay error.
func TestDoubledDatagrams(t *testing.T) {
	for _, typ := range []message.Type{message.Confirmable, message.NonConfirmable} {
		t.Run(typ.String(), func(t *testing.T) {
			w := newWorld(t, setup{})
			w.relay.set(func(d datagram) [][]byte { return [][]byte{d.raw, d.raw, d.raw} })
			for range 50 {
				req := w.request(codes.POST, "/secret-path", "secret body")
				req.SetType(typ)
				resp, err := w.client.Do(req)
				if err != nil {
					t.Fatal(err)
				}
				if bodyOf(t, resp) != "secret body" {
					t.Error(resp)
				}
			}
			w.wantCalls(50)
			w.relay.checkSealed("secret")
		})
	}
}

func TestLostRequest(t *testing.T) {
	t.Parallel()
	w := newWorld(t, setup{})
	n := 0
	w.relay.set(func(d datagram) [][]byte {
		if n++; n == 1 {
			return nil
		}
		return [][]byte{d.raw}
	})
	start := time.Now()
	w.mustPost("secret body")
	if took := time.Since(start); took < 2*time.Second || took > 4*time.Second {
		t.Errorf("took %v, the first retransmission comes after 2 to 3 s (RFC 7252 §4.8)", took)
	}
}

// slowWorld has a handler that waits for the returned channel.
func slowWorld(t testing.TB) (*world, chan struct{}) {
	release := make(chan struct{})
	var w *world
	w = newWorld(t, setup{
		handler: mux.HandlerFunc(func(rw mux.ResponseWriter, m *mux.Message) {
			<-release
			w.echo(rw, m)
		}),
		serverOptions: udpOptions(quick),
	})
	return w, release
}

func TestSlowHandler(t *testing.T) {
	t.Parallel()
	for name, lose := range map[string]func(d datagram) bool{
		"nothing lost":             func(datagram) bool { return false },
		"acknowledgement lost":     func(d datagram) bool { return d.from == fromServer && isAck(d) },
		"separate response lost":   func(d datagram) bool { return d.from == fromServer && d.sealed() },
		"its acknowledgement lost": func(d datagram) bool { return d.from == fromClient && isAck(d) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, release := slowWorld(t)
			lost := false
			w.relay.set(func(d datagram) [][]byte {
				if !lost && lose(d) {
					lost = true
					return nil
				}
				return [][]byte{d.raw}
			})
			go func() {
				w.relay.await(1, func(d datagram) bool { return d.from == fromServer && isAck(d) })
				close(release)
			}()
			w.mustPost("secret body")
			w.wantCalls(1)
			acks := w.relay.await(1, func(d datagram) bool { return d.from == fromClient && isAck(d) })
			separate := w.relay.find(func(d datagram) bool { return isSealedResponse(d) && d.Type == message.Confirmable })
			if len(separate) == 0 || acks[0].MessageID != separate[0].MessageID {
				t.Error("no separate confirmable response, or another one was acknowledged")
			}
			if name == "its acknowledgement lost" {
				w.relay.await(2, func(d datagram) bool { return d.from == fromClient && isAck(d) })
			}
			if resets := w.relay.find(isReset); len(resets) > 0 {
				t.Error("a reset was sent")
			}
			for _, d := range separate {
				if !bytes.Equal(d.raw, separate[0].raw) {
					t.Error("the retransmission of the separate response differs")
				}
			}
			w.relay.set(nil)
			w.mustPost("the next request is not held up")
		})
	}
}

// When the acknowledgement is lost and the separate response arrives, the next
// request need not wait for anything (RFC 7252 §5.2.2).
func TestResponseAcknowledges(t *testing.T) {
	t.Parallel()
	w, release := slowWorld(t)
	w.relay.set(func(d datagram) [][]byte {
		if d.from == fromServer && isAck(d) {
			return nil
		}
		return [][]byte{d.raw}
	})
	go func() {
		w.relay.await(1, func(d datagram) bool { return d.from == fromServer && isAck(d) })
		close(release)
	}()
	w.mustPost("first")
	start := time.Now()
	w.mustPost("second")
	if took := time.Since(start); took > time.Second {
		t.Errorf("the second request took %v", took)
	}
	w.wantCalls(2)
}

func TestPlainAnswerOnly(t *testing.T) {
	w := newWorld(t, setup{client: gocoap.Config{PlainErrorWait: 200 * time.Millisecond}})
	w.relay.set(func(d datagram) [][]byte {
		if d.from == fromServer {
			return [][]byte{plainTwin(t, d, codes.Content)}
		}
		return [][]byte{d.raw}
	})
	_, err := w.post("secret body")
	var plain *gocoap.PlainError
	if !errors.As(err, &plain) || plain.Code != codes.Content || plain.Diagnostic != "forged" {
		t.Fatalf("%v, want a PlainError", err)
	}
	w.relay.set(nil)
	w.mustPost("and now it answers")
}

func TestDeadline(t *testing.T) {
	w := newWorld(t, setup{})
	w.relay.set(func(datagram) [][]byte { return nil })
	ctx, cancel := context.WithTimeout(w.ctx, 200*time.Millisecond)
	defer cancel()
	_, err := w.client.Get(ctx, "/secret-path")
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
	w.relay.set(nil)
	w.mustPost("the connection goes on")
}

func TestClosedWhileWaiting(t *testing.T) {
	w := newWorld(t, setup{})
	w.relay.set(func(datagram) [][]byte { return nil })
	done := make(chan error, 1)
	go func() {
		_, err := w.client.Get(w.ctx, "/secret-path")
		done <- err
	}()
	w.relay.await(1, isSealedRequest)
	w.client.Close()
	if err := <-done; !errors.Is(err, gocoap.ErrClosed) {
		t.Fatal(err)
	}
	if _, err := w.client.Get(w.ctx, "/secret-path"); !errors.Is(err, gocoap.ErrClosed) {
		t.Fatal(err)
	}
}

// What a stranger throws at the server runs no handler and starts no loop.
func TestStrayMessages(t *testing.T) {
	w := newWorld(t, setup{})
	w.mustPost("before")
	c := stranger(t, w.server)
	n := int32(0)
	answerable, answers := 0, 0
	for _, typ := range []message.Type{message.Confirmable, message.NonConfirmable, message.Acknowledgement, message.Reset} {
		for _, code := range []codes.Code{0, codes.GET, codes.Content, codes.Unauthorized, codes.NotFound, codes.InternalServerError, 0x27, 0xe1} {
			for _, opts := range []message.Options{nil, {{ID: 9, Value: []byte{0x09, 0, 1}}}, {{ID: 9}}} {
				n++
				m := message.Message{Type: typ, Code: code, MessageID: n, Token: message.Token("ab"), Options: opts, Payload: []byte("payload")}
				if code == 0 {
					m.Token, m.Options, m.Payload = nil, nil, nil
				}
				if typ == message.Confirmable || typ == message.NonConfirmable && coapRequest(code) {
					answerable++
				}
				if _, err := c.Write(build(t, m)); err != nil {
					t.Fatal(err)
				}
				// A ping is answered after what was before it.
				ping := build(t, message.Message{Type: message.Confirmable, MessageID: 0x8000 + n})
				for d := ask(t, c, ping); d.Type != message.Reset || d.MessageID != 0x8000+n; d = answer(t, c) {
					if d.Type == message.Confirmable {
						t.Errorf("a confirmable answer to %v: %v", m, d.Message.String())
					}
					answers++
				}
			}
		}
	}
	if answers > answerable {
		t.Errorf("%d answers to %d datagrams that may have one", answers, answerable)
	}
	w.wantCalls(1)
	// And toward a client.
	for i := range int32(100) {
		for _, typ := range []message.Type{message.Confirmable, message.NonConfirmable, message.Acknowledgement, message.Reset} {
			w.relay.send(fromServer, build(t, message.Message{Type: typ, Code: codes.NotFound, MessageID: 5000 + i, Token: message.Token("ab")}))
		}
	}
	before := len(w.relay.find(func(d datagram) bool { return d.from == fromClient }))
	w.mustPost("after")
	after := len(w.relay.find(func(d datagram) bool { return d.from == fromClient }))
	if after-before > 101 {
		t.Errorf("%d datagrams from the client", after-before)
	}
	w.wantCalls(2)
}

// Each byte of a request and of a response flipped in turn: not delivered, and
// the genuine one works after it.
func TestIntegrity(t *testing.T) {
	w := newWorld(t, setup{
		client: gocoap.Config{PlainErrorWait: time.Minute, BlockSize: 64},
		server: gocoap.Config{Silent: false},
	})
	calls := int32(0)
	for _, direction := range []side{fromClient, fromServer} {
		at := 0
		for more := true; more; at++ {
			var flipped atomic.Bool
			offset := at
			w.relay.set(func(d datagram) [][]byte {
				from := 4 + len(d.Token) + offset // after the header and token, which are unprotected
				if d.from != direction || !d.sealed() || from >= len(d.raw) {
					return [][]byte{d.raw}
				}
				flipped.Store(true)
				return [][]byte{flip(d.raw, from), d.raw}
			})
			w.mustPost("secret")
			calls++
			w.wantCalls(calls)
			more = flipped.Load()
		}
		if at < 15 {
			t.Errorf("only %d bytes were flipped", at)
		}
	}
	for _, d := range w.relay.find(func(d datagram) bool { return d.from == fromServer && !d.sealed() && !d.empty() }) {
		if d.Code != codes.BadRequest && d.Code != codes.Unauthorized && d.Code != codes.BadOption {
			t.Errorf("a changed request was answered %v", d.Code)
		}
	}
	proof.Requirement(t, "direct", "E2E-1")
}

func TestConfidentiality(t *testing.T) {
	w := newWorld(t, setup{})
	for range 3 {
		w.mustPost("confidential payload")
	}
	resp := w.do(codes.PUT, "/secret-path", "confidential payload", message.Option{ID: message.URIQuery, Value: []byte("secret-query")})
	bodyOf(t, resp)
	w.relay.checkSealed("secret-path", "secret-query", "confidential")
	for _, d := range w.relay.find(isSealedRequest) {
		if d.Code != codes.POST {
			t.Errorf("outer code %v", d.Code)
		}
	}
	for _, d := range w.relay.find(isSealedResponse) {
		if d.Code != codes.Changed {
			t.Errorf("outer code %v", d.Code)
		}
	}
	proof.Requirement(t, "direct", "E2E-2")
	proof.Checklist(t, "O-4-1", "O-4.2-1", "O-4.1.1-1", "O-13.6-1", "O-5-6")
}

// The response to one request does not pass for that of another.
func TestBinding(t *testing.T) {
	w := newWorld(t, setup{client: gocoap.Config{PlainErrorWait: time.Minute}})
	w.mustPost("first")
	first := w.relay.find(isSealedResponse)[0]
	w.relay.set(func(d datagram) [][]byte {
		if !isSealedResponse(d) {
			return [][]byte{d.raw}
		}
		swapped := first.Message
		swapped.Type, swapped.MessageID, swapped.Token = d.Type, d.MessageID, d.Token
		return [][]byte{build(t, swapped), d.raw}
	})
	w.mustPost("second")
	w.wantCalls(2)
	proof.Requirement(t, "direct", "E2E-5")
	proof.Checklist(t, "O-8-1")
}

func coapRequest(c codes.Code) bool { return c != 0 && c < 32 }

func udpOptions(o options.TransmissionOpt) []udpServerOption { return []udpServerOption{o} }
