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

// The accounts of the daemon.
const (
	meter  = "meter"
	boiler = "boiler"
)

var accounts = map[string]ours.Account{meter: {Context: lwm2mContext(1)}, boiler: {Context: lwm2mContext(2)}}

func newBehindOscored(t *testing.T, s leshanServer) *behindOscored {
	t.Helper()
	return behind(t, s, s.start(t), sim.DeviceConfig{})
}

// behind puts the daemon before a server, and starts the meter.
func behind(t *testing.T, s leshanServer, server *peer.Leshan, cfg sim.DeviceConfig) *behindOscored {
	t.Helper()
	b := &behindOscored{leshanServer: s, server: server}
	b.daemon = ours.StartOscored(t, b.server.Addr, accounts, "")
	b.front = peer.NewRelay(t, b.daemon.Addr)
	b.device = b.start(t, meter, meter, cfg)
	return b
}

// start starts a device that names itself so, with the account's context.
func (b *behindOscored) start(t *testing.T, ep, account string, cfg sim.DeviceConfig) *ours.Device {
	t.Helper()
	ctx := accounts[account].Context
	return ours.StartDevice(t, b.front.Addr(), ep, &ctx, cfg)
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
	for _, c := range b.front.Capture().ByClient() {
		c.SingleUse(t)
	}
}

// TestLeshanBehindOscored plays all operations on two devices at once.
func TestLeshanBehindOscored(t *testing.T) {
	t.Parallel()
	for _, s := range leshanServers {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			b := newBehindOscored(t, s)
			b.register(t)
			other := b.start(t, boiler, boiler, sim.DeviceConfig{})
			other.Register(t)
			b.server.AwaitRegistered(t, 0, boiler)
			if one, two := b.server.Client(t, meter), b.server.Client(t, boiler); one.Address == two.Address {
				t.Errorf("both devices are at %s to the server", one.Address)
			}
			t.Run("both", func(t *testing.T) {
				for _, d := range []*ours.Device{b.device, other} {
					t.Run(d.Name(), func(t *testing.T) {
						t.Parallel()
						large := d.Fill(t, 6000)
						if got := b.server.Read(t, d.Name(), "/19/0/0").Values["/19/0/0/0"]; got != large {
							t.Errorf("/19/0/0/0 came with %d bytes of %d", len(got)/2, len(large)/2)
						}
						everyLeshanOperation(t, s, b.server, d)
					})
				}
			})
			b.sealed(t)
			version := peer.Version(t, s.component)
			features := []string{"register, update, deregister", "Read, Write, Execute, Discover", "Observe, notifications, cancellation", "Read of 6 KB (Block2)", "Write of 100 KB (Block1)", "Send"}
			if s.composite {
				features = append(features, "Read-Composite, Observe-Composite")
			}
			for _, f := range features {
				proof.Interop(t, version, "our device → oscored → its plain server", f)
			}
		})
	}
}
