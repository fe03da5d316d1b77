package terminate

import (
	"testing"

	"github.com/plgd-dev/go-coap/v3/message/codes"

	"github.com/oscorelay/oscorelay/internal/coap"
	"github.com/oscorelay/oscorelay/internal/sim"
	"github.com/oscorelay/oscorelay/oscore"
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
		{"bootstrap as another", sim.Request{Method: codes.POST, Path: "/bs", Query: []string{"ep=dev2"}, Format: sim.NoFormat, Accept: sim.NoFormat}, "4.00"},
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
	if n := w.state().Stats.Counters["registration_refused"]; n != 8 {
		t.Errorf("%d refusals counted", n)
	}
}

// An answer about a registration that the device has replaced meanwhile says
// nothing of the new one.
func TestLateEndOfARegistration(t *testing.T) {
	for _, c := range []struct {
		what registration
		code coap.Code
	}{{updates, coap.NotFound}, {deregisters, coap.Deleted}} {
		g := &Gateway{db: &behind{}}
		u := &uplink{dev: &device{location: "/rd/2"}, what: c.what, path: "/rd/1"}
		if g.registered(u, c.code, nil) || u.dev.location != "/rd/2" {
			t.Errorf("%v: the location is %q", c.code, u.dev.location)
		}
		if u.path = "/rd/2"; !g.registered(u, c.code, nil) || u.dev.location != "" {
			t.Errorf("%v: the location is still %q", c.code, u.dev.location)
		}
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

// A path that is written in another way, or a request that asks to be forwarded,
// is not passed.
func TestOtherWaysAreRefused(t *testing.T) {
	g, u := &Gateway{}, &uplink{dev: &device{endpoint: "dev1", location: "/rd/1"}}
	path := func(segments ...string) (o coap.Options) {
		for _, s := range segments {
			o = o.Add(coap.URIPath, []byte(s))
		}
		return o
	}
	for name, c := range map[string]struct {
		opts coap.Options
		want coap.Code
	}{
		"an empty segment before":  {path("", "rd").Add(coap.URIQuery, []byte("ep=dev2")), coap.BadOption},
		"an empty segment between": {path("rd", "", "2"), coap.BadOption},
		"Proxy-Uri":                {path("rd").Add(coap.ProxyURI, []byte("coap://x/rd?ep=dev2")), coap.BadOption},
		"Proxy-Scheme":             {path("rd").Add(coap.ProxyScheme, []byte("coap")), coap.BadOption},
		"a dot":                    {path(".", "rd").Add(coap.URIQuery, []byte("ep=dev2")), coap.BadOption},
		"a step back":              {path("x", "..", "rd").Add(coap.URIQuery, []byte("ep=dev2")), coap.BadOption},
		"a step back at the end":   {path("rd", "2", ".."), coap.BadOption},
		"a name in another option": {path("rd").Add(coap.URIQuery, []byte("ep=dev1")).Add(coap.URIQuery, []byte("lt=9&ep=dev2")), coap.BadRequest},
		"another's, in one":        {path("rd/2"), coap.NotFound},
		"its own":                  {path("rd", "1"), 0},
	} {
		_, bad := g.register(u, oscore.Message{Code: byte(coap.POST), Body: coap.AppendBody(nil, c.opts, nil)})
		if bad != c.want {
			t.Errorf("%s: %v, want %v", name, bad, c.want)
		}
	}
}
