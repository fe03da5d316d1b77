//go:build interop

package interop

import (
	"syscall"
	"testing"

	"github.com/oscorelay/oscorelay/internal/proof"
	"github.com/oscorelay/oscorelay/interop/ours"
	"github.com/oscorelay/oscorelay/interop/peer"
	"github.com/oscorelay/oscorelay/oscore"
)

// Appendix B.2 with Californium, which alone of the peers has it: either side
// in either role, begun by the client or by the server.

// rederiveContext has an ID Context, as a run that the server begins needs one.
func rederiveContext() peer.Context {
	ctx := peer.Interop(false)
	ctx.IDContext = []byte{1, 2, 3, 4, 5, 6, 7, 8}
	return ctx
}

// rederived checks what one run leaves on the wire: kid contexts in CBOR byte
// strings, nothing in plain, no nonce twice.
func rederived(t *testing.T, c peer.Capture) {
	t.Helper()
	c.Sealed(t)
	c.SingleUse(t)
	c.Hides(t, "hello", "Hello World!")
	wrapped := 0
	for _, m := range c.Messages(t) {
		v, _ := m.Option(peer.OptOSCORE)
		o, err := peer.ParseOSCOREOption(v)
		if err != nil {
			t.Error(err)
		}
		if k := o.KIDContext; len(k) > 1 && (k[0] == 0x40+byte(len(k)-1) || k[0] == 0x58 && len(k) > 2 && int(k[1]) == len(k)-2) {
			wrapped++
		}
	}
	if wrapped < 2 {
		t.Errorf("%d messages with a wrapped kid context: no run of Appendix B.2", wrapped)
	}
}

func requirePost(t *testing.T, client doer, what string) {
	t.Helper()
	if r := client.Do(t, post); r.Answer.Code != "2.04" || !r.Answer.Sealed {
		t.Fatalf("%s: %+v", what, r)
	}
}

// TestRederiveOurClient begins runs from our client: two of them, with
// requests between and after, the second after a crash of the client.
func TestRederiveOurClient(t *testing.T) {
	t.Parallel()
	for name, ctx := range map[string]peer.Context{"id-context": rederiveContext(), "none": peer.Interop(false)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			port := peer.FreePort(t)
			server := peer.CaliforniumServer(t, port, ctx, "--b2")
			relay := peer.NewRelay(t, peer.Loopback(port))
			client := ours.StartClient(t, relay.Addr(), ctx, ours.Config{Settings: oscore.Settings{Rederive: oscore.RoleClient}})
			client.Derive = true
			requirePost(t, client, "the first run")
			requirePost(t, client, "after it")
			if n := client.Events("rederived"); n != 1 {
				t.Errorf("%d runs, want 1", n)
			}
			client.Crash()
			requirePost(t, client, "after a crash, without a run")
			run1 := len(relay.Capture()) // the numbers begin anew with each run
			client.Derive = true
			requirePost(t, client, "the second run")
			requirePost(t, client, "after it")
			if n := server.Handled("/oscore/hello/6"); n != 5 {
				t.Errorf("5 requests reached the resource %d times", n)
			}
			rederived(t, relay.Capture()[:run1])
			rederived(t, relay.Capture()[run1:])
			proof.Interop(t, peer.Version(t, "californium"), fromUs, "Appendix B.2, begun by our client")
			proof.Requirement(t, "direct", "MaU-1")
		})
	}
}

// TestRederiveOurServer answers a run that Californium's client begins.
func TestRederiveOurServer(t *testing.T) {
	t.Parallel()
	for name, ctx := range map[string]peer.Context{"id-context": rederiveContext(), "none": peer.Interop(false)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			port := peer.FreePort(t)
			server := ours.StartServer(t, port, ctx, ours.Config{Settings: oscore.Settings{Rederive: oscore.RoleServer}})
			relay := peer.NewRelay(t, peer.Loopback(port))
			client := peer.CaliforniumClient(t, relay.URI(), ctx, "--b2-initiate")
			requirePost(t, client, "the run")
			if !server.Peer().Status().Derived {
				t.Error("our server did not adopt the new context")
			}
			requirePost(t, client, "after it")
			if n := server.Handled("/oscore/hello/6"); n != 2 {
				t.Errorf("2 requests reached the resource %d times", n)
			}
			// Every request of the run once more: nothing is acted on, and the
			// context stays in place.
			for _, d := range relay.Capture() {
				if m, err := peer.ParseMessage(d.Bytes); err == nil && d.ToServer && m.IsRequest() {
					replay(t, relay, d)
				}
			}
			if n := server.Handled("/oscore/hello/6"); n != 2 {
				t.Errorf("replays were acted on: %d", n-2)
			}
			requirePost(t, client, "after replays of the run")
			rederived(t, sealedPart(relay.Capture()))
			proof.Interop(t, peer.Version(t, "californium"), toUs, "Appendix B.2, begun by its client")
		})
	}
}

