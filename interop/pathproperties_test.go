//go:build interop

package interop

import (
	"bytes"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/oscorelay/oscorelay/internal/proof"
	"github.com/oscorelay/oscorelay/interop/ours"
	"github.com/oscorelay/oscorelay/interop/peer"
	"github.com/oscorelay/oscorelay/oscore/gocoap"
)

// TestProperties shows the six properties on every path, with a hostile relay
// before, between and after its proxies.
func TestProperties(t *testing.T) {
	t.Parallel()
	for _, p := range paths {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			l := p.start(t)
			t.Run("encryption", l.encryption)
			t.Run("replay", l.replay)
			t.Run("integrity", l.integrity)
			t.Run("binding", l.binding)
			t.Run("authentication", l.authentication)
			t.Run("freshness", l.freshness)
			t.Run("replay after kill -9", l.replayAfterKill)
			l.nothingShown(t)
			l.noncesOnce(t)
			if p.peer[0] != "" {
				proof.Interop(t, peer.Version(t, p.peer[0], p.peer[1]), "our client → its proxy → server", "the six properties, with a hostile relay at each place of the path")
			}
		})
	}
}

// words stand inside of what is sent.
var words = []string{"hello", "observe", "Hello World!", "first=1", "Terminate", "aaaaaaaaaaaaaaaa", string(secretText), string(large[:32])}

var (
	secretText = []byte("a text that nobody on the path may read")
	secretPost = peer.Request{Method: "POST", Path: postPath, Query: "first=1", Format: peer.Int(0), Payload: secretText}
	postPath   = "/oscore/hello/6"
)

// positions runs f with the hostile relay at each place of the path.
func (l *line) positions(t *testing.T, f func(t *testing.T, at int)) {
	for at := range l.relays {
		name := fmt.Sprintf("between %d and %d", at, at+1)
		switch at {
		case 0:
			name = "before"
		case len(l.relays) - 1:
			name = "after"
		}
		t.Run(name, func(t *testing.T) {
			defer l.honest()
			f(t, at)
		})
	}
}

// post sends the request that changes something, which must succeed and be
// acted on once.
func (l *line) post(t *testing.T) {
	t.Helper()
	before := l.server.Handled(postPath)
	r := l.client.Do(t, secretPost)
	if r.Answer.Code != "2.04" || !r.Answer.Sealed || !bytes.Equal(r.Answer.Payload, secretText) {
		t.Fatalf("a genuine request: %+v", r)
	}
	l.acted(t, before+1)
}

// acted says how often the server must have acted on a POST by now.
func (l *line) acted(t *testing.T, want int) {
	t.Helper()
	if n := l.server.Handled(postPath); n != want {
		t.Errorf("the resource was reached %d times, want %d", n, want)
	}
}

// encryption: the exchanges of the interop specification work, and no relay sees
// what stands inside (E2E-2).
func (l *line) encryption(t *testing.T) {
	pair{client: l.client, relay: l.relays[0], server: l.server, lacks: l.lacks, path: l.name, pieces: l.pieces}.run(t, exchanges)
	l.post(t)
	var captures []peer.Capture
	for _, r := range l.relays {
		c := r.Capture()
		captures = append(captures, c)
		c.Hides(t, words...)
		if l.pieces {
			c = c.Whole(t)
		}
		c.Sealed(t)
		_, errs := c.NonceUse(l.ends())
		for _, err := range errs {
			t.Error(err)
		}
	}
	seenByTshark(t, l.pieces, captures...)
	proof.Requirement(t, l.name, "E2E-2")
}

func (l *line) ends() peer.Ends { return peer.Ends{Client: l.ctx.ClientID, Server: l.ctx.ServerID} }

// latest is the last sealed request that a relay saw of the genuine client: it
// was acted on.
func (l *line) latest(t *testing.T, at int) peer.Datagram {
	t.Helper()
	for _, d := range slices.Backward(l.relays[at].Capture()) {
		if m, _, ok := sealed(d); ok && m.IsRequest() {
			return d
		}
	}
	t.Fatal("no request in the capture")
	return peer.Datagram{}
}

