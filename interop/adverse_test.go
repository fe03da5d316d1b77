//go:build interop

package interop

import (
	"bytes"
	"slices"
	"testing"
	"time"

	"github.com/oscorelay/oscorelay/internal/proof"
	"github.com/oscorelay/oscorelay/interop/ours"
	"github.com/oscorelay/oscorelay/interop/peer"
	"github.com/oscorelay/oscorelay/oscore/gocoap"
)

var getHello = peer.Request{Method: "GET", Path: "/oscore/hello/1"}

// impatient is for requests that get no sealed answer.
var impatient = ours.Config{Patience: 2 * time.Second, Gocoap: gocoap.Config{PlainErrorWait: 200 * time.Millisecond}}

// TestPlainRequests is cases 0 and 17: what is open is served without OSCORE,
// what is not is refused.
func TestPlainRequests(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, o opponent, direction string) {
		ctx := peer.Interop(false)
		m := o.meet(t, direction, ctx, ctx, ours.Config{})
		open := m.client.Do(t, peer.Request{Method: "GET", Path: "/oscore/hello/coap", Plain: true})
		if open.Answer.Code != "2.05" || open.Answer.Sealed || !bytes.Equal(open.Answer.Payload, hello) {
			t.Errorf("case 0: %+v", open)
		}
		closed := m.client.Do(t, peer.Request{Method: "GET", Path: "/oscore/hello/1", Plain: true})
		if closed.Answer.Code != "4.01" || closed.Answer.Sealed {
			t.Errorf("case 17: %+v", closed)
		}
		if n := m.server.Handled("/oscore/hello/1"); n != 0 {
			t.Errorf("a plain request reached the resource %d times", n)
		}
		for _, q := range m.relay.Capture().Messages(t) {
			if _, ok := q.Option(peer.OptOSCORE); ok {
				t.Errorf("sealed: %s", q)
			}
		}
		o.record(t, direction, "plain request to an open resource")
		o.record(t, direction, "plain request to a sealed resource: 4.01")
	})
}

// TestWrongContext is cases 12 to 14, and IDs that changed places: one side has
// another context than the other.
func TestWrongContext(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, feature string
		change        func(*peer.Context)
		code          string // of the plain answer, "" if the server accepts the request
	}{
		{"12", "unknown kid: 4.01", func(c *peer.Context) { c.ClientID = []byte{0x7f} }, "4.01"},
		{"13", "wrong client key: 4.00", func(c *peer.Context) { c.Secret = bytes.Repeat([]byte{7}, 16) }, "4.00"},
		{"14", "wrong server key: response refused", func(c *peer.Context) { c.ServerID = []byte{2} }, ""},
		{"swapped", "IDs that changed places: 4.01", func(c *peer.Context) { c.ClientID, c.ServerID = c.ServerID, c.ClientID }, "4.01"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			each(t, func(t *testing.T, o opponent, direction string) {
				server := peer.Interop(false)
				client := server
				c.change(&client)
				our, its := server, client
				if direction == fromUs {
					our, its = client, server
				}
				m := o.meet(t, direction, our, its, impatient)
				r := m.client.Do(t, getHello)
				if r.Answer.Sealed || r.Answer.Code != c.code {
					t.Errorf("%+v, want code %q in plain", r, c.code)
				}
				reached := 0
				if c.code == "" {
					reached = 1 // it was the genuine client; the client finds out
				}
				if n := m.server.Handled("/oscore/hello/1"); n != reached {
					t.Errorf("the request reached the resource %d times, want %d", n, reached)
				}
				if direction == fromUs && c.code == "" && m.ourClient.Events("decrypt") == 0 {
					t.Error("our client did not report a response that fails to verify")
				}
				m.relay.Capture().SealedRequests(t)
				m.relay.Capture().Hides(t, "hello", "Hello World!")
				o.record(t, direction, c.feature)
				if direction == toUs && c.code != "" || direction == fromUs && c.code == "" {
					proof.Requirement(t, "direct", "E2E-4")
				}
			})
		})
	}
}

// TestReplay is case 15: a request once more, under another message ID.
func TestReplay(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, o opponent, direction string) {
		ctx := peer.Interop(false)
		m := o.meet(t, direction, ctx, ctx, ours.Config{})
		post := peer.Request{Method: "POST", Path: "/oscore/hello/6", Format: peer.Int(0), Payload: []byte{0x4a}}
		for range 2 {
			if r := m.client.Do(t, post); r.Answer.Code != "2.04" {
				t.Fatalf("%+v", r)
			}
		}
		before := m.relay.Capture()
		for _, d := range before {
			if q, err := peer.ParseMessage(d.Bytes); err != nil || !d.ToServer || !q.IsRequest() {
				continue
			}
			answer := replay(t, m.relay, d)
			if _, sealed := answer.Option(peer.OptOSCORE); sealed || answer.Code != 0x81 {
				t.Errorf("replayed: %s", answer)
			}
			if age, ok := answer.Option(peer.OptMaxAge); direction == toUs && (!ok || len(age) != 0) {
				t.Errorf("our refusal has Max-Age %x, %v", age, ok)
			}
		}
		if n := m.server.Handled("/oscore/hello/6"); n != 2 {
			t.Errorf("two requests and their replays reached the resource %d times", n)
		}
		if r := m.client.Do(t, post); r.Answer.Code != "2.04" || !r.Answer.Sealed {
			t.Errorf("after the replays: %+v", r)
		}
		m.relay.Capture().SealedRequests(t)
		m.relay.Capture().SingleUse(t)
		o.record(t, direction, "replayed request: 4.01, acted on once")
		if direction == toUs {
			proof.Requirement(t, "direct", "E2E-3")
		}
	})
}

// replay sends a request once more under another message ID and gives the
// answer to it.
func replay(t *testing.T, relay *peer.Relay, d peer.Datagram) peer.Message {
	t.Helper()
	again := slices.Clone(d.Bytes)
	var answer peer.Message
	from := len(relay.Capture())
	again[2] ^= 0x55
	again[3] += byte(from) // another one each time
	relay.Send(d.Client, again)
	relay.Await(t, "answer to a replay", func(c peer.Capture) bool {
		for _, a := range c[from:] {
			if a.ToServer || !bytes.Equal(a.Bytes[2:4], again[2:4]) {
				continue
			}
			if q, err := peer.ParseMessage(a.Bytes); err == nil && q.IsResponse() {
				answer = q
				return true
			}
		}
		return false
	})
	return answer
}

// TestUnawareServer is case 16: a server that knows no OSCORE refuses the
// critical option, and our client does not take that for an answer.
func TestUnawareServer(t *testing.T) {
	t.Parallel()
	for name, start := range map[string]func(t *testing.T, port uint16) string{
		"libcoap": func(t *testing.T, port uint16) string {
			peer.LibcoapServer(t, port)
			return peer.Version(t, "debian")
		},
		"go-coap": func(t *testing.T, port uint16) string {
			return peer.GoCoapServer(t, port)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			port := peer.FreePort(t)
			version := start(t, port)
			relay := peer.NewRelay(t, peer.Loopback(port))
			client := ours.StartClient(t, relay.Addr(), peer.Interop(false), impatient)
			r := client.Do(t, getHello)
			if r.Answer.Code != "4.02" || r.Answer.Sealed || r.Error == "" {
				t.Errorf("%+v", r)
			}
			relay.Capture().SealedRequests(t)
			relay.Capture().Hides(t, "hello")
			proof.Interop(t, version, fromUs, "server without OSCORE: 4.02, nothing in plain")
		})
	}
}
