package terminate

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"net"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"github.com/oscorelay/oscorelay/internal/endpoint"
	"github.com/oscorelay/oscorelay/internal/sim"
	"github.com/oscorelay/oscorelay/keys"
	"github.com/oscorelay/oscorelay/keys/bolt"
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
	cfg    Config
	run    *running
	device *sim.Device
	ring   *keys.Keyring // the device's
}

// running is a gateway at work.
type running struct {
	g       *Gateway
	store   *bolt.Store
	ring    *keys.Keyring
	stop    context.CancelFunc
	stopped chan error
}

func entry0(name string, kid byte) keys.Entry {
	secret := make([]byte, 16)
	_, _ = rand.Read(secret)
	return keys.Entry{Name: name, Params: oscore.Params{MasterSecret: secret, SenderID: []byte{0x51}, RecipientID: []byte{kid}}}
}

func newWorld(t *testing.T, change func(*Config, *sim.DeviceConfig)) *world {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	t.Cleanup(cancel)
	w := &world{t: t, ctx: ctx, base: t.TempDir()}
	var err error
	if w.server, err = sim.NewServer(sim.ServerConfig{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.server.Close)
	e := entry0("dev1", 0xd1)
	w.cfg = Config{
		Name: "test", Listen: netip.MustParseAddrPort("127.0.0.1:0"), Backend: w.server.Addr().AddrPort(),
		Freshness: endpoint.FreshUnsafe, UpstreamPort: freePort(t), AckTimeout: 300 * time.Millisecond,
	}
	dc := sim.DeviceConfig{Endpoint: "dev1", Peer: "gateway", AckTimeout: 300 * time.Millisecond}
	if change != nil {
		change(&w.cfg, &dc)
	}
	w.start(true, e)
	w.cfg.Listen = w.run.g.Addr() // where it comes back
	w.ring = keys.New(keys.NewMemory())
	p := e.Peer()
	p.Name = "gateway"
	if _, err := w.ring.AddNew(ctx, p); err != nil {
		t.Fatal(err)
	}
	dc.OSCORE = &gocoap.Config{Keyring: w.ring}
	w.relay = newRelay(t, w.cfg.Listen)
	dc.Server = w.relay.addr.String()
	if w.device, err = sim.NewDevice(dc); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.device.Close)
	return w
}

func freePort(t *testing.T) uint16 {
	t.Helper()
	c, err := net.ListenUDP("udp4", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	return c.LocalAddr().(*net.UDPAddr).AddrPort().Port()
}

// start starts a gateway on the store.
func (w *world) start(init bool, entries ...keys.Entry) {
	w.t.Helper()
	store, err := bolt.Open(filepath.Join(w.base, "store"), bolt.Options{Init: init, AnchorDir: filepath.Join(w.base, "anchors")})
	if err != nil {
		w.t.Fatal(err)
	}
	if len(entries) > 0 {
		if err := store.Put(w.ctx, true, entries...); err != nil {
			w.t.Fatal(err)
		}
	}
	ring, err := store.Keyring(w.ctx)
	if err != nil {
		w.t.Fatal(err)
	}
	w.cfg.Store, w.cfg.Keyring = store, ring
	g, err := Listen(w.cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	w.run = &running{g: g, store: store, ring: ring, stop: stop, stopped: make(chan error, 1)}
	go func(r *running) { r.stopped <- r.g.Serve(ctx) }(w.run)
	w.t.Cleanup(w.stop)
}

// stop ends it in order.
func (w *world) stop() {
	r := w.run
	if r == nil {
		return
	}
	w.run = nil
	r.stop()
	if err := <-r.stopped; err != nil {
		w.t.Error(err)
	}
	if err := errors.Join(r.ring.Close(context.Background()), r.store.Close()); err != nil {
		w.t.Error(err)
	}
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
	seen [][]byte
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
			r.seen = append(r.seen, data)
			up := from != r.to
			if r.tap != nil && !r.tap(up, data) {
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

func TestRegisterAndRead(t *testing.T) {
	w := newWorld(t, nil)
	w.register()
	if resp := w.do("2.05", sim.ReadRequest("/3/0/0", sim.NoFormat)); string(resp.Payload) != "Open Mobile Device" {
		t.Errorf("%q", resp.Payload)
	}
}
