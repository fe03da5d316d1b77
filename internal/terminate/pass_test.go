package terminate

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"testing"

	"github.com/oscorelay/oscorelay/internal/coap"
	"github.com/oscorelay/oscorelay/internal/sim"
	"github.com/oscorelay/oscorelay/internal/sim/lwm2m"
	"github.com/oscorelay/oscorelay/oscore"
)

// Everything that a server asks of a device, and a device of a server, passes;
// outside nothing of it can be seen.
func TestEverythingPasses(t *testing.T) {
	w := newWorld(t, nil)
	w.register()
	if reg, ok := w.server.Registration("dev1"); !ok || reg.Addr.String() != w.state().Devices[0].Upstream.String() {
		t.Errorf("registered from %v", reg.Addr)
	}
	if resp := w.do("2.05", sim.ReadRequest("/3/0/0", sim.NoFormat)); string(resp.Payload) != "Open Mobile Device" {
		t.Errorf("%q", resp.Payload)
	}
	if err := w.server.Write(w.ctx, "dev1", "/3/0/14", lwm2m.Replace, 0, []byte("+07:00")); err != nil {
		t.Error(err)
	}
	if v := w.do("2.05", sim.ReadRequest("/3/0/14", sim.NoFormat)); string(v.Payload) != "+07:00" {
		t.Errorf("%q", v.Payload)
	}
	if err := w.server.Execute(w.ctx, "dev1", "/3/0/4", "0='now'"); err != nil {
		t.Error(err)
	}
	if n := w.executed("/3/0/4"); n != 1 {
		t.Errorf("%d executions", n)
	}
	// 100 KB by Block1, 20 KB by Block2.
	big := sim.Pattern(100 << 10)
	if err := w.server.Write(w.ctx, "dev1", "/5/0/0", lwm2m.Replace, 42, big); err != nil {
		t.Error(err)
	}
	sum := sha256.Sum256(big)
	if e := w.deviceEvent(0, "package"); e.Sum != hex.EncodeToString(sum[:]) || e.Bytes != len(big) {
		t.Errorf("%d bytes arrived, SHA-256 %s", e.Bytes, e.Sum)
	}
	body := lwm2m.LargeBody()
	if resp := w.do("2.05", sim.ReadRequest("/19/0/0/0", 42)); !bytes.Equal(resp.Payload, body) {
		t.Errorf("%d bytes read", len(resp.Payload))
	}
	if resp := w.do("2.05", composite(t, "/3/0/0", "/6/0/0")); resp.Format != 112 || len(resp.Payload) == 0 {
		t.Errorf("%+v", resp)
	}
	mark := w.server.Log().Mark()
	if err := w.device.Send(w.ctx, 112, mustPath(t, "/3/0/0")); err != nil {
		t.Error(err)
	}
	if e, err := w.server.Log().Wait(w.ctx, mark, sim.Named("sent")); err != nil || e.Endpoint != "dev1" {
		t.Errorf("%+v, %v", e, err)
	}
	if err := w.device.Update(w.ctx); err != nil {
		t.Error(err)
	}
	if err := w.device.Deregister(w.ctx); err != nil {
		t.Error(err)
	}
	w.sealed("temp", "Open Mobile Device", "+07:00", "ep=dev1", "dev1", "/rd", "rd", string(big[2000:2040]), string(body[5000:5040]))
}

// sealed fails the test unless every datagram of the device's leg with a code is
// OSCORE, and none holds any of the words.
func (w *world) sealed(words ...string) {
	w.t.Helper()
	n := 0
	for _, data := range w.relay.capture() {
		d, err := coap.ParseDatagram(data)
		if err != nil {
			w.t.Errorf("%x: %v", data, err)
			continue
		}
		for _, word := range words {
			if bytes.Contains(d.Body, []byte(word)) && len(word) > 3 {
				w.t.Errorf("%q stands in the clear in %x", word, data)
			}
		}
		if d.Code == coap.Empty {
			continue
		}
		n++
		if _, protected, err := oscore.FindOption(oscore.Message{Code: byte(d.Code), Body: d.Body}); !protected || err != nil {
			w.t.Errorf("not protected: %v %x", d.Code, data)
		}
		switch d.Code {
		case coap.POST, coap.FETCH, coap.Changed, coap.Content:
		default:
			w.t.Errorf("outer code %v", d.Code)
		}
		opts, _, err := coap.Split(d.Body)
		if err != nil {
			w.t.Error(err)
		}
		for _, o := range opts {
			if o.Number != coap.OSCORE && o.Number != coap.Observe {
				w.t.Errorf("option %s outside", coap.OptionName(o.Number))
			}
		}
	}
	if n < 10 {
		w.t.Errorf("only %d messages captured", n)
	}
}

// executed returns how often the device ran a resource.
func (w *world) executed(path string) int {
	w.t.Helper()
	e, err := w.device.Command(w.ctx, sim.Command{Cmd: "executed", Path: path})
	if err != nil {
		w.t.Fatal(err)
	}
	return e.Count
}

func (w *world) deviceEvent(mark int, name string) sim.Event {
	w.t.Helper()
	e, err := w.device.Log().Wait(w.ctx, mark, sim.Named(name))
	if err != nil {
		w.t.Fatalf("no %s: %v", name, err)
	}
	return e
}

func composite(t *testing.T, paths ...string) sim.Request {
	t.Helper()
	r, err := sim.ReadCompositeRequest(112, paths...)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func mustPath(t *testing.T, s string) lwm2m.Path {
	t.Helper()
	p, err := lwm2m.ParsePath(s)
	if err != nil {
		t.Fatal(err)
	}
	return p
}
