package handshake

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/oscorelay/oscorelay/internal/coap"
	"github.com/oscorelay/oscorelay/keys"
	"github.com/oscorelay/oscorelay/keys/edhoc"
	"github.com/oscorelay/oscorelay/oscore"
)

// history is a store that tells whose numbers it keeps.
type history struct {
	*keys.Memory
	mu    sync.Mutex
	known map[keys.Identity]bool
}

func newHistory() *history {
	return &history{Memory: keys.NewMemory(), known: map[keys.Identity]bool{}}
}

func (h *history) Declare(ctx context.Context, id []byte, next uint64) (bool, error) {
	h.mu.Lock()
	h.known[keys.Identity(id)] = true
	h.mu.Unlock()
	return h.Memory.Declare(ctx, id, next)
}

func (h *history) Forget(ctx context.Context, id []byte) error {
	h.mu.Lock()
	delete(h.known, keys.Identity(id))
	h.mu.Unlock()
	return h.Memory.Forget(ctx, id)
}

func (h *history) len() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.known)
}

// onStore has a party keep its numbers in the store.
func onStore(p **keys.Keyring, h *history) func(*Config) {
	return func(c *Config) {
		*p = keys.New(h)
		c.Ring = *p
	}
}

// TestReplacedIsForgotten: the store keeps the numbers of the last context of
// each peer alone; of one whose handshake fails, none, and the earlier one is in
// use again.
func TestReplacedIsForgotten(t *testing.T) {
	cs, ss := newHistory(), newHistory()
	var cr, sr *keys.Keyring
	var refuse error
	var kept keys.Entry
	removed := 0
	client, server := newParty(t, "device", 0x11, onStore(&cr, cs)), newParty(t, "server", 0x0a, func(c *Config) {
		onStore(&sr, ss)(c)
		c.Established = func(e keys.Entry) error {
			if refuse == nil {
				kept = e
			}
			return refuse
		}
		c.Removed = func(string) { removed++ }
		c.ContextLifetime = time.Hour
	})
	client.ring, server.ring = cr, sr
	if err := errors.Join(client.store.Pin("server", server.id.Credential), server.store.Pin("device", client.id.Credential)); err != nil {
		t.Fatal(err)
	}
	for range 5 {
		o := to(t, client, Peer{Name: "server"})
		if err := run(t, o, server, nil); err != nil {
			t.Fatal(err)
		}
		talk(t, client, server, "edhoc:server", "edhoc:device")
		o.Confirm()
		if _, err := o.done.Message4(nil); !errors.Is(err, edhoc.ErrConsumed) {
			t.Errorf("the handshake is held yet: %v", err)
		}
		if cs.len() != 1 || ss.len() != 1 {
			t.Fatalf("numbers of %d and %d contexts", cs.len(), ss.len())
		}
	}
	last, _, err := keys.Identities(&kept.Params)
	if err != nil {
		t.Fatal(err)
	}
	refuse = errors.New("disk full")
	o := to(t, client, Peer{Name: "server"})
	if err := run(t, o, server, nil); err == nil {
		t.Fatal("a context that is not durable")
	}
	if p, ok := sr.Get("edhoc:device"); !ok || !ss.known[last] || ss.len() != 1 || string(p.Entry().Params.RecipientID) != string(kept.Params.RecipientID) {
		t.Errorf("numbers of %d contexts, the durable one's among them: %v; in the ring: %v", ss.len(), ss.known[last], ok)
	}
	refuse = nil
	if err := run(t, to(t, client, Peer{Name: "server"}), server, nil); err != nil {
		t.Fatal(err)
	}
	server.Expire(start.Add(2 * time.Hour))
	if removed != 1 || sr.Len() != 0 || ss.len() != 0 {
		t.Errorf("%d removed, %d peers, numbers of %d contexts", removed, sr.Len(), ss.len())
	}
}

