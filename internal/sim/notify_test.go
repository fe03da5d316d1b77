package sim

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/oscorelay/oscorelay/internal/sim/lwm2m"
)

// observe registers an observation and wants its first answer.
func (w *world) observe(r Request) *Observation {
	w.t.Helper()
	o, resp, err := w.server.Observe(w.ctx, "dev1", r, nil)
	if err != nil || resp.Err() != nil || !resp.Observe {
		w.t.Fatalf("%v %+v", err, resp)
	}
	return o
}

func text(s string) func(Event) bool {
	return func(e Event) bool { return e.Event == "notification" && e.Text == s }
}

func TestObserve(t *testing.T) {
	for _, confirm := range []bool{false, true} {
		name := map[bool]string{false: "NON", true: "CON"}[confirm]
		t.Run(name, func(t *testing.T) {
			both(t, func(d *DeviceConfig, _ *ServerConfig) { d.Confirm = confirm }, func(w *world) {
				o := w.observe(ReadRequest("/3303/0/5700", lwm2m.Text))
				for _, v := range []string{"21.5", "22.25"} {
					mark := w.server.Log().Mark()
					f, err := lwm2m.ParseText(lwm2m.Float, v)
					if err != nil {
						w.t.Fatal(err)
					}
					w.set("/3303/0/5700", f)
					if e := w.event(mark, text(v)); e.ID != o.ID || e.Endpoint != "dev1" || e.Code != "2.05" {
						w.t.Errorf("%+v", e)
					}
				}
				mark := w.device.Log().Mark()
				w.set("/3303/0/5700", lwm2m.Num(22.25)) // no change
				w.set("/3303/1/5700", lwm2m.Num(1))     // another one
				if err := o.Cancel(w.ctx); err != nil {
					w.t.Fatal(err)
				}
				w.set("/3303/0/5700", lwm2m.Num(0))
				for _, e := range w.device.Log().Since(mark) {
					if e.Event == "notified" {
						w.t.Errorf("%+v", e)
					}
				}
				if got := w.device.Observers(); len(got) != 0 {
					w.t.Errorf("observers %q", got)
				}
				if ids := w.server.Observations("dev1"); len(ids) != 0 {
					w.t.Errorf("observations %v", ids)
				}
			})
		})
	}
}

func TestObserveRefused(t *testing.T) {
	both(t, nil, func(w *world) {
		_, resp, err := w.server.Observe(w.ctx, "dev1", ReadRequest("/3/0/77", NoFormat), nil)
		if err != nil || CodeText(resp.Code) != "4.04" || resp.Observe || len(w.server.Observations("dev1")) != 0 {
			w.t.Errorf("%v %+v", err, resp)
		}
	})
}

// TestObserveInstance: notifications hold the whole instance, in the format
// that was asked for, and in blocks if need be.
func TestObserveInstance(t *testing.T) {
	both(t, nil, func(w *world) {
		for _, c := range []struct {
			path   string
			format int
		}{{"/3303/0", lwm2m.TLV}, {"/3303", lwm2m.SenMLJSON}, {"/19/1", lwm2m.SenMLCBOR}} {
			o := w.observe(ReadRequest(c.path, c.format))
			mark := w.server.Log().Mark()
			big := bytes.Repeat([]byte{byte(c.format)}, 3000)
			if c.path == "/19/1" {
				w.set("/19/1/0/0", lwm2m.Bytes(big))
			} else {
				w.set("/3303/0/5700", lwm2m.Num(float64(c.format)))
			}
			e := w.event(mark, Named("notification"))
			records, err := w.device.Objects().Read(lwm2m.MustPath(c.path))
			if err != nil {
				w.t.Fatal(err)
			}
			want, err := lwm2m.Encode(c.format, lwm2m.MustPath(c.path), records)
			if err != nil {
				w.t.Fatal(err)
			}
			if e.ID != o.ID || *e.Format != c.format || !bytes.Equal(e.Payload, want) {
				w.t.Errorf("%s: %d bytes in %d, want %d in %d", c.path, len(e.Payload), *e.Format, len(want), c.format)
			}
			if err := o.Cancel(w.ctx); err != nil {
				w.t.Fatal(err)
			}
		}
	})
}

func TestObserveComposite(t *testing.T) {
	both(t, nil, func(w *world) {
		req, err := ReadCompositeRequest(lwm2m.SenMLCBOR, "/3/0/9", "/3303/1/5700")
		if err != nil {
			w.t.Fatal(err)
		}
		o := w.observe(req)
		for i, path := range []string{"/3/0/9", "/3303/1/5700"} {
			mark := w.server.Log().Mark()
			w.set(path, []lwm2m.Value{lwm2m.Int(50), lwm2m.Num(3.5)}[i])
			e := w.event(mark, Named("notification"))
			records, err := lwm2m.Decode(*e.Format, lwm2m.Path{}, e.Payload, w.device.Objects())
			if err != nil || e.ID != o.ID || len(records) != 2 || records[0].Value.Int != 50 {
				w.t.Errorf("%+v %v %v", e, records, err)
			}
		}
		if err := o.Cancel(w.ctx); err != nil {
			w.t.Fatal(err)
		}
		if got := w.device.Observers(); len(got) != 0 {
			w.t.Errorf("observers %q", got)
		}
	})
}

