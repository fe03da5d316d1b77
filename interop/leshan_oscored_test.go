//go:build interop

package interop

import (
	"testing"

	"github.com/oscorelay/oscorelay/internal/proof"
	"github.com/oscorelay/oscorelay/internal/sim"
	"github.com/oscorelay/oscorelay/interop/ours"
	"github.com/oscorelay/oscorelay/interop/peer"
)

// behindOscored is an unmodified Leshan that speaks plain CoAP, behind the
// daemon: our sealed device ══ relay ══ oscored ── Leshan.
type behindOscored struct {
	leshanServer
	server *peer.Leshan
	daemon *ours.Oscored
	front  *peer.Relay
	device *ours.Device
}

const meter = "meter" // the device's endpoint name

func newBehindOscored(t *testing.T, s leshanServer) *behindOscored {
	t.Helper()
	ctx := lwm2mContext(1)
	b := &behindOscored{leshanServer: s, server: s.start(t)}
	b.daemon = ours.StartOscored(t, b.server.Addr, map[string]ours.Account{meter: {Context: ctx}}, "")
	b.front = peer.NewRelay(t, b.daemon.Addr)
	b.device = ours.StartDevice(t, b.front.Addr(), meter, &ctx, sim.DeviceConfig{})
	return b
}

func (b *behindOscored) register(t *testing.T) {
	t.Helper()
	from := b.server.Seen()
	b.device.Register(t)
	b.server.AwaitRegistered(t, from, meter)
}

// sealed looks at what went between the device and the daemon.
func (b *behindOscored) sealed(t *testing.T) {
	t.Helper()
	hidesDevice(t, b.front, b.device)
	b.front.Capture().SingleUse(t)
}

// TestLeshanBehindOscored plays all operations.
func TestLeshanBehindOscored(t *testing.T) {
	t.Parallel()
	for _, s := range leshanServers {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			b := newBehindOscored(t, s)
			b.register(t)
			everyLeshanOperation(t, s, b.server, b.device)
			b.sealed(t)
			version := peer.Version(t, s.component)
			features := []string{"register, update, deregister", "Read, Write, Execute, Discover", "Observe, notifications, cancellation", "Write of 100 KB (Block1)", "Send"}
			if s.composite {
				features = append(features, "Read-Composite, Observe-Composite")
			}
			for _, f := range features {
				proof.Interop(t, version, "our device → oscored → its plain server", f)
			}
		})
	}
}
