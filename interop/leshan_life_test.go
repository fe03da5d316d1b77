//go:build interop

package interop

import (
	"strings"
	"testing"
	"time"

	"github.com/oscorelay/oscorelay/internal/proof"
	"github.com/oscorelay/oscorelay/internal/sim"
	"github.com/oscorelay/oscorelay/interop/ours"
	"github.com/oscorelay/oscorelay/interop/peer"
	"github.com/oscorelay/oscorelay/oscore/gocoap"
)

// The life of devices at a Leshan behind the daemon, beside its operations.

// latest is the server that what does not depend on the version is tried with.
var latest = leshanServers[2]

func record18(t *testing.T, feature string) {
	t.Helper()
	proof.Interop(t, peer.Version(t, latest.component), "our device → oscored → its plain server", feature)
}

// TestLeshanQueueMode lets a device sleep. Leshan sends it nothing then, and
// goes on upon its Update, be the daemon a new one or not.
func TestLeshanQueueMode(t *testing.T) {
	t.Parallel()
	const awake = 1500 * time.Millisecond
	b := behind(t, latest, peer.Leshan18(t, "--awake-ms=1500"), sim.DeviceConfig{Queue: true, Awake: awake})
	b.register(t)
	if !b.server.Client(t, meter).Queue {
		t.Error("the server does not know of the Queue Mode")
	}
	b.server.Observe(t, meter, "/3/0/9")
	for _, c := range []struct {
		name    string
		between func()
	}{
		{"asleep", func() {}},
		{"asleep while the daemon is killed", b.daemon.Crash},
	} {
		from := b.server.Seen()
		b.server.Await(t, from, "falling asleep", func(e peer.LeshanEvent) bool { return e.Kind == "sleeping" })
		if r := b.server.Do(t, peer.LeshanCommand{Op: "read", Endpoint: meter, Path: "/3/0/0"}); !strings.Contains(r.Error, "sleep") {
			t.Errorf("%s: the read says %+v", c.name, r)
		}
		c.between()
		from = b.server.Seen()
		b.device.Update(t)
		b.server.Await(t, from, "waking up", func(e peer.LeshanEvent) bool { return e.Kind == "awake" })
		b.server.Read(t, meter, "/3/0/0")
		b.notified(t, "/3/0/9", 30+len(c.name))
	}
	b.sealed(t)
	record18(t, "Queue Mode, kill -9 of oscored while the device sleeps")
}

// TestLeshanDeviceMoves gives the device another address (a NAT's new binding)
// while it is observed. The server sees the same address as before.
func TestLeshanDeviceMoves(t *testing.T) {
	t.Parallel()
	b := newBehindOscored(t, latest)
	b.register(t)
	b.server.Observe(t, meter, "/3/0/9")
	before := b.server.Client(t, meter)
	b.front = peer.NewRelay(t, b.daemon.Addr)
	if err := b.device.SetServer(b.front.Addr().String()); err != nil {
		t.Fatal(err)
	}
	b.device.Update(t)
	if after := b.server.Client(t, meter); after != before {
		t.Errorf("the server has %+v, and had %+v", after, before)
	}
	b.server.Execute(t, meter, "/3/0/4")
	if n := b.device.Executed(); n != 1 {
		t.Errorf("/3/0/4 ran %d times", n)
	}
	b.notified(t, "/3/0/9", 61, 62)
	b.sealed(t)
	record18(t, "the device's address changes: the server's registration and observation stand")
}

// TestLeshanKilled kills Leshan, which forgets its devices: the device's Update
// gets 4.04, it registers anew, and is observed anew.
func TestLeshanKilled(t *testing.T) {
	t.Parallel()
	b := newBehindOscored(t, latest)
	b.register(t)
	b.server.Observe(t, meter, "/3/0/9")
	b.server.Crash()
	b.device.Battery(t, 21) // its old observation is reset
	from := b.server.Seen()
	b.device.Update(t)
	b.server.AwaitRegistered(t, from, meter)
	b.server.Observe(t, meter, "/3/0/9")
	b.notified(t, "/3/0/9", 22, 23)
	b.server.Execute(t, meter, "/3/0/4")
	b.sealed(t)
	record18(t, "kill -9 of the server: the device registers anew")
}

// TestLeshanDeviceCrashes kills the device, which forgets its registration but
// not its numbers.
func TestLeshanDeviceCrashes(t *testing.T) {
	t.Parallel()
	b := newBehindOscored(t, latest)
	for n := range 3 {
		b.register(t)
		b.server.Observe(t, meter, "/3/0/9")
		b.notified(t, "/3/0/9", 31+2*n, 32+2*n)
		b.server.Execute(t, meter, "/3/0/4")
		if n := b.device.Executed(); n != 1 {
			t.Errorf("/3/0/4 ran %d times", n)
		}
		b.device.Crash()
	}
	b.sealed(t)
	record18(t, "kill -9 of the device: it registers anew")
}

// TestLeshanRefused shows what the server never hears of.
func TestLeshanRefused(t *testing.T) {
	t.Parallel()
	b := newBehindOscored(t, latest)
	b.register(t)
	quick := sim.DeviceConfig{OSCORE: &gocoap.Config{PlainErrorWait: 100 * time.Millisecond}, Timeout: 5 * time.Second}
	seen := b.server.Seen()

	wrong := accounts[boiler].Context
	wrong.Secret = append([]byte{0x77}, wrong.Secret[1:]...)
	stranger := ours.StartDevice(t, b.front.Addr(), boiler, &wrong, quick)
	if err := stranger.Device.Register(t.Context()); err == nil || !strings.Contains(err.Error(), "4.00") {
		t.Errorf("a device with a wrong secret registers: %v", err)
	}
	impostor := b.start(t, meter, boiler, quick)
	if err := impostor.Device.Register(t.Context()); err == nil || !strings.Contains(err.Error(), "4.00") {
		t.Errorf("a device registers by another's name: %v", err)
	}
	plain := ours.StartDevice(t, b.daemon.Addr, boiler, nil, sim.DeviceConfig{})
	if err := plain.Device.Register(t.Context()); err == nil || !strings.Contains(err.Error(), "4.01") {
		t.Errorf("a device without OSCORE registers: %v", err)
	}
	if n := b.server.Seen() - seen; n != 0 {
		t.Errorf("the server heard of it, %d times", n)
	}
	b.server.Read(t, meter, "/3/0/0")
	record18(t, "another's name, a wrong secret, no OSCORE: refused, the server hears of none")
}
