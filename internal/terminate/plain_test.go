package terminate

import (
	"testing"

	"github.com/oscorelay/oscorelay/internal/coap"
	"github.com/oscorelay/oscorelay/internal/sim"
)

// plainDevice is a device of the same endpoint name that knows no OSCORE.
func (w *world) plainDevice(ep string) *sim.Device {
	w.t.Helper()
	d, err := sim.NewDevice(sim.DeviceConfig{Endpoint: ep, Server: w.run.addr.String(), AckTimeout: ackTimeout})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(d.Close)
	return d
}

func TestPlainIsRefused(t *testing.T) {
	w := newWorld(t, nil)
	d := w.plainDevice("dev1")
	resp, err := d.Do(w.ctx, register("ep=dev1", "lt=300"))
	if err != nil || sim.CodeText(resp.Code) != "4.01" || len(resp.Payload) != 0 {
		t.Errorf("%+v, %v", resp, err)
	}
	if s := w.state().Stats.Counters; s["plain_refused"] != 1 || s["requests_up"] != 0 {
		t.Errorf("%v", s)
	}
	if n := len(w.server.Registrations()); n != 0 {
		t.Error("it is registered")
	}
}

// A fleet moves to OSCORE: plain devices are served, those with a context behind
// their name; one that was heard sealed is never again spoken to in plain.
func TestMigration(t *testing.T) {
	w := newWorld(t, func(s *settings, _ *sim.DeviceConfig) { s.Plain = PlainAccept })
	old := w.plainDevice("dev1")
	if err := old.Register(w.ctx); err != nil {
		t.Fatal(err)
	}
	if resp := w.do("2.05", sim.ReadRequest("/3/0/0", 0)); string(resp.Payload) != "Open Mobile Device" {
		t.Errorf("%q", resp.Payload)
	}
	reg, _ := w.server.Registration("dev1")
	values := make(chan string, 100)
	if _, _, err := w.server.Observe(w.ctx, "dev1", sim.ReadRequest("/3303/0/5700", 0), func(r sim.Response) { values <- string(r.Payload) }); err != nil {
		t.Fatal(err)
	}
	if s := w.state(); s.Stats.Gauges["devices_plain"] != 1 || !s.Devices[0].Plain {
		t.Errorf("%+v", s)
	}
	// Over a crash as well.
	w.kill()
	w.start()
	w.eventually("the plain device's observation was taken up", func(s state) bool { return s.Stats.Counters["observation_revived"] == 1 })
	v := "33.5"
	if _, err := old.Command(w.ctx, sim.Command{Cmd: "set", Path: "/3303/0/5700", Value: &v}); err != nil {
		t.Fatal(err)
	}
	w.want(values, v)

	unknown := w.plainDevice("dev9")
	if resp, err := unknown.Do(w.ctx, register("ep=dev9")); err != nil || sim.CodeText(resp.Code) != "4.01" {
		t.Errorf("a name without a context: %v, %v", resp, err)
	}

	// The device gets its context: what the backend observed in plain goes on, sealed.
	if err := w.device.Send(w.ctx, 112, mustPath(t, "/3/0/0")); err != nil {
		t.Fatal(err)
	}
	w.eventually("the observation was asked for sealed", func(s state) bool { return s.Stats.Counters["observation_revived"] == 2 })
	w.set("/3303/0/5700", "44.5")
	w.want(values, "44.5")
	// It registers from the same upstream address, and there is no way back.
	w.register()
	after, _ := w.server.Registration("dev1")
	if after.Addr.String() != reg.Addr.String() {
		t.Errorf("it moved from %v to %v", reg.Addr, after.Addr)
	}
	w.do("2.05", sim.ReadRequest("/3/0/0", 0))
	if resp, err := old.Do(w.ctx, register("ep=dev1")); err != nil || sim.CodeText(resp.Code) != "4.01" {
		t.Errorf("downgraded: %v, %v", resp, err)
	}
	w.do("2.05", sim.ReadRequest("/3/0/0", 0))
	if s := w.state(); s.Stats.Gauges["devices_plain"] != 0 || s.Stats.Counters["plain_downgrade"] != 1 {
		t.Errorf("%+v", s.Stats)
	}
	for _, data := range w.relay.capture() { // the sealed device's leg
		if d, err := coap.ParseDatagram(data); err == nil && d.Code != coap.Empty {
			if _, sealed := coap.Find(d.Body, coap.OSCORE); !sealed {
				t.Errorf("in plain: %x", data)
			}
		}
	}
}
