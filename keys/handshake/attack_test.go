package handshake

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/oscorelay/oscorelay/internal/coap"
	"github.com/oscorelay/oscorelay/internal/proof"
	"github.com/oscorelay/oscorelay/keys/edhoc"
	"github.com/oscorelay/oscorelay/oscore"
)

// TestFlips changes one bit of every byte of every message on its way: no
// handshake comes to its end, no context is left, and no identifier is held.
func TestFlips(t *testing.T) {
	for _, reverse := range []bool{false, true} {
		client, server := pair(t, func(c *Config) {
			c.Reverse, c.Message4 = reverse, true
			c.EDHOC.Forgeries = 1
			c.Rate, c.RateTotal = 1e6, 1e6
		})
		for n := range 3 {
			for _, request := range []bool{true, false} {
				for i := 0; ; i++ {
					reached := false
					o := to(t, client, Peer{Name: "server", Reverse: reverse, Message4: true})
					err := run(t, o, server, func(k int, r bool, m oscore.Message) oscore.Message {
						if k != n || r != request {
							return m
						}
						opts, payload, err := coap.Split(m.Body)
						if err != nil || i >= len(payload) {
							return m
						}
						reached = true
						payload[i] ^= 1 << (i % 8)
						return oscore.Message{Code: m.Code, Body: coap.AppendBody(nil, opts, payload)}
					})
					if !reached {
						break
					}
					if err == nil && o.again {
						continue // another suite was asked for: the handshake began anew, with SUITES_R
					}
					if err == nil {
						t.Fatalf("reverse %v: message %d request %v byte %d: nobody noticed", reverse, n, request, i)
					}
				}
			}
		}
		server.Expire(start.Add(time.Hour))
		if server.Sessions() != 0 {
			t.Errorf("%d sessions are left", server.Sessions())
		}
	}
}

// half takes a handshake until the client's message_3 request is made.
func half(t *testing.T, client, server *party) (message3 oscore.Message) {
	t.Helper()
	o := to(t, client, Peer{Name: "server"})
	m, _, err := o.Next(start, false, oscore.Message{})
	if err != nil {
		t.Fatal(err)
	}
	if message3, _, err = o.Next(start, false, server.ask(start, source, false, m)); err != nil {
		t.Fatal(err)
	}
	return message3
}

// errorOf reads an error answer.
func errorOf(t *testing.T, m oscore.Message) (coap.Code, string) {
	t.Helper()
	opts, payload, err := coap.Split(m.Body)
	if err != nil {
		t.Fatal(err)
	}
	if f, ok := opts.Uint(coap.ContentFormat); len(payload) > 0 && (!ok || f != formatEDHOC) {
		t.Errorf("Content-Format %d %v", f, ok)
	}
	e, err := edhoc.ParseErrorMessage(payload)
	if err != nil {
		return coap.Code(m.Code), ""
	}
	return coap.Code(m.Code), e.Diagnostic
}

func TestMessage3(t *testing.T) {
	client, server := pair(t, nil)
	prefix := func(m oscore.Message) (cr byte, rest []byte) {
		_, payload, err := coap.Split(m.Body)
		if err != nil {
			t.Fatal(err)
		}
		return payload[0], payload[1:]
	}
	post := func(payload []byte) oscore.Message {
		return newTransfer(segments("/.well-known/edhoc"), nil, payload).request(true)
	}
	a, b := half(t, client, server), half(t, client, server)
	_, ma := prefix(a)
	cb, _ := prefix(b)
	t.Run("of another session", func(t *testing.T) {
		if code, _ := errorOf(t, server.ask(start, source, false, post(append([]byte{cb}, ma...)))); code != coap.BadRequest || server.ring.Len() != 0 {
			t.Errorf("%v, %d contexts", code, server.ring.Len())
		}
	})
	t.Run("genuine after forgeries", func(t *testing.T) {
		if got := server.ask(start, source, false, b); coap.Code(got.Code) != coap.Changed || server.ring.Len() != 1 {
			t.Errorf("%v", coap.Code(got.Code))
		}
	})
	t.Run("replayed", func(t *testing.T) {
		before, _ := server.ring.Get("edhoc:device")
		code, text := errorOf(t, server.ask(start, "198.51.100.7:1", false, b))
		if after, _ := server.ring.Get("edhoc:device"); code != coap.BadRequest || text != texts[ErrNoSession] || after != before {
			t.Errorf("%v %q", code, text)
		}
	})
	t.Run("too late", func(t *testing.T) {
		if code, text := errorOf(t, server.ask(start.Add(31*time.Second), source, false, a)); code != coap.BadRequest || text != texts[ErrNoSession] {
			t.Errorf("%v %q", code, text)
		}
	})
	if server.Sessions() != 0 {
		t.Errorf("%d sessions", server.Sessions())
	}
}

