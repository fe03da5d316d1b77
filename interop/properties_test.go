//go:build interop

package interop

import (
	"bytes"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/oscorelay/oscorelay/internal/proof"
	"github.com/oscorelay/oscorelay/interop/ours"
	"github.com/oscorelay/oscorelay/interop/peer"
	"github.com/oscorelay/oscorelay/oscore/gocoap"
	"github.com/plgd-dev/go-coap/v3/message/codes"
)

// flips gives the datagram with each bit behind the token flipped in turn. What
// stands before it, the message layer's header and the token, nothing protects.
func flips(b []byte) [][]byte {
	var all [][]byte
	for i := 4 + int(b[0]&15); i < len(b); i++ {
		for bit := range 8 {
			f := slices.Clone(b)
			f[i] ^= 1 << bit
			all = append(all, f)
		}
	}
	return all
}

// TestIntegrity flips every bit of a request to our server, and of a response
// to our client, before the genuine one comes.
func TestIntegrity(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, o opponent, direction string) {
		ctx := peer.Interop(true)
		m := o.meet(t, direction, ctx, ctx, ours.Config{Gocoap: gocoap.Config{PlainErrorWait: 10 * time.Second, MaxHandlers: 1024}})
		var once sync.Once
		m.relay.Forward(func(d peer.Datagram) (out [][]byte) {
			if d.ToServer == (direction == toUs) {
				once.Do(func() {
					for i, f := range flips(d.Bytes) {
						if d.ToServer { // each a message of its own
							f[2], f[3] = 0x80|byte(i>>8), byte(i)
						}
						out = append(out, f)
					}
				})
			}
			return append(out, d.Bytes)
		})
		r := m.client.Do(t, post)
		if direction == toUs && r.Answer.Code != "2.04" {
			// Its client took a refusal of a flipped copy for the answer, and sends
			// no more: the genuine request comes again until it is served.
			genuine := m.relay.Capture()[0]
			m.relay.Await(t, "genuine request served", func(peer.Capture) bool {
				if m.server.Handled("/oscore/hello/6") > 0 {
					return true
				}
				m.relay.Send(genuine.Client, genuine.Bytes)
				return false
			})
		} else if r.Answer.Code != "2.04" || !r.Answer.Sealed || !bytes.Equal(r.Answer.Payload, post.Payload) {
			t.Errorf("%+v", r)
		}
		if n := m.server.Handled("/oscore/hello/6"); n != 1 {
			t.Errorf("the resource was reached %d times, want 1", n)
		}
		o.record(t, direction, "every bit flipped in turn: refused, the genuine message still works")
		proof.Requirement(t, "direct", "E2E-1")
	})
}

// TestBinding delivers the sealed response of one request for another one, with
// token and message ID rewritten, before the genuine one.
func TestBinding(t *testing.T) {
	t.Parallel()
	for _, o := range opponents {
		t.Run(o.component, func(t *testing.T) {
			t.Parallel()
			ctx := peer.Interop(false)
			m := o.meet(t, fromUs, ctx, ctx, ours.Config{})
			var mu sync.Mutex
			var first []byte
			m.relay.Forward(func(d peer.Datagram) [][]byte {
				mu.Lock()
				defer mu.Unlock()
				if d.ToServer || d.Bytes[1]>>5 != 2 { // an empty acknowledgement is no response
					return [][]byte{d.Bytes}
				}
				head := 4 + int(d.Bytes[0]&15)
				if first == nil {
					first = slices.Clone(d.Bytes[head:])
					return [][]byte{d.Bytes}
				}
				return [][]byte{slices.Concat(d.Bytes[:head], first), d.Bytes}
			})
			for i := range 3 {
				q := post
				q.Payload = []byte{byte(i + 1)}
				if r := m.client.Do(t, q); r.Answer.Code != "2.04" || !bytes.Equal(r.Answer.Payload, q.Payload) {
					t.Errorf("request %d: %+v", i, r)
				}
			}
			if n := m.ourClient.Events("decrypt"); n != 2 {
				t.Errorf("our client refused %d responses, want 2", n)
			}
			o.record(t, fromUs, "response of another request: refused")
			proof.Requirement(t, "direct", "E2E-5")
		})
	}
}

// TestHeldBack delivers a request late that never came before: where freshness
// is asked it gets a challenge, and is acted on no more.
func TestHeldBack(t *testing.T) {
	t.Parallel()
	o := opponents[0]
	ctx := peer.Interop(false)
	m := o.meet(t, toUs, ctx, ctx, ours.Config{Patience: time.Second, Gocoap: gocoap.Config{
		Freshness: func(string, codes.Code, string) gocoap.Freshness { return gocoap.FreshUnsafe },
	}})
	m.relay.Forward(func(d peer.Datagram) [][]byte {
		if d.ToServer {
			m.relay.SendBack(d.Client, []byte{0x60, 0, d.Bytes[2], d.Bytes[3]})
			return nil
		}
		return [][]byte{d.Bytes}
	})
	if r := m.client.Do(t, post); r.Error == "" {
		t.Fatalf("an answer to what was held back: %+v", r)
	}
	held := m.relay.Capture()[0]
	m.relay.Forward(nil)
	requirePost(t, m.client, "a fresh one")
	m.relay.Forward(func(d peer.Datagram) [][]byte {
		if d.ToServer {
			return [][]byte{d.Bytes}
		}
		return nil // or its client, which still waits, would give the Echo
	})
	answer := replay(t, m.relay, held)
	if _, sealed := answer.Option(peer.OptOSCORE); !sealed {
		t.Errorf("the late request got %s", answer)
	}
	if n := m.server.Handled("/oscore/hello/6"); n != 1 {
		t.Errorf("the resource was reached %d times, want 1: the late request was acted on", n)
	}
	m.relay.Capture().Sealed(t)
	m.relay.Capture().SingleUse(t)
	o.record(t, toUs, "Echo: a request held back is not acted on")
	proof.Requirement(t, "direct", "E2E-6")
}