// refused checks for the plain 4.01 with Max-Age 0 of RFC 8613 section 7.4.
func refusedAsReplay(t *testing.T, m peer.Message) {
	t.Helper()
	_, isSealed := m.Option(peer.OptOSCORE)
	age, ok := m.Option(peer.OptMaxAge)
	if isSealed || m.Code != 0x81 || !ok || len(age) != 0 {
		t.Errorf("a replay got %s", m)
	}
}

// replay: a captured request again is refused and not acted on (E2E-3).
func (l *line) replay(t *testing.T) {
	l.positions(t, func(t *testing.T, at int) {
		l.post(t)
		before := l.server.Handled(postPath)
		refusedAsReplay(t, newForger(l.relays[at]).ask(t, l.latest(t, at)))
		l.acted(t, before)
		proof.Requirement(t, l.name, "E2E-3")
	})
}

// integrity: whatever byte of a request is flipped, it is not acted on, and the
// genuine one still is; whatever byte of a response, it is not taken (E2E-1).
func (l *line) integrity(t *testing.T) {
	l.positions(t, func(t *testing.T, at int) {
		f := newForger(l.relays[at])
		before, size := l.server.Events("decrypt"), 1<<16
		if l.oneAtATime && at == 0 {
			size = 8 // the server refuses ten a second
		}
		for next, more := 0, true; more; {
			began := time.Now()
			next, more = l.flipRequest(t, f, next, size, l.oneAtATime && at == 0)
			if more {
				<-time.After(time.Until(began.Add(time.Second)))
			}
		}
		l.last().Await(t, "flipped copies at the server", func(peer.Capture) bool {
			return l.server.Events("decrypt")-before >= len(secretText)
		})
		for _, m := range f.answers() {
			_, isSealed := m.Option(peer.OptOSCORE)
			bad := isSealed || m.Code < 0x80
			if at == len(l.relays)-1 { // the server's own word, not a proxy's
				bad = bad || m.Code > 0x82
			}
			if bad {
				t.Errorf("a flipped request got %s", m)
			}
		}
		proof.Requirement(t, l.name, "E2E-1")
	})
	t.Run("response", func(t *testing.T) {
		defer l.honest()
		l.relays[0].Forward(func(d peer.Datagram) (out [][]byte) {
			if m, _, ok := sealed(d); ok && m.IsResponse() {
				for _, i := range protectedBytes(d.Bytes) {
					out = append(out, flipped(d.Bytes, i))
				}
			}
			return append(out, d.Bytes)
		})
		before := l.client.Events("decrypt")
		l.post(t)
		if n := l.client.Events("decrypt") - before; n < len(secretText) {
			t.Errorf("%d of the flipped responses were refused", n)
		}
		proof.Requirement(t, l.name, "E2E-1")
	})
	t.Run("response behind a proxy", func(t *testing.T) {
		if len(l.relays) == 1 {
			t.Skip("there is no proxy on this path")
		}
		l.behindProxies(t, func(at int) (jobs []job) {
			// Each byte once on the path, the relays taking turns.
			for i := at - 1; i < len(protectedBytes(l.response(t, at))); i += len(l.relays) - 1 {
				jobs = append(jobs, job{at: at, response: func(b []byte) []byte {
					places := protectedBytes(b)
					return flipped(b, places[i%len(places)])
				}})
			}
			return jobs
		})
		proof.Requirement(t, l.name, "E2E-1")
	})
}

// flipRequest sends flipped copies of a request from the byte on, so many at
// the most, and then the genuine one. It gives the next byte to flip. Copies
// that are no CoAP any more can be left out: a server may pass over them in
// silence (RFC 7252 section 4.2), for which libcoap would wait.
func (l *line) flipRequest(t *testing.T, f *forger, from, size int, wellFormed bool) (next int, more bool) {
	var mu sync.Mutex
	places := -1
	f.relay.Forward(func(d peer.Datagram) (out [][]byte) {
		if f.keeps(d) {
			return nil
		}
		mu.Lock()
		defer mu.Unlock()
		if m, _, ok := sealed(d); ok && m.IsRequest() && places < 0 {
			all := protectedBytes(d.Bytes)
			if wellFormed {
				all = slices.DeleteFunc(all, func(i int) bool { return !parses(flipped(d.Bytes, i)) })
			}
			places = len(all)
			for _, i := range all[min(from, places):min(from+size, places)] {
				out = append(out, f.forge(flipped(d.Bytes, i)))
			}
		}
		return append(out, d.Bytes)
	})
	l.post(t)
	mu.Lock()
	defer mu.Unlock()
	if places < len(secretText) {
		t.Errorf("%d bytes of a request are protected", places)
	}
	return from + size, from+size < places
}