// TestElsewhere: whoever guesses a connection identifier, at another address,
// neither ends nor takes over a handshake, in either flow; where clients roam
// another address goes on with it.
func TestElsewhere(t *testing.T) {
	const stranger = "198.51.100.7:40000"
	for _, reverse := range []bool{false, true} {
		for _, roaming := range []bool{false, true} {
			client, server := pair(t, func(c *Config) {
				c.Reverse, c.Roaming = reverse, roaming
				c.EDHOC.Forgeries = 1
			})
			o := to(t, client, Peer{Name: "server", Reverse: reverse})
			m, _, err := o.Next(start, false, oscore.Message{})
			if err != nil {
				t.Fatal(err)
			}
			m, _, err = o.Next(start, false, server.ask(start, source, false, m))
			if err != nil {
				t.Fatal(err)
			}
			opts, payload, err := coap.Split(m.Body)
			if err != nil {
				t.Fatal(err)
			}
			if !roaming {
				for range 5 {
					forged := append([]byte{}, payload...)
					forged[len(forged)-1] ^= 1
					got := server.ask(start, stranger, false, oscore.Message{Code: m.Code, Body: coap.AppendBody(nil, opts, forged)})
					if code, text := errorOf(t, got); code != coap.BadRequest || text != texts[ErrNoSession] {
						t.Errorf("reverse %v: %v %q", reverse, code, text)
					}
				}
				lie := append([]byte{payload[0]}, edhoc.ErrorMessage{Code: edhoc.CodeUnspecified, Diagnostic: "x"}.Append(nil)...)
				server.ask(start, stranger, false, oscore.Message{Code: m.Code, Body: coap.AppendBody(nil, opts, lie)})
				server.askCombinedFrom(stranger, oscore.Message{Code: byte(coap.POST), Body: coap.AppendBody(nil,
					coap.Options{}.Add(coap.OSCORE, []byte{9, 0, payload[0]}).Add(coap.EDHOC, nil), []byte{0x41, 0, 1})})
			}
			from := map[bool]string{true: stranger, false: "192.0.2.1:40001"}[roaming] // another port is no other host
			if got := server.ask(start, from, false, m); coap.Code(got.Code) != coap.Changed || server.ring.Len() != 1 {
				t.Errorf("reverse %v roaming %v: the genuine message is answered %v, %d contexts", reverse, roaming, coap.Code(got.Code), server.ring.Len())
			}
		}
	}
}

