//go:build interop

package interop

import (
	"path/filepath"
	"testing"

	"github.com/oscorelay/oscorelay/internal/proof"
	"github.com/oscorelay/oscorelay/interop/ours"
	"github.com/oscorelay/oscorelay/interop/peer"
)

// TestThroughProxy plays the exchanges through libcoap as a forward proxy that
// knows nothing of OSCORE: our client → proxy → a peer's server, and ours.
// Both legs are captured.
func TestThroughProxy(t *testing.T) {
	t.Parallel()
	for name, start := range map[string]func(t *testing.T, port uint16, c peer.Context) handler{
		"ours": func(t *testing.T, port uint16, c peer.Context) handler {
			return ours.StartServer(t, port, c, ours.Config{})
		},
		"aiocoap": func(t *testing.T, port uint16, c peer.Context) handler {
			return peer.AiocoapServer(t, port, c, filepath.Join(t.TempDir(), "state"))
		},
		"californium": func(t *testing.T, port uint16, c peer.Context) handler {
			return peer.CaliforniumServer(t, port, c)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			version := peer.Version(t, "debian", "libcoap3-bin")
			ctx, port, proxy := peer.Interop(false), peer.FreePort(t), peer.FreePort(t)
			server := start(t, port, ctx)
			behind := peer.NewRelay(t, peer.Loopback(port))
			peer.LibcoapServer(t, proxy, "-P", ",proxy.test")
			front := peer.NewRelay(t, peer.Loopback(proxy))
			lacks := map[string][]string{
				"aiocoap": aiocoapServerLacks,
				// Observations of Californium's server come through, but their ends
				// leave late notifications; upon the Reset that those get, the proxy
				// has lost the answer to another request.
				"californium": {"6", "7", "observe-large"},
			}[name]
			client := ours.StartClient(t, front.Addr(), ctx, ours.Config{Origin: behind.Addr()})
			pair{
				client: client, relay: front, server: server, lacks: lacks, path: "udp-proxy",
				record: func(t *testing.T, feature string) {
					proof.Interop(t, version, "our client → its proxy → server", feature)
				},
			}.run(t, exchanges)
			behind.Capture().Sealed(t)
			behind.Capture().SingleUse(t)
			behind.Capture().Hides(t, "hello", "observe", "Hello World!", "Terminate", "aaaaaaaaaaaaaaaa")
		})
	}
}
