//go:build soak

package lab

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/oscorelay/oscorelay/internal/demo"
	"github.com/oscorelay/oscorelay/interop/peer"
	"github.com/oscorelay/oscorelay/keys"
	"github.com/oscorelay/oscorelay/keys/file"
	"github.com/oscorelay/oscorelay/oscore"
)

var (
	soakKills = flag.Int("soak.kills", 200, "how often the server is killed, and how often a device")
	soakSeed  = flag.Uint64("soak.seed", 0, "repeat a run's choices; 0 makes new ones")
)

// recovery bounds how long after a restart the first requests may take.
const recovery = 15 * time.Second

// soak is one server, two devices, and a relay that keeps every datagram.
type soak struct {
	t        *testing.T
	rng      *rand.Rand
	exe, dir string
	addr     string
	relay    *peer.Relay
	server   *process
	devices  []*soakDevice
	lives    []*process // of the server, all
	deviceLs []*process // of the devices, all
	n        int        // numbers payloads and requests

	mu      sync.Mutex
	unique  map[string]string // sum of a payload that may be handled once → what it was
	bodies  map[string]bool   // sums of what /large may hold
	answers int
	failed  map[string]int
	took    []time.Duration
}

type soakDevice struct {
	name string
	ends peer.Ends
	*process
}

// TestSoakKill kills the sealed server and the sealed devices (kill -9) at
// random datagrams of their traffic and looks, in the capture and in what the
// handlers saw, for a nonce used twice, a message accepted twice, anything
// plain, and for traffic that does not go on by itself.
func TestSoakKill(t *testing.T) {
	s := newSoak(t)
	victims := make([]int, 0, 2**soakKills) // 0: the server, else a device
	for i := range *soakKills {
		victims = append(victims, 0, 1+i%len(s.devices))
	}
	s.rng.Shuffle(len(victims), func(i, j int) { victims[i], victims[j] = victims[j], victims[i] })
	s.recover(s.devices...)
	began := time.Now()
	hasty := false
	for i, v := range victims {
		reach := 120
		if hasty {
			reach = 12 // while the one killed before recovers
		}
		s.killAmid(v, 1+s.rng.IntN(reach))
		if hasty = i < len(victims)-1 && s.rng.IntN(4) == 0; !hasty {
			who := s.devices
			if v > 0 && s.rng.IntN(2) == 0 {
				who = s.devices[v-1 : v]
			}
			s.recover(who...)
		}
		if t.Failed() {
			break // the capture may say why
		}
		if (i+1)%20 == 0 {
			t.Logf("%d kills in %v", i+1, time.Since(began).Round(time.Second))
		}
	}
	s.check(time.Since(began))
}

func newSoak(t *testing.T) *soak {
	seed := *soakSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("-soak.seed %d", seed)
	s := &soak{
		t: t, rng: rand.New(rand.NewPCG(seed, 1)), dir: t.TempDir(), unique: map[string]string{}, bodies: map[string]bool{}, failed: map[string]int{},
	}
	s.bodies[digest(demo.Large())] = true
	s.exe = filepath.Join(s.dir, "oscore")
	if out, err := exec.Command("go", "build", "-o", s.exe, "../../cmd/oscore").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var entries []keys.Entry
	for i, idContext := range [][]byte{nil, []byte("soak")} {
		d := &soakDevice{
			name: fmt.Sprintf("device%d", i+1),
			ends: peer.Ends{Client: fmt.Appendf(nil, "dev%d", i+1), Server: fmt.Appendf(nil, "srv%d", i+1), KIDContext: idContext},
		}
		secret := make([]byte, 16)
		for j := range secret {
			secret[j] = byte(rand.Uint32())
		}
		e := keys.Entry{Name: "server", Params: oscore.Params{MasterSecret: secret, SenderID: d.ends.Client, RecipientID: d.ends.Server, IDContext: idContext}}
		s.provision(d.name, e)
		e = e.Peer()
		e.Name = d.name
		entries = append(entries, e)
		s.devices = append(s.devices, d)
	}
	s.provision("server", entries...)
	at := peer.Loopback(peer.FreePort(t))
	s.addr, s.relay = at.String(), peer.NewRelay(t, at)
	s.startServer()
	for _, d := range s.devices {
		s.startDevice(d)
	}
	t.Cleanup(func() {
		s.server.kill()
		for _, d := range s.devices {
			d.kill()
		}
	})
	return s
}