// TestWrongPeer: whoever is not meant, or not known, ends the handshake, is told
// so, and leaves nothing.
func TestWrongPeer(t *testing.T) {
	stolen := func(c *edhoc.Credential, name string) *edhoc.Credential { // another's key under a name of one's own
		own := newIdentity(t, name, c.KID()[0])
		return own.Credential
	}
	for _, c := range []struct {
		name   string
		server func(client, server *party) *edhoc.Credential // pinned by the client as "server"
		client func(client, server *party) *edhoc.Credential // pinned by the server as "device"
		want   error
		told   int
	}{
		{"the server has another key", func(_, s *party) *edhoc.Credential { return stolen(s.id.Credential, "server") }, nil, edhoc.ErrAuthentication, 0},
		{"the client has another key", nil, func(c, _ *party) *edhoc.Credential { return stolen(c.id.Credential, "device") }, nil, edhoc.CodeUnspecified},
		{"the client is unknown", nil, func(_, _ *party) *edhoc.Credential { return newIdentity(t, "other", 0x33).Credential }, nil, edhoc.CodeUnknownCredential},
		{"the server is unknown", func(_, _ *party) *edhoc.Credential { return newIdentity(t, "other", 0x33).Credential }, nil, edhoc.ErrUnknownCredential, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			client, server := newParty(t, "device", 0x11, nil), newParty(t, "server", 0x0a, nil)
			atClient, atServer := server.id.Credential, client.id.Credential
			if c.server != nil {
				atClient = c.server(client, server)
			}
			if c.client != nil {
				atServer = c.client(client, server)
			}
			if err := errors.Join(client.store.Pin("server", atClient), server.store.Pin("device", atServer)); err != nil {
				t.Fatal(err)
			}
			err := run(t, to(t, client, Peer{Name: "server"}), server, nil)
			var peer *edhoc.PeerError
			switch {
			case c.want != nil && !errors.Is(err, c.want):
				t.Errorf("%v, want %v", err, c.want)
			case c.told != 0 && (!errors.As(err, &peer) || peer.Message.Code != c.told):
				t.Errorf("%v, want code %d", err, c.told)
			}
			server.Expire(start.Add(time.Minute)) // an error message may be forged: it does not end the session
			if client.ring.Len()+server.ring.Len()+server.Sessions() != 0 {
				t.Errorf("%d, %d contexts, %d sessions", client.ring.Len(), server.ring.Len(), server.Sessions())
			}
		})
	}
	// One that is trusted, but not the one that is meant.
	client, server := pair(t, nil)
	if err := client.store.Pin("another", newIdentity(t, "another", 0x0a).Credential); err != nil {
		t.Fatal(err)
	}
	if err := run(t, to(t, client, Peer{Name: "another"}), server, nil); !errors.Is(err, edhoc.ErrAuthentication) {
		t.Errorf("%v", err)
	}
}

// TestReflection sends the client its own messages back.
func TestReflection(t *testing.T) {
	client, server := pair(t, nil)
	err := run(t, to(t, client, Peer{Name: "server"}), server, func(n int, request bool, m oscore.Message) oscore.Message {
		if n != 0 {
			t.Fatal("the handshake went on")
		}
		if request {
			return m
		}
		o := to(t, client, Peer{Name: "server"})
		own, _, err := o.Next(start, false, oscore.Message{})
		if err != nil {
			t.Fatal(err)
		}
		defer o.Close()
		_, payload, err := coap.Split(own.Body)
		if err != nil {
			t.Fatal(err)
		}
		return oscore.Message{Code: m.Code, Body: coap.AppendBody(nil, nil, payload[1:])}
	})
	if !errors.Is(err, edhoc.ErrMalformed) || client.ring.Len() != 0 {
		t.Errorf("%v, %d contexts", err, client.ring.Len())
	}
}

// TestIdentifiers: C_R is never C_I, nor an identifier in use (RFC 9668 §4.1).
func TestIdentifiers(t *testing.T) {
	proof.Checklist(t, "C-12", "C-13")
	client, server := pair(t, func(c *Config) { c.MaxSessions = 400; c.Rate, c.RateTotal = 1e6, 1e6 })
	seen := map[string]bool{}
	for range 300 {
		o := to(t, client, Peer{Name: "server"})
		m, _, err := o.Next(start, false, oscore.Message{})
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := o.Next(start, false, server.ask(start, source, false, m)); err != nil {
			t.Fatal(err)
		}
		if cr := string(o.cr); seen[cr] || cr == string(o.own) {
			t.Fatalf("C_R %x, C_I %x", cr, o.own)
		}
		seen[string(o.cr)] = true
	}
	if server.Sessions() != 300 {
		t.Errorf("%d sessions", server.Sessions())
	}
	server.Expire(start.Add(time.Minute))
	if id, err := server.ring.ReserveFreeID(); err != nil || len(id) != 1 {
		t.Errorf("after their end: %x %v", id, err)
	}
}