const getPath = "/oscore/hello/1"

// response is what the answer to a GET looks like at a relay.
func (l *line) response(t *testing.T, at int) []byte {
	t.Helper()
	if r := l.client.Do(t, getHello); r.Answer.Code != "2.05" {
		t.Fatalf("%+v", r)
	}
	for _, d := range slices.Backward(l.relays[at].Capture()) {
		if m, _, ok := sealed(d); ok && m.IsResponse() {
			return d.Bytes
		}
	}
	t.Fatal("no response in the capture")
	return nil
}

const (
	// inFlight bounds requests at a time: fewer than the replay window is wide,
	// for proxies need not keep their order. They are not confirmable: of those,
	// our client has one at a time, and a forged acknowledgement is none.
	inFlight = 12
	// brief is how long a request lasts that gets no answer.
	brief = 700 * time.Millisecond
)

// behindProxies spoils responses at each relay but the first. A proxy takes the
// first response for the answer, whatever it holds, so the genuine one is lost:
// the client must end without any answer, though the server has acted.
func (l *line) behindProxies(t *testing.T, make func(at int) []job) {
	var jobs []job
	for at := 1; at < len(l.relays); at++ {
		jobs = append(jobs, make(at)...)
	}
	defer l.honest()
	defer l.client.SetPatience(0)
	l.client.SetPatience(brief)
	before := l.server.Handled(getPath)
	p := l.execute(jobs)
	for batch := range slices.Chunk(jobs, inFlight) {
		var wg sync.WaitGroup
		for range batch {
			wg.Go(func() {
				if r := l.client.Do(t, peer.Request{Method: "GET", Path: getPath, NON: true}); r.Error == "" || r.Answer.Sealed {
					t.Errorf("an answer to what was spoiled: %+v", r)
				}
			})
		}
		wg.Wait()
	}
	l.last().Await(t, "response to each request", func(peer.Capture) bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return !slices.ContainsFunc(p.jobs, func(j job) bool { return j.done == 0 })
	})
	if n := l.server.Handled(getPath) - before; n != len(jobs) {
		t.Errorf("the server answered %d requests of %d", n, len(jobs))
	}
}

// binding: a response goes with its request alone (E2E-5).
func (l *line) binding(t *testing.T) {
	t.Run("response of another request", func(t *testing.T) {
		defer l.honest()
		stale := l.response(t, 0)
		l.relays[0].Forward(func(d peer.Datagram) [][]byte {
			if m, _, ok := sealed(d); ok && m.IsResponse() {
				return [][]byte{under(d.Bytes, stale), d.Bytes}
			}
			return [][]byte{d.Bytes}
		})
		before := l.client.Events("decrypt")
		l.post(t)
		if r := l.client.Do(t, peer.Request{Method: "GET", Path: "/oscore/large"}); !bytes.Equal(r.Answer.Payload, upload) {
			t.Errorf("a transfer with another response in front of each block: %s, %d bytes, %s", r.Answer.Code, len(r.Answer.Payload), r.Error)
		}
		if n := l.client.Events("decrypt") - before; n < 20 {
			t.Errorf("our client refused %d responses", n)
		}
		proof.Requirement(t, l.name, "E2E-5")
	})
	t.Run("behind a proxy", func(t *testing.T) {
		if len(l.relays) == 1 {
			t.Skip("there is no proxy on this path")
		}
		l.behindProxies(t, func(at int) []job {
			stale := l.response(t, at)
			return []job{{at: at, response: func(b []byte) []byte { return under(b, stale) }}}
		})
		proof.Requirement(t, l.name, "E2E-5")
	})
	t.Run("notification of another observation", func(t *testing.T) {
		if slices.Contains(l.lacks, "6") {
			t.Skip("this path does not carry Observe")
		}
		l.positions(t, func(t *testing.T, at int) {
			if at > 0 && l.oneAtATime {
				t.Skip("the proxy would wait for an acknowledgement that our client does not give")
			}
			l.swappedNotifications(t, at)
		})
	})
}

