package sim

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/oscorelay/oscorelay/internal/proof"
	"github.com/oscorelay/oscorelay/internal/sim/lwm2m"
)

// event waits for an event of the server from a mark on.
func (w *world) event(mark int, ok func(Event) bool) Event {
	w.t.Helper()
	e, err := w.server.Log().Wait(w.ctx, mark, ok)
	if err != nil {
		w.t.Fatalf("%v; the server saw %+v", err, w.server.Log().Since(mark))
	}
	return e
}

// device waits for an event of the device.
func (w *world) deviceEvent(mark int, ok func(Event) bool) Event {
	w.t.Helper()
	e, err := w.device.Log().Wait(w.ctx, mark, ok)
	if err != nil {
		w.t.Fatalf("%v; the device saw %+v", err, w.device.Log().Since(mark))
	}
	return e
}

func (w *world) set(path string, v lwm2m.Value) {
	w.t.Helper()
	if err := w.device.Objects().Set(lwm2m.MustPath(path), v); err != nil {
		w.t.Fatal(err)
	}
}

func TestRegistration(t *testing.T) {
	both(t, func(d *DeviceConfig, _ *ServerConfig) { d.Queue, d.Awake = true, -1 }, func(w *world) {
		r, ok := w.server.Registration("dev1")
		if !ok || r.Lifetime != 300*time.Second || r.Version != "1.1" || r.Binding != "U" || !r.Queue || r.Addr.String() != w.device.Addr().String() ||
			r.Links != w.device.Objects().Links() || "/rd/"+r.ID != w.device.Location() {
			w.t.Errorf("%+v", r)
		}
		mark := w.server.Log().Mark()
		if err := w.device.Update(w.ctx); err != nil {
			w.t.Fatal(err)
		}
		if e := w.event(mark, Named("updated")); e.Bytes != 0 {
			w.t.Error("an update where nothing changed has a payload:", e.Text)
		}
		// A new instance is told by the next update.
		w.do("2.01", CreateRequest("/19", lwm2m.TLV, []byte{0x08, 7, 5, 0x83, 0, 0x41, 0, 'x'}))
		mark = w.server.Log().Mark()
		if err := w.device.Update(w.ctx); err != nil {
			w.t.Fatal(err)
		}
		if e := w.event(mark, Named("updated")); !strings.Contains(e.Text, "</19/7>") {
			w.t.Error("the update does not tell of the new instance:", e.Text)
		}
		if err := w.device.Deregister(w.ctx); err != nil {
			w.t.Fatal(err)
		}
		if _, ok := w.server.Registration("dev1"); ok {
			w.t.Error("still registered")
		}
		if _, err := w.server.Do(w.ctx, "dev1", ReadRequest("/3/0/0", NoFormat)); !errors.Is(err, ErrUnregistered) {
			w.t.Error(err)
		}
	})
}

// TestUnknownRegistration: told 4.04 the device registers anew, without being
// asked to.
func TestUnknownRegistration(t *testing.T) {
	clock := newFakeClock()
	both(t, func(_ *DeviceConfig, s *ServerConfig) { s.Clock = clock }, func(w *world) {
		mark := w.server.Log().Mark()
		clock.advance(300 * time.Second)
		w.event(mark, Named("expired"))
		if err := w.device.Update(w.ctx); err != nil {
			w.t.Fatal(err)
		}
		w.event(mark, Named("unknown"))
		w.event(mark, Named("registered"))
		w.do("2.05", ReadRequest("/3/0/0", NoFormat))
	})
}

