//go:build soak

package load

import (
	"flag"
	"fmt"
	"testing"
	"time"

	"github.com/oscorelay/oscorelay/internal/coap"
)

var soakFor = flag.Duration("soak.load", 20*time.Second, "how long overload, and the run that looks for growth, last")

// paced sends requests at a rate a second, whatever is answered, and returns how
// many were, and how many of them well. The last have a second.
func (t *turns) paced(rate float64, d time.Duration, send func(k int)) (sent, good int64) {
	g0, s0, start := t.good.Load(), t.sent.Load(), time.Now()
	for now := start; now.Sub(start) < d; now = time.Now() {
		due := int64(now.Sub(start).Seconds()*rate) - (t.sent.Load() - s0)
		for ; due > 0; due -= burst {
			send(int(min(due, burst)))
		}
		time.Sleep(time.Millisecond)
	}
	sent = t.sent.Load() - s0
	for end := time.Now().Add(time.Second); t.good.Load()-g0 < sent && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	return sent, t.good.Load() - g0
}

const soakPeers = 1000

// times is how many datagrams of a flood come for each request that could be
// carried. What is forged and has a form that the keyless proxy must pass on costs
// it what a request costs: there it is a part of what can be carried.
func (k *flood) times(middle string) float64 {
	switch {
	case middle == "gateway" && !k.silent:
		return 1
	case middle == "proxy" && k.malformed:
		return 1
	case middle == "proxy":
		return 0.5
	}
	return 0 // not for it
}

// Genuine traffic at a quarter of what can be carried keeps at least four fifths of
// its rate while a flood comes beside it. The share without a flood is measured just
// before each; nothing is sent twice, though a device would.
func TestSoakFloods(t *testing.T) {
	for _, s := range []struct {
		mode
		settings
	}{{sealed, settings{Kind: "gateway"}}, {opaque, settings{Kind: "proxy"}}} {
		t.Run(s.Kind, func(t *testing.T) {
			s.Core = apart(t)
			c := contend(t, s.Kind, s.mode, soakPeers, s.settings)
			c.throttle(t)
			most, each := c.capacity(inFlight, 3*time.Second)
			for i := range floods {
				if floods[i].times(s.Kind) > 0 {
					t.Run(floods[i].name, func(t *testing.T) { c.flooded(t, &floods[i], most, each) })
				}
			}
		})
	}
}

func (c *contender) flooded(t *testing.T, kind *flood, most float64, each time.Duration) {
	times := kind.times(c.name)
	f, updates := newFlooder(t, c.at, &fleet{devices: c.fleet.devices}), c.fleet.updates(c.at)
	calm := c.fleet.up.watch(soakPeers)
	c.fleet.up.paced(most/4, 3*time.Second, updates)
	c.fleet.up.over(calm, time.Second)
	stop, done, before := make(chan struct{}), make(chan struct{}), c.usage(true)
	go func() {
		defer close(done)
		f.pour(kind, times*most, stop)
	}()
	y, since := c.fleet.up.watch(soakPeers), time.Now()
	c.fleet.up.offer(most/4, max(5*time.Second, *soakFor/4), updates)
	took, poured := time.Since(since).Seconds(), float64(f.sent.Load())
	close(stop)
	<-done
	u := c.usage(true)
	c.fleet.up.over(y, time.Second)
	was, is := float64(sum(calm.good))/float64(sum(calm.offered)), float64(sum(y.good))/float64(sum(y.offered))
	cost := (float64(u.CPU-before.CPU) - float64(sum(y.good))*float64(each)) / poured
	t.Logf("%.2f datagrams for each request that can be carried, %.2f of a request's cost each; %.2f genuine requests, %.1f %% of them answered well, %.1f %% before, in %v at the 99th percentile, %v before; overrun %d; %d KiB, %d before",
		poured/took/most, cost/float64(each), float64(sum(y.offered))/took/most, 100*is, 100*was, y.took.quantile(.99), calm.took.quantile(.99),
		u.Counters["overrun"]-before.Counters["overrun"], u.KiB, before.KiB)
	if poured < 0.9*times*most*took || float64(sum(y.offered)) < 0.9*most/4*took {
		t.Errorf("%.0f datagrams and %d requests were sent: this run shows nothing", poured, sum(y.offered))
	}
	if is < 0.8*was {
		t.Errorf("genuine traffic keeps %.0f %% of its rate", 100*is/was)
	}
	if least := y.least(false); least < 0.5 {
		t.Errorf("a device has %.2f of what the others have", least)
	}
	if n := u.Gauges["devices"]; n != before.Gauges["devices"] {
		t.Errorf("%d devices, %d before", n, before.Gauges["devices"])
	}
}

