package main

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/oscorelay/oscorelay/internal/capture"
	"github.com/oscorelay/oscorelay/internal/freeport"
	"github.com/oscorelay/oscorelay/internal/sim"
	"github.com/oscorelay/oscorelay/internal/soak"
	"github.com/oscorelay/oscorelay/interop/peer"
	"github.com/oscorelay/oscorelay/keys"
	"github.com/oscorelay/oscorelay/oscore"
	"github.com/oscorelay/oscorelay/oscore/gocoap"
)

// history is a sealed device, a relay that captures, and an oscored whose store
// something happens to.
type history struct {
	*process
	ctx    context.Context
	server *sim.Server
	relay  *peer.Relay
	device *sim.Device
	before soak.Context // before anything happened
	mark   time.Time    // when it had happened
}

func newHistory(t *testing.T, role oscore.Role) *history {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	h := &history{ctx: ctx, server: newServer(t)}
	e := keys.Entry{Name: "server", Params: oscore.Params{MasterSecret: random(16), SenderID: []byte{1}, RecipientID: []byte("srv"), IDContext: []byte("first")}}
	e.Settings.Rederive = role
	ring := keys.New(keys.NewMemory())
	if _, err := ring.AddNew(ctx, e); err != nil {
		t.Fatal(err)
	}
	h.before = soak.Context{Name: "boiler", MasterSecret: e.Params.MasterSecret, IDContext: e.Params.IDContext, Device: e.Params.SenderID, Server: e.Params.RecipientID}
	entry := e.Peer()
	entry.Name = "boiler"
	h.process = newProcess(t, h.server.Addr().String(), []keys.Entry{entry}, "ack_timeout = \"300ms\"\n")
	h.start(nil, "-init", "-fresh")
	h.relay = peer.NewRelay(t, netip.MustParseAddrPort(h.addr()))
	var err error
	h.device, err = sim.NewDevice(sim.DeviceConfig{
		Endpoint: "boiler", Server: h.relay.Addr().String(), OSCORE: &gocoap.Config{Keyring: ring}, Peer: "server", AckTimeout: 300 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.device.Close)
	if err := h.device.Register(ctx); err != nil {
		t.Fatal(err, h.said())
	}
	h.read(t)
	return h
}

func (h *history) read(t *testing.T) {
	t.Helper()
	if r, err := h.server.Read(h.ctx, "boiler", "/3/0/0", sim.NoFormat); err != nil || string(r.Payload) != "Open Mobile Device" {
		t.Fatalf("%q, %v\n%s", r.Payload, err, h.said())
	}
}

func (h *history) name(parts ...string) string {
	return filepath.Join(append([]string{h.dir}, parts...)...)
}

// must fails the test for an error of the file system.
func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// copyTo copies the store, as cp -p does.
func (h *history) copyTo(t *testing.T, name string) {
	t.Helper()
	must(t, os.Mkdir(h.name(name), 0o700))
	all, err := os.ReadDir(h.name("store"))
	must(t, err)
	for _, f := range all {
		b, err := os.ReadFile(h.name("store", f.Name()))
		must(t, err)
		must(t, os.WriteFile(h.name(name, f.Name()), b, 0o600))
	}
}

// elsewhere changes the configuration to another directory of the store.
func (h *history) elsewhere(t *testing.T, store string) {
	t.Helper()
	b, err := os.ReadFile(h.name("oscored.toml"))
	must(t, err)
	h.write("oscored.toml", strings.Replace(string(b), `dir = "store"`, `dir = "`+store+`"`, 1)+"\n")
	h.store = store
}

// work makes traffic, so that a copy of before is old.
func (h *history) work(t *testing.T) {
	t.Helper()
	for range 3 {
		h.read(t)
		if err := h.device.Update(h.ctx); err != nil {
			t.Fatal(err, h.said())
		}
	}
}

// histories are what may happen to a store between two starts. Each leaves the
// daemon running again.
var histories = []struct {
	name string
	do   func(t *testing.T, h *history)
	says string
}{
	{"lost", func(t *testing.T, h *history) {
		h.end(syscall.SIGKILL)
		must(t, os.RemoveAll(h.name("store")))
		h.run(nil)
		h.exits(exitStore)
		if said := h.said(); !strings.Contains(said, "the store is missing") || !strings.Contains(said, "-init") {
			t.Errorf("it says\n%s", said)
		}
		h.start(nil, "-init")
	}, "oscored ctl contexts add -fresh"},
	{"restored, from a copy of a running store", func(t *testing.T, h *history) {
		h.copyTo(t, "backup")
		h.work(t)
		h.end(syscall.SIGKILL)
		h.start(nil)
		h.work(t)
		h.end(syscall.SIGKILL)
		restore(t, h)
		h.start(nil)
	}, "an old state was restored"},
	{"restored, from a copy after a clean stop", func(t *testing.T, h *history) {
		h.end(syscall.SIGTERM)
		h.copyTo(t, "backup")
		h.start(nil)
		h.work(t)
		h.end(syscall.SIGTERM)
		restore(t, h)
		h.start(nil)
	}, "an old state was restored"},
	{"copied", func(t *testing.T, h *history) {
		h.end(syscall.SIGKILL)
		h.copyTo(t, "copy")
		h.elsewhere(t, "copy")
		h.start(nil)
	}, "the directory is a copy of"},
	{"without its anchor", func(t *testing.T, h *history) {
		h.end(syscall.SIGKILL)
		all, err := filepath.Glob(h.name("anchors", "*.anchor"))
		must(t, err)
		if len(all) != 1 {
			t.Fatalf("anchors: %v", all)
		}
		must(t, os.Remove(all[0]))
		h.start(nil)
	}, "no anchor for the store"},
}

// restore puts the backup's file into the directory, as tar and rsync do.
func restore(t *testing.T, h *history) {
	t.Helper()
	b, err := os.ReadFile(h.name("backup", "store.db"))
	must(t, err)
	must(t, os.WriteFile(h.name("store", "store.db"), b, 0o600))
}

// witness reads what went over the wire.
func (h *history) witness(t *testing.T) *soak.Report {
	t.Helper()
	server := netip.MustParseAddrPort("192.0.2.1:5683") // whichever it was
	var packets []capture.Packet
	for _, d := range h.relay.Capture() {
		p := capture.Packet{At: d.At, From: d.Client, To: server, Data: d.Bytes}
		if !d.ToServer {
			p.From, p.To = p.To, p.From
		}
		packets = append(packets, p)
	}
	r, err := soak.Check(packets, server, h.before)
	must(t, err)
	for _, err := range r.Faults {
		t.Errorf("%v\n%s", err, h.said())
	}
	return r
}

// sealed counts what either end sealed under the context of before, since a time.
func sealed(r *soak.Report, since time.Time) (up, down int) {
	for _, m := range r.Messages {
		switch {
		case m.At.Before(since):
		case m.ToServer:
			up++
		default:
			down++
		}
	}
	return up, down
}

// sealedNone: since it happened the daemon sealed nothing under the old context;
// though the device did, if it is refused, or under another one.
func (h *history) sealedNone(t *testing.T, refused bool) {
	t.Helper()
	r := h.witness(t)
	if up, down := sealed(r, time.Time{}); up == 0 || down == 0 {
		t.Errorf("the witness saw %d messages up and %d down", up, down)
	}
	if _, down := sealed(r, h.mark); down > 0 || r.Sealed <= len(r.Messages) && !refused {
		t.Errorf("%d messages of the daemon under a context whose history is unknown, of %d; %d under other contexts", down, r.Sealed, r.Sealed-len(r.Messages))
	}
	if up, _ := sealed(r, h.mark); refused && up == 0 {
		t.Error("the device sent nothing")
	}
}

// TestUnknownHistory: whatever happens to the store, nothing is sealed under
// numbers that may have been used, and the operator is told what to do.
func TestUnknownHistory(t *testing.T) {
	for _, c := range histories {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			h := newHistory(t, 0)
			c.do(t, h)
			h.mark = time.Now()
			short, cancel := context.WithTimeout(h.ctx, 1500*time.Millisecond)
			defer cancel()
			if err := h.device.Update(short); err == nil {
				t.Error("the device is served")
			}
			var stuck devicesView
			h.api("GET", "/api/stuck", &stuck)
			if len(stuck.Devices) != 1 || stuck.Devices[0].Name != "boiler" || !strings.Contains(stuck.Devices[0].Stuck, "may not seal") || stuck.Devices[0].Next != keys.Mend {
				t.Errorf("stuck: %+v", stuck.Devices)
			}
			short, cancel = context.WithTimeout(h.ctx, 1500*time.Millisecond)
			defer cancel()
			var refused *sim.CodeError
			if _, err := h.server.Read(short, "boiler", "/3/0/0", sim.NoFormat); !errors.As(err, &refused) || sim.CodeText(refused.Code) != "5.03" {
				t.Errorf("the server reads: %v", err)
			}
			h.sealedNone(t, true)

			var v contextsView
			if status := h.api("GET", "/api/contexts?tainted=1", &v); status != 200 || len(v.Contexts) != 1 ||
				v.Contexts[0].Name != "boiler" || !strings.Contains(v.Contexts[0].Tainted, keys.Mend) {
				t.Errorf("%d, %+v", status, v)
			}
			if said := h.said(); !strings.Contains(said, c.says) || !strings.Contains(said, "tainted") {
				t.Errorf("the log has no %q\n%s", c.says, said)
			}
			// And it stays so: starting again is no cure.
			h.end(syscall.SIGTERM)
			h.start(nil)
			again, cancel := context.WithTimeout(h.ctx, 700*time.Millisecond)
			defer cancel()
			if err := h.device.Update(again); err == nil {
				t.Error("the device is served after one more start")
			}
			h.sealedNone(t, true)
		})
	}
}