// TestBodiesAreIdentical: what the server gets, in each format, are the bytes
// that the device encoded.
func TestBodiesAreIdentical(t *testing.T) {
	both(t, nil, func(w *world) {
		for _, c := range []struct {
			path   string
			format int
		}{
			{"/3/0/0", lwm2m.Text},
			{"/19/0/0/0", lwm2m.Octets},
			{"/3", lwm2m.TLV},
			{"/3/0", lwm2m.TLV},
			{"/3/0/6", lwm2m.TLV},
			{"/19", lwm2m.TLV},
			{"/3303", lwm2m.TLV},
			{"/3", lwm2m.SenMLJSON},
			{"/3/0", lwm2m.SenMLJSON},
			{"/19/0", lwm2m.SenMLJSON},
			{"/3", lwm2m.SenMLCBOR},
			{"/3/0", lwm2m.SenMLCBOR},
			{"/19/0", lwm2m.SenMLCBOR},
			{"/6/0/0", lwm2m.SenMLCBOR},
		} {
			path := lwm2m.MustPath(c.path)
			records, err := w.device.Objects().Read(path)
			if err != nil {
				w.t.Fatal(err)
			}
			want, err := lwm2m.Encode(c.format, path, records)
			if err != nil {
				w.t.Fatal(c, err)
			}
			resp := w.do("2.05", ReadRequest(c.path, c.format))
			if resp.Format != c.format || !bytes.Equal(resp.Payload, want) {
				w.t.Errorf("%s: %d bytes in %d, want %d bytes in %d", c.path, len(resp.Payload), resp.Format, len(want), c.format)
			}
		}
		links, err := w.device.Objects().Discover(lwm2m.MustPath("/3"))
		if err != nil {
			w.t.Fatal(err)
		}
		if resp := w.do("2.05", DiscoverRequest("/3")); resp.Format != lwm2m.LinkFormat || string(resp.Payload) != links {
			w.t.Errorf("%q", resp.Payload)
		}
		proof.Requirement(w.t, "direct", "ENC-1", "ENC-2", "ENC-3")
	})
}

func TestRefusals(t *testing.T) {
	both(t, nil, func(w *world) {
		w.do("4.04", ReadRequest("/4/0/0", NoFormat))
		w.do("4.04", ReadRequest("/not/a/path", NoFormat))
		w.do("4.01", ReadRequest("/0/0/0", NoFormat))
		w.do("4.01", ReadRequest("/21", lwm2m.TLV))
		w.do("4.05", ReadRequest("/5/0/0", NoFormat))
		w.do("4.06", ReadRequest("/3/0", lwm2m.Text))
		w.do("4.06", ReadRequest("/3/0", 60))
		w.do("4.05", WriteRequest("/3/0/0", lwm2m.Replace, lwm2m.Text, []byte("x")))
		w.do("4.15", WriteRequest("/3/0/14", lwm2m.Replace, 60, []byte("x")))
		w.do("4.00", WriteRequest("/1/0/1", lwm2m.Replace, lwm2m.Text, []byte("x")))
		w.do("4.05", ExecuteRequest("/5/0/2", "")) // no package
		w.do("4.05", ExecuteRequest("/3/0", ""))
		w.do("4.00", AttributesRequest("/3/0/9", "bogus=1"))
	})
}

func TestWriteAndExecute(t *testing.T) {
	both(t, nil, func(w *world) {
		read := func(path, want string) {
			w.t.Helper()
			if resp := w.do("2.05", ReadRequest(path, lwm2m.Text)); string(resp.Payload) != want {
				w.t.Errorf("%s is %q, want %q", path, resp.Payload, want)
			}
		}
		w.do("2.04", WriteRequest("/3/0/14", lwm2m.Replace, lwm2m.Text, []byte("+01:00")))
		read("/3/0/14", "+01:00")
		w.do("2.04", WriteRequest("/3/0/14", lwm2m.Update, lwm2m.Text, []byte("+03:00")))
		read("/3/0/14", "+03:00")
		w.do("2.04", WriteRequest("/3/0", lwm2m.Update, lwm2m.TLV, []byte{0xc1, 14, 'Z'}))
		read("/3/0/14", "Z")
		read("/3/0/15", "Europe/Paris") // a partial update leaves it
		w.do("2.04", WriteRequest("/3/0", lwm2m.Replace, lwm2m.SenMLJSON, []byte(`[{"bn":"/3/0/","n":"14","vs":"Y"}]`)))
		read("/3/0/14", "Y")
		w.do("4.04", ReadRequest("/3/0/15", NoFormat)) // replaced: it was optional
		w.do("2.04", WriteRequest("/19/1/0/0", lwm2m.Replace, lwm2m.Octets, []byte{0, 1, 2, 255}))
		if resp := w.do("2.05", ReadRequest("/19/1/0/0", NoFormat)); resp.Format != lwm2m.Octets || !bytes.Equal(resp.Payload, []byte{0, 1, 2, 255}) {
			w.t.Errorf("%x in %d", resp.Payload, resp.Format)
		}
		mark := w.device.Log().Mark()
		for range 3 {
			w.do("2.04", ExecuteRequest("/3/0/4", "0='x'"))
		}
		if n := w.device.Objects().Executed(lwm2m.MustPath("/3/0/4")); n != 3 {
			w.t.Errorf("executed %d times, want 3", n)
		}
		if e := w.deviceEvent(mark, func(e Event) bool { return e.Event == "executed" && e.Count == 3 }); e.Query != "0='x'" || e.Path != "/3/0/4" {
			w.t.Errorf("%+v", e)
		}
		w.do("2.02", DeleteRequest("/19/1"))
		w.do("4.04", ReadRequest("/19/1", NoFormat))
	})
}

