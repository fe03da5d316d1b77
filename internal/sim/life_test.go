package sim

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"

	"github.com/oscorelay/oscorelay/internal/sim/lwm2m"
	"github.com/oscorelay/oscorelay/keys"
	"github.com/oscorelay/oscorelay/oscore"
	"github.com/oscorelay/oscorelay/oscore/gocoap"
)

// TestQueueMode: the device sleeps some time after its last message, does not
// answer then, and is reached after its next update.
func TestQueueMode(t *testing.T) {
	clock := newFakeClock()
	both(t, func(d *DeviceConfig, _ *ServerConfig) {
		d.Queue, d.Awake, d.Clock = true, 20*time.Second, clock
	}, func(w *world) {
		if r, _ := w.server.Registration("dev1"); !r.Queue {
			w.t.Errorf("%+v", r)
		}
		clock.advance(19 * time.Second)
		w.do("2.05", ReadRequest("/3/0/0", NoFormat)) // it starts the time again
		clock.advance(19 * time.Second)
		w.do("2.05", ReadRequest("/3/0/0", NoFormat))
		mark := w.device.Log().Mark()
		clock.advance(20 * time.Second)
		w.deviceEvent(mark, Named("asleep"))
		short, cancel := context.WithTimeout(w.ctx, 50*time.Millisecond)
		defer cancel()
		if _, err := w.server.Do(short, "dev1", ReadRequest("/3/0/1", NoFormat)); !errors.Is(err, context.DeadlineExceeded) {
			w.t.Errorf("asleep, and answered: %v", err)
		}
		for _, e := range w.device.Log().Since(mark) {
			if e.Event == "served" {
				w.t.Errorf("asleep, and served: %+v", e)
			}
		}
		type answer struct {
			Response
			error
		}
		answers := make(chan answer, 1)
		go func() {
			resp, err := w.server.DoAwake(w.ctx, "dev1", ReadRequest("/3/0/2", NoFormat))
			answers <- answer{resp, err}
		}()
		// The request waits for an update; updates until one came after it.
		for {
			if err := w.device.Update(w.ctx); err != nil {
				w.t.Fatal(err)
			}
			select {
			case a := <-answers:
				if a.error != nil || string(a.Payload) != "345000123" {
					w.t.Errorf("%+v", a)
				}
				return
			case <-time.After(20 * time.Millisecond):
			}
		}
	})
}

// TestLifetime: a registration ends with its lifetime, unless it is updated.
func TestLifetime(t *testing.T) {
	clock := newFakeClock()
	both(t, func(_ *DeviceConfig, s *ServerConfig) { s.Clock = clock }, func(w *world) {
		clock.advance(299 * time.Second)
		if err := w.device.Update(w.ctx); err != nil {
			w.t.Fatal(err)
		}
		clock.advance(299 * time.Second)
		if _, ok := w.server.Registration("dev1"); !ok {
			w.t.Error("expired too early")
		}
		clock.advance(time.Second)
		if _, ok := w.server.Registration("dev1"); ok {
			w.t.Error("still registered")
		}
	})
}

// TestServerRestarts: the device keeps its port, notices by an update, and is
// known again. The socket survives that the host says its port is closed.
func TestServerRestarts(t *testing.T) {
	both(t, nil, func(w *world) {
		addr, port := w.server.Addr().String(), w.device.Addr().Port
		w.server.Close()
		short, cancel := context.WithTimeout(w.ctx, 100*time.Millisecond)
		defer cancel()
		if err := w.device.Update(short); !errors.Is(err, context.DeadlineExceeded) {
			w.t.Errorf("nobody is there: %v", err)
		}
		cfg := w.server.cfg
		cfg.Listen = addr
		var err error
		if w.server, err = NewServer(cfg); err != nil {
			w.t.Fatal(err)
		}
		defer w.server.Close()
		if err := w.device.Update(w.ctx); err != nil {
			w.t.Fatal(err)
		}
		r, ok := w.server.Registration("dev1")
		if !ok || r.Addr.Port != port {
			w.t.Errorf("%+v, want port %d", r, port)
		}
		w.do("2.05", ReadRequest("/3/0/0", NoFormat))
		o := w.observe(ReadRequest("/3/0/9", lwm2m.Text))
		mark := w.server.Log().Mark()
		w.set("/3/0/9", lwm2m.Int(7))
		if e := w.event(mark, text("7")); e.ID != o.ID {
			w.t.Errorf("%+v", e)
		}
	})
}

// TestDeviceRestarts: a device that is started anew at the same port registers
// again, and the server's registration follows.
func TestDeviceRestarts(t *testing.T) {
	both(t, nil, func(w *world) {
		w.observe(ReadRequest("/3/0/9", lwm2m.Text))
		cfg := w.device.cfg
		cfg.Listen, cfg.Objects = w.device.Addr().String(), nil
		w.device.Close()
		short, cancel := context.WithTimeout(w.ctx, 50*time.Millisecond)
		defer cancel()
		if _, err := w.server.Do(short, "dev1", ReadRequest("/3/0/0", NoFormat)); err == nil {
			w.t.Error("a device that is gone answered")
		}
		var err error
		if w.device, err = NewDevice(cfg); err != nil {
			w.t.Fatal(err)
		}
		defer w.device.Close()
		if err := w.device.Register(w.ctx); err != nil {
			w.t.Fatal(err)
		}
		if ids := w.server.Observations("dev1"); len(ids) != 0 {
			w.t.Errorf("observations %v outlived the registration", ids)
		}
		w.do("2.05", ReadRequest("/3/0/0", NoFormat))
	})
}

