//go:build interop

package interop

import (
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/oscorelay/oscorelay/internal/proof"
	"github.com/oscorelay/oscorelay/interop/ours"
	"github.com/oscorelay/oscorelay/interop/peer"
	"github.com/oscorelay/oscorelay/oscore/gocoap"
	"github.com/plgd-dev/go-coap/v3/message/codes"
)

// TestHarnessEchoAfterKill kills aiocoap's server while it runs; the one that
// comes back asks for an Echo (RFC 8613 Appendix B.1.2), and libOSCORE's
// client gives it.
func TestHarnessEchoAfterKill(t *testing.T) {
	t.Parallel()
	ctx, port := peer.Interop(false), peer.FreePort(t)
	state := filepath.Join(t.TempDir(), "server")
	server := peer.AiocoapServer(t, port, ctx, state)
	relay := peer.NewRelay(t, peer.Loopback(port))
	client := peer.LibOSCOREClient(t, relay.Addr(), ctx)
	get := peer.Request{Method: "GET", Path: "/oscore/hello/1"}
	if r := client.Do(t, get); r.Answer.Code != "2.05" {
		t.Fatalf("before the kill: %+v", r)
	}
	server.Kill(syscall.SIGKILL)
	server = peer.AiocoapServer(t, port, ctx, state)
	before := len(client.Lines("CHALLENGED "))
	if r := client.Do(t, get); r.Answer.Code != "2.05" || !r.Answer.Sealed {
		t.Errorf("after the kill: %+v", r)
	}
	if n := len(client.Lines("CHALLENGED ")) - before; n != 1 {
		t.Errorf("%d challenges after the kill, want 1", n)
	}
	if n := server.Handled("/oscore/hello/1"); n != 1 {
		t.Errorf("the request reached the resource %d times", n)
	}
	relay.Capture().Sealed(t)
	relay.Capture().SingleUse(t)
}

// TestHarnessRederivation runs Appendix B.2 between Californium and itself.
func TestHarnessRederivation(t *testing.T) {
	t.Parallel()
	ctx, port := peer.Interop(false), peer.FreePort(t)
	ctx.IDContext = []byte{1, 2, 3, 4, 5, 6, 7, 8}
	server := peer.CaliforniumServer(t, port, ctx, "--b2")
	relay := peer.NewRelay(t, peer.Loopback(port))
	client := peer.CaliforniumClient(t, relay.URI(), ctx, "--b2-initiate")
	r := client.Do(t, peer.Request{Method: "GET", Path: "/oscore/hello/1"})
	if r.Answer.Code != "2.05" || !r.Answer.Sealed || !strings.Contains(r.Context, "phase=INACTIVE") {
		t.Errorf("%+v", r)
	}
	if n := server.Handled("/oscore/hello/1"); n != 1 {
		t.Errorf("the request reached the resource %d times", n)
	}
	relay.Capture().Sealed(t)
	var lengths []int
	for _, m := range relay.Capture().Messages(t) {
		v, _ := m.Option(peer.OptOSCORE)
		o, err := peer.ParseOSCOREOption(v)
		if err != nil {
			t.Fatal(err)
		}
		lengths = append(lengths, len(o.KIDContext))
	}
	// ID1 as a CBOR string, R2, R2 || R3, and none in the last response.
	if len(lengths) < 4 || lengths[0] != 9 || lengths[1] == 0 || lengths[2] <= lengths[1] || lengths[len(lengths)-1] != 0 {
		t.Errorf("kid contexts of %v bytes", lengths)
	}
}

// TestHarnessPlugtest plays the plug test of aiocoap's source package against
// its own server: what it says of us later, it says of itself first.
func TestHarnessPlugtest(t *testing.T) {
	t.Parallel()
	port := peer.FreePort(t)
	peer.AiocoapPlugtestServer(t, port, filepath.Join(t.TempDir(), "server"), false)
	relay := peer.NewRelay(t, peer.Loopback(port))
	state := filepath.Join(t.TempDir(), "client")
	for _, number := range plugtestCases {
		t.Run(number, func(t *testing.T) {
			plugtest(t, relay, state, number)
		})
	}
}

// plugtestCases are the sealed ones; 0, 16 and 17 concern plain messages.
var plugtestCases = strings.Fields("1 2 3 4 5 6 7 8 9 10 11 12 13 14 15")