// TestPutBack: a combined request that comes to nothing leaves the context of the
// handshake before in use; it ends when it would have, and after it is replaced
// by another the end of an old handshake changes nothing.
func TestPutBack(t *testing.T) {
	cs := newHistory()
	var cr *keys.Keyring
	client, server := newParty(t, "device", 0x11, func(c *Config) {
		onStore(&cr, cs)(c)
		c.ContextLifetime = time.Hour
	}), newParty(t, "server", 0x0a, nil)
	client.ring = cr
	if err := errors.Join(client.store.Pin("server", server.id.Credential), server.store.Pin("device", client.id.Credential)); err != nil {
		t.Fatal(err)
	}
	shake := func(now time.Time, p Peer) *Outgoing {
		t.Helper()
		o := to(t, client, p)
		answer := oscore.Message{}
		for {
			m, more, err := o.Next(now, false, answer)
			if err != nil {
				t.Fatal(err)
			}
			if !more {
				return o
			}
			answer = server.ask(now, source, false, m)
		}
	}
	shake(start, Peer{Name: "server"}).Confirm()
	talk(t, client, server, "edhoc:server", "edhoc:device")
	first, _ := cr.Get("edhoc:server")
	for range 3 {
		o := shake(start.Add(time.Minute), Peer{Name: "server", Combined: true})
		if p, _ := cr.Get("edhoc:server"); p == first || !o.Pending() {
			t.Fatal("the new context is not in its place")
		}
		o.Close()
		if _, err := o.done.Message4(nil); !errors.Is(err, edhoc.ErrConsumed) {
			t.Errorf("the handshake is held yet: %v", err)
		}
		if _, err := o.Session().Exported(); !errors.Is(err, edhoc.ErrWiped) {
			t.Errorf("the session: %v", err)
		}
		talk(t, client, server, "edhoc:server", "edhoc:device")
		if cs.len() != 1 || cr.Len() != 1 {
			t.Errorf("numbers of %d contexts, %d peers", cs.len(), cr.Len())
		}
	}
	late := shake(start, Peer{Name: "server", Combined: true})
	shake(start, Peer{Name: "server"}).Confirm()
	late.Close()
	talk(t, client, server, "edhoc:server", "edhoc:device")
	if cs.len() != 1 {
		t.Errorf("numbers of %d contexts", cs.len())
	}
	o := shake(start.Add(30*time.Minute), Peer{Name: "server", Combined: true})
	o.Close()
	client.Expire(start.Add(59 * time.Minute))
	if cr.Len() != 1 {
		t.Error("it ended early")
	}
	client.Expire(start.Add(time.Hour))
	if cr.Len() != 0 || cs.len() != 0 {
		t.Errorf("later: %d peers, numbers of %d contexts", cr.Len(), cs.len())
	}
}

// TestSlowStore: while one peer's context waits for the disk, others shake
// hands, by one worker too, and look-ups go on.
func TestSlowStore(t *testing.T) {
	waiting, proceed := make(chan struct{}), make(chan struct{})
	server := newParty(t, "server", 0x0a, func(c *Config) {
		c.Workers = 1
		c.Established = func(e keys.Entry) error {
			if e.Name == "edhoc:slow" {
				close(waiting)
				<-proceed
			}
			return nil
		}
	})
	clients := map[string]*party{}
	for i, name := range []string{"slow", "quick"} {
		c := newParty(t, name, byte(0x11+i), nil)
		if err := errors.Join(c.store.Pin("server", server.id.Credential), server.store.Pin(name, c.id.Credential)); err != nil {
			t.Fatal(err)
		}
		clients[name] = c
	}
	slow := make(chan error, 1)
	go func() { slow <- run(t, to(t, clients["slow"], Peer{Name: "server"}), server, nil) }()
	<-waiting
	for range 3 {
		if err := run(t, to(t, clients["quick"], Peer{Name: "server"}), server, nil); err != nil {
			t.Fatal(err)
		}
	}
	server.Expire(start)
	talk(t, clients["quick"], server, "edhoc:server", "edhoc:quick")
	close(proceed)
	if err := <-slow; err != nil {
		t.Fatal(err)
	}
	if server.ring.Len() != 2 {
		t.Errorf("%d contexts", server.ring.Len())
	}
	if s := server.Stats(); s.PeakWorkers > 1 {
		t.Errorf("%d workers at a time", s.PeakWorkers)
	}
}