// TestRederiveAfterKill loses both sides' memory: our server's by a crash,
// Californium's with its process. A run brings them together again, twice.
func TestRederiveAfterKill(t *testing.T) {
	t.Parallel()
	ctx, port := peer.Interop(false), peer.FreePort(t)
	server := ours.StartServer(t, port, ctx, ours.Config{Settings: oscore.Settings{Rederive: oscore.RoleServer}})
	for i := range 3 {
		relay := peer.NewRelay(t, peer.Loopback(port))
		client := peer.CaliforniumClient(t, relay.URI(), ctx, "--b2-initiate")
		requirePost(t, client, "the run")
		requirePost(t, client, "after it")
		if n := server.Handled("/oscore/hello/6"); n != 2*(i+1) {
			t.Errorf("start %d: the resource was reached %d times, want %d", i, n, 2*(i+1))
		}
		rederived(t, relay.Capture())
		client.Kill(syscall.SIGKILL)
		server.Crash()
	}
	proof.Interop(t, peer.Version(t, "californium"), toUs, "kill -9 of both sides: Appendix B.2 recovers")
	proof.Requirement(t, "direct", "MaU-1")
}

// sealedPart leaves out plain error answers, which replays get.
func sealedPart(c peer.Capture) peer.Capture {
	var kept peer.Capture
	for _, d := range c {
		m, err := peer.ParseMessage(d.Bytes)
		if err == nil && m.Code>>5 == 4 && !d.ToServer {
			if _, sealed := m.Option(peer.OptOSCORE); !sealed {
				continue
			}
		}
		kept = append(kept, d)
	}
	return kept
}

// TestRederiveByItsServer lets Californium's server begin the run: our client
// goes through it within one request.
func TestRederiveByItsServer(t *testing.T) {
	t.Parallel()
	ctx, port := rederiveContext(), peer.FreePort(t)
	server := peer.CaliforniumServer(t, port, ctx, "--b2-initiate")
	relay := peer.NewRelay(t, peer.Loopback(port))
	client := ours.StartClient(t, relay.Addr(), ctx, ours.Config{Settings: oscore.Settings{Rederive: oscore.RoleClient}})
	requirePost(t, client, "the run")
	if n := client.Events("rederived"); n != 1 {
		t.Errorf("%d runs, want 1", n)
	}
	requirePost(t, client, "after it")
	// Californium's server acts on the request that it answers with response #1,
	// and again on request #2.
	if n := server.Handled("/oscore/hello/6"); n != 3 {
		t.Errorf("2 requests reached the resource %d times, want 3", n)
	}
	rederived(t, relay.Capture())
	proof.Interop(t, peer.Version(t, "californium"), fromUs, "Appendix B.2, begun by its server")
}

// TestRederiveByOurServer lets our server begin the run, since it does not know
// the history of its context. Californium's program sees 4.01 once and asks
// again.
func TestRederiveByOurServer(t *testing.T) {
	t.Parallel()
	ctx, port := rederiveContext(), peer.FreePort(t)
	server := ours.StartServer(t, port, ctx, ours.Config{Tainted: true, Settings: oscore.Settings{Rederive: oscore.RoleServer}})
	relay := peer.NewRelay(t, peer.Loopback(port))
	client := peer.CaliforniumClient(t, relay.URI(), ctx, "--b2")
	if r := client.Do(t, post); r.Answer.Code != "4.01" || !r.Answer.Sealed {
		t.Errorf("the first answer: %+v", r)
	}
	if n := server.Handled("/oscore/hello/6"); n != 0 {
		t.Errorf("a request under a tainted context reached the resource %d times", n)
	}
	requirePost(t, client, "asked again")
	requirePost(t, client, "after it")
	if s := server.Peer().Status(); !s.Derived || s.Taint != nil {
		t.Errorf("our server's context: %+v", s)
	}
	rederived(t, relay.Capture())
	proof.Interop(t, peer.Version(t, "californium"), toUs, "Appendix B.2, begun by our server, whose history is unknown")
	proof.Requirement(t, "direct", "MaU-1")
}