// swappedNotifications puts a copy of the other observation's latest message
// before each notification.
func (l *line) swappedNotifications(t *testing.T, at int) {
	var mu sync.Mutex
	latest := map[string][]byte{}
	l.relays[at].Forward(func(d peer.Datagram) (out [][]byte) {
		m, _, ok := sealed(d)
		if !ok || !m.IsResponse() {
			return [][]byte{d.Bytes}
		}
		mu.Lock()
		defer mu.Unlock()
		_, again := latest[string(m.Token)]
		_, notifies := m.Option(peer.OptObserve) // else it would end the exchange at a proxy
		for token, other := range latest {
			if again && notifies && token != string(m.Token) {
				out = append(out, under(reheaded(d.Bytes, 1, m.ID+0x4000, m.Token), other))
			}
		}
		if notifies {
			latest[string(m.Token)] = d.Bytes
		}
		return append(out, d.Bytes)
	})
	before := l.client.Events("decrypt")
	var wg sync.WaitGroup
	for _, x := range exchanges {
		if x.id != "6" && x.id != "7" {
			continue
		}
		wg.Go(func() {
			r := l.client.Do(t, x.request)
			notes := slices.DeleteFunc(r.More, func(a peer.Answer) bool { return a.Kind != "NOTE" })
			if len(notes) != len(x.notes) || r.Error != "" {
				t.Errorf("%+v", r)
				return
			}
			x.answer.check(t, r.Answer)
			for i := range notes {
				x.notes[i].check(t, notes[i])
			}
		})
	}
	wg.Wait()
	if at == 0 && l.client.Events("decrypt") == before {
		t.Error("our client refused no notification")
	}
	proof.Requirement(t, l.name, "E2E-5")
}

// authentication: only the holders of the keys are client and server (E2E-4).
func (l *line) authentication(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*peer.Context)
		code   string
	}{
		{"unknown kid", func(c *peer.Context) { c.ClientID = []byte{0x7f} }, "4.01"},
		// Its numbers begin anew, so they look like replays before the tag does wrong.
		{"wrong secret", func(c *peer.Context) { c.Secret = bytes.Repeat([]byte{7}, 16) }, "4.01"},
		{"swapped IDs", func(c *peer.Context) { c.ClientID, c.ServerID = c.ServerID, c.ClientID }, "4.01"},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx := l.ctx
			c.change(&ctx)
			before := l.server.Handled(postPath)
			r := l.another(t, ctx, ours.Config{Patience: patient, Gocoap: gocoap.Config{PlainErrorWait: 200 * time.Millisecond}}).Do(t, secretPost)
			if r.Answer.Sealed || r.Answer.Code != c.code {
				t.Errorf("%+v, want %s in plain", r, c.code)
			}
			l.acted(t, before)
			proof.Requirement(t, l.name, "E2E-4")
		})
	}
	for _, c := range []struct {
		name   string
		change func(*peer.Context)
	}{
		{"another server with its own ID", func(c *peer.Context) { c.ServerID = []byte{2} }},
		{"another server without the secret", func(c *peer.Context) { c.Secret = bytes.Repeat([]byte{7}, 16) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx, port := l.ctx, peer.FreePort(t)
			c.change(&ctx)
			ours.StartServer(t, port, ctx, ours.Config{})
			l.last().Retarget(peer.Loopback(port))
			defer l.last().Retarget(l.server.Addr())
			defer l.client.SetPatience(0)
			l.client.SetPatience(brief)
			if r := l.client.Do(t, getHello); r.Error == "" || r.Answer.Sealed {
				t.Errorf("an answer of a wrong server was taken: %+v", r)
			}
			proof.Requirement(t, l.name, "E2E-4")
		})
	}
	t.Run("the genuine ones still", l.post)
}