// TestPoolAside: those aside are bounded, and the workers are as many as
// before when they come back.
func TestPoolAside(t *testing.T) {
	p := pool{workers: 1, queue: 4 * maxAside}
	proceed := make(chan struct{})
	var aside, done sync.WaitGroup
	aside.Add(maxAside + 1)
	for range maxAside + 1 {
		done.Add(1)
		if !p.run(func() {
			defer done.Done()
			p.aside(func() { aside.Done(); <-proceed })
		}) {
			t.Fatal("queue full")
		}
	}
	aside.Wait() // the last keeps the worker's place
	done.Add(1)
	ran := make(chan struct{})
	if !p.run(func() { close(ran); done.Done() }) {
		t.Fatal("queue full")
	}
	p.mu.Lock()
	if p.running != 1 || p.asides != maxAside || len(p.waiting) != 1 {
		t.Errorf("%d running, %d aside, %d waiting", p.running, p.asides, len(p.waiting))
	}
	p.mu.Unlock()
	select {
	case <-ran:
		t.Error("ran beside the one that keeps its place")
	default:
	}
	close(proceed)
	done.Wait()
	for {
		p.mu.Lock()
		running, asides := p.running, p.asides
		p.mu.Unlock()
		if running == 0 && asides == 0 {
			break
		}
		time.Sleep(time.Millisecond) // until the goroutines have ended
	}
}

// TestOneName: of handshakes of one peer at once, what is durable at the end is
// what the ring has.
func TestOneName(t *testing.T) {
	var mu sync.Mutex
	var durable keys.Entry
	client, server := pair(t, func(c *Config) {
		c.Workers, c.Rate, c.RateTotal = 4, 1e6, 1e6
		c.Established = func(e keys.Entry) error {
			mu.Lock()
			defer mu.Unlock()
			durable = e
			return nil
		}
	})
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			if err := run(t, to(t, client, Peer{Name: "server"}), server, nil); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	p, ok := server.ring.Get("edhoc:device")
	if !ok || server.ring.Len() != 1 || string(p.Entry().Params.RecipientID) != string(durable.Params.RecipientID) {
		t.Errorf("%d contexts; the ring's is %+v, the durable %+v", server.ring.Len(), p.Entry().Params, durable.Params)
	}
	if len(server.names.locks) != 0 {
		t.Errorf("%d names are locked", len(server.names.locks))
	}
}

// TestMessage4NeverComes: in the reverse flow with message_4 nothing is entered
// before it has verified; an earlier context keeps its place.
func TestMessage4NeverComes(t *testing.T) {
	client, server := pair(t, func(c *Config) { c.Reverse, c.Message4 = true, true })
	p := Peer{Name: "server", Reverse: true, Message4: true}
	cut := func() {
		t.Helper()
		o := to(t, client, p)
		defer o.Close()
		answer := oscore.Message{}
		for range 2 { // the trigger, message_2
			m, _, err := o.Next(start, false, answer)
			if err != nil {
				t.Fatal(err)
			}
			answer = server.ask(start, source, false, m)
		}
		if _, more, err := o.Next(start, false, answer); err != nil || !more { // message_4, which is lost
			t.Fatal(more, err)
		}
	}
	cut()
	if server.ring.Len() != 0 || server.Sessions() != 1 {
		t.Errorf("%d contexts, %d sessions", server.ring.Len(), server.Sessions())
	}
	server.Expire(start.Add(time.Minute))
	if server.ring.Len() != 0 || server.Sessions() != 0 {
		t.Errorf("later: %d contexts, %d sessions", server.ring.Len(), server.Sessions())
	}
	free(t, server.ring, 48)
	if err := run(t, to(t, client, p), server, nil); err != nil {
		t.Fatal(err)
	}
	before, _ := server.ring.Get("edhoc:device")
	cut()
	server.Expire(start.Add(time.Minute))
	if after, _ := server.ring.Get("edhoc:device"); after != before || after == nil {
		t.Error("the earlier context lost its place")
	}
	free(t, server.ring, 47)
}

// free fails the test unless so many of the identifiers that travel as one byte
// are free.
func free(t testing.TB, ring *keys.Keyring, want int) {
	t.Helper()
	n := 0
	for b := range 0x38 {
		id := []byte{byte(b)}
		if b%0x20 < 0x18 && ring.ReserveID(id) == nil {
			n++
			defer ring.ReleaseID(id)
		}
	}
	if n != want {
		t.Errorf("%d identifiers are free, want %d", n, want)
	}
}

