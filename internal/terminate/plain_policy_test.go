package terminate

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/oscorelay/oscorelay/internal/coap"
	"github.com/oscorelay/oscorelay/internal/endpoint"
	"github.com/oscorelay/oscorelay/internal/freeport"
	"github.com/oscorelay/oscorelay/internal/sim"
)

// A migration goes on from "observe" to "accept". Meanwhile somebody spoke in
// plain for a device that was heard sealed: from now on it is refused, and the
// device is sent nothing in plain, whatever it was heard as last.
func TestMigrationGoesOn(t *testing.T) {
	w := newWorld(t, func(s *settings, _ *sim.DeviceConfig) { s.Plain = PlainObserve })
	w.register()
	plain := w.plainDevice("dev1")
	if err := plain.Register(w.ctx); err != nil {
		t.Fatal(err)
	}
	w.eventually("it is heard plain", func(s state) bool { return len(s.Devices) == 1 && s.Devices[0].Plain })
	w.stop()
	w.cfg.Plain = PlainAccept
	w.start()
	if err := plain.Update(w.ctx); err == nil {
		t.Error("an Update in plain was passed for a device that was heard sealed")
	}
	if resp, err := plain.Do(w.ctx, register("ep=dev1", "lt=300")); err != nil || sim.CodeText(resp.Code) != "4.01" {
		t.Errorf("it registers in plain: %v, %v", sim.CodeText(resp.Code), err)
	}
	if resp, err := w.server.Do(w.ctx, "dev1", sim.ReadRequest("/3/0/0", 0)); err != nil || sim.CodeText(resp.Code) != "5.03" {
		t.Errorf("a read was answered %v, %v: it went out in plain", sim.CodeText(resp.Code), err)
	}
	// The device itself is back at once.
	w.register()
	w.do("2.05", sim.ReadRequest("/3/0/0", 0))
	if s := w.state(); s.Stats.Gauges["devices_plain"] != 0 || s.Stats.Counters["plain_downgrade"] == 0 {
		t.Errorf("%+v", s.Stats)
	}
}

// What is under way in plain ends with the policy that allowed it: a retransmission
// is not sent, an answer not believed, and the backend hears nothing of either.
func TestPolicyEndsWhatIsPlain(t *testing.T) {
	for _, unsafely := range []bool{false, true} {
		b := newBackend(t)
		g, d := plainGateway(t, b)
		code := coap.GET
		if unsafely {
			code = coap.POST
		}
		b.device = netip.AddrPortFrom(netip.MustParseAddr("127.64.1.0"), g.cfg.UpstreamPort)
		b.send(coap.Datagram{Type: coap.Confirmable, Code: code, MessageID: 7, Token: []byte{7}, Body: coap.AppendBody(nil, coap.Options{}.Add(coap.URIPath, []byte("3")), nil)})
		asked, ok := d.receive(5 * time.Second)
		if !ok || asked.Code != code {
			t.Fatalf("the device was asked %v, %v", asked, ok)
		}
		g.SetPolicies(PlainRefuse, endpoint.FreshWindow)
		d.send(coap.Datagram{Type: coap.Acknowledgement, Code: coap.Content, MessageID: asked.MessageID, Token: asked.Token, Body: coap.AppendPayload(nil, []byte("forged"))})
		if dg, ok := b.receive(10 * ackTimeout); ok && dg.Code.IsSuccess() {
			t.Errorf("unsafe %v: the backend was told %v", unsafely, dg)
		}
		if dg, ok := d.receive(10 * time.Millisecond); ok && dg.Code != coap.Empty {
			t.Errorf("unsafe %v: and it was sent %v", unsafely, dg)
		}
	}
}

// plainGateway is a gateway in this process, and a device that it has heard plain.
func plainGateway(t *testing.T, b *backend) (*Gateway, *backend) {
	t.Helper()
	base := t.TempDir()
	makeStore(t, base, newEntry("dev1", 0xd1))
	store, err := openStore(base, false)
	if err != nil {
		t.Fatal(err)
	}
	ring, err := store.Keyring(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	g, err := Listen(Config{
		Name: "test", Listen: netip.MustParseAddrPort("127.0.0.1:0"), Backend: b.conn.LocalAddr().(*net.UDPAddr).AddrPort(), UpstreamPort: freeport.Get(t),
		Store: store, Keyring: ring, Plain: PlainObserve, AckTimeout: ackTimeout,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- g.Serve(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := errors.Join(<-served, ring.Close(context.Background()), store.Close()); err != nil {
			t.Error(err)
		}
	})
	d := newBackend(t)
	d.device = g.Addr()
	d.send(coap.Datagram{Type: coap.Confirmable, Code: coap.POST, MessageID: 1, Token: []byte{1}, Body: coap.AppendBody(nil, coap.Options{}.Add(coap.URIPath, []byte("rd")).Add(coap.URIQuery, []byte("ep=dev1")), nil)})
	in, ok := b.receive(5 * time.Second)
	if !ok {
		t.Fatal("no registration")
	}
	b.send(coap.Datagram{Type: coap.Acknowledgement, Code: coap.Created, MessageID: in.MessageID, Token: in.Token, Body: coap.AppendBody(nil, coap.Options{}.Add(coap.LocationPath, []byte("rd")).Add(coap.LocationPath, []byte("1")), nil)})
	if dg, ok := d.receive(5 * time.Second); !ok || dg.Code != coap.Created {
		t.Fatalf("%v, %v", dg, ok)
	}
	return g, d
}

// A device asks for one observation twice before it is answered: it has one then,
// and nothing is left of the other.
func TestObservesTwiceAtOnce(t *testing.T) {
	b := newBackend(t)
	g, d := plainGateway(t, b)
	body := coap.AppendBody(nil, coap.Options{}.AddUint(coap.Observe, 0).Add(coap.URIPath, []byte("x")), nil)
	var asked []coap.Datagram
	for mid := range uint16(2) {
		d.send(coap.Datagram{Type: coap.Confirmable, Code: coap.GET, MessageID: 100 + mid, Token: []byte{9}, Body: body})
		dg, ok := b.receive(5 * time.Second)
		if !ok {
			t.Fatal("not passed on")
		}
		asked = append(asked, dg)
	}
	for _, dg := range asked {
		b.send(coap.Datagram{Type: coap.Acknowledgement, Code: coap.Content, MessageID: dg.MessageID, Token: dg.Token, Body: coap.AppendBody(nil, coap.Options{}.AddUint(coap.Observe, 1), nil)})
		if dg, ok := d.receive(5 * time.Second); !ok || dg.Code != coap.Content {
			t.Fatalf("%v, %v", dg, ok)
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if dev := g.devices["dev1"]; len(g.uplinks) != 1 || len(dev.observing) != 1 || g.observed != 1 || dev.up != 0 {
		t.Errorf("%d requests, %d observations, %d counted, %d under way", len(g.uplinks), len(dev.observing), g.observed, dev.up)
	}
}
