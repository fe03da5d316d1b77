package gocoap_test

import (
	"bytes"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/oscorelay/oscorelay/internal/proof"
	"github.com/oscorelay/oscorelay/keys"
	"github.com/oscorelay/oscorelay/keys/edhoc"
	"github.com/oscorelay/oscorelay/keys/handshake"
	"github.com/oscorelay/oscorelay/oscore/gocoap"
	"github.com/plgd-dev/go-coap/v3/message"
	"github.com/plgd-dev/go-coap/v3/message/codes"
)

// fixedID is a keyring that always offers one identifier first.
type fixedID struct {
	*keys.Keyring
	id byte
}

func (f fixedID) ReserveFreeID(...[]byte) ([]byte, error) {
	id := []byte{f.id}
	return id, f.ReserveID(id)
}

func withID(id byte) func(*handshake.Config, *gocoap.Config) {
	return func(h *handshake.Config, _ *gocoap.Config) { h.Ring = fixedID{h.Ring.(*keys.Keyring), id} }
}

// nothing fails the test if a context came of it at either side, or a session
// is left at the server once it has timed out.
func nothing(t *testing.T, client, server *shaker) {
	t.Helper()
	if client.ring.Len() != 0 || server.ring.Len() != 0 {
		t.Errorf("%d and %d contexts", client.ring.Len(), server.ring.Len())
	}
}

// post is an EDHOC message to the resource as a datagram.
func post(t *testing.T, payload []byte) []byte {
	t.Helper()
	m := message.Message{Code: codes.POST, Type: message.Confirmable, MessageID: 7, Token: message.Token{7}, Payload: payload}
	for _, p := range []string{".well-known", "edhoc"} {
		m.Options = m.Options.Add(message.Option{ID: message.URIPath, Value: []byte(p)})
	}
	m.Options = m.Options.Add(message.Option{ID: message.ContentFormat, Value: []byte{65}})
	return build(t, m)
}

// told reads the error messages that the client has sent to the server.
func told(t *testing.T, r *relay) (out []edhoc.ErrorMessage) {
	t.Helper()
	for _, d := range r.find(isHandshake) {
		if d.Payload[0] == 0xf5 {
			continue
		}
		_, rest, err := edhoc.CutConnectionID(d.Payload)
		if err != nil {
			t.Fatal(err)
		}
		if m, err := edhoc.ParseErrorMessage(rest); err == nil {
			out = append(out, m)
		}
	}
	return out
}

// TestEqualIdentifiersOnPath: who is on the path can change C_R in message_2,
// which a keystream alone covers. Made equal to C_I it ends the handshake, and
// the server is told (RFC 9668 §4.1.3).
func TestEqualIdentifiersOnPath(t *testing.T) {
	proof.Checklist(t, "C-14")
	const ci, cr = 0x05, 0x06
	client, server := newShaker(t, "device", 0x11, withID(ci)), newShaker(t, "server", 0x0a, withID(cr))
	if err := errors.Join(client.store.Pin("server", server.cred), server.store.Pin("device", client.cred)); err != nil {
		t.Fatal(err)
	}
	var calls atomic.Int32
	r := newRelay(t, serveUDP(t, server.ep, hello(&calls)))
	r.set(func(d datagram) [][]byte {
		if d.from == fromServer && len(d.Payload) > 40 {
			d.Payload = bytes.Clone(d.Payload)
			d.Payload[2+32] ^= ci ^ cr // behind the head and G_Y
			return [][]byte{build(t, d.Message)}
		}
		return [][]byte{d.raw}
	})
	_, err := client.shake(t, within(t), r.addr(), handshake.Peer{Name: "server"})
	if !errors.Is(err, edhoc.ErrConnectionID) {
		t.Errorf("%v", err)
	}
	if m := told(t, r); len(m) != 1 || m[0].Code != edhoc.CodeUnspecified {
		t.Errorf("the server was told %+v", m)
	}
	nothing(t, client, server)
}

