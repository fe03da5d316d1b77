//go:build soak

package soak

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"flag"
	"fmt"
	"maps"
	"math"
	mrand "math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/oscorelay/oscorelay/internal/capture"
	"github.com/oscorelay/oscorelay/internal/freeport"
	"github.com/oscorelay/oscorelay/internal/sim"
	"github.com/oscorelay/oscorelay/internal/sim/lwm2m"
	"github.com/oscorelay/oscorelay/keys"
	"github.com/oscorelay/oscorelay/keys/keyfile"
	"github.com/oscorelay/oscorelay/oscore"
	"github.com/oscorelay/oscorelay/oscore/gocoap"
)

var (
	soakKills   = flag.Int("soak.kills", 200, "how often the daemon is killed")
	soakDevices = flag.Int("soak.devices", 4, "devices")
	soakSeed    = flag.Uint64("soak.seed", 0, "repeat a run's choices; 0 makes new ones")
	soakKeep    = flag.String("soak.keep", "", "directory to keep the capture and the keys in")
)

const (
	// recovery bounds how long after a start everything takes to be as before.
	recovery = 15 * time.Second
	// ackTimeout is ACK_TIMEOUT of everybody: a second shows no more than a fifth.
	ackTimeout = 200 * time.Millisecond
	// patience is how long an operation may take: longer than MAX_TRANSMIT_WAIT
	// with that ACK_TIMEOUT.
	patience = 12 * time.Second
)

// soakDevice is a sealed device.
type soakDevice struct {
	*sim.Device
	s        *soak
	name     string
	context  Context
	location string
	id       string // of the registration

	mu    sync.Mutex
	value float64 // what /3303/0/5700 is
	seen  float64 // what the server was told last
	told  chan struct{}
	sends int

	writing sync.Mutex // a resource takes one body at a time (RFC 7959 §2.5)
}

// life is what is to happen to a process.
type life struct {
	startup bool // counted from its start, else from the burst
	onSync  bool // killed at the n-th flush, else at the n-th datagram
	n       int64
	after   bool // when that is done, else instead
	fault   syscall.Errno
	faultAt int64 // the first call that fails
	faults  int64 // how many
}

type soak struct {
	t      *testing.T
	ctx    context.Context
	rng    *mrand.Rand
	dir    string
	exe    string
	listen netip.AddrPort
	relay  *relay
	server *sim.Server
	device []*soakDevice

	run     *supervised
	now     life
	armed   atomic.Bool
	flushes atomic.Int64 // while armed
	calls   atomic.Int64
	grams   atomic.Int64
	dead    chan struct{} // closed when the plan has killed it
	die     func()
	started time.Time

	mu       sync.Mutex
	executes map[string]*Intent // by arguments
	writes   map[string]*Intent // by SHA-256
	sent     map[string]*Intent // by payload
	failed   map[string]int
	troubled int            // lives with faults so far
	trouble  bool           // this is one
	strange  map[string]int // events that should not be
	done     map[string]int
	injected map[string]int // failed calls
	exits    int            // by itself
	kinds    map[string]int
	replayed int
	took     []time.Duration
	tookBad  []time.Duration // after a life with faults
	bursts   sync.WaitGroup
}

// TestSoakDaemon kills oscored under traffic, with flushes that fail and disks
// that are full on the way, and asks the witness.
func TestSoakDaemon(t *testing.T) {
	s := newSoak(t)
	began := time.Now()
	s.begin(life{})
	s.register()
	hasty := false
	for i := range *soakKills {
		if !hasty {
			s.recover()
		}
		s.burst()
		s.relay.replay(s.rng, 4)
		s.armAndWait()
		hasty = i < *soakKills-1 && s.rng.IntN(4) == 0
		s.begin(s.plan(hasty))
		s.replayed += s.relay.replay(s.rng, 6)
		if t.Failed() {
			break
		}
		if (i+1)%50 == 0 {
			t.Logf("%d kills in %v", i+1, time.Since(began).Round(time.Second))
		}
	}
	s.end(time.Since(began))
}

