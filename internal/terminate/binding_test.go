package terminate

import (
	"testing"

	"github.com/plgd-dev/go-coap/v3/message/codes"

	"github.com/oscorelay/oscorelay/internal/sim"
)

// The context binds what the backend cannot check: the endpoint name, and the
// registration that an Update or a De-register is for.
func TestRegistrationIsBound(t *testing.T) {
	w := newWorld(t, nil)
	links := []byte("</3/0>")
	for _, c := range []struct {
		name string
		r    sim.Request
		want string
	}{
		{"another's name", register("ep=dev2", "lt=300"), "4.00"},
		{"two names", register("ep=dev1", "ep=dev2"), "4.00"},
		{"the empty name", register("ep="), "4.00"},
		{"nobody's location", sim.Request{Method: codes.POST, Path: "/rd/1", Format: sim.NoFormat, Accept: sim.NoFormat}, "4.04"},
		{"its own name", register("ep=dev1", "lt=300", "lwm2m=1.1", "b=U"), "2.01"},
		{"its own location", sim.Request{Method: codes.POST, Path: "/rd/1", Format: sim.NoFormat, Accept: sim.NoFormat}, "2.04"},
		{"another's location", sim.Request{Method: codes.DELETE, Path: "/rd/2", Format: sim.NoFormat, Accept: sim.NoFormat}, "4.04"},
		{"no name", register("lt=300", "lwm2m=1.1", "b=U"), "2.01"},
		{"the location before", sim.Request{Method: codes.DELETE, Path: "/rd/1", Format: sim.NoFormat, Accept: sim.NoFormat}, "4.04"},
		{"its own end", sim.Request{Method: codes.DELETE, Path: "/rd/2", Format: sim.NoFormat, Accept: sim.NoFormat}, "2.02"},
		{"after the end", sim.Request{Method: codes.POST, Path: "/rd/2", Format: sim.NoFormat, Accept: sim.NoFormat}, "4.04"},
	} {
		if c.r.Path == "/rd" {
			c.r.Payload = links
		}
		resp, err := w.device.Do(w.ctx, c.r)
		if err != nil || sim.CodeText(resp.Code) != c.want {
			t.Errorf("%s: %s, %v, want %s", c.name, sim.CodeText(resp.Code), err, c.want)
		}
	}
	for _, e := range w.server.Log().Since(0) {
		if e.Endpoint != "" && e.Endpoint != "dev1" {
			t.Errorf("the server has heard of %q", e.Endpoint)
		}
	}
	if n := w.state().Stats.Counters["registration_refused"]; n != 7 {
		t.Errorf("%d refusals counted", n)
	}
}

func register(query ...string) sim.Request {
	return sim.Request{Method: codes.POST, Path: "/rd", Query: query, Format: 40, Accept: sim.NoFormat}
}

// The context of another account is refused, and its device has no way in.
func TestAnotherAccount(t *testing.T) {
	w := newWorld(t, func(s *settings, _ *sim.DeviceConfig) { s.Refuses = "dev1" })
	resp, err := w.device.Do(w.ctx, register("ep=dev1"))
	if err != nil || sim.CodeText(resp.Code) != "4.03" {
		t.Errorf("%s, %v", sim.CodeText(resp.Code), err)
	}
	if n := len(w.server.Registrations()); n != 0 {
		t.Errorf("%d registrations", n)
	}
}
