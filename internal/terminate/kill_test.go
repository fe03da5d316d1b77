package terminate

import (
	"crypto/sha256"
	"encoding/hex"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/oscorelay/oscorelay/internal/sim"
	"github.com/oscorelay/oscorelay/internal/sim/lwm2m"
)

// hold lets pass what comes by until the n-th datagram of a direction, which it
// swallows, with all that come after it. The channel is closed then.
func (r *relay) hold(up bool, n int64) (held chan struct{}) {
	held = make(chan struct{})
	var count atomic.Int64
	r.setTap(func(u bool, _ []byte) bool {
		switch k := count.Load(); {
		case k >= n:
			return false
		case u == up && count.Add(1) == n:
			close(held)
			return false
		}
		return true
	})
	return held
}

// An execute is under way when the gateway is killed: before the device has it,
// when the device has run it, and when the answer is on its way to the server.
// It completes, and runs once.
func TestKillDuringExecute(t *testing.T) {
	for _, c := range []struct {
		name string
		up   bool
	}{{"the device has not got it", false}, {"the answer is lost", true}} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, nil)
			w.register()
			held := w.relay.hold(c.up, 1)
			done := make(chan error, 1)
			go func() { done <- w.server.Execute(w.ctx, "dev1", "/3/0/4", "") }()
			w.await(held)
			w.kill()
			w.relay.setTap(nil)
			w.start()
			if err := <-done; err != nil {
				t.Errorf("the server sees: %v", err)
			}
			if n := w.executed("/3/0/4"); n != 1 {
				t.Errorf("it ran %d times", n)
			}
			w.eventually("the request was taken up", func(s state) bool { return s.Stats.Counters["journal_resumed"] == 1 })
			// It runs again if it is asked for again.
			if err := w.server.Execute(w.ctx, "dev1", "/3/0/4", ""); err != nil || w.executed("/3/0/4") != 2 {
				t.Error(err, w.executed("/3/0/4"))
			}
		})
	}
}

// The execute that is taken up is lost once more, while observations are taken up
// and the server asks for more: their numbers, far beyond after a restart, must
// not push it out of the device's replay window.
func TestKillDuringExecuteUnderObservation(t *testing.T) {
	w := newWorld(t, nil)
	w.register()
	if _, _, err := w.server.Observe(w.ctx, "dev1", sim.ReadRequest("/3303/0/5700", 0), nil); err != nil {
		t.Fatal(err)
	}
	w.eventually("the observation is in the store", func(s state) bool { return s.Stats.Gauges["observations"] == 1 })
	held := w.relay.hold(false, 1)
	done, read := make(chan error, 1), make(chan error, 1)
	go func() { done <- w.server.Execute(w.ctx, "dev1", "/3/0/4", "") }()
	w.await(held)
	w.kill()
	lost := make(chan struct{})
	var once sync.Once
	w.relay.setTap(func(up bool, b []byte) bool {
		if up || b[1] != 0x02 { // the outer code of an execute: POST
			return true
		}
		pass := true
		once.Do(func() { pass = false; close(lost) })
		return pass
	})
	w.start()
	w.await(lost)
	go func() {
		_, err := w.server.Read(w.ctx, "dev1", "/3/0/0", 0)
		read <- err
	}()
	for _, c := range []chan error{done, read} {
		if err := <-c; err != nil {
			t.Errorf("the server sees: %v", err)
		}
	}
	if n := w.executed("/3/0/4"); n != 1 {
		t.Errorf("it ran %d times", n)
	}
	w.eventually("the observation is taken up", func(s state) bool { return s.Stats.Counters["observation_revived"] == 1 })
}

// A transfer of 100 KB goes on where it stood.
func TestKillDuringWrite(t *testing.T) {
	w := newWorld(t, nil)
	w.register()
	held := w.relay.hold(true, 40)
	done := make(chan error, 1)
	big := sim.Pattern(100 << 10)
	go func() { done <- w.server.Write(w.ctx, "dev1", "/5/0/0", lwm2m.Replace, 42, big) }()
	w.await(held)
	w.kill()
	w.relay.setTap(nil)
	w.start()
	if err := <-done; err != nil {
		t.Errorf("the server sees: %v", err)
	}
	sum := sha256.Sum256(big)
	if e := w.deviceEvent(0, "package"); e.Sum != hex.EncodeToString(sum[:]) {
		t.Errorf("%d bytes, SHA-256 %s", e.Bytes, e.Sum)
	}
	n := 0
	for _, e := range w.device.Log().Since(0) {
		if e.Event == "package" {
			n++
		}
	}
	if n != 1 {
		t.Errorf("the package arrived %d times", n)
	}
}

// So does a read that is answered in blocks.
func TestKillDuringRead(t *testing.T) {
	w := newWorld(t, nil)
	w.register()
	held := w.relay.hold(true, 10)
	done := make(chan sim.Response, 1)
	go func() { done <- w.do("2.05", sim.ReadRequest("/19/0/0/0", 42)) }()
	w.await(held)
	w.kill()
	w.relay.setTap(nil)
	w.start()
	if resp := <-done; string(resp.Payload) != string(lwm2m.LargeBody()) {
		t.Errorf("%d bytes", len(resp.Payload))
	}
}

