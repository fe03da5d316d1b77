package terminate

import (
	"testing"

	"github.com/oscorelay/oscorelay/internal/sim"
	"github.com/oscorelay/oscorelay/keys"
	"github.com/oscorelay/oscorelay/oscore"
	"github.com/oscorelay/oscorelay/oscore/gocoap"
)

// A device that forgets everything at each start derives a new context by Appendix
// B.2, registers under it, and is observed on: the backend's observation is asked
// for under the new context.
func TestDeviceDerivesAnew(t *testing.T) {
	e := newEntry("dev1", 0xd1)
	e.Params.IDContext = []byte("first")
	e.Settings.Rederive = oscore.RoleServer | oscore.RoleClient
	w := newWorldWith(t, e, nil)
	w.register()
	values := make(chan string, 100)
	if _, _, err := w.server.Observe(w.ctx, "dev1", sim.ReadRequest("/3303/0/5700", 0), func(r sim.Response) { values <- string(r.Payload) }); err != nil {
		t.Fatal(err)
	}
	for i := range 2 {
		w.device.Close()
		p := e.Peer()
		p.Name = "gateway"
		p.Settings.RederiveOnStart = true
		ring := keys.New(keys.NewMemory())
		if _, err := ring.AddNew(w.ctx, p); err != nil {
			t.Fatal(err)
		}
		var err error
		w.device, err = sim.NewDevice(sim.DeviceConfig{
			Endpoint: "dev1", Peer: "gateway", Server: w.relay.addr.String(), AckTimeout: ackTimeout, OSCORE: &gocoap.Config{Keyring: ring},
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(w.device.Close)
		w.register()
		w.do("2.05", sim.ReadRequest("/3/0/0", 0))
		s := w.eventually("the context was derived anew", func(s state) bool { return s.Stats.Counters["rederived"] > uint64(i) })
		if s.Devices[0].Location == "" {
			t.Errorf("its registration under the new context is forgotten: %+v", s.Devices[0])
		}
		if err := w.device.Update(w.ctx); err != nil {
			t.Error(err)
		}
	}
	// The gateway is killed: the derived context outlives it.
	w.kill()
	w.start()
	w.do("2.05", sim.ReadRequest("/3/0/0", 0))
	if err := w.device.Update(w.ctx); err != nil {
		t.Error(err)
	}
}