// TestAttributesRule: pmin holds a notification back, pmax makes one, gt and
// st choose.
func TestAttributesRule(t *testing.T) {
	clock := newFakeClock()
	both(t, func(d *DeviceConfig, _ *ServerConfig) { d.Clock = clock }, func(w *world) {
		w.do("2.04", AttributesRequest("/3303/0/5700", "pmin=10", "pmax=60", "st=2"))
		links := w.do("2.05", DiscoverRequest("/3303/0/5700"))
		if string(links.Payload) != "</3303/0/5700>;pmin=10;pmax=60;st=2" {
			w.t.Errorf("%q", links.Payload)
		}
		o := w.observe(ReadRequest("/3303/0/5700", lwm2m.Text))
		device, server := w.device.Log().Mark(), w.server.Log().Mark()
		w.set("/3303/0/5700", lwm2m.Num(30)) // waits for pmin
		w.set("/3303/0/5700", lwm2m.Num(31))
		clock.advance(9 * time.Second)
		if n := notified(w.device, device); n != 0 {
			w.t.Errorf("%d notifications before pmin", n)
		}
		clock.advance(time.Second)
		w.event(server, text("31"))
		clock.advance(11 * time.Second)
		w.set("/3303/0/5700", lwm2m.Num(32)) // below the step
		if n := notified(w.device, device); n != 1 {
			w.t.Errorf("%d notifications, want 1", n)
		}
		clock.advance(49 * time.Second) // pmax
		w.event(server, text("32"))
		clock.advance(20 * time.Second)
		w.set("/3303/0/5700", lwm2m.Num(34)) // the step, and pmin is over
		w.event(server, text("34"))
		if n := notified(w.device, device); n != 3 {
			w.t.Errorf("%d notifications, want 3", n)
		}
		if err := o.Cancel(w.ctx); err != nil {
			w.t.Fatal(err)
		}
		clock.advance(time.Hour)
		if n := notified(w.device, device); n != 3 {
			w.t.Errorf("%d notifications after the end", n)
		}
	})
}

func notified(d *Device, mark int) (n int) {
	for _, e := range d.Log().Since(mark) {
		if e.Event == "notified" {
			n++
		}
	}
	return n
}

// TestPassiveCancellation: a notification that nobody wants is reset, and that
// ends the observation.
func TestPassiveCancellation(t *testing.T) {
	w := newWorld(t, DeviceConfig{Endpoint: "dev1", Confirm: true}, ServerConfig{})
	o := w.observe(ReadRequest("/3/0/9", lwm2m.Text))
	if err := o.CancelPassively(); err != nil {
		t.Fatal(err)
	}
	mark, device := w.server.Log().Mark(), w.device.Log().Mark()
	w.set("/3/0/9", lwm2m.Int(1))
	w.event(mark, Named("reset"))
	for v := int64(2); ; v++ { // the reset is on its way
		w.set("/3/0/9", lwm2m.Int(v))
		n := int64(0)
		if e := w.deviceEvent(device, func(e Event) bool {
			if e.Event == "notified" {
				n++
			}
			return n == v || e.Event == "observation-ended"
		}); e.Event == "observation-ended" {
			break
		}
	}
}

// TestSealedCancelsByRequest says what does not work.
func TestSealedCancelsByRequest(t *testing.T) {
	both(t, nil, func(w *world) {
		o := w.observe(ReadRequest("/3/0/9", lwm2m.Text))
		if err := o.CancelPassively(); (w.device.cfg.OSCORE != nil) != errors.Is(err, ErrPassive) {
			w.t.Error(err)
		}
	})
}

// TestNotificationFromElsewhere: Leshan's rule. A device that moved to another
// port is heard there again only after a new observation.
func TestNotificationFromElsewhere(t *testing.T) {
	w := newWorld(t, DeviceConfig{Endpoint: "dev1"}, ServerConfig{})
	w.observe(ReadRequest("/3/0/9", lwm2m.Text))
	old := w.device.Addr().String()
	// Another device of the same name takes the registration over from another
	// port: the first one's observation goes with the old registration.
	second, err := NewDevice(DeviceConfig{Endpoint: "dev1", Server: w.server.Addr().String()})
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	if err := second.Register(w.ctx); err != nil {
		t.Fatal(err)
	}
	mark := w.server.Log().Mark()
	w.set("/3/0/9", lwm2m.Int(1))
	if e := w.event(mark, Named("reset")); e.Addr != old {
		t.Errorf("%+v", e)
	}
	if resp := w.do("2.05", ReadRequest("/3/0/0", NoFormat)); len(resp.Payload) == 0 {
		t.Error("no answer from the new address")
	}
	if r, _ := w.server.Registration("dev1"); r.Addr.String() != second.Addr().String() {
		t.Error(r.Addr, second.Addr())
	}
}

// TestObservationEndsWithRegistration: after a registration that replaced
// another the server is told nothing of the earlier observations.
func TestObservationEndsWithRegistration(t *testing.T) {
	both(t, nil, func(w *world) {
		w.observe(ReadRequest("/3/0/9", lwm2m.Text))
		if err := w.device.Register(w.ctx); err != nil {
			w.t.Fatal(err)
		}
		mark := w.server.Log().Mark()
		w.set("/3/0/9", lwm2m.Int(1))
		o := w.observe(ReadRequest("/3/0/9", lwm2m.Text))
		w.set("/3/0/9", lwm2m.Int(2))
		w.event(mark, text("2"))
		for _, e := range w.server.Log().Since(mark) {
			if e.Event == "notification" && e.ID != o.ID {
				w.t.Errorf("%+v", e)
			}
		}
	})
}