// The plug test's own words; a 4.12 or a "validation failed" that it wanted is
// no failure.
var (
	plugtestFailed = regexp.MustCompile(`(?m)^(Failed:|Additional verify failed|Expectation failed|Test failed|Traceback)`)
	plugtestPassed = regexp.MustCompile(`(?m)^(Additional verify passed|Check passed)`)
)

// plugtest runs one case and reads its verdict, since its exit status has none.
func plugtest(t *testing.T, relay *peer.Relay, state, number string) {
	t.Helper()
	out := peer.AiocoapPlugtestClient(t, relay.Addr().String(), state, number)
	if plugtestFailed.MatchString(out) || !plugtestPassed.MatchString(out) {
		t.Errorf("plug test %s:\n%s", number, out)
	}
}

// TestEchoFromUs ends our server as kill -9 does: its replay window is lost, so
// the next request gets a challenge and is acted on only with the Echo
// (RFC 8613 Appendix B.1.2). What was sent before the crash is never acted on.
func TestEchoFromUs(t *testing.T) {
	t.Parallel()
	for _, o := range opponents {
		t.Run(o.component, func(t *testing.T) {
			t.Parallel()
			ctx := peer.Interop(false)
			m := o.meet(t, toUs, ctx, ctx, ours.Config{Patience: 5 * time.Second})
			for range 3 {
				if r := m.client.Do(t, post); r.Answer.Code != "2.04" {
					t.Fatalf("before the crash: %+v", r)
				}
			}
			before := m.relay.Capture()
			m.ourServer.Crash()
			for _, d := range before {
				if d.ToServer {
					replay(t, m.relay, d)
				}
			}
			if n := m.server.Handled("/oscore/hello/6"); n != 3 {
				t.Errorf("requests of before the crash were acted on: %d in all, want 3", n)
			}
			r := m.client.Do(t, post)
			if n := m.ourServer.Events("echo_challenge"); n != 4 {
				t.Errorf("%d challenges, want one for each replay and one for the new request", n)
			}
			if o.component == "californium" {
				// It knows no Echo: the challenge is what the program gets.
				if r.Answer.Code != "4.01" || !r.Answer.Sealed || m.server.Handled("/oscore/hello/6") != 3 {
					t.Errorf("after the crash: %+v", r)
				}
				o.record(t, toUs, "after kill -9 of the server: nothing is acted on (it knows no Echo)")
			} else {
				if r.Answer.Code != "2.04" || !r.Answer.Sealed || m.server.Handled("/oscore/hello/6") != 4 {
					t.Errorf("after the crash: %+v", r)
				}
				if r := m.client.Do(t, post); r.Answer.Code != "2.04" || m.ourServer.Events("echo_challenge") != 4 {
					t.Errorf("a second challenge, or %+v", r)
				}
				o.record(t, toUs, "Echo after kill -9 of the server")
			}
			m.relay.Capture().Sealed(t)
			m.relay.Capture().SingleUse(t)
			proof.Requirement(t, "direct", "E2E-3")
		})
	}
}

// TestFreshnessFromUs lets our server ask every POST for an Echo.
func TestFreshnessFromUs(t *testing.T) {
	t.Parallel()
	for _, o := range opponents {
		if o.component == "californium" {
			continue // knows no Echo
		}
		t.Run(o.component, func(t *testing.T) {
			t.Parallel()
			ctx := peer.Interop(false)
			m := o.meet(t, toUs, ctx, ctx, ours.Config{Gocoap: gocoap.Config{
				Freshness: func(string, codes.Code, string) gocoap.Freshness { return gocoap.FreshUnsafe },
			}})
			for i := range 3 {
				r := m.client.Do(t, post)
				if r.Answer.Code != "2.04" || !r.Answer.Sealed || m.server.Handled("/oscore/hello/6") != i+1 {
					t.Errorf("%+v", r)
				}
			}
			if m.ourServer.Events("echo_challenge") == 0 {
				t.Error("nothing was challenged")
			}
			m.relay.Capture().Sealed(t)
			m.relay.Capture().SingleUse(t)
			o.record(t, toUs, "Echo: every request that changes something is proven fresh")
		})
	}
}