// TestMisbinding: a trusted peer registers another's public key under its own
// name. Whoever has the private key does not come out as that peer, nor does
// that peer's session come to be another's (RFC 9528 §9.1): CRED_x is in the MAC.
func TestMisbinding(t *testing.T) {
	for _, signature := range []bool{false, true} {
		t.Run(fmt.Sprintf("signatures %v", signature), func(t *testing.T) {
			made := func(name string, kid byte) (edhoc.Identity, func(as string) *edhoc.Credential) {
				key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
				if err != nil {
					t.Fatal(err)
				}
				as := func(subject string) *edhoc.Credential {
					c, err := edhoc.NewCCS(edhoc.CCSParams{Subject: subject, KID: []byte{kid}, Public: key.Public()})
					if err != nil {
						t.Fatal(err)
					}
					return c
				}
				id := edhoc.Identity{Credential: as(name)}
				if signature {
					id.Signer = key
				} else {
					var x *ecdh.PrivateKey
					if x, err = key.ECDH(); err != nil {
						t.Fatal(err)
					}
					id.Exchanger = x
				}
				return id, as
			}
			me, deviceAs := made("device", 0x11)
			it, serverAs := made("server", 0x0a)
			for _, c := range []struct {
				name             string
				atServer         map[string]*edhoc.Credential
				atClient         *edhoc.Credential
				want             error
				diagnosed, finds string
			}{
				{"the device's key as mallory's", map[string]*edhoc.Credential{"mallory": deviceAs("mallory")}, serverAs("server"), nil, "Authentication failed", ""},
				{"the device's key as mallory's too", map[string]*edhoc.Credential{"mallory": deviceAs("mallory"), "device": deviceAs("device")}, serverAs("server"), nil, "", "edhoc:device"},
				{"the server's key as mallory's", map[string]*edhoc.Credential{"device": deviceAs("device")}, serverAs("mallory"), edhoc.ErrAuthentication, "", ""},
			} {
				t.Run(c.name, func(t *testing.T) {
					client := newShaker(t, "", 1, func(h *handshake.Config, _ *gocoap.Config) { h.EDHOC.Identities = []edhoc.Identity{me} })
					server := newShaker(t, "", 2, func(h *handshake.Config, _ *gocoap.Config) { h.EDHOC.Identities = []edhoc.Identity{it} })
					if err := client.store.Pin("expected", c.atClient); err != nil {
						t.Fatal(err)
					}
					for name, cred := range c.atServer {
						if err := server.store.Pin(name, cred); err != nil {
							t.Fatal(err)
						}
					}
					var calls atomic.Int32
					ctx := within(t)
					conn, err := client.shake(t, ctx, serveUDP(t, server.ep, hello(&calls)), handshake.Peer{Name: "expected"})
					var peer *edhoc.PeerError
					switch {
					case c.finds != "":
						if err != nil {
							t.Fatal(err)
						}
						if resp, err := conn.Get(ctx, "/x"); err != nil || bodyOf(t, resp) != "hello "+c.finds {
							t.Errorf("%v", err)
						}
						return
					case c.want != nil && !errors.Is(err, c.want):
						t.Errorf("%v, want %v", err, c.want)
					case c.diagnosed != "" && (!errors.As(err, &peer) || peer.Message.Diagnostic != c.diagnosed):
						t.Errorf("%v, want %q", err, c.diagnosed)
					}
					nothing(t, client, server)
				})
			}
		})
	}
}

// TestReflectedHandshake: the client's own messages come back to it, or it is
// led to itself.
func TestReflectedHandshake(t *testing.T) {
	t.Run("message_1 as message_2", func(t *testing.T) {
		client, server := shakers(t, nil)
		var calls atomic.Int32
		r := newRelay(t, serveUDP(t, server.ep, hello(&calls)))
		r.set(func(d datagram) [][]byte {
			if isHandshake(d) && d.Payload[0] == 0xf5 {
				back := message.Message{Code: codes.Changed, Type: message.Acknowledgement, MessageID: d.MessageID, Token: d.Token, Payload: d.Payload[1:]}
				back.Options = back.Options.Add(message.Option{ID: message.ContentFormat, Value: []byte{64}})
				r.send(fromServer, build(t, back))
				return nil
			}
			return [][]byte{d.raw}
		})
		if _, err := client.shake(t, within(t), r.addr(), handshake.Peer{Name: "server"}); !errors.Is(err, edhoc.ErrMalformed) && !errors.As(err, new(*edhoc.PeerError)) {
			t.Errorf("%v", err)
		}
		nothing(t, client, server)
	})
	t.Run("to itself", func(t *testing.T) {
		both := newShaker(t, "device", 0x11, nil)
		if err := both.store.Pin("server", both.cred); err != nil {
			t.Fatal(err)
		}
		var calls atomic.Int32
		if _, err := both.shake(t, within(t), serveUDP(t, both.ep, hello(&calls)), handshake.Peer{Name: "server"}); !errors.Is(err, edhoc.ErrReflected) {
			t.Errorf("%v", err)
		}
		nothing(t, both, both)
	})
}

// TestWrongCredential: whoever is not meant, or not known, comes to nothing.
func TestWrongCredential(t *testing.T) {
	for _, combined := range []bool{false, true} {
		for _, c := range []struct {
			name string
			pin  func(client, server, other *shaker) error
			want error
			told int
		}{
			{"the server has another key", func(c, s, o *shaker) error {
				return errors.Join(c.store.Pin("server", o.cred), s.store.Pin("device", c.cred))
			}, edhoc.ErrAuthentication, 0},
			{"the client has another key", func(c, s, o *shaker) error {
				return errors.Join(c.store.Pin("server", s.cred), s.store.Pin("device", o.cred, c.cred.KID()))
			}, nil, edhoc.CodeUnspecified},
			{"the client is unknown", func(c, s, _ *shaker) error { return c.store.Pin("server", s.cred) }, nil, edhoc.CodeUnknownCredential},
		} {
			t.Run(fmt.Sprintf("%s, combined %v", c.name, combined), func(t *testing.T) {
				client, server := newShaker(t, "device", 0x11, nil), newShaker(t, "server", 0x0a, nil)
				if err := c.pin(client, server, newShaker(t, "other", 0x0a, nil)); err != nil {
					t.Fatal(err)
				}
				var calls atomic.Int32
				ctx := within(t)
				conn, err := client.shake(t, ctx, serveUDP(t, server.ep, hello(&calls)), handshake.Peer{Name: "server", Combined: combined})
				if err == nil && combined {
					_, err = conn.Get(ctx, "/x")
				}
				var peer *edhoc.PeerError
				toldCode := c.told
				if combined && toldCode != 0 { // RFC 9668 §3.3.1
					toldCode = edhoc.CodeUnspecified
				}
				switch {
				case c.want != nil && !errors.Is(err, c.want):
					t.Errorf("%v, want %v", err, c.want)
				case c.told != 0 && (!errors.As(err, &peer) || peer.Message.Code != toldCode):
					t.Errorf("%v, want code %d", err, toldCode)
				}
				if calls.Load() != 0 {
					t.Errorf("%d calls", calls.Load())
				}
				nothing(t, client, server)
			})
		}
	}
}

