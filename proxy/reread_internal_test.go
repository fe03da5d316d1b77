package proxy

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/oscorelay/oscorelay/internal/coap"
)

// quiet is a proxy whose loops do not run.
func quiet(t *testing.T, cfg Config) *Proxy {
	t.Helper()
	cfg.Listen, cfg.Shards = "127.0.0.1:0", 1
	p, err := Listen(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.close)
	return p
}

// TestNames: requests for one name wait for one look-up, names that clients make
// up take nothing from those of routes, and a route's address outlives its name
// server.
func TestNames(t *testing.T) {
	asked, release := make(chan string, 2000), make(chan struct{})
	var fails bool // before release is closed
	p := quiet(t, Config{
		Forward: &Forward{Allow: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}}, Routes: []Route{{To: "origin.example:5683"}},
		Resolve: func(_ context.Context, host string) ([]netip.Addr, error) {
			asked <- host
			<-release
			if fails {
				return nil, errors.New("no answer")
			}
			return []netip.Addr{netip.MustParseAddr("192.0.2.1")}, nil
		},
	})
	sh := p.shards[0]
	results := make(chan *refusal, 2000)
	look := func(now time.Time, host string, open bool) {
		sh.mu.Lock()
		defer sh.mu.Unlock()
		sh.resolve(now, host, open, func(_ time.Time, _ netip.Addr, bad *refusal) { results <- bad })
	}
	now := time.Now()
	for i := range 1000 {
		look(now, "made-up-"+string(rune('a'+i%26))+string(rune('a'+i/26%26))+".example", true)
	}
	early := len(results)
	if early == 0 {
		t.Error("look-ups are not bounded")
	}
	for range 100 {
		look(now, "origin.example", false)
	}
	if len(results) != early {
		t.Error("a route's name is refused for the names that clients make up")
	}
	for range early {
		<-results
	}
	close(release)
	for range 1100 - early {
		if bad := <-results; bad != nil {
			t.Fatal(bad)
		}
	}
	n := 0
	for len(asked) > 0 {
		if <-asked == "origin.example" {
			n++
		}
	}
	if n != 1 {
		t.Errorf("%d look-ups of one name at a time", n)
	}
	sh.mu.Lock()
	fails = true
	sh.mu.Unlock()
	look(now.Add(2*time.Hour), "origin.example", false)
	if bad := <-results; bad != nil {
		t.Errorf("a route is lost with its name server: %+v", bad)
	}
	look(now.Add(2*time.Hour), "made-up-aa.example", true)
	if bad := <-results; bad == nil || bad.code != coap.BadGateway {
		t.Errorf("%+v", bad)
	}
}

// TestSpecialTargets: addresses of this machine, of its link and of groups are
// reached where they are listed themselves, not as part of everything.
func TestSpecialTargets(t *testing.T) {
	list := func(s ...string) *Forward {
		f := &Forward{}
		for _, p := range s {
			f.Allow = append(f.Allow, netip.MustParsePrefix(p))
		}
		return f
	}
	all := list("0.0.0.0/0", "::/0")
	for _, c := range []struct {
		forward *Forward
		addr    string
		ok      bool
	}{
		{all, "192.0.2.1", true},
		{all, "10.0.0.1", true},
		{all, "2001:db8::1", true},
		{all, "127.0.0.1", false},
		{all, "127.7.7.7", false},
		{all, "::1", false},
		{all, "::ffff:127.0.0.1", false},
		{all, "169.254.169.254", false},
		{all, "fe80::1", false},
		{all, "fe80::1%lo", false},
		{all, "0.0.0.0", false},
		{all, "::", false},
		{all, "224.0.1.187", false},
		{all, "ff02::fd", false},
		{all, "255.255.255.255", false},
		{list("127.0.0.1/1"), "127.0.0.1", false},
		{list("127.0.0.0/8"), "127.7.7.7", true},
		{list("127.0.0.1/32"), "127.0.0.1", true},
		{list("::1/128"), "::1", true},
		{list("169.254.0.0/16"), "169.254.1.1", true},
		{list("fe80::/10"), "fe80::1", true},
		{list("224.0.0.0/4", "ff00::/8", "0.0.0.0/32"), "224.0.1.187", false},
		{list("224.0.0.0/4", "ff00::/8", "0.0.0.0/32"), "0.0.0.0", false},
	} {
		p := quiet(t, Config{Forward: c.forward})
		bad := p.permitted(&plan{open: true}, netip.AddrPortFrom(netip.MustParseAddr(c.addr).Unmap(), 9))
		if (bad == nil) != c.ok || bad != nil && bad.code != coap.Forbidden {
			t.Errorf("%v with %v: %+v, want permitted: %v", c.addr, c.forward.Allow, bad, c.ok)
		}
	}
}

// TestDroppedLegLeavesNothing: what the message layer of a client's own port
// keeps is out of the count with the port.
func TestDroppedLegLeavesNothing(t *testing.T) {
	p := quiet(t, Config{PerClient: true, Routes: []Route{{To: "127.0.0.1:9"}}})
	sh := p.shards[0]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	now := time.Now()
	ex := sh.newExchange()
	ex.from, ex.client = sh.front, clientKey{peer: address{port: 1}}
	g, err := sh.ownLeg(now, ex)
	if err != nil {
		t.Fatal(err)
	}
	ev := g.layer.Receive(now, address{port: 2}, coap.Datagram{Type: coap.NonConfirmable, Code: coap.NotFound, MessageID: 1}.Append(nil))
	if err := g.layer.AcceptResponse(now, ev); err != nil {
		t.Fatal(err)
	}
	if sh.kept[1] == 0 {
		t.Fatal("nothing was kept")
	}
	if !sh.dropOwn(now.Add(2 * time.Second)) {
		t.Fatal("nothing was dropped")
	}
	if sh.kept[1] != 0 {
		t.Errorf("%d bytes of a port that is closed still count", sh.kept[1])
	}
	// What was read from its socket before it was closed comes to nothing.
	g.receive(now, address{port: 2}, coap.Datagram{Type: coap.Confirmable, Code: coap.GET, MessageID: 2}.Append(nil))
	if len(g.layer.Output()) != 0 || sh.kept[1] != 0 {
		t.Error("a port that is closed still works")
	}
}
