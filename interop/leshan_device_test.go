//go:build interop

package interop

import (
	"testing"

	"github.com/oscorelay/oscorelay/internal/proof"
	"github.com/oscorelay/oscorelay/interop/ours"
	"github.com/oscorelay/oscorelay/interop/peer"
	"github.com/oscorelay/oscorelay/oscore"
)

// leshanDevices are the ways to run Leshan M15's own OSCORE client, and what
// the daemon is told of it: it knows no Echo. With Appendix B.2 it begins as
// Leshan's client does from M18 on.
var leshanDevices = []struct {
	name     string
	settings oscore.Settings
	flags    []string
}{
	{"plainly", oscore.Settings{NoEcho: true}, nil},
	{"b2", oscore.Settings{NoEcho: true, Rederive: oscore.RoleServer}, []string{"--b2"}},
}

// TestLeshanDeviceAtOscored has Leshan M15's own OSCORE client register at a
// plain Leshan server through the daemon.
func TestLeshanDeviceAtOscored(t *testing.T) {
	t.Parallel()
	for _, c := range leshanDevices {
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

// TestLeshanDeviceOscoredKilled kills the daemon behind Leshan's client. What
// the server asks goes on at once. What the client asks needs a replay window
// again: by Appendix B.2, which the daemon then begins; a client that has
// neither that nor Echo is refused, since its message might be an old one.
func TestLeshanDeviceOscoredKilled(t *testing.T) {
	t.Parallel()
	for _, c := range leshanDevices {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			ctx := lwm2mContext(1)
			server := peer.Leshan15(t)
			daemon := ours.StartOscored(t, server.Addr, map[string]ours.Account{meter: {Context: ctx, Settings: c.settings}}, "")
			front := peer.NewRelay(t, daemon.Addr)
			device := peer.LeshanDeviceSealed(t, front.URI(), meter, ctx, c.flags...)
			server.AwaitRegistered(t, 0, meter)
			server.Observe(t, meter, "/3/0/9")

			daemon.Crash()
			from := server.Seen()
			server.Execute(t, meter, "/3/0/4")
			device.Battery(t, 61)
			server.AwaitNotification(t, from, meter, "/3/0/9", "61")
			if n := device.Executed(); n != 1 {
				t.Errorf("/3/0/4 ran %d times", n)
			}

			from, mark := server.Seen(), device.Mark()
			device.Update(t)
			device.Await(t, mark, "refusal of its update", func(e peer.LeshanEvent) bool { return e.Kind == "failed" && e.What == "update" })
			version := peer.Version(t, "leshan")
			if c.flags == nil {
				device.Await(t, mark, "refusal of its registration", func(e peer.LeshanEvent) bool { return e.Kind == "failed" && e.What == "registration" })
				if n := server.Count(from, "updated") + server.Count(from, "registered"); n != 0 {
					t.Errorf("%d requests without proof of freshness reached the server", n)
				}
				proof.Interop(t, version, "its OSCORE client → oscored → its plain server", "kill -9 of oscored: without Echo and Appendix B.2 its requests are refused, the server's go on")
			} else {
				server.AwaitRegistered(t, from, meter)
				server.Write(t, meter, "/3/0/14", "+07")
				proof.Interop(t, version, "its OSCORE client → oscored → its plain server", "kill -9 of oscored: it registers anew by Appendix B.2")
			}
			hidesDevice(t, front, device)
		})
	}
}