func newSoak(t *testing.T) *soak {
	seed := *soakSeed
	if seed == 0 {
		seed = mrand.Uint64()
	}
	t.Logf("-soak.seed %d", seed)
	ctx, cancel := context.WithCancel(context.Background())
	s := &soak{
		t: t, ctx: ctx, rng: mrand.New(mrand.NewPCG(seed, 2)), dir: t.TempDir(),
		executes: map[string]*Intent{}, writes: map[string]*Intent{}, sent: map[string]*Intent{},
		failed: map[string]int{}, strange: map[string]int{}, done: map[string]int{}, injected: map[string]int{}, kinds: map[string]int{},
	}
	t.Cleanup(cancel)
	s.exe = filepath.Join(s.dir, "oscored")
	if out, err := exec.Command("go", "build", "-o", s.exe, "../../cmd/oscored").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var err error
	if s.server, err = sim.NewServer(sim.ServerConfig{AckTimeout: ackTimeout, Timeout: patience, Event: s.serverEvent}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.server.Close)
	s.listen = netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), freeport.Get(t))
	keep := s.dir
	if *soakKeep != "" {
		keep = *soakKeep
	}
	s.relay = newRelay(t, s.listen, filepath.Join(keep, "soak.pcap"))
	t.Cleanup(s.relay.end)
	var entries []keys.Entry
	for i := range *soakDevices {
		d := &soakDevice{s: s, name: fmt.Sprintf("dev%d", i+1), told: make(chan struct{}, 1)}
		secret := make([]byte, 16)
		_, _ = rand.Read(secret)
		p := oscore.Params{MasterSecret: secret, SenderID: []byte{0xd0, byte(i)}, RecipientID: []byte("srv")}
		if i%2 == 1 {
			p.IDContext = []byte("soak")
		}
		d.context = Context{Name: d.name, MasterSecret: secret, IDContext: p.IDContext, Device: p.SenderID, Server: p.RecipientID}
		e := keys.Entry{Name: "server", Params: p}
		ring := keys.New(keys.NewMemory())
		if _, err := ring.AddNew(ctx, e); err != nil {
			t.Fatal(err)
		}
		e = e.Peer()
		e.Name = d.name
		entries = append(entries, e)
		d.Device, err = sim.NewDevice(sim.DeviceConfig{
			Endpoint: d.name, Server: s.relay.addr().String(), OSCORE: &gocoap.Config{Keyring: ring}, Peer: "server",
			AckTimeout: ackTimeout, Timeout: patience, Lifetime: 24 * time.Hour, Confirm: i%3 == 2, Event: d.event,
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(d.Close)
		s.device = append(s.device, d)
	}
	b, err := keyfile.Append(nil, keyfile.TOML, entries, true)
	if err != nil {
		t.Fatal(err)
	}
	s.write("keys.toml", string(b))
	if *soakKeep != "" {
		if err := os.WriteFile(filepath.Join(keep, "keys.toml"), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s.write("oscored.toml", fmt.Sprintf(`drain = "1s"
keys.files = ["keys.toml"]
[store]
dir = "store"
anchor_dir = "anchors"
[admin]
listen = ""
[log]
level = "warn"
[[terminate]]
name = "soak"
listen = %q
backend = %q
upstream_port = %d
ack_timeout = %q
timeout = %q
`, s.listen, s.server.Addr(), freeport.Get(t), ackTimeout, patience))
	first := exec.Command(s.exe, "-config", "oscored.toml", "-init", "-fresh", "-once")
	first.Dir = s.dir
	if out, err := first.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Cleanup(func() {
		if s.run != nil {
			s.run.kill()
		}
	})
	return s
}

func (s *soak) write(name, text string) {
	if err := os.WriteFile(filepath.Join(s.dir, name), []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// plan chooses how the next life goes.
func (s *soak) plan(hasty bool) (l life) {
	l.after = s.rng.IntN(2) == 0
	switch {
	case hasty && s.rng.IntN(2) == 0: // within the start, or shortly after
		l.startup, l.onSync, l.n = true, true, 1+s.rng.Int64N(16)
	case s.rng.IntN(2) == 0:
		l.onSync, l.n = true, 1+s.rng.Int64N(24)
	default:
		l.n = 1 + s.rng.Int64N(int64(20*len(s.device)))
	}
	if hasty && !l.startup {
		l.n = 1 + l.n/4
	}
	switch s.rng.IntN(8) {
	case 0:
		l.fault, l.faultAt, l.faults = syscall.EIO, 1+s.rng.Int64N(16), 1
	case 1:
		l.fault, l.faultAt, l.faults = syscall.ENOSPC, 1+s.rng.Int64N(30), 1+s.rng.Int64N(40)
	}
	return l
}

// begin starts the daemon.
func (s *soak) begin(l life) {
	if s.run != nil {
		<-s.run.done
	}
	dead := make(chan struct{})
	s.now, s.dead = l, dead
	s.die = sync.OnceFunc(func() { close(dead) })
	s.flushes.Store(0)
	s.calls.Store(0)
	s.grams.Store(0)
	s.armed.Store(l.startup)
	kind := "datagram"
	if l.onSync {
		kind = "flush"
	}
	if l.startup {
		kind += " of the start"
	}
	s.mu.Lock()
	if s.trouble = l.fault != 0; s.trouble {
		s.troubled++
	}
	s.kinds["at a "+kind]++
	s.mu.Unlock()
	die := s.die
	var err error
	s.started = time.Now()
	judge := func(c call) verdict { return s.judge(&l, die, c) }
	if s.run, err = supervise(s.dir, l.fault == syscall.ENOSPC, judge, s.exe, "-config", "oscored.toml"); err != nil {
		s.t.Fatal(err)
	}
	run := s.run
	s.relay.setTap(func() {
		if !s.armed.Load() || l.onSync || l.startup {
			return
		}
		if s.grams.Add(1) == l.n {
			if l.after {
				go func() { die(); run.kill() }()
			} else {
				die()
				run.kill()
			}
		}
	})
}

// judge answers a call of the daemon.
func (s *soak) judge(l *life, die func(), c call) (v verdict) {
	if !s.armed.Load() || !strings.HasPrefix(c.path, s.dir+"/store") && !strings.HasPrefix(c.path, s.dir+"/anchors") {
		return v
	}
	if l.fault != 0 && c.flush == (l.fault == syscall.EIO) {
		if n := s.calls.Add(1); n >= l.faultAt && n < l.faultAt+l.faults {
			v.errno = l.fault
			s.mu.Lock()
			s.injected[l.fault.Error()]++
			s.mu.Unlock()
		}
	}
	if c.flush && l.onSync && s.flushes.Add(1) == l.n {
		if l.after {
			run := s.run
			time.AfterFunc(time.Duration(l.n%4)*time.Millisecond, func() { // how far it gets differs
				die()
				_ = run.cmd.Process.Kill()
			})
		} else {
			v.kill = true
			die()
		}
	}
	return v
}

// armAndWait lets the plan of this life come true: or ends it when the burst has
// come to its end, or after a while if the daemon is stuck by a fault.
func (s *soak) armAndWait() {
	s.armed.Store(true)
	idle := make(chan struct{})
	go func() { s.bursts.Wait(); close(idle) }()
	limit := patience + 5*time.Second
	if s.now.fault != 0 || s.now.startup {
		limit = 400 * time.Millisecond
	}
	select {
	case <-s.dead:
	case <-s.run.done:
		select {
		case <-s.dead:
		default:
			s.mu.Lock()
			s.exits++
			s.mu.Unlock()
		}
	case <-idle:
	case <-time.After(limit):
	}
	s.run.kill()
}

// register registers every device, and has the server observe it.
func (s *soak) register() {
	for _, d := range s.device {
		ctx, cancel := context.WithTimeout(s.ctx, recovery)
		defer cancel()
		d.set(1)
		err := d.Register(ctx)
		for err != nil && ctx.Err() == nil {
			err = d.Register(ctx)
		}
		if err != nil {
			s.t.Fatalf("%s: %v\n%s", d.name, err, s.run.out.String())
		}
		reg, err := s.server.WaitRegistered(ctx, d.name)
		if err != nil {
			s.t.Fatal(err)
		}
		d.location, d.id = d.Location(), reg.ID
		if _, _, err := s.server.Observe(ctx, d.name, sim.ReadRequest("/3303/0/5700", sim.NoFormat), d.notified); err != nil {
			s.t.Fatalf("%s: observe: %v\n%s", d.name, err, s.run.out.String())
		}
	}
}

// set changes the value that is observed: it only grows.
func (d *soakDevice) set(by float64) float64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.value += by
	if err := d.Objects().Set(lwm2m.MustPath("/3303/0/5700"), lwm2m.Num(d.value)); err != nil {
		d.s.t.Error(err)
	}
	return d.value
}

// notified is told what the server is told.
func (d *soakDevice) notified(r sim.Response) {
	v, err := strconv.ParseFloat(strings.TrimSpace(string(r.Payload)), 64)
	d.s.count("notification")
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case err != nil:
		d.s.t.Errorf("%s: a notification with code %s says %q", d.name, sim.CodeText(r.Code), r.Payload)
	case v < d.seen:
		d.s.t.Errorf("%s: BACK IN TIME: the server is told %v after %v", d.name, v, d.seen)
	}
	d.seen = v
	select {
	case d.told <- struct{}{}:
	default:
	}
}

func (s *soak) count(what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.done[what]++
}

// event counts what a device does.
func (d *soakDevice) event(e sim.Event) {
	s := d.s
	s.mu.Lock()
	defer s.mu.Unlock()
	var of *Intent
	switch e.Event {
	case "executed":
		of = s.executes[e.Query]
	case "package":
		of = s.writes[e.Sum]
	default:
		return
	}
	if of == nil || of.Device != d.name {
		s.t.Errorf("%s: %s of %q that nobody asked for", d.name, e.Event, e.Query+e.Sum)
		return
	}
	of.Times++
}

// serverEvent counts what reaches the server.
func (s *soak) serverEvent(e sim.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch e.Event {
	case "sent":
		if of := s.sent[string(e.Payload)]; of != nil && of.Device == e.Endpoint {
			of.Times++
			return
		}
		s.t.Errorf("Send of %q from %s that nobody made", e.Payload, e.Endpoint)
	case "registered", "updated", "notification":
		s.done[e.Event+" at the server"]++
	case "reset":
		// A request was answered, the daemon killed before it had noted that, and
		// its device asked again: the second answer is for nobody.
		s.done["answers given twice"]++
	default:
		s.strange[e.Event]++
	}
}

// try runs an operation of the burst.
func (s *soak) try(what string, of *Intent, do func(context.Context) error) {
	s.mu.Lock()
	excused, before := s.trouble, s.troubled
	s.mu.Unlock()
	s.bursts.Go(func() {
		err := do(s.ctx)
		s.mu.Lock()
		defer s.mu.Unlock()
		if err != nil {
			s.failed[what+": "+err.Error()]++
			if of != nil {
				of.Refused = strings.Contains(err.Error(), "5.03")
			}
			if !excused && before == s.troubled {
				s.t.Errorf("%s fails where nothing but kills happened: %v", what, err)
			}
			return
		}
		s.done[what]++
		if of != nil {
			of.Success = true
		}
	})
}

// burst begins a mix of everything, with every device.
func (s *soak) burst() {
	for _, d := range s.device {
		n := s.rng.Uint64()
		arguments := fmt.Sprintf("0='%d'", n)
		body := fmt.Appendf(nil, "package %d ", n)
		for size := 2000 + s.rng.IntN(3000); len(body) < size; {
			body = append(body, byte(s.rng.Uint32()))
		}
		sum := sha256.Sum256(body)
		execute, write := &Intent{Device: d.name, Payload: arguments}, &Intent{Device: d.name, Payload: hex.EncodeToString(sum[:])}
		d.sends++
		value := float64(d.sends)
		send := &Intent{Device: d.name, Payload: string(s.sendPayload(d, value))}
		s.mu.Lock()
		s.executes[arguments], s.writes[write.Payload], s.sent[send.Payload] = execute, write, send
		s.mu.Unlock()
		s.try("read", nil, func(ctx context.Context) error {
			r, err := s.server.Read(ctx, d.name, "/3/0/0", sim.NoFormat)
			if err == nil && string(r.Payload) != "Open Mobile Device" {
				s.t.Errorf("%s: read %q", d.name, r.Payload)
			}
			return err
		})
		s.try("execute", execute, func(ctx context.Context) error { return s.server.Execute(ctx, d.name, "/3/0/4", arguments) })
		if s.rng.IntN(2) == 0 {
			s.try("write", write, func(ctx context.Context) error {
				d.writing.Lock()
				defer d.writing.Unlock()
				return s.server.Write(ctx, d.name, "/5/0/0", lwm2m.Replace, lwm2m.Octets, body)
			})
		}
		s.try("update", nil, d.Update)
		d.set(1)
		s.try("send", send, func(ctx context.Context) error {
			r, err := d.Do(ctx, sim.Request{Method: 2, Path: "/dp", Accept: sim.NoFormat, Format: lwm2m.SenMLCBOR, Payload: []byte(send.Payload)})
			if err == nil {
				err = r.Err()
			}
			return err
		})
	}
}

// sendPayload is what a Send carries: nobody else's, and never again.
func (s *soak) sendPayload(d *soakDevice, value float64) []byte {
	i := slices.Index(s.device, d)
	b, err := lwm2m.Encode(lwm2m.SenMLCBOR, lwm2m.Path{}, []lwm2m.Record{{
		Path: lwm2m.MustPath("/3303/1/5700"), Value: lwm2m.Num(value + float64(i)*math.Pow(2, 24)),
	}})
	if err != nil {
		s.t.Error(err)
	}
	return b
}

// recover waits until everything is as before the kill, with nobody's help.
func (s *soak) recover() {
	faulty := s.now.fault != 0
	ctx, cancel := context.WithTimeout(s.ctx, recovery)
	defer cancel()
	var all sync.WaitGroup
	for _, d := range s.device {
		value := d.set(1)
		all.Go(func() {
			err := d.Update(ctx)
			for err != nil && ctx.Err() == nil {
				err = d.Update(ctx)
			}
			if err != nil {
				s.t.Errorf("%s is not back: update: %v", d.name, err)
				return
			}
			if d.Location() != d.location {
				s.t.Errorf("%s had to register again: %s, was %s", d.name, d.Location(), d.location)
			}
			if reg, ok := s.server.Registration(d.name); !ok || reg.ID != d.id {
				s.t.Errorf("the server knows %s as %q, was %q", d.name, reg.ID, d.id)
			}
		})
		all.Go(func() {
			for {
				d.mu.Lock()
				seen := d.seen
				d.mu.Unlock()
				if seen >= value {
					return
				}
				select {
				case <-d.told:
				case <-ctx.Done():
					s.t.Errorf("%s is not back: the server is told %v, it is %v", d.name, seen, value)
					return
				}
			}
		})
	}
	all.Wait()
	took := time.Since(s.started)
	s.mu.Lock()
	if faulty {
		s.tookBad = append(s.tookBad, took)
	} else {
		s.took = append(s.took, took)
	}
	s.mu.Unlock()
	if s.t.Failed() {
		s.t.Logf("this life: %+v\n%s", s.now, s.run.out.String())
	}
}

// end asks the witness.
func (s *soak) end(took time.Duration) {
	t := s.t
	if !t.Failed() {
		s.recover()
	}
	s.bursts.Wait()
	s.run.kill()
	observers := 0
	for _, d := range s.device {
		observers = max(observers, len(d.Observers()))
		d.Close()
	}
	s.relay.end()
	f, err := os.Open(s.relay.file.Name())
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	packets, left, err := capture.Read(f)
	if err != nil || left != (capture.Left{}) {
		t.Errorf("capture: %+v, %v", left, err)
	}
	var contexts []Context
	for _, d := range s.device {
		contexts = append(contexts, d.context)
	}
	r, err := Check(packets, s.listen, contexts...)
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range r.Faults[:min(len(r.Faults), 20)] {
		t.Error(err)
	}
	if r.Foreign+r.Unmatched > 0 {
		t.Errorf("%d messages under no known key, %d answers to nothing: %v", r.Foreign, r.Unmatched, r.strays)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	intents := Intents{slices.Collect(maps.Values(s.executes)), slices.Collect(maps.Values(s.writes)), slices.Collect(maps.Values(s.sent))}
	o, faults := intents.Judge(r)
	for _, err := range faults {
		t.Error(err)
	}
	t.Logf("%d executes, %d of them never ran; %d writes; %d Sends, %d of them handled again as a new message after a kill", len(s.executes), o.Unexecuted, len(s.writes), len(s.sent), o.Again)
	if n := s.done["registered at the server"]; n != len(s.device) {
		t.Errorf("%d registrations of %d devices", n, len(s.device))
	}
	if len(s.strange) > 0 {
		t.Errorf("the server noticed: %v", s.strange)
	}
	quantiles := func(all []time.Duration) string {
		if len(all) == 0 {
			return "none"
		}
		slices.Sort(all)
		return fmt.Sprintf("median %v, 95%% %v, longest %v of %d", all[len(all)/2].Round(time.Millisecond), all[len(all)*19/20].Round(time.Millisecond), all[len(all)-1].Round(time.Millisecond), len(all))
	}
	t.Logf("%d kills in %v, %v; calls that failed: %v; the daemon ended by itself %d times", *soakKills, took.Round(time.Second), s.kinds, s.injected, s.exits)
	t.Logf("%d datagrams: %d sealed under %d nonces, %d sent again, %d Echo challenges, %d notifications, %d empty, %d plain errors; %d replays thrown in",
		r.Datagrams, r.Sealed, r.Nonces, r.Repeats, r.Challenge, r.Notified, r.Empty, r.Errors, s.replayed)
	t.Logf("recovery from the start of the process: %s; in lives with faults: %s", quantiles(s.took), quantiles(s.tookBad))
	t.Logf("succeeded: %v\nfailed: %v\nobservers left at one device: %d at most", s.done, s.failed, observers)
	if r.Repeats == 0 || r.Challenge == 0 || s.done["execute"] == 0 || s.done["send"] == 0 || s.done["write"] == 0 {
		t.Error("the run proves nothing: nothing was repeated, challenged, executed, sent or written")
	}
}
