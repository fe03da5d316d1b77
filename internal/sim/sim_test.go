package sim

import (
	"context"
	"testing"
	"time"

	"github.com/oscorelay/oscorelay/keys"
	"github.com/oscorelay/oscorelay/oscore"
	"github.com/oscorelay/oscorelay/oscore/gocoap"
)

// world is a server and a device, in plain or sealed.
type world struct {
	t      *testing.T
	ctx    context.Context
	server *Server
	device *Device
}

// rings returns the keyrings of a device and a server that share a context.
func rings(t *testing.T) (device, server *keys.Keyring) {
	t.Helper()
	e := keys.Entry{Name: "server", Params: oscore.Params{MasterSecret: []byte("0123456789abcdef"), SenderID: []byte("dev"), RecipientID: []byte("srv")}}
	device, server = keys.New(keys.NewMemory()), keys.New(keys.NewMemory())
	p := e.Peer()
	p.Name = "device"
	if _, err := device.AddNew(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	if _, err := server.AddNew(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	return device, server
}

// both runs a test in plain and sealed.
func both(t *testing.T, change func(*DeviceConfig, *ServerConfig), f func(*world)) {
	for _, mode := range []string{"plain", "sealed"} {
		t.Run(mode, func(t *testing.T) {
			dc, sc := DeviceConfig{Endpoint: "dev1"}, ServerConfig{}
			if mode == "sealed" {
				d, s := rings(t)
				dc.OSCORE, dc.Peer, sc.OSCORE = &gocoap.Config{Keyring: d}, "server", &gocoap.Config{Keyring: s}
			}
			if change != nil {
				change(&dc, &sc)
			}
			f(newWorld(t, dc, sc))
		})
	}
}

func newWorld(t *testing.T, dc DeviceConfig, sc ServerConfig) *world {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	w := &world{t: t, ctx: ctx}
	var err error
	if w.server, err = NewServer(sc); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.server.Close)
	dc.Server = w.server.Addr().String()
	if w.device, err = NewDevice(dc); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.device.Close)
	if err := w.device.Register(ctx); err != nil {
		t.Fatal(err)
	}
	return w
}

// do sends a request to the device and wants a code.
func (w *world) do(code string, r Request) Response {
	w.t.Helper()
	resp, err := w.server.Do(w.ctx, "dev1", r)
	if err != nil {
		w.t.Fatalf("%s %s: %v", r.Method, r.Path, err)
	}
	if got := CodeText(resp.Code); got != code {
		w.t.Fatalf("%s %s: %s %q, want %s", r.Method, r.Path, got, resp.Payload, code)
	}
	return resp
}

func TestRegisterAndRead(t *testing.T) {
	both(t, nil, func(w *world) {
		if resp := w.do("2.05", ReadRequest("/3/0/0", NoFormat)); string(resp.Payload) != "Open Mobile Device" || resp.Format != 0 {
			w.t.Errorf("%q in %d", resp.Payload, resp.Format)
		}
	})
}
