package handshake

import (
	"bytes"
	"crypto/ecdh"
	"crypto/rand"
	"sync"
	"testing"
	"time"

	"github.com/oscorelay/oscorelay/internal/coap"
	"github.com/oscorelay/oscorelay/keys"
	"github.com/oscorelay/oscorelay/keys/edhoc"
	"github.com/oscorelay/oscorelay/oscore"
)

var start = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

const source = "192.0.2.1:40000"

// party is one side with its keyring and the credentials it knows.
type party struct {
	*Service
	ring   *keys.Keyring
	store  *edhoc.Store
	id     edhoc.Identity
	mu     sync.Mutex
	events []Event
}

func newIdentity(t testing.TB, name string, kid byte) edhoc.Identity {
	t.Helper()
	key, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	credential, err := edhoc.NewCCS(edhoc.CCSParams{Subject: name, KID: []byte{kid}, Public: key.PublicKey()})
	if err != nil {
		t.Fatal(err)
	}
	return edhoc.Identity{Credential: credential, Exchanger: key}
}

func newParty(t testing.TB, name string, kid byte, change func(*Config)) *party {
	t.Helper()
	p := &party{ring: keys.New(keys.NewMemory()), store: edhoc.NewStore(edhoc.StoreConfig{}), id: newIdentity(t, name, kid)}
	cfg := Config{Ring: p.ring, EDHOC: edhoc.Config{Identities: []edhoc.Identity{p.id}}, Store: p.store, Event: func(e Event) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.events = append(p.events, e)
	}}
	if change != nil {
		change(&cfg)
	}
	var err error
	if p.Service, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	return p
}

// reasons counts the events of a reason.
func (p *party) reasons(reason string) (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, e := range p.events {
		if e.Reason == reason {
			n++
		}
	}
	return n
}

// pair returns a client and a server that know each other.
func pair(t testing.TB, change func(*Config)) (client, server *party) {
	t.Helper()
	client, server = newParty(t, "device", 0x11, nil), newParty(t, "server", 0x0a, change)
	if err := client.store.Pin("server", server.id.Credential); err != nil {
		t.Fatal(err)
	}
	if err := server.store.Pin("device", client.id.Credential); err != nil {
		t.Fatal(err)
	}
	return client, server
}

// ask has a request served and waits for its answer.
func (p *party) ask(now time.Time, from string, reliable bool, m oscore.Message) oscore.Message {
	done := make(chan oscore.Message, 1)
	p.Serve(now, from, reliable, m, func(m oscore.Message) { done <- m })
	return <-done
}

// run takes a handshake to its end; tamper sees every message.
func run(t testing.TB, o *Outgoing, server *party, tamper func(n int, request bool, m oscore.Message) oscore.Message) error {
	t.Helper()
	answer := oscore.Message{}
	for n := 0; ; n++ {
		m, more, err := o.Next(start, false, answer)
		if err != nil || !more {
			return err
		}
		if tamper != nil {
			m = tamper(n, true, m)
		}
		answer = server.ask(start, source, false, m)
		if tamper != nil {
			answer = tamper(n, false, answer)
		}
	}
}

func to(t testing.TB, client *party, p Peer) *Outgoing {
	t.Helper()
	o, err := client.To(p)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// talk seals a request at one side and opens it at the other, and back.
func talk(t testing.TB, client, server *party, serverName, clientName string) {
	t.Helper()
	a, ok := client.ring.Get(serverName)
	if !ok {
		t.Fatalf("the client has no %q", serverName)
	}
	b, ok := server.ring.Get(clientName)
	if !ok {
		t.Fatalf("the server has no %q", clientName)
	}
	m := oscore.Message{Code: byte(coap.GET), Body: coap.AppendBody(nil, coap.Options{}.Add(coap.URIPath, []byte("x")), nil)}
	var pending oscore.Pending
	sealed, err := a.SealRequest(nil, &pending, m)
	if err != nil {
		t.Fatal(err)
	}
	var r oscore.Request
	got, err := b.OpenRequest(nil, &r, sealed)
	if err != nil || !bytes.Equal(got.Body, m.Body) {
		t.Fatalf("%x: %v", got.Body, err)
	}
	if sealed, err = r.Seal(nil, oscore.Message{Code: byte(coap.Content)}); err != nil {
		t.Fatal(err)
	}
	if _, err := pending.Open(nil, sealed); err != nil {
		t.Fatal(err)
	}
}