// TestForgeriesKeepNothingAlive: a session that forgeries are sent to is no
// younger for it: it is the first to make room, and ends in time.
func TestForgeriesKeepNothingAlive(t *testing.T) {
	client, server := pair(t, func(c *Config) { c.MaxSessions = 2 })
	forge := func(of oscore.Message) {
		t.Helper()
		_, payload, err := coap.Split(of.Body)
		if err != nil {
			t.Fatal(err)
		}
		payload = append([]byte{}, payload...)
		payload[len(payload)-1] ^= 1
		m := newTransfer(segments("/.well-known/edhoc"), nil, payload).request(true)
		if code, _ := errorOf(t, server.ask(start.Add(time.Second), source, false, m)); code != coap.BadRequest {
			t.Fatal(code)
		}
	}
	first, second := half(t, client, server), half(t, client, server)
	forge(first)
	third := half(t, client, server) // makes room
	for i, m := range []oscore.Message{first, second, third} {
		code := coap.Code(server.ask(start.Add(2*time.Second), source, false, m).Code)
		if want := map[bool]coap.Code{true: coap.BadRequest, false: coap.Changed}[i == 0]; code != want {
			t.Errorf("session %d: %v, want %v", i+1, code, want)
		}
	}
	a := half(t, client, server)
	forge(a)
	server.Expire(start.Add(30 * time.Second))
	if server.Sessions() != 0 {
		t.Errorf("%d sessions after their lifetime", server.Sessions())
	}
}

// TestUnfragmented: above MAX_UNFRAGMENTED_SIZE the request stays as it is, and
// message_3 goes first (RFC 9668 §3.2.2).
func TestUnfragmented(t *testing.T) {
	client, server := pair(t, nil)
	for _, fits := range []bool{true, false} {
		o, sealed, _ := combined(t, client, server)
		_, ciphertext, err := coap.Split(sealed.Body)
		if err != nil {
			t.Fatal(err)
		}
		client.cfg.MaxUnfragmented = len(o.m3) + len(ciphertext)
		if !fits {
			client.cfg.MaxUnfragmented--
		}
		out, ok, err := o.Combine(sealed)
		if err != nil || ok != fits {
			t.Fatal(ok, err)
		}
		if fits {
			if _, refused := server.askCombined(out); refused.Code != 0 {
				t.Errorf("refused: %v", coap.Code(refused.Code))
			}
			continue
		}
		if string(out.Body) != string(sealed.Body) || !o.Pending() {
			t.Error("the request was changed")
		}
		answer := server.ask(start, source, false, o.Sequential(false))
		if _, more, err := o.Next(start, false, answer); err != nil || more || o.Pending() {
			t.Errorf("message_3 alone: %v %v", more, err)
		}
		talk(t, client, server, "edhoc:server", "edhoc:device")
	}
}

// TestEnd: once the server's side has entered the context, what made it is
// wiped, and so it is when it could not be entered.
func TestEnd(t *testing.T) {
	var refuse error
	client, server := pair(t, func(c *Config) { c.Established = func(keys.Entry) error { return refuse } })
	for _, refuse = range []error{nil, errors.New("disk full")} {
		_, payload, err := coap.Split(half(t, client, server).Body)
		if err != nil {
			t.Fatal(err)
		}
		cr, message3, err := edhoc.CutConnectionID(payload)
		if err != nil {
			t.Fatal(err)
		}
		got, err := server.take(start, source, cr).wait3.Message3(message3)
		if err != nil {
			t.Fatal(err)
		}
		done, err := got.Authenticate(server.trust)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := server.enter(start, source, done.Session(), true); !errors.Is(err, refuse) {
			t.Fatal(err)
		}
		end(done)
		if _, err := done.Session().Exported(); !errors.Is(err, edhoc.ErrWiped) {
			t.Errorf("session: %v", err)
		}
		if _, err := done.Message4(); !errors.Is(err, edhoc.ErrConsumed) {
			t.Errorf("handshake: %v", err)
		}
	}
}
