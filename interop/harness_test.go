//go:build interop

package interop

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/oscorelay/oscorelay/internal/proof"
	"github.com/oscorelay/oscorelay/interop/ours"
	"github.com/oscorelay/oscorelay/interop/peer"
)

// The harness proves itself with other people's code on both sides: what
// fails here is the harness, the relay or a peer, not this library.

func TestHarnessAiocoapToCalifornium(t *testing.T) {
	t.Parallel()
	ctx, port := peer.Interop(false), peer.FreePort(t)
	server := peer.CaliforniumServer(t, port, ctx)
	relay := peer.NewRelay(t, peer.Loopback(port))
	client := peer.AiocoapClient(t, relay.URI(), ctx, filepath.Join(t.TempDir(), "client"))
	pair{client: client, relay: relay, server: server}.run(t, exchanges)
}

func TestHarnessCaliforniumToAiocoap(t *testing.T) {
	t.Parallel()
	ctx, port := peer.Interop(true), peer.FreePort(t)
	server := peer.AiocoapServer(t, port, ctx, filepath.Join(t.TempDir(), "server"))
	relay := peer.NewRelay(t, peer.Loopback(port))
	client := peer.CaliforniumClient(t, relay.URI(), ctx)
	pair{client: client, relay: relay, server: server, lacks: californiumClientLacks}.run(t, exchanges)
}

func TestHarnessLibOSCOREToAiocoap(t *testing.T) {
	t.Parallel()
	ctx, port := peer.Interop(false), peer.FreePort(t)
	server := peer.AiocoapServer(t, port, ctx, filepath.Join(t.TempDir(), "server"))
	relay := peer.NewRelay(t, peer.Loopback(port))
	client := peer.LibOSCOREClient(t, relay.Addr(), ctx)
	pair{client: client, relay: relay, server: server, lacks: libOSCORELacks}.run(t, exchanges)
}

func TestHarnessAiocoapToLibOSCORE(t *testing.T) {
	t.Parallel()
	ctx, port := peer.Interop(false), peer.FreePort(t)
	server := peer.LibOSCOREServer(t, port, ctx)
	relay := peer.NewRelay(t, peer.Loopback(port))
	client := peer.AiocoapClient(t, relay.URI(), ctx, filepath.Join(t.TempDir(), "client"))
	pair{client: client, relay: relay, server: server, lacks: libOSCORELacks}.run(t, exchanges)
}

// TestHarnessTshark lets an independent reader open the capture: what the
// relay recorded is what the two said to each other, and it was sealed.
func TestHarnessTshark(t *testing.T) {
	t.Parallel()
	peer.Component(t, "debian")
	ctx, port := peer.Interop(false), peer.FreePort(t)
	peer.LibOSCOREServer(t, port, ctx)
	relay := peer.NewRelay(t, peer.Loopback(port))
	client := peer.LibOSCOREClient(t, relay.Addr(), ctx)
	readByTshark(t, client, relay, ctx)
}

// TestTshark lets it open what our client and our server say to each other.
func TestTshark(t *testing.T) {
	t.Parallel()
	version := peer.Version(t, "debian", "tshark")
	ctx, port := peer.Interop(false), peer.FreePort(t)
	ours.StartServer(t, port, ctx, ours.Config{})
	relay := peer.NewRelay(t, peer.Loopback(port))
	readByTshark(t, ours.StartClient(t, relay.Addr(), ctx, ours.Config{}), relay, ctx)
	proof.Interop(t, version, "our client → our server", "the capture opened by an independent reader")
}

func readByTshark(t *testing.T, client doer, relay *peer.Relay, ctx peer.Context) {
	t.Helper()
	client.Do(t, peer.Request{Method: "GET", Path: "/oscore/hello/2", Query: "first=1"})
	file := filepath.Join(t.TempDir(), "capture.pcap")
	relay.Capture().WritePcap(t, file)
	cmd := exec.Command("tshark", "-r", file, "-T", "fields", "-e", "coap.code", "-e", "oscore.code", "-e", "oscore.opt.uri_path", "-e", "oscore.opt.uri_query")
	cmd.Env = append(cmd.Environ(), "WIRESHARK_CONFIG_DIR="+ctx.WriteTshark(t))
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("tshark: %v", err)
	}
	got := strings.Split(strings.TrimRight(string(out), "\n"), "\n")
	want := []string{"2\t1\toscore,hello,2\tfirst=1", "68\t69\t\t"}
	if len(got) != 2 || got[0] != want[0] || strings.TrimRight(got[1], "\t") != strings.TrimRight(want[1], "\t") {
		t.Errorf("tshark reads %q, want %q", got, want)
	}
}