// TestSuiteOrder: the server refuses a suite that is not the first of the
// Initiator's that it supports, which would be a downgrade (RFC 9528 §6.3, §9.5).
func TestSuiteOrder(t *testing.T) {
	suites := func(s ...edhoc.Suite) func(*handshake.Config, *gocoap.Config) {
		return func(h *handshake.Config, _ *gocoap.Config) { h.EDHOC.Suites = s }
	}
	party := func(t *testing.T) (client, server *shaker, r *relay) {
		client, server = newShaker(t, "device", 0x11, suites(3, 2)), newShaker(t, "server", 0x0a, suites(2, 3))
		if err := errors.Join(client.store.Pin("server", server.cred), server.store.Pin("device", client.cred)); err != nil {
			t.Fatal(err)
		}
		var calls atomic.Int32
		return client, server, newRelay(t, serveUDP(t, server.ep, hello(&calls)))
	}
	t.Run("message_1 selects the second", func(t *testing.T) {
		client, server, r := party(t)
		key, err := ecdh.P256().GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		i, err := edhoc.NewInitiator(edhoc.Config{Identities: []edhoc.Identity{{Credential: mustCCS(t, key), Exchanger: key}}, Suites: []edhoc.Suite{3, 2}})
		if err != nil {
			t.Fatal(err)
		}
		message1, _, err := i.Message1(edhoc.Start{ConnectionID: []byte{1}, PeerSuites: []edhoc.Suite{2}})
		if err != nil {
			t.Fatal(err)
		}
		got := ask(t, stranger(t, r.addr()), post(t, append([]byte{0xf5}, message1...)))
		m, err := edhoc.ParseErrorMessage(got.Payload)
		if err != nil || got.Code != codes.BadRequest || m.Code != edhoc.CodeWrongSuite || fmt.Sprint(m.Suites) != "[3]" {
			t.Errorf("%v %+v %v", got.Code, m, err)
		}
		if server.Sessions() != 0 {
			t.Errorf("%d sessions", server.Sessions())
		}
		nothing(t, client, server)
	})
	t.Run("the path says that the first is not supported", func(t *testing.T) {
		client, server, r := party(t)
		var lied atomic.Bool
		r.set(func(d datagram) [][]byte {
			if isHandshake(d) && !lied.Swap(true) {
				lie := message.Message{
					Code: codes.BadRequest, Type: message.Acknowledgement, MessageID: d.MessageID, Token: d.Token,
					Payload: edhoc.ErrorMessage{Code: edhoc.CodeWrongSuite, Suites: []edhoc.Suite{2}}.Append(nil),
				}
				lie.Options = lie.Options.Add(message.Option{ID: message.ContentFormat, Value: []byte{64}})
				r.send(fromServer, build(t, lie))
				return nil
			}
			return [][]byte{d.raw}
		})
		_, err := client.shake(t, within(t), r.addr(), handshake.Peer{Name: "server"})
		var peer *edhoc.PeerError
		if !errors.As(err, &peer) || peer.Message.Code != edhoc.CodeWrongSuite || fmt.Sprint(peer.Message.Suites) != "[3]" {
			t.Errorf("%v", err)
		}
		nothing(t, client, server)
	})
	t.Run("the path takes the first out of message_1", func(t *testing.T) {
		client, server, r := party(t)
		r.set(func(d datagram) [][]byte {
			if isHandshake(d) && d.Payload[0] == 0xf5 && d.Payload[2] == 3 { // METHOD, SUITES_I
				d.Payload = bytes.Clone(d.Payload)
				d.Payload[2] = 2
				return [][]byte{build(t, d.Message)}
			}
			return [][]byte{d.raw}
		})
		if _, err := client.shake(t, within(t), r.addr(), handshake.Peer{Name: "server"}); err == nil {
			t.Error("nobody noticed")
		}
		nothing(t, client, server)
	})
}

func mustCCS(t *testing.T, key *ecdh.PrivateKey) *edhoc.Credential {
	t.Helper()
	c, err := edhoc.NewCCS(edhoc.CCSParams{Subject: "x", KID: []byte{1}, Public: key.PublicKey()})
	if err != nil {
		t.Fatal(err)
	}
	return c
}
