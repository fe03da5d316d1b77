package terminate

import (
	"net/netip"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"

	"github.com/oscorelay/oscorelay/internal/coap"
	"github.com/oscorelay/oscorelay/internal/freeport"
)

// One context may come in at two routes. What one of them has under way, and where
// it knows the device, is nothing to the other: it would ask for the observations
// of a backend on behalf of another, and answer it what it has not asked.
func TestRoutesOfOneContext(t *testing.T) {
	b := newBackend(t)
	g, d := plainGateway(t, b)
	b.send(coap.Datagram{Type: coap.Confirmable, Code: coap.GET, MessageID: 7, Token: []byte{7}, Body: coap.AppendBody(nil, coap.Options{}.AddUint(coap.Observe, 0).Add(coap.URIPath, []byte("3")), nil)})
	asked, ok := d.receive(5 * time.Second)
	if !ok {
		t.Fatal("the device was not asked")
	}
	d.send(coap.Datagram{Type: coap.Acknowledgement, Code: coap.Content, MessageID: asked.MessageID, Token: asked.Token, Body: coap.AppendBody(nil, coap.Options{}.AddUint(coap.Observe, 1), nil)})
	if dg, ok := b.receive(5 * time.Second); !ok || dg.Code != coap.Content {
		t.Fatalf("%v, %v", dg, ok)
	}
	dev, err := g.load("dev1")
	if err != nil {
		t.Fatal(err)
	}
	data, err := cbor.Marshal(record{Code: byte(coap.POST), Datagram: coap.Datagram{Code: coap.POST}.Append(nil), Remote: g.Addr().String()})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := g.cfg.Store.Begin(t.Context(), g.exchange(&downlink{dev: dev, mid: 9, token: []byte{9}}), data, time.Now()); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]int{"other": 0, "test": 1} {
		cfg := g.cfg
		cfg.Name, cfg.Listen, cfg.UpstreamPort = name, netip.MustParseAddrPort("127.0.0.1:0"), freeport.Get(t)
		x, err := Listen(cfg)
		if err != nil {
			t.Fatal(err)
		}
		again, err := x.load("dev1")
		if err != nil {
			t.Fatal(err)
		}
		if n := x.Stats().Gauges["observations_dormant"]; n != want || len(x.journal) != want || (again.location == "/rd/1") != (want == 1) || again.at.remote.IsValid() != (want == 1) {
			t.Errorf("route %q: %d observations and %d unsafe requests to take up, registered at %q, heard from %v", name, n, len(x.journal), again.location, again.at)
		}
		_ = x.front.Close()
		x.back.close()
		if err := x.db.close(); err != nil {
			t.Error(err)
		}
	}
}
