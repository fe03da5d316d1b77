package terminate

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/oscorelay/oscorelay/internal/freeport"
	"github.com/oscorelay/oscorelay/internal/sim"
	"github.com/oscorelay/oscorelay/keys"
	"github.com/oscorelay/oscorelay/oscore"
	"github.com/oscorelay/oscorelay/oscore/gocoap"
)

// world is a sealed device, a gateway, and a plain server that notices nothing.
//
//	device ══ relay ══ gateway ── server
type world struct {
	t      *testing.T
	ctx    context.Context
	base   string
	server *sim.Server
	relay  *relay // where the device sends to, before and after a restart
	cfg    settings
	run    *process
	device *sim.Device
	ring   *keys.Keyring // the device's
	entry  keys.Entry    // the gateway's
}

func newEntry(name string, kid byte) keys.Entry {
	secret := make([]byte, 16)
	_, _ = rand.Read(secret)
	return keys.Entry{Name: name, Params: oscore.Params{MasterSecret: secret, SenderID: []byte{0x51}, RecipientID: []byte{kid}}}
}

func newWorld(t *testing.T, change func(*settings, *sim.DeviceConfig)) *world {
	t.Helper()
	return newWorldWith(t, newEntry("dev1", 0xd1), change)
}

func newWorldWith(t *testing.T, e keys.Entry, change func(*settings, *sim.DeviceConfig)) *world {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	t.Cleanup(cancel)
	w := &world{t: t, ctx: ctx, base: t.TempDir()}
	var err error
	w.entry = e
	w.cfg = settings{Base: w.base, Listen: "127.0.0.1:0", Backend: "127.0.0.1:0", UpstreamPort: freeport.Get(t)}
	dc := sim.DeviceConfig{Endpoint: "dev1", Peer: "gateway", AckTimeout: ackTimeout}
	if change != nil {
		change(&w.cfg, &dc)
	}
	if w.cfg.Backend != "127.0.0.1:0" { // the test has its own
	} else if w.server, err = sim.NewServer(sim.ServerConfig{Listen: w.cfg.Backend, AckTimeout: ackTimeout}); err != nil {
		t.Fatal(err)
	}
	if w.server != nil {
		t.Cleanup(w.server.Close)
		w.cfg.Backend = w.server.Addr().String()
	}
	if w.cfg.Context != (oscore.Settings{}) {
		w.entry.Settings = w.cfg.Context
	}
	makeStore(t, w.base, w.entry)
	w.start()
	w.cfg.Listen = w.run.addr.String() // where it comes back
	w.ring = keys.New(keys.NewMemory())
	p := w.entry.Peer()
	p.Name = "gateway"
	if w.cfg.Context.Rederive != oscore.RoleNone {
		p.Settings = oscore.Settings{Rederive: oscore.RoleClient, RederiveOnStart: true}
	}
	if _, err := w.ring.AddNew(ctx, p); err != nil {
		t.Fatal(err)
	}
	dc.OSCORE = &gocoap.Config{Keyring: w.ring}
	w.relay = newRelay(t, w.run.addr)
	dc.Server = w.relay.addr.String()
	if w.device, err = sim.NewDevice(dc); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.device.Close)
	return w
}

// register registers the device and waits until the server knows.
func (w *world) register() {
	w.t.Helper()
	if err := w.device.Register(w.ctx); err != nil {
		w.t.Fatal(err)
	}
}

// do has the server ask the device, and wants a code.
func (w *world) do(code string, r sim.Request) sim.Response {
	w.t.Helper()
	resp, err := w.server.Do(w.ctx, "dev1", r)
	if err != nil {
		w.t.Fatalf("%s %s: %v", r.Method, r.Path, err)
	}
	if got := sim.CodeText(resp.Code); got != code {
		w.t.Fatalf("%s %s: %s %q, want %s", r.Method, r.Path, got, resp.Payload, code)
	}
	return resp
}

// relay is a hop between the device and the gateway that a test can hold up. It
// captures everything.
type relay struct {
	addr netip.AddrPort
	conn *net.UDPConn
	to   netip.AddrPort
	tap  func(up bool, data []byte) (pass bool)
	mu   sync.Mutex
	seen [][]byte
}

// capture returns what came by so far.
func (r *relay) capture() [][]byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.seen)
}

// setTap has what comes by judged from now on.
func (r *relay) setTap(f func(up bool, data []byte) bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tap = f
}

func newRelay(t *testing.T, to netip.AddrPort) *relay {
	t.Helper()
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{conn: conn, addr: conn.LocalAddr().(*net.UDPAddr).AddrPort(), to: to}
	done := make(chan struct{})
	go func() {
		defer close(done)
		var device netip.AddrPort
		buf := make([]byte, 65536)
		for {
			n, from, err := conn.ReadFromUDPAddrPort(buf)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil {
				continue
			}
			data := bytes.Clone(buf[:n])
			up := from != r.to
			r.mu.Lock()
			r.seen = append(r.seen, data)
			tap := r.tap
			r.mu.Unlock()
			if tap != nil && !tap(up, data) {
				continue
			}
			if up {
				device = from
				_, _ = conn.WriteToUDPAddrPort(data, r.to)
			} else {
				_, _ = conn.WriteToUDPAddrPort(data, device)
			}
		}
	}()
	t.Cleanup(func() { conn.Close(); <-done })
	return r
}
