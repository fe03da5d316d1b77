//go:build interop

package interop

import (
	"path/filepath"
	"testing"

	"github.com/oscorelay/oscorelay/internal/proof"
	"github.com/oscorelay/oscorelay/interop/ours"
	"github.com/oscorelay/oscorelay/interop/peer"
)

// TestTCP plays the exchanges over TCP (RFC 8323) with aiocoap, which alone of
// the peers has OSCORE there. What it lacks over UDP it lacks for reasons of UDP.
func TestTCP(t *testing.T) {
	t.Parallel()
	for _, direction := range []string{toUs, fromUs} {
		t.Run(map[string]string{toUs: "to-us", fromUs: "from-us"}[direction], func(t *testing.T) {
			t.Parallel()
			peer.Component(t, "aiocoap")
			ctx, port, state := peer.Interop(true), peer.FreePort(t), filepath.Join(t.TempDir(), "state")
			cfg := ours.Config{TCP: true}
			var p pair
			if direction == toUs {
				server := ours.StartServer(t, port, ctx, cfg)
				relay := peer.NewTCPRelay(t, peer.Loopback(port))
				client := peer.AiocoapClient(t, relay.URI(), ctx, state, peer.AiocoapTCP...)
				p = pair{client: client, relay: relay, server: server}
			} else {
				server := peer.AiocoapServer(t, port, ctx, state, peer.AiocoapTCP...)
				relay := peer.NewTCPRelay(t, peer.Loopback(port))
				p = pair{client: ours.StartClient(t, relay.Addr(), ctx, cfg), relay: relay, server: server}
			}
			p.path = "direct, TCP"
			p.record = func(t *testing.T, feature string) {
				proof.Interop(t, peer.Version(t, "aiocoap"), direction, "over TCP: "+feature)
			}
			p.run(t, exchanges)
		})
	}
}