// TestEchoTowardsUs kills the peer's server: our client answers its challenge.
func TestEchoTowardsUs(t *testing.T) {
	t.Parallel()
	for _, o := range opponents {
		if o.component == "californium" {
			continue // knows no Echo
		}
		t.Run(o.component, func(t *testing.T) {
			t.Parallel()
			ctx := peer.Interop(false)
			m := o.meet(t, fromUs, ctx, ctx, ours.Config{})
			for range 3 {
				if r := m.client.Do(t, post); r.Answer.Code != "2.04" {
					t.Fatalf("before the kill: %+v", r)
				}
			}
			m.itsServer.Kill(syscall.SIGKILL)
			var again *peer.Process
			if o.component == "liboscore" {
				// It keeps nothing: its numbers must be told.
				again = peer.LibOSCOREServer(t, m.port, ctx, "echo=1", "seq=1000")
			} else {
				again = o.server(t, m.port, ctx, m.state)
			}
			before := len(m.relay.Capture())
			for range 2 {
				if r := m.client.Do(t, post); r.Answer.Code != "2.04" || !r.Answer.Sealed {
					t.Errorf("after the kill: %+v", r)
				}
			}
			if n := again.Handled("/oscore/hello/6"); n != 2 {
				t.Errorf("two requests reached the resource %d times", n)
			}
			if n := len(m.relay.Capture()[before:].Requests(t)); n != 3 {
				t.Errorf("%d requests, want two and one more with the Echo", n)
			}
			m.relay.Capture().Sealed(t)
			m.relay.Capture().SingleUse(t)
			o.record(t, fromUs, "Echo after kill -9 of the server")
		})
	}
}

// TestOurClientAfterKill ends our client as kill -9 does: its numbers go on
// above all that it can have used, and the server takes them.
func TestOurClientAfterKill(t *testing.T) {
	t.Parallel()
	for _, o := range opponents {
		t.Run(o.component, func(t *testing.T) {
			t.Parallel()
			ctx := peer.Interop(false)
			m := o.meet(t, fromUs, ctx, ctx, ours.Config{})
			for i := range 3 {
				if r := m.client.Do(t, post); r.Answer.Code != "2.04" || !r.Answer.Sealed {
					t.Errorf("start %d: %+v", i, r)
				}
				m.ourClient.Crash()
			}
			if n := m.server.Handled("/oscore/hello/6"); n != 3 {
				t.Errorf("3 requests reached the resource %d times", n)
			}
			m.relay.Capture().Sealed(t)
			m.relay.Capture().SingleUse(t)
			o.record(t, fromUs, "kill -9 of the client: numbers go on")
			proof.Requirement(t, "direct", "MaU-1")
		})
	}
}

// TestOurPlugtest plays aiocoap's plug test client against our server.
func TestOurPlugtest(t *testing.T) {
	t.Parallel()
	peer.Component(t, "aiocoap")
	version := peer.Version(t, "aiocoap")
	servers := map[bool]*ours.Server{}
	relays := map[bool]*peer.Relay{}
	for _, with := range []bool{false, true} {
		port := peer.FreePort(t)
		servers[with] = ours.StartServer(t, port, peer.Interop(with), ours.Config{})
		relays[with] = peer.NewRelay(t, peer.Loopback(port))
	}
	state := filepath.Join(t.TempDir(), "client")
	for _, number := range plugtestCases {
		t.Run(number, func(t *testing.T) {
			plugtest(t, relays[number == "2"], state, number)
			proof.Interop(t, version, toUs, "plug test of its source package, case "+number)
		})
	}
	for _, relay := range relays {
		relay.Capture().SealedRequests(t)
		relay.Capture().SingleUse(t)
	}
}

// TestPlugtestServer plays the exchanges with our client against aiocoap's plug
// test server, which keeps to the interop specification and lacks /oscore/large.
func TestPlugtestServer(t *testing.T) {
	t.Parallel()
	port := peer.FreePort(t)
	peer.AiocoapPlugtestServer(t, port, filepath.Join(t.TempDir(), "server"), false)
	relay := peer.NewRelay(t, peer.Loopback(port))
	client := ours.StartClient(t, relay.Addr(), peer.Interop(false), ours.Config{})
	version := peer.Version(t, "aiocoap")
	pair{
		client: client, relay: relay, lacks: libOSCORELacks,
		record: func(t *testing.T, feature string) {
			proof.Interop(t, version, fromUs, "plug test server of its source package: "+feature)
		},
	}.run(t, exchanges)
}
