//go:build interop

package interop

import (
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/oscorelay/oscorelay/interop/peer"
)

// TestHarnessEchoAfterKill kills aiocoap's server while it runs; the one that
// comes back asks for an Echo (RFC 8613 Appendix B.1.2), and libOSCORE's
// client gives it.
func TestHarnessEchoAfterKill(t *testing.T) {
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