// TestUnknownHistoryMendsItself: where both ends know Appendix B.2 of RFC 8613, a
// device is back by itself: with what it sends next, or with what the server asks
// next, if the store still knows where the device is.
func TestUnknownHistoryMendsItself(t *testing.T) {
	for _, c := range histories {
		for _, first := range []string{"device", "server"} {
			if c.name == "lost" && first == "server" {
				continue
			}
			t.Run(c.name+", the "+first+" first", func(t *testing.T) {
				t.Parallel()
				h := newHistory(t, oscore.RoleClient|oscore.RoleServer)
				c.do(t, h)
				h.mark = time.Now()
				if first == "server" {
					h.read(t)
				}
				if err := h.device.Update(h.ctx); err != nil {
					t.Fatalf("not back: %v\n%s", err, h.said())
				}
				h.read(t)
				h.work(t)
				h.sealedNone(t, false)
				var v contextsView
				if h.api("GET", "/api/contexts?tainted=1", &v); len(v.Contexts) != 0 {
					t.Errorf("still tainted: %+v", v)
				}
				// It lasts.
				h.end(syscall.SIGKILL)
				h.start(nil)
				h.work(t)
				h.sealedNone(t, false)
			})
		}
	}
}

// TestSecondDaemonOnACopy: a daemon on a copy of a store in use is refused where it
// can be seen that it is one, and seals nothing where it cannot, on another
// machine. The first goes on.
func TestSecondDaemonOnACopy(t *testing.T) {
	h := newHistory(t, 0)
	h.copyTo(t, "copy")
	b, err := os.ReadFile(h.name("oscored.toml"))
	must(t, err)
	text := string(b)
	ports := map[string]int{}
	for name, port := range h.ports {
		ports[name] = int(freeport.Get(t))
		text = strings.ReplaceAll(text, strconv.Itoa(port), strconv.Itoa(ports[name]))
	}
	another := func(file, store, anchors string) *process {
		p := &process{t: t, dir: h.dir, ports: ports, file: file, store: store}
		p.write(file, strings.NewReplacer(`dir = "store"`, `dir = "`+store+`"`, `anchor_dir = "anchors"`, `anchor_dir = "`+anchors+`"`).Replace(text))
		return p
	}
	for _, store := range []string{"store", "copy"} {
		p := another("refused.toml", store, "anchors")
		p.run(nil)
		p.exits(exitFailed)
		if said := p.said(); !strings.Contains(said, "in use by process "+strconv.Itoa(h.cmd.Process.Pid)) {
			t.Errorf("on %s it says\n%s", store, said)
		}
	}
	h.work(t)
	second := &history{process: another("elsewhere.toml", "copy", "other-anchors"), ctx: h.ctx, server: h.server, relay: h.relay, device: h.device, before: h.before}
	second.start(nil)
	if said := second.said(); !strings.Contains(said, "no anchor for the store") {
		t.Errorf("it says\n%s", said)
	}
	h.work(t)
	second.mark = time.Now()
	h.relay.Retarget(netip.MustParseAddrPort(second.addr()))
	short, cancel := context.WithTimeout(h.ctx, 1500*time.Millisecond)
	defer cancel()
	if err := h.device.Update(short); err == nil {
		t.Error("the device is served by the copy")
	}
	up, down := sealed(second.witness(t), second.mark)
	if up == 0 || down > 0 {
		t.Errorf("%d messages of the device reached the copy, and it sealed %d", up, down)
	}
	h.relay.Retarget(netip.MustParseAddrPort(h.addr()))
	h.work(t)
	if _, after := sealed(h.witness(t), second.mark); after < 6 {
		t.Errorf("the first sealed %d messages", after)
	}
}