// freshness: a request that was held back, and never came before, is challenged
// when it comes late, and not acted on; a fresh one is (E2E-6).
func (l *line) freshness(t *testing.T) {
	defer l.honest()
	var mu sync.Mutex
	held := make([][]byte, len(l.relays))
	var jobs []job
	for at := range l.relays {
		jobs = append(jobs, job{at: at, request: func(b []byte) []byte {
			mu.Lock()
			defer mu.Unlock()
			held[at] = b
			return nil
		}})
	}
	l.execute(jobs)
	before := l.server.Handled(postPath)
	l.client.SetPatience(echoLifetime + 200*time.Millisecond)
	var wg sync.WaitGroup
	for range l.relays {
		wg.Go(func() {
			q := secretPost
			q.NON = true
			if r := l.client.Do(t, q); r.Error == "" {
				t.Errorf("an answer to what was held back: %+v", r)
			}
		})
	}
	wg.Wait() // by now an Echo that a request carried is too old
	l.client.SetPatience(0)
	l.positions(t, func(t *testing.T, at int) {
		mu.Lock()
		late := held[at]
		mu.Unlock()
		if late == nil {
			t.Fatal("no request came by")
		}
		client := l.latest(t, at).Client
		answer := newForger(l.relays[at]).ask(t, peer.Datagram{Client: client, Bytes: late})
		if _, isSealed := answer.Option(peer.OptOSCORE); !isSealed {
			t.Errorf("the late request got %s, no sealed challenge", answer)
		}
		l.acted(t, before)
		proof.Requirement(t, l.name, "E2E-6")
	})
	l.post(t)
}

// replayAfterKill: a server that lost its window challenges what it gets, and
// acts on no captured request (E2E-3).
func (l *line) replayAfterKill(t *testing.T) {
	l.post(t)
	old := make([]peer.Datagram, len(l.relays))
	for at := range l.relays {
		old[at] = l.latest(t, at)
	}
	before := l.server.Handled(postPath)
	l.server.Crash()
	l.positions(t, func(t *testing.T, at int) {
		answer := newForger(l.relays[at]).ask(t, old[at])
		if _, isSealed := answer.Option(peer.OptOSCORE); !isSealed {
			t.Errorf("the replay got %s, no sealed challenge", answer)
		}
		l.acted(t, before)
	})
	l.post(t)
	l.positions(t, func(t *testing.T, at int) {
		refusedAsReplay(t, newForger(l.relays[at]).ask(t, old[at]))
		l.acted(t, before+1)
		proof.Requirement(t, l.name, "E2E-3")
	})
}

// nothingShown looks at everything that came by at any relay.
func (l *line) nothingShown(t *testing.T) {
	for _, r := range l.relays {
		r.Capture().Hides(t, words...)
	}
}

// noncesOnce looks at what the genuine client and the server sealed in all:
// what arrived at the first and at the last relay, less what relays forged.
func (l *line) noncesOnce(t *testing.T) {
	genuine, client := map[string]bool{}, l.clientOf()
	for _, d := range l.relays[0].Capture() {
		if m, _, ok := sealed(d); ok && m.IsRequest() && d.Client == client {
			genuine[unchanged(m)] = true
		}
	}
	var c peer.Capture
	for _, d := range l.last().Capture() {
		if m, _, ok := sealed(d); ok && (m.IsResponse() || genuine[unchanged(m)]) {
			c = append(c, d)
		}
	}
	use, errs := c.NonceUse(l.ends())
	for _, err := range errs {
		t.Error(err)
	}
	if use.Nonces < 30 {
		t.Errorf("%d nonces looked at", use.Nonces)
	}
}

// unchanged is what a proxy passes unchanged.
func unchanged(m peer.Message) string {
	v, _ := m.Option(peer.OptOSCORE)
	return string(v) + "\xff" + string(m.Payload)
}