func TestComposite(t *testing.T) {
	both(t, nil, func(w *world) {
		for _, format := range []int{lwm2m.SenMLCBOR, lwm2m.SenMLJSON} {
			req, err := WriteCompositeRequest(format,
				lwm2m.Record{Path: lwm2m.MustPath("/3/0/14"), Value: lwm2m.Str(fmt.Sprint(format))},
				lwm2m.Record{Path: lwm2m.MustPath("/1/0/1"), Value: lwm2m.Int(int64(format))})
			if err != nil {
				w.t.Fatal(err)
			}
			w.do("2.04", req)
			req, err = ReadCompositeRequest(format, "/3/0/14", "/1/0/1", "/6", "/77/0/1")
			if err != nil {
				w.t.Fatal(err)
			}
			resp := w.do("2.05", req)
			records, err := lwm2m.Decode(resp.Format, lwm2m.Path{}, resp.Payload, w.device.Objects())
			if err != nil || resp.Format != format || len(records) != 5 || records[0].Value.Text != fmt.Sprint(format) || records[1].Value.Int != int64(format) {
				w.t.Errorf("%v %v", records, err)
			}
		}
		// All or nothing.
		req, err := WriteCompositeRequest(lwm2m.SenMLCBOR,
			lwm2m.Record{Path: lwm2m.MustPath("/3/0/14"), Value: lwm2m.Str("no")}, lwm2m.Record{Path: lwm2m.MustPath("/3/0/0"), Value: lwm2m.Str("no")})
		if err != nil {
			w.t.Fatal(err)
		}
		w.do("4.05", req)
		if resp := w.do("2.05", ReadRequest("/3/0/14", NoFormat)); string(resp.Payload) != "110" {
			w.t.Errorf("%q", resp.Payload)
		}
	})
}

func TestSend(t *testing.T) {
	both(t, nil, func(w *world) {
		paths := []lwm2m.Path{lwm2m.MustPath("/3/0/9"), lwm2m.MustPath("/6")}
		for _, format := range []int{lwm2m.SenMLCBOR, lwm2m.SenMLJSON} {
			mark := w.server.Log().Mark()
			if err := w.device.Send(w.ctx, format, paths...); err != nil {
				w.t.Fatal(err)
			}
			e := w.event(mark, Named("sent"))
			records, err := lwm2m.Decode(*e.Format, lwm2m.Path{}, e.Payload, w.device.Objects())
			if err != nil || e.Endpoint != "dev1" || *e.Format != format || len(records) != 4 || records[0].Value.Int != 100 {
				w.t.Errorf("%+v %v %v", e, records, err)
			}
		}
		w.do("2.04", WriteRequest("/1/0/23", lwm2m.Replace, lwm2m.Text, []byte("1")))
		mark := w.server.Log().Mark()
		if err := w.device.Send(w.ctx, lwm2m.SenMLCBOR, paths...); !errors.Is(err, ErrMuted) {
			w.t.Error(err)
		}
		for _, e := range w.server.Log().Since(mark) {
			if e.Event == "sent" {
				w.t.Error("muted, and sent")
			}
		}
	})
}