func (s *soak) provision(name string, entries ...keys.Entry) {
	st, err := file.Open(filepath.Join(s.dir, name), file.Options{AnchorDir: filepath.Join(s.dir, "anchors")})
	if err == nil {
		err = errors.Join(st.Put(context.Background(), true, entries...), st.Close())
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *soak) start(name string, args ...string) *process {
	p, err := start(context.Background(), s.exe, append(args[:1:1], append([]string{"--keys", filepath.Join(s.dir, name), "--anchors", filepath.Join(s.dir, "anchors")}, args[1:]...)...)...)
	if err != nil {
		s.t.Fatal(err)
	}
	return p
}

func (s *soak) startServer() {
	s.server = s.start("server", "serve", "--listen", s.addr, "--json", "--interval", "100ms")
	s.lives = append(s.lives, s.server)
}

func (s *soak) startDevice(d *soakDevice) {
	d.process = s.start(d.name, "agent", "coap://"+s.relay.Addr().String())
	s.deviceLs = append(s.deviceLs, d.process)
}

// digest is serve's name for a payload.
func digest(payload []byte) string {
	h := sha256.Sum256(payload)
	return hex.EncodeToString(h[:6])
}

// payload makes one that no other request carries.
func (s *soak) payload(what string, size int) []byte {
	s.n++
	b := fmt.Appendf(nil, "secret-%s-%d-", what, s.n)
	for len(b) < size {
		b = append(b, byte(s.rng.Uint32()))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unique[digest(b)] = fmt.Sprintf("%s %d", what, s.n)
	if what == "large" {
		s.bodies[digest(b)] = true
	}
	return b
}

// ask has a device send a request and returns what waits for its answer.
func (s *soak) ask(d *soakDevice, r request) func() (line, error) {
	s.n++
	r.ID = s.n
	r.Timeout = int(recovery / time.Millisecond)
	p := d.process
	from := p.mark()
	if err := p.send(r); err != nil {
		return func() (line, error) { return line{}, err }
	}
	return func() (line, error) {
		x, err := p.wait(recovery+10*time.Second, from, func(x line) bool { return x.ID == r.ID })
		if err == nil && x.Event == "error" {
			err = errors.New(x.Error)
		}
		return x, err
	}
}

// burst has every device send a mix of requests at once, and returns what waits
// for all of them.
func (s *soak) burst() (done func()) {
	var running sync.WaitGroup
	for _, d := range s.devices {
		callback := s.payload("callback", 0)
		for _, r := range []request{
			{Method: "GET", Path: "/oscore/hello/1"},
			{Method: "POST", Path: "/counter", Payload: s.payload("counter", 0)},
			{Method: "POST", Path: "/counter", Payload: s.payload("counter", 0), NON: true},
			{Method: "PUT", Path: "/value", Payload: s.payload("value", 0)},
			{Method: "PUT", Path: "/large", Payload: s.payload("large", demo.LargeSize)},
			{Method: "GET", Path: "/large"},
			{Method: "POST", Path: "/callback", Payload: append([]byte("/"), callback...)},
			{Method: "POST", Path: "/counter", Payload: s.payload("counter", 0)},
		} {
			if r.Path == "/callback" {
				s.mu.Lock()
				s.unique[digest(r.Payload)] = string(r.Payload)
				s.mu.Unlock()
			}
			answer := s.ask(d, r)
			running.Go(func() {
				x, err := answer()
				s.mu.Lock()
				defer s.mu.Unlock()
				if err != nil {
					s.failed[err.Error()]++ // killed, or its peer was
					return
				}
				s.answers++
				if r.Path == "/large" && r.Method == "GET" && !s.bodies[digest(x.Payload)] {
					s.t.Errorf("GET /large: %d bytes that nobody put there", len(x.Payload))
				}
			})
		}
	}
	return running.Wait
}

// killAmid kills the victim when the relay sees the nth datagram of a burst,
// before or after that goes on, and starts it again.
func (s *soak) killAmid(victim, n int) {
	p := s.server
	if victim > 0 {
		p = s.devices[victim-1].process
	}
	before := s.rng.IntN(2) == 0
	var count atomic.Int64
	killed := make(chan struct{})
	var once sync.Once
	kill := func() { once.Do(func() { p.kill(); close(killed) }) }
	s.relay.Forward(func(d peer.Datagram) [][]byte {
		if count.Add(1) == int64(n) {
			if before {
				kill()
			} else {
				go kill()
			}
		}
		return [][]byte{d.Bytes}
	})
	done := s.burst()
	idle := make(chan struct{})
	go func() { done(); close(idle) }()
	select {
	case <-killed:
	case <-idle: // the burst had fewer datagrams
		kill()
	}
	s.relay.Forward(nil)
	if victim > 0 {
		s.startDevice(s.devices[victim-1])
	} else {
		s.startServer()
	}
}

// recover checks that traffic goes on with nobody's help: a read, a write, a
// request of the server's, an observation.
func (s *soak) recover(devices ...*soakDevice) {
	began := time.Now()
	var running sync.WaitGroup
	for _, d := range devices {
		value := s.payload("value", 0)
		p := d.process
		from := p.mark()
		waits := []func() (line, error){
			s.ask(d, request{Method: "GET", Path: "/oscore/hello/1"}),
			s.ask(d, request{Method: "POST", Path: "/counter", Payload: s.payload("counter", 0)}),
			s.ask(d, request{Method: "POST", Path: "/callback", Payload: []byte("/3/0/0")}),
			s.ask(d, request{Method: "OBSERVE", Path: "/value"}),
		}
		s.n++
		put := request{ID: s.n, Method: "PUT", Path: "/value", Payload: value, Timeout: int(recovery / time.Millisecond)}
		running.Go(func() {
			for i, want := range []string{"2.05", "2.04", "2.04", "2.05"} {
				x, err := waits[i]()
				if err == nil && i == 2 {
					err = x.is(want, []byte("Open Mobile Device"))
				} else if err == nil {
					err = x.is(want, nil)
				}
				if err != nil {
					s.t.Errorf("%s after a restart, request %d: %v", d.name, i, err)
					return
				}
			}
			err := p.send(put)
			if err == nil {
				_, err = p.wait(recovery, from, func(x line) bool { return x.Event == "notification" && bytes.Equal(x.Payload, value) })
			}
			if err != nil {
				s.t.Errorf("%s after a restart: no notification of %s: %v", d.name, value, err)
			}
		})
	}
	running.Wait()
	s.took = append(s.took, time.Since(began))
}

// check looks at the whole run.
func (s *soak) check(took time.Duration) {
	t := s.t
	s.server.kill()
	for _, d := range s.devices {
		d.kill()
	}
	capture := s.relay.Capture()
	contexts := make([]peer.Ends, 0, len(s.devices))
	for _, d := range s.devices {
		contexts = append(contexts, d.ends)
	}
	use, errs := capture.NonceUse(contexts...)
	for _, err := range errs[:min(len(errs), 20)] {
		t.Error(err)
	}
	plain := 0
	capture.SealedExcept(t, func(m peer.Message) bool {
		ok := m.IsOSCOREError()
		if ok {
			plain++
		}
		return ok
	})
	capture.Hides(t, "secret-", "/value", "counter", "callback", "Hello World", "Open Mobile")
	// What is accepted once is the sealed message. A request that a kill came
	// between and its answer is retransmitted, challenged by the server that
	// remembers nothing, and sent again as a new message with the Echo: its
	// payload may be handled once by each of the two, as over plain CoAP.
	type message struct {
		peer string
		piv  uint64
	}
	accepted := map[message]bool{}
	times, lives := map[string]int{}, map[string]map[int]bool{}
	for life, p := range s.lives {
		for _, x := range p.lines {
			if x.Event != "handled" || x.Peer == "" {
				continue
			}
			if m := (message{x.Peer, x.PartialIV}); accepted[m] {
				t.Errorf("the message of %s with Partial IV %d was accepted twice", x.Peer, x.PartialIV)
			} else {
				accepted[m] = true
			}
			times[x.Sum]++
			if lives[x.Sum] == nil {
				lives[x.Sum] = map[int]bool{}
			}
			lives[x.Sum][life] = true
		}
	}
	handled, again := 0, 0
	for sum, what := range s.unique {
		handled += min(times[sum], 1)
		again += max(times[sum]-1, 0)
		if times[sum] > len(lives[sum]) {
			t.Errorf("%s was handled %d times by %d lives of the server", what, times[sum], len(lives[sum]))
		}
	}
	slices.Sort(s.took)
	t.Logf("%d kills of the server, %d of devices in %v: %d datagrams, %d sealed under %d nonces, %d sent again, %d answers without their request, %d plain errors; "+
		"%d answers, %d messages accepted, %d of %d unique payloads handled, %d of them again by the next server; recovery median %v, longest %v", *soakKills, *soakKills, took.Round(time.Second), len(capture), use.Sealed, use.Nonces, use.Repeats, use.Unmatched, plain,
		s.answers, len(accepted), handled, len(s.unique), again, s.took[len(s.took)/2].Round(time.Millisecond), s.took[len(s.took)-1].Round(time.Millisecond))
	t.Logf("requests that a kill ended: %v", s.failed)
	if use.Repeats == 0 || plain == len(capture) || handled == 0 {
		t.Error("the run proves nothing: no retransmission or nothing handled")
	}
}
