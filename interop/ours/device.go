package ours

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/oscorelay/oscorelay/internal/sim"
	"github.com/oscorelay/oscorelay/internal/sim/lwm2m"
	"github.com/oscorelay/oscorelay/interop/peer"
	"github.com/oscorelay/oscorelay/keys"
	"github.com/oscorelay/oscorelay/oscore/gocoap"
)

// Device is the LwM2M device of internal/sim.
type Device struct {
	*sim.Device
	events
	t     testing.TB
	name  string
	cfg   sim.DeviceConfig
	entry keys.Entry
	store *keys.Memory // nil in plain
}

// StartDevice starts a device that talks to the address, with OSCORE if it has
// a context; cfg.OSCORE then may say more, but has no keyring. The device is
// not registered.
func StartDevice(t testing.TB, server netip.AddrPort, ep string, c *peer.Context, cfg sim.DeviceConfig) *Device {
	t.Helper()
	cfg.Endpoint, cfg.Server, cfg.Confirm = ep, server.String(), true
	d := &Device{t: t, name: ep, cfg: cfg}
	if c != nil {
		d.store, d.entry = keys.NewMemory(), Config{}.entry(t, *c, true)
		if err := keys.DeclareNew(t.Context(), d.store, &d.entry.Params); err != nil {
			t.Fatal(err)
		}
	}
	d.start()
	t.Cleanup(func() {
		d.Close()
		d.log(t, "our device "+ep)
		if t.Failed() {
			for _, e := range d.Log().Since(0) {
				t.Logf("our device %s: %+v", ep, e)
			}
		}
	})
	return d
}

func (d *Device) start() {
	d.t.Helper()
	cfg := d.cfg
	if d.store != nil {
		ring := keys.New(d.store)
		if _, err := ring.Add(d.t.Context(), d.entry.Clone()); err != nil {
			d.t.Fatal(err)
		}
		sealed := gocoap.Config{}
		if cfg.OSCORE != nil {
			sealed = *cfg.OSCORE
		}
		sealed.Keyring, sealed.Event = ring, d.add
		cfg.Peer, cfg.OSCORE = other, &sealed
	}
	// Another socket may have the port of one that crashed for a moment.
	for end := time.Now().Add(devicePatience); ; time.Sleep(10 * time.Millisecond) {
		device, err := sim.NewDevice(cfg)
		if err == nil {
			d.Device = device
			return
		}
		if !errors.Is(err, syscall.EADDRINUSE) || time.Now().After(end) {
			d.t.Fatal(err)
		}
	}
}

// Crash ends the device as kill -9 does and starts it again at its address:
// what was in memory is gone, its registration with it, the numbers in the
// store are not.
func (d *Device) Crash() {
	d.t.Helper()
	d.cfg.Listen = d.Addr().String()
	d.Close()
	d.store.Restart()
	d.start()
}

// devicePatience bounds whatever a device asks or awaits.
const devicePatience = 20 * time.Second

func (d *Device) ask(t testing.TB, what string, do func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), devicePatience)
	defer cancel()
	if err := do(ctx); err != nil {
		t.Fatalf("our device %s: %s: %v", d.name, what, err)
	}
}

// Name is the endpoint name.
func (d *Device) Name() string { return d.name }

// Register registers.
func (d *Device) Register(t testing.TB) {
	t.Helper()
	d.ask(t, "register", d.Device.Register)
}

// Update updates the registration.
func (d *Device) Update(t testing.TB) {
	t.Helper()
	d.ask(t, "update", d.Device.Update)
}

// Leave deregisters.
func (d *Device) Leave(t testing.TB) {
	t.Helper()
	d.ask(t, "deregister", d.Deregister)
}

// Send sends the values of the paths, in SenML CBOR.
func (d *Device) Send(t testing.TB, paths ...string) {
	t.Helper()
	var all []lwm2m.Path
	for _, p := range paths {
		all = append(all, lwm2m.MustPath(p))
	}
	d.ask(t, "send", func(ctx context.Context) error { return d.Device.Send(ctx, lwm2m.SenMLCBOR, all...) })
}

// Battery sets the battery level, /3/0/9.
func (d *Device) Battery(t testing.TB, level int) {
	t.Helper()
	if err := d.Objects().Set(lwm2m.MustPath("/3/0/9"), lwm2m.Int(int64(level))); err != nil {
		t.Fatal(err)
	}
}

// Fill puts so many bytes into /19/0/0/0 and gives them in hexadecimal.
func (d *Device) Fill(t testing.TB, n int) string {
	t.Helper()
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*7 + i>>8)
	}
	if err := d.Objects().Set(lwm2m.MustPath("/19/0/0/0"), lwm2m.Bytes(b)); err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(b)
}

// Executed counts how often any resource ran.
func (d *Device) Executed() int {
	n := 0
	for _, e := range d.Log().Since(0) {
		if e.Event == "executed" {
			n++
		}
	}
	return n
}

// Mark gives the number of events so far.
func (d *Device) Mark() int { return d.Log().Mark() }

// AwaitPackage waits until a firmware image of the length was written.
func (d *Device) AwaitPackage(t testing.TB, mark, bytes int) {
	t.Helper()
	d.AwaitEvent(t, mark, fmt.Sprintf("package of %d bytes", bytes), func(e sim.Event) bool { return e.Event == "package" && e.Bytes == bytes })
}

// AwaitEvent waits for an event of the device.
func (d *Device) AwaitEvent(t testing.TB, mark int, what string, ok func(sim.Event) bool) sim.Event {
	t.Helper()
	var e sim.Event
	d.ask(t, "await "+what, func(ctx context.Context) (err error) {
		e, err = d.Log().Wait(ctx, mark, ok)
		return err
	})
	return e
}

// Manufacturer is what it has as /3/0/0.
func (d *Device) Manufacturer() string { return "Open Mobile Device" }

// Served counts the requests that the device answered under a path.
func (d *Device) Served(path string) int {
	n := 0
	for _, e := range d.Log().Since(0) {
		if e.Event == "served" && strings.HasPrefix(e.Path, path) {
			n++
		}
	}
	return n
}
