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