// The server observes; the gateway is killed; notifications go on arriving, on
// the observation that the server has.
func TestKillDuringObserve(t *testing.T) {
	w := newWorld(t, nil)
	w.register()
	values := make(chan string, 100)
	if _, _, err := w.server.Observe(w.ctx, "dev1", sim.ReadRequest("/3303/0/5700", 0), func(r sim.Response) { values <- string(r.Payload) }); err != nil {
		t.Fatal(err)
	}
	if _, _, err := w.server.Observe(w.ctx, "dev1", composite(t, "/3/0/9", "/6/0/0"), nil); err != nil {
		t.Fatal(err)
	}
	w.set("/3303/0/5700", "21.5")
	w.want(values, "21.5")
	for i, v := range []string{"22.5", "23.5"} {
		for n := range 60 { // a burst: those of the next process must still be newer (RFC 7641 §3.4)
			w.set("/3303/0/5700", strconv.Itoa(100+n))
		}
		w.want(values, "159")
		w.eventually("observations are in the store", func(s state) bool { return s.Stats.Gauges["observations"] == 2 })
		w.kill()
		w.start()
		w.eventually("both were taken up", func(s state) bool { return s.Stats.Counters["observation_revived"] == 2 })
		mark := w.server.Log().Mark()
		w.set("/3303/0/5700", v)
		w.want(values, v)
		w.set("/3/0/9", []string{"51", "52"}[i])
		if _, err := w.server.Log().Wait(w.ctx, mark, func(e sim.Event) bool {
			return e.Event == "notification" && e.Path != "/3303/0/5700"
		}); err != nil {
			t.Error("no composite notification", err)
		}
	}
	for _, e := range w.server.Log().Since(0) {
		if e.Event == "reset" || e.Event == "unexpected" {
			t.Errorf("the server noticed: %+v", e)
		}
	}
	// The old observations end at the device by a Reset of their next notification.
	for i := 0; len(w.device.Observers()) > 2; i++ {
		w.set("/3303/0/5700", strconv.Itoa(30+i%2))
		w.set("/3/0/9", strconv.Itoa(60+i%2))
		if w.ctx.Err() != nil {
			t.Fatalf("observed: %v", w.device.Observers())
		}
	}
	// And a cancellation is passed on.
	for _, id := range w.server.Observations("dev1") {
		o, _ := w.server.Observation(id)
		if err := o.Cancel(w.ctx); err != nil {
			t.Error(err, w.state())
		}
	}
	// A notification that crosses the cancellation answers it for the server.
	w.eventually("the observations have ended", func(s state) bool {
		return len(w.device.Observers()) == 0 && s.Stats.Gauges["observations"] == 0
	})
}

// A device's own request is cut off: it repeats it, is asked for an Echo, since
// the replay window is lost, and goes on.
func TestKillDuringUpdate(t *testing.T) {
	for _, up := range []bool{true, false} {
		w := newWorld(t, nil)
		w.register()
		reg, _ := w.server.Registration("dev1")
		held := w.relay.hold(up, 1)
		done := make(chan error, 1)
		go func() { done <- w.device.Update(w.ctx) }()
		w.await(held)
		w.kill()
		w.relay.setTap(nil)
		w.start()
		if err := <-done; err != nil {
			t.Errorf("the device sees: %v", err)
		}
		after, _ := w.server.Registration("dev1")
		if after.ID != reg.ID || after.Addr.String() != reg.Addr.String() {
			t.Errorf("the server noticed: %+v, before %+v", after, reg)
		}
		mark := w.server.Log().Mark()
		if err := w.device.Send(w.ctx, 112, mustPath(t, "/3/0/0")); err != nil {
			t.Error(err)
		}
		if _, err := w.server.Log().Wait(w.ctx, mark, sim.Named("sent")); err != nil {
			t.Error(err)
		}
		if s := w.state(); s.Stats.Counters["echo_challenge"] == 0 {
			t.Errorf("no Echo was asked for after the window was lost: %+v", s.Stats.Counters)
		}
	}
}

// Killed again and again under traffic, nothing runs twice and all goes on.
func TestKillOften(t *testing.T) {
	w := newWorld(t, nil)
	w.register()
	for i := range 6 {
		held := w.relay.hold(i%2 == 0, int64(1+i%3/2))
		done := make(chan error, 2)
		go func() { done <- w.server.Execute(w.ctx, "dev1", "/3/0/4", "") }()
		go func() { done <- w.device.Update(w.ctx) }()
		w.await(held)
		w.kill()
		w.relay.setTap(nil)
		w.start()
		for range 2 {
			if err := <-done; err != nil {
				t.Errorf("round %d: %v", i, err)
			}
		}
		if n := w.executed("/3/0/4"); n != i+1 {
			t.Fatalf("round %d: ran %d times", i, n)
		}
	}
}

func (w *world) await(held chan struct{}) {
	w.t.Helper()
	select {
	case <-held:
	case <-w.ctx.Done():
		w.t.Fatalf("never came by: %+v", w.state())
	}
}

func (w *world) set(path, value string) {
	w.t.Helper()
	if _, err := w.device.Command(w.ctx, sim.Command{Cmd: "set", Path: path, Value: &value}); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) want(values chan string, want string) {
	w.t.Helper()
	for {
		select {
		case v := <-values:
			if v == want {
				return
			}
		case <-w.ctx.Done():
			w.t.Fatalf("no notification of %s", want)
		}
	}
}