// Requests of the server to devices that never answer, more than fit, leave room for
// those of the devices.
func TestSoakHalfOpen(t *testing.T) {
	c := contend(t, "gateway", sealed, soakPeers, settings{Kind: "gateway", MaxExchanges: 8192, DeviceExchanges: 64, Timeout: 5 * time.Second})
	most, _ := c.capacity(inFlight, 2*time.Second)
	updates := c.fleet.updates(c.at)
	sent0, good0 := c.fleet.up.paced(most/4, 2*time.Second, updates)
	c.backend.method = coap.GET
	c.fleet.mute.Store(true)
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.backend.asked.paced(most/4, 5*time.Second, c.backend.questions())
	}()
	sent, good := c.fleet.up.paced(most/4, 5*time.Second, updates)
	u := c.usage(true)
	<-done
	was, is := float64(good0)/float64(sent0), float64(good)/float64(sent)
	if u.Counters["queue_full"] == 0 {
		t.Error("all that nobody answers has found room: this run shows nothing")
	}
	t.Logf("%.0f requests a second that nobody answers: %.1f %% of devices' requests answered well, %.1f %% before; %d exchanges open", most/4, 100*is, 100*was, u.Gauges["exchanges"])
	if is < 0.8*was {
		t.Errorf("genuine traffic keeps %.0f %% of its rate", 100*is/was)
	}
}

// remembered is how many messages a middle remembers, for their duplicates, at most.
const remembered = 1 << 18

// What a request costs is the same in the first second as when the run ends, and
// with one device as with a hundred thousand, beside a forwarder in the same turns;
// and memory comes to an end.
func TestSoakGrowth(t *testing.T) {
	bare := contend(t, "forwarder", opaque, 1, settings{Kind: "forwarder"})
	all := []*contender{bare}
	for _, peers := range []int{1, 1000, 100_000} {
		all = append(all, contend(t, fmt.Sprintf("gateway, %d devices", peers), sealed, peers, settings{Kind: "gateway", Hot: peers}))
	}
	all = append(all, contend(t, "proxy, 1000 devices", opaque, 1000, settings{Kind: "proxy"}))
	each := func(d time.Duration) (ratio []float64) {
		for _, c := range all {
			c.reset()
		}
		for end := time.Now().Add(d); time.Now().Before(end); {
			for _, c := range all {
				c.sliceUp(turn)
			}
		}
		for _, c := range all {
			ratio = append(ratio, c.each()/bare.each())
		}
		return ratio
	}
	each(time.Second) // until tables and pools have been made, and each device was heard
	for _, c := range all {
		c.sliceUp(len(c.fleet.devices))
	}
	window := time.Duration(len(all)) * time.Second // a second each
	first := each(window)
	var half []int
	since := time.Now()
	for time.Since(since) < *soakFor {
		if half == nil && time.Since(since) > *soakFor/2 {
			for _, c := range all {
				kib := 0
				if c.fleet.up.sent.Load() > remembered {
					kib = c.kib // it grows no more
				}
				half = append(half, kib)
			}
		}
		each(window)
	}
	last := each(window)
	for i, c := range all[1:] {
		i++
		t.Logf("%-24s %5.1f µs a request, %.2f times the forwarder's in the first second, %.2f after %v: %.2f times that; %.2f times that with one device; %d KiB",
			c.name, c.each(), first[i], last[i], time.Since(since).Round(time.Second), last[i]/first[i], last[i]/last[1], c.kib)
		if last[i] > 1.25*first[i] {
			t.Errorf("%s: the cost of a request grew from %.2f to %.2f times the forwarder's", c.name, first[i], last[i])
		}
		if last[i] > 2*last[1] {
			t.Errorf("%s: a request costs %.2f times what it does with one device", c.name, last[i]/last[1])
		}
		if i < len(half) && half[i] > 0 && c.kib > half[i]+half[i]/4 {
			t.Errorf("%s: %d KiB of memory, %d half-way", c.name, c.kib, half[i])
		}
	}
}

// pour sends at a rate a second until stop is closed.
func (f *flooder) pour(kind *flood, rate float64, stop <-chan struct{}) {
	base := f.sent.Load()
	for start := time.Now(); ; {
		select {
		case <-stop:
			return
		case <-time.After(time.Millisecond):
		}
		for due := int64(time.Since(start).Seconds()*rate) - (f.sent.Load() - base); due > 0; due -= burst {
			f.burst(kind, int(min(due, burst)))
		}
	}
}