// TestBlockwise carries firmware of 100 KB and more one way, 20 KB the other.
func TestBlockwise(t *testing.T) {
	for _, size := range []int{1024, 64} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			both(t, func(d *DeviceConfig, s *ServerConfig) { d.BlockSize = size }, func(w *world) {
				pkg := Pattern(100*1024 + 13)
				if size < 1024 {
					pkg = pkg[:10000]
				}
				mark := w.device.Log().Mark()
				w.do("2.04", WriteRequest("/5/0/0", lwm2m.Replace, lwm2m.Octets, pkg))
				if e := w.deviceEvent(mark, Named("package")); e.Bytes != len(pkg) || e.Sum != sum(pkg) {
					w.t.Errorf("%+v", e)
				}
				if resp := w.do("2.05", ReadRequest("/5/0/3", NoFormat)); string(resp.Payload) != "2" {
					w.t.Errorf("state %q", resp.Payload)
				}
				w.do("2.04", ExecuteRequest("/5/0/2", ""))
				if e := w.deviceEvent(mark, Named("installed")); e.Sum != sum(pkg) {
					w.t.Errorf("%+v", e)
				}
				if resp := w.do("2.05", ReadRequest("/5/0", lwm2m.SenMLJSON)); !strings.Contains(string(resp.Payload), `{"n":"3","v":0},{"n":"5","v":1}`) {
					w.t.Errorf("%s", resp.Payload)
				}
				if resp := w.do("2.05", ReadRequest("/19/0/0/0", NoFormat)); !bytes.Equal(resp.Payload, lwm2m.LargeBody()) {
					w.t.Errorf("%d bytes", len(resp.Payload))
				}
				big := bytes.Repeat([]byte("0123456789abcdef"), 300)
				w.do("2.04", WriteRequest("/19/1/0/0", lwm2m.Replace, lwm2m.Octets, big))
				req, err := ReadCompositeRequest(lwm2m.SenMLCBOR, "/19/1/0/0", "/3/0/0") // FETCH in blocks
				if err != nil {
					w.t.Fatal(err)
				}
				resp := w.do("2.05", req)
				records, err := lwm2m.Decode(resp.Format, lwm2m.Path{}, resp.Payload, w.device.Objects())
				if err != nil || len(records) != 2 || !bytes.Equal(records[0].Value.Bytes, big) {
					w.t.Error(len(resp.Payload), err)
				}
			})
		})
	}
}

// TestRun keeps a device registered: at half of its lifetime, when the server
// asks for it, and when its instances change.
func TestRun(t *testing.T) {
	clock := newFakeClock()
	both(t, func(d *DeviceConfig, s *ServerConfig) { d.Clock = clock }, func(w *world) {
		ctx, cancel := context.WithCancel(w.ctx)
		done := make(chan struct{})
		mark := w.server.Log().Mark()
		go func() {
			defer close(done)
			w.device.Run(ctx)
		}()
		defer func() {
			cancel()
			<-done
		}()
		count := func(n int) func(Event) bool {
			return func(e Event) bool { return e.Event == "updated" && e.Count == n }
		}
		w.event(mark, count(1)) // registered before: Run updates at its start
		clock.waitTimers(w.t, 1)
		clock.advance(150 * time.Second)
		w.event(mark, count(2))
		clock.waitTimers(w.t, 1)
		w.do("2.04", ExecuteRequest("/1/0/8", "")) // Registration Update Trigger
		w.event(mark, count(3))
		clock.waitTimers(w.t, 1)
		w.do("2.02", DeleteRequest("/19/1"))
		if e := w.event(mark, count(4)); strings.Contains(e.Text, "</19/1>") || e.Text == "" {
			w.t.Error(e.Text)
		}
	})
}
