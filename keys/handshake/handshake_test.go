package handshake

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/oscorelay/oscorelay/internal/coap"
	"github.com/oscorelay/oscorelay/keys/edhoc"
	"github.com/oscorelay/oscorelay/oscore"
)

// TestFlows: both flows, with and without message_4, leave the two with
// contexts that understand each other, and nothing half-open.
func TestFlows(t *testing.T) {
	for _, reverse := range []bool{false, true} {
		for _, message4 := range []bool{false, true} {
			t.Run(fmt.Sprintf("reverse %v message_4 %v", reverse, message4), func(t *testing.T) {
				client, server := pair(t, func(c *Config) { c.Reverse, c.Message4 = reverse, message4 })
				for range 3 { // a handshake takes the place of the one before
					o := to(t, client, Peer{Name: "server", Reverse: reverse, Message4: message4})
					if err := run(t, o, server, nil); err != nil {
						t.Fatal(err)
					}
					if o.Name() != "edhoc:server" || message4 && !o.Session().Confirmed() {
						t.Errorf("%q, confirmed %v", o.Name(), o.Session().Confirmed())
					}
					talk(t, client, server, "edhoc:server", "edhoc:device")
				}
				if client.ring.Len() != 1 || server.ring.Len() != 1 || server.Sessions() != 0 {
					t.Errorf("%d, %d contexts, %d sessions", client.ring.Len(), server.ring.Len(), server.Sessions())
				}
			})
		}
	}
}

// TestOfferedMessage4: one server for clients that want message_4 and for those
// that send the combined request (RFC 9668 §5).
func TestOfferedMessage4(t *testing.T) {
	client, server := pair(t, func(c *Config) { c.OfferMessage4 = true })
	if link := server.Link(); !strings.Contains(link, ";ed-comb-req") {
		t.Error(link)
	}
	for range 2 {
		o := to(t, client, Peer{Name: "server", Message4: true})
		if err := run(t, o, server, nil); err != nil || !o.Session().Confirmed() {
			t.Fatalf("message_4: %v", err)
		}
		talk(t, client, server, "edhoc:server", "edhoc:device")
		o, sealed, pending := combined(t, client, server)
		out, ok, err := o.Combine(sealed)
		if err != nil || !ok {
			t.Fatal(ok, err)
		}
		rebuilt, refused := server.askCombined(out)
		if refused.Code != 0 {
			t.Fatalf("combined: %v", coap.Code(refused.Code))
		}
		b, _ := server.ring.Get("edhoc:device")
		var r oscore.Request
		if _, err := b.OpenRequest(nil, &r, rebuilt); err != nil {
			t.Fatal(err)
		}
		answer, err := r.Seal(nil, oscore.Message{Code: byte(coap.Content)})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := pending.Open(nil, answer); err != nil {
			t.Fatal(err)
		}
		o.Confirm()
	}
}

// TestWire: paths, formats, prefixes and codes are those of RFC 9528 Appendix A.2.
func TestWire(t *testing.T) {
	client, server := pair(t, nil)
	var seen []string
	err := run(t, to(t, client, Peer{Name: "server"}), server, func(n int, request bool, m oscore.Message) oscore.Message {
		opts, payload, err := coap.Split(m.Body)
		if err != nil {
			t.Fatal(err)
		}
		f, _ := opts.Uint(coap.ContentFormat)
		first := byte(0)
		if len(payload) > 0 {
			first = payload[0]
		}
		if n == 1 && request {
			id, rest, err := edhoc.CutConnectionID(payload)
			if err != nil || len(id) != 1 || rest[0]>>5 != 2 {
				t.Errorf("C_R, message_3: %x, %v", payload, err)
			}
			first = 0
		}
		seen = append(seen, fmt.Sprintf("%v %s %d %02x", coap.Code(m.Code), coap.Path(m.Body), f, first))
		return m
	})
	if err != nil {
		t.Fatal(err)
	}
	want := "[POST /.well-known/edhoc 65 f5 2.04 / 64 58 POST /.well-known/edhoc 65 00 2.04 / 0 00]"
	if got := fmt.Sprint(seen); got != want {
		t.Errorf("\n got %s\nwant %s", got, want)
	}
}

