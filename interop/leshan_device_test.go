//go:build interop

package interop

import (
	"testing"

	"github.com/oscorelay/oscorelay/internal/proof"
	"github.com/oscorelay/oscorelay/interop/ours"
	"github.com/oscorelay/oscorelay/interop/peer"
	"github.com/oscorelay/oscorelay/oscore"
)

// TestLeshanDeviceAtOscored has Leshan M15's own OSCORE client register at a
// plain Leshan server through the daemon. It knows no Echo. With Appendix B.2
// it begins as Leshan's client does from M18 on.
func TestLeshanDeviceAtOscored(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name     string
		settings oscore.Settings
		flags    []string
	}{
		{"plainly", oscore.Settings{NoEcho: true}, nil},
		{"b2", oscore.Settings{NoEcho: true, Rederive: oscore.RoleServer}, []string{"--b2"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			ctx := lwm2mContext(1)
			server := peer.Leshan15(t)
			daemon := ours.StartOscored(t, server.Addr, map[string]ours.Account{meter: {Context: ctx, Settings: c.settings}}, "")
			front := peer.NewRelay(t, daemon.Addr)
			device := peer.LeshanDeviceSealed(t, front.URI(), meter, ctx, c.flags...)
			server.AwaitRegistered(t, 0, meter)
			everyLeshanOperation(t, leshanServers[1], server, device)
			hidesDevice(t, front, device)
			front.Capture().SingleUse(t)
			if c.flags != nil {
				rederived(t, front.Capture())
			}
			proof.Interop(t, peer.Version(t, "leshan"), "its OSCORE client → oscored → its plain server", map[string]string{
				"plainly": "all operations", "b2": "Appendix B.2, begun by the client; all operations",
			}[c.name])
		})
	}
}