// TestContextChange: after Appendix B.2 gave the two a new context, the device
// registers anew.
func TestContextChange(t *testing.T) {
	device, server := keys.New(keys.NewMemory()), keys.New(keys.NewMemory())
	e := keys.Entry{
		Name:     "server",
		Params:   oscore.Params{MasterSecret: []byte("0123456789abcdef"), SenderID: []byte("dev"), RecipientID: []byte("srv"), IDContext: []byte{1}},
		Settings: oscore.Settings{Rederive: oscore.RoleClient},
	}
	p := e.Peer()
	p.Name, p.Settings = "device", oscore.Settings{Rederive: oscore.RoleServer}
	if _, err := device.AddNew(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	if _, err := server.AddNew(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, DeviceConfig{Endpoint: "dev1", OSCORE: &gocoap.Config{Keyring: device}, Peer: "server"}, ServerConfig{OSCORE: &gocoap.Config{Keyring: server}})
	mark := w.server.Log().Mark()
	if err := w.device.Update(w.ctx); err != nil {
		t.Fatal(err)
	}
	w.event(mark, Named("updated"))
	if _, err := w.device.do(w.ctx, Request{Method: 1, Path: "/x", Accept: NoFormat, Format: NoFormat}, gocoap.WithRederive()); err != nil {
		t.Fatal(err)
	}
	mark = w.server.Log().Mark()
	if err := w.device.Update(w.ctx); err != nil {
		t.Fatal(err)
	}
	w.event(mark, Named("registered"))
	w.do("2.05", ReadRequest("/3/0/0", NoFormat))
	mark = w.server.Log().Mark()
	if err := w.device.Update(w.ctx); err != nil {
		t.Fatal(err)
	}
	w.event(mark, Named("updated"))
	w.device.ContextChanged()
	if err := w.device.Update(w.ctx); err != nil {
		t.Fatal(err)
	}
	w.event(mark, Named("registered"))
}

// TestOthersAreRefused: another peer's registration cannot be updated, ended or
// taken over.
func TestOthersAreRefused(t *testing.T) {
	deviceRing, serverRing := rings(t)
	other := keys.New(keys.NewMemory())
	e := keys.Entry{Name: "server", Params: oscore.Params{MasterSecret: []byte("fedcba9876543210"), SenderID: []byte("oth"), RecipientID: []byte("srv")}}
	p := e.Peer()
	p.Name = "other"
	if _, err := other.AddNew(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	if _, err := serverRing.AddNew(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, DeviceConfig{Endpoint: "dev1", OSCORE: &gocoap.Config{Keyring: deviceRing}, Peer: "server"}, ServerConfig{OSCORE: &gocoap.Config{Keyring: serverRing}})
	thief, err := NewDevice(DeviceConfig{Endpoint: "dev1", Server: w.server.Addr().String(), OSCORE: &gocoap.Config{Keyring: other}, Peer: "server"})
	if err != nil {
		t.Fatal(err)
	}
	defer thief.Close()
	for _, r := range []Request{
		{Method: 2, Path: w.device.Location(), Accept: NoFormat, Format: NoFormat},
		{Method: 4, Path: w.device.Location(), Accept: NoFormat, Format: NoFormat},
	} {
		if resp, err := thief.Do(w.ctx, r); err != nil || CodeText(resp.Code) != "4.04" {
			t.Errorf("%v %+v", err, resp)
		}
	}
	var refused *CodeError
	if err := thief.Register(w.ctx); !errors.As(err, &refused) || CodeText(refused.Code) != "4.03" {
		t.Errorf("it registers as the other: %v", err)
	}
	if r, ok := w.server.Registration("dev1"); !ok || r.Peer != "device" || r.Addr.Port != w.device.Addr().Port {
		t.Errorf("%+v", r)
	}
}

// TestSealedIsSealed: nothing of what the device says crosses in plain, and
// plain requests get nothing.
func TestSealedIsSealed(t *testing.T) {
	d, s := rings(t)
	w := newWorld(t, DeviceConfig{Endpoint: "dev1", OSCORE: &gocoap.Config{Keyring: d}, Peer: "server"}, ServerConfig{OSCORE: &gocoap.Config{Keyring: s}})
	plain, err := NewServer(ServerConfig{})
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	resp, err := plain.node.do(w.ctx, w.device.Addr(), "", ReadRequest("/3/0/0", NoFormat))
	if err != nil || CodeText(resp.Code) != "4.01" || len(resp.Payload) != 0 {
		t.Errorf("%v %+v", err, resp)
	}
}

// TestProxiedAddress: the device talks to whatever address it is given.
func TestProxiedAddress(t *testing.T) {
	w := newWorld(t, DeviceConfig{Endpoint: "dev1"}, ServerConfig{})
	second, err := NewServer(ServerConfig{})
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	if err := w.device.SetServer(second.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if err := w.device.Update(w.ctx); err != nil { // 4.04 there: it registers
		t.Fatal(err)
	}
	if r, err := second.WaitRegistered(w.ctx, "dev1"); err != nil || r.Addr.Port != w.device.Addr().Port {
		t.Errorf("%+v %v", r, err)
	}
	var bad *net.AddrError
	if err := w.device.SetServer("nowhere"); !errors.As(err, &bad) {
		t.Error(err)
	}
}