// TestCombined: message_3 in front of the first request (RFC 9668 §3).
func TestCombined(t *testing.T) {
	client, server := pair(t, nil)
	o, sealed, pending := combined(t, client, server)
	out, ok, err := o.Combine(sealed)
	if err != nil || !ok {
		t.Fatal(ok, err)
	}
	rebuilt, refused := server.askCombined(out)
	if refused.Code != 0 {
		t.Fatalf("refused: %v %x", coap.Code(refused.Code), refused.Body)
	}
	if !bytes.Equal(rebuilt.Body, sealed.Body) || rebuilt.Code != sealed.Code {
		t.Errorf("rebuilt  %x\nsealed   %x", rebuilt.Body, sealed.Body)
	}
	b, _ := server.ring.Get("edhoc:device")
	var r oscore.Request
	if _, err := b.OpenRequest(nil, &r, rebuilt); err != nil {
		t.Fatal(err)
	}
	answer, err := r.Seal(nil, oscore.Message{Code: byte(coap.Content)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := pending.Open(nil, answer); err != nil {
		t.Fatal(err)
	}
	if _, refused = server.askCombined(out); coap.Code(refused.Code) != coap.BadRequest {
		t.Errorf("again: %v", coap.Code(refused.Code))
	}
}

// combined takes a handshake until message_3 waits for a request, and seals one.
func combined(t testing.TB, client, server *party) (*Outgoing, oscore.Message, *oscore.Pending) {
	t.Helper()
	o := to(t, client, Peer{Name: "server", Combined: true})
	if err := run(t, o, server, nil); err != nil {
		t.Fatal(err)
	}
	if !o.Pending() || server.Sessions() != 1 {
		t.Fatalf("pending %v, %d sessions", o.Pending(), server.Sessions())
	}
	a, _ := client.ring.Get("edhoc:server")
	pending := new(oscore.Pending)
	sealed, err := a.SealRequest(nil, pending, oscore.Message{Code: byte(coap.GET), Body: coap.AppendBody(nil, coap.Options{}.Add(coap.URIPath, []byte("x")), nil)})
	if err != nil {
		t.Fatal(err)
	}
	return o, sealed, pending
}

func (p *party) askCombined(m oscore.Message) (rebuilt, refused oscore.Message) {
	return p.askCombinedFrom(source, m)
}

func (p *party) askCombinedFrom(from string, m oscore.Message) (rebuilt, refused oscore.Message) {
	done := make(chan struct{})
	p.ServeCombined(start, from, m, func(m oscore.Message) { rebuilt = m; close(done) }, func(m oscore.Message) { refused = m; close(done) })
	<-done
	return rebuilt, refused
}

// TestSuites: a server that wants another suite says so, and gets it.
func TestSuites(t *testing.T) {
	client := newParty(t, "device", 0x11, func(c *Config) { c.EDHOC.Suites = []edhoc.Suite{2, 3} })
	server := newParty(t, "server", 0x0a, func(c *Config) { c.EDHOC.Suites = []edhoc.Suite{3} })
	if err := errors.Join(client.store.Pin("server", server.id.Credential), server.store.Pin("device", client.id.Credential)); err != nil {
		t.Fatal(err)
	}
	o := to(t, client, Peer{Name: "server"})
	if err := run(t, o, server, nil); err != nil || o.Session().Suite() != 3 {
		t.Fatal(err)
	}
	// A server that has none of them ends it, and no identifier stays held.
	server = newParty(t, "server", 0x0a, func(c *Config) { c.EDHOC.Suites = []edhoc.Suite{5} })
	var peer *edhoc.PeerError
	if err := run(t, to(t, client, Peer{Name: "server"}), server, nil); err == nil || errors.As(err, &peer) && peer.Message.Code != edhoc.CodeWrongSuite {
		t.Errorf("%v", err)
	}
}

// certified is a signature key in a certificate of at least that many bytes, sent
// by value.
func certified(t testing.TB, name string, size int) edhoc.Identity {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name, OrganizationalUnit: []string{string(bytes.Repeat([]byte("x"), size))}},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	credential, err := edhoc.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	id, err := edhoc.ByValue(credential)
	if err != nil {
		t.Fatal(err)
	}
	return edhoc.Identity{Credential: credential, ID: id, Signer: key}
}

// TestMixedMethods: one side signs, the other has a static key; each has an
// identity of one kind, and so one role.
func TestMixedMethods(t *testing.T) {
	for _, reverse := range []bool{false, true} {
		method := []edhoc.Method{map[bool]edhoc.Method{false: edhoc.StaticSignature, true: edhoc.SignatureStatic}[reverse]}
		client := newParty(t, "device", 0x11, func(c *Config) { c.EDHOC.Methods = method })
		server := newParty(t, "server", 0x0a, func(c *Config) {
			c.EDHOC.Identities = []edhoc.Identity{certified(t, "server", 1)}
			c.EDHOC.Methods, c.Reverse = method, reverse
		})
		if err := errors.Join(client.store.Pin("server", server.cfg.EDHOC.Identities[0].Credential), server.store.Pin("device", client.id.Credential)); err != nil {
			t.Fatal(err)
		}
		o := to(t, client, Peer{Name: "server", Reverse: reverse})
		if err := run(t, o, server, nil); err != nil || o.Session().Method() != method[0] {
			t.Fatal(err)
		}
		talk(t, client, server, "edhoc:server", "edhoc:device")
		if _, err := client.To(Peer{Name: "server", Reverse: !reverse}); !errors.Is(err, ErrConfig) {
			t.Errorf("the other role: %v", err)
		}
		var peer *edhoc.PeerError
		if err := run(t, to(t, newParty(t, "device", 0x11, nil), Peer{}), server, nil); !errors.As(err, &peer) || peer.Message.Diagnostic != "Method not supported" {
			t.Errorf("another method: %v", err)
		}
	}
	for _, bad := range []Config{
		{EDHOC: edhoc.Config{Methods: []edhoc.Method{edhoc.SignatureSignature}}},
		{EDHOC: edhoc.Config{Methods: []edhoc.Method{edhoc.SignatureStatic}}, Reverse: true},
	} {
		p := newParty(t, "device", 1, nil)
		bad.Ring, bad.Store, bad.EDHOC.Identities = p.ring, p.store, []edhoc.Identity{p.id}
		if _, err := New(bad); !errors.Is(err, edhoc.ErrConfig) {
			t.Errorf("%v: %v", bad.EDHOC.Methods, err)
		}
	}
}

// TestBlocks: certificate chains above one block travel in blocks.
func TestBlocks(t *testing.T) {
	for _, reverse := range []bool{false, true} {
		client := newParty(t, "device", 1, func(c *Config) {
			c.EDHOC.Identities = []edhoc.Identity{certified(t, "device", 2500)}
		})
		server := newParty(t, "server", 2, func(c *Config) {
			c.EDHOC.Identities, c.Reverse = []edhoc.Identity{certified(t, "server", 2500)}, true
		})
		if err := errors.Join(client.store.Pin("server", server.cfg.EDHOC.Identities[0].Credential), server.store.Pin("device", client.cfg.EDHOC.Identities[0].Credential)); err != nil {
			t.Fatal(err)
		}
		blocks := 0
		err := run(t, to(t, client, Peer{Name: "server", Reverse: reverse}), server, func(_ int, request bool, m oscore.Message) oscore.Message {
			_, payload, err := coap.Split(m.Body)
			if err != nil || len(payload) > maxBlock {
				t.Errorf("%d bytes, %v", len(payload), err)
			}
			blocks++
			return m
		})
		if err != nil {
			t.Fatal(err)
		}
		if blocks < 12 {
			t.Errorf("only %d messages", blocks)
		}
		talk(t, client, server, "edhoc:server", "edhoc:device")
	}
}
