//go:build soak

package load

import (
	"flag"
	"runtime"
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

// carried is how many requests a second a gateway answers now, and how many its
// processor time would allow if nothing else ran beside it.
func (c *contender) carried(n int) (now, alone float64) {
	c.reset()
	c.sliceUp(n)
	return float64(c.done-c.lost) / c.took.Seconds(), float64(runtime.NumCPU()) * 1e6 / c.each()
}

const soakPeers = 1000

// Genuine traffic at a quarter of what can be carried keeps at least four fifths
// of its rate while as many datagrams come beside it as could be carried. The
// share without a flood is measured just before each.
func TestSoakFloods(t *testing.T) {
	c := contend(t, "gateway", sealed, soakPeers, settings{Kind: "gateway"})
	most, _ := c.carried(20 * turn)
	updates := c.fleet.updates(c.at)
	t.Logf("%.0f requests a second can be carried", most)
	for i := range floods {
		t.Run(floods[i].name, func(t *testing.T) {
			f := newFlooder(t, c.at, c.fleet)
			sent0, good0 := c.fleet.up.paced(most/4, 2*time.Second, updates)
			stop, done, before := make(chan struct{}), make(chan struct{}), c.usage(true)
			go func() {
				f.pour(&floods[i], most, stop)
				close(done)
			}()
			since := time.Now()
			sent, good := c.fleet.up.paced(most/4, 5*time.Second, updates)
			took := time.Since(since).Seconds()
			close(stop)
			<-done
			after := c.usage(true)
			was, is := float64(good0)/float64(sent0), float64(good)/float64(sent)
			cpu := (after.CPU - before.CPU).Seconds()
			t.Logf("%.0f datagrams a second beside %.0f requests a second: %.1f %% of them answered well, %.1f %% before; %.0f %% of a processor; %d KiB, %d before",
				float64(f.sent.Load())/took, float64(sent)/took, 100*is, 100*was, 100*cpu/took, after.KiB, before.KiB)
			if is < 0.8*was {
				t.Errorf("genuine traffic keeps %.0f %% of its rate", 100*is/was)
			}
			if after.Gauges["devices"] != soakPeers {
				t.Errorf("%d devices", after.Gauges["devices"])
			}
		})
	}
}

// Requests of the server to devices that never answer, as many as fit, leave room
// for the others.
func TestSoakHalfOpen(t *testing.T) {
	c := contend(t, "gateway", sealed, soakPeers, settings{Kind: "gateway", MaxExchanges: 8192, DeviceExchanges: 64, Timeout: 5 * time.Second})
	most, _ := c.carried(20 * turn)
	updates := c.fleet.updates(c.at)
	sent0, good0 := c.fleet.up.paced(most/4, 2*time.Second, updates)
	c.backend.method = coap.GET
	c.fleet.mute.Store(true)
	done := make(chan struct{})
	go func() {
		defer close(done)
		// Of 100 devices, so that their share is used up and not what all have.
		c.backend.known = c.backend.known[:100]
		c.backend.asked.paced(most/4, 5*time.Second, c.backend.questions())
	}()
	sent, good := c.fleet.up.paced(most/4, 5*time.Second, updates)
	u := c.usage(true)
	<-done
	was, is := float64(good0)/float64(sent0), float64(good)/float64(sent)
	t.Logf("%.0f requests a second that nobody answers: %.1f %% of devices' requests answered well, %.1f %% before; %d exchanges open", most/4, 100*is, 100*was, u.Gauges["exchanges"])
	if is < 0.8*was {
		t.Errorf("genuine traffic keeps %.0f %% of its rate", 100*is/was)
	}
}

// The processor time of a request and the memory stay as they are, beside those of
// a forwarder in the same turns.
func TestSoakGrowth(t *testing.T) {
	bare := contend(t, "forwarder", opaque, soakPeers, settings{Kind: "forwarder"})
	c := contend(t, "gateway", sealed, soakPeers, settings{Kind: "gateway"})
	bare.sliceUp(turn)
	const parts = 10
	var ratio [parts]float64
	var kib [parts]int
	for i := range parts {
		bare.reset()
		c.reset()
		for end := time.Now().Add(*soakFor / parts); time.Now().Before(end); {
			bare.sliceUp(turn)
			c.sliceUp(turn)
		}
		ratio[i], kib[i] = c.each()/bare.each(), c.kib
		t.Logf("part %d: %.1f µs a request, %.2f times the forwarder's; %d KiB", i+1, c.each(), ratio[i], c.kib)
	}
	first, last := (ratio[1]+ratio[2]+ratio[3])/3, (ratio[parts-3]+ratio[parts-2]+ratio[parts-1])/3
	if last > 1.25*first {
		t.Errorf("the cost of a request grew from %.2f to %.2f times the forwarder's", first, last)
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