// TestEcho: strangers beyond the rate prove their address, and those that have
// are not held up by those that have not.
func TestEcho(t *testing.T) {
	client, server := pair(t, func(c *Config) { c.Rate, c.RateTotal = 2, 100 })
	for range 2 {
		half(t, client, server)
	}
	o := to(t, client, Peer{Name: "server"})
	m, _, err := o.Next(start, false, oscore.Message{})
	if err != nil {
		t.Fatal(err)
	}
	challenge := server.ask(start, source, false, m)
	if coap.Code(challenge.Code) != coap.Unauthorized || server.reasons("echo_challenge") != 1 {
		t.Fatalf("%v", coap.Code(challenge.Code))
	}
	again, _, err := o.Next(start, false, challenge)
	if err != nil {
		t.Fatal(err)
	}
	if got := server.ask(start, source, false, again); coap.Code(got.Code) != coap.Changed {
		t.Errorf("after Echo: %v", coap.Code(got.Code))
	}
	if server.limits.valid(start, "203.0.113.1:9", server.limits.echo(start, source)) || server.limits.valid(start.Add(time.Minute), source, server.limits.echo(start, source)) {
		t.Error("an Echo value of another address, or an old one, proves something")
	}
}

// TestAmplification: of long answers strangers are granted the fewer, so that
// forged addresses are sent no more than three times what was received from
// them; who has proved its address gets them (RFC 9175 §2.3 item 3).
func TestAmplification(t *testing.T) {
	certificate := certified(t, "server", 2500)
	for _, c := range []struct {
		name   string
		server edhoc.Identity
		method edhoc.Method // the client has a static key
		most   int          // of strangers' handshakes; RateTotal allows 50
	}{
		{"by kid", newIdentity(t, "server", 0x0a), edhoc.StaticStatic, 50},
		{"a certificate", certificate, edhoc.StaticSignature, 25},
	} {
		t.Run(c.name, func(t *testing.T) {
			client := newParty(t, "device", 0x11, func(cfg *Config) { cfg.EDHOC.Methods = []edhoc.Method{c.method} })
			server := newParty(t, "server", 0x0a, func(cfg *Config) {
				cfg.RateTotal, cfg.EDHOC.Identities = 100, []edhoc.Identity{c.server}
			})
			passed, proven, received, sent := 0, 0, 0, 0
			for i := range 100 {
				from := fmt.Sprintf("198.51.100.%d:5683", i)
				o := to(t, client, Peer{Name: "server"})
				m, _, err := o.Next(start, false, oscore.Message{})
				if err != nil {
					t.Fatal(err)
				}
				answer := server.ask(start, from, false, m)
				received, sent = received+headers+len(m.Body), sent+headers+len(answer.Body)
				if coap.Code(answer.Code) == coap.Changed {
					passed++
				} else if m, _, err = o.Next(start, false, answer); err != nil {
					t.Fatal(err)
				} else if coap.Code(server.ask(start, from, false, m).Code) == coap.Changed {
					proven++
				}
				o.Close()
			}
			if passed > c.most || passed < c.most/3 || passed+proven != 100 || sent > amplification*received {
				t.Errorf("%d pass, %d more by Echo; %d bytes for %d", passed, proven, sent, received)
			}
		})
	}
}

// FuzzServe: whatever is posted is answered once and holds no more than its
// bounds.
func FuzzServe(f *testing.F) {
	client, server := pair(f, func(c *Config) { c.Reverse, c.MaxSessions = true, 8 })
	o := to(f, client, Peer{Name: "server"})
	m, _, err := o.Next(start, false, oscore.Message{})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(m.Body, false)
	f.Add([]byte{}, true)
	f.Add(coap.AppendBody(nil, coap.Options{}.Add(coap.OSCORE, []byte{9, 0, 1}).Add(coap.EDHOC, nil), []byte{0x41, 0, 1}), true)
	now := start
	f.Fuzz(func(t *testing.T, body []byte, combined bool) {
		now = now.Add(time.Second)
		in := oscore.Message{Code: byte(coap.POST), Body: body}
		if combined {
			server.askCombined(in)
		} else if got := server.ask(now, source, false, in); coap.Check(got.Body) != nil || !coap.Code(got.Code).IsResponse() {
			t.Fatalf("%v %x", got.Code, got.Body)
		}
		if server.Sessions() > 8 || server.ring.Len() != 0 {
			t.Fatalf("%d sessions, %d contexts", server.Sessions(), server.ring.Len())
		}
	})
}
