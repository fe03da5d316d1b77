//go:build soak

package load

import (
	"fmt"
	"math"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/oscorelay/oscorelay/internal/coap"
	"github.com/oscorelay/oscorelay/internal/endpoint"
)

// overload is what a middle is offered more of than it can carry, and by which
// rule it sheds what is too much.
type overload struct {
	name  string
	mode  mode
	under settings
	// slow is how long the server takes: then exchanges under way are what there
	// is too little of. Else it is processor time.
	slow time.Duration
	rule string // the counter of what is shed
	one  string // the same if one device has half of it
	told bool   // what is shed is answered 5.03, and nothing is lost; else it is left to be repeated
}

const (
	slowly = 200 * time.Millisecond
	places = 1024 // exchanges under way
)

var overloads = []overload{
	{"gateway/exchanges", sealed, settings{Kind: "gateway", MaxExchanges: places}, slowly, "queue_full", "queue_full", true},
	{"gateway/processor", sealed, settings{Kind: "gateway"}, 0, "overrun", "", false},
	{"proxy/exchanges", opaque, settings{Kind: "proxy", MaxExchanges: places}, slowly, "exchanges_full", "peer_exchanges_full", true},
	{"proxy/processor", opaque, settings{Kind: "proxy"}, 0, "overrun", "", false},
}

// apart has the middle and what loads it run on processors of their own, so that
// the one's speed does not hang on the other's.
func apart(t *testing.T) (core int) {
	t.Helper()
	if runtime.NumCPU() < 2 {
		t.Skip("the load needs a processor beside that of the middle")
	}
	if err := pin(1); err != nil {
		t.Fatal(err)
	}
	return 1
}

// Twice what can be carried: memory is bounded, what is too much is shed by the
// rule that is there for it, what is not is answered as well as before, of every
// device as much as of the others, and when it is over all is as before.
func TestSoakOverload(t *testing.T) {
	for _, o := range overloads {
		t.Run(o.name, func(t *testing.T) { o.run(t, false) })
		if o.one != "" {
			o.rule = o.one
			t.Run(o.name+"/one device has half of it", func(t *testing.T) { o.run(t, true) })
		}
	}
}

func (o *overload) run(t *testing.T, greedy bool) {
	s := o.under
	s.Core, s.Freshness, s.MaxBytes = apart(t), endpoint.FreshUnsafe, 64<<20
	s.DeviceExchanges = 64
	c := contend(t, strings.ReplaceAll(o.name, "/", "-"), o.mode, soakPeers, s)
	c.backend.slow.Store(int64(o.slow))
	inFlight := inFlight
	if o.slow > 0 {
		inFlight = places/4*3 - burst // one way has no more of a gateway's
	} else {
		c.throttle(t)
	}
	updates := c.fleet.updates(c.at)
	most, each := c.capacity(inFlight, max(3*time.Second, *soakFor/20))

	calm := c.fleet.up.watch(soakPeers)
	c.fleet.up.paced(most/4, 2*time.Second, updates)
	c.fleet.up.over(calm, time.Second)
	began, peak := c.usage(true), c.sampled(t)

	c.fleet.greedy = greedy
	y := c.fleet.up.watch(soakPeers)
	since, u, carried := time.Now(), began, 0.0
	for time.Since(since) < *soakFor {
		part, before, sent0, good0 := time.Now(), u, c.fleet.up.sent.Load(), c.fleet.up.good.Load()
		c.fleet.up.offer(2*most, min(*soakFor/10, 10*time.Second), updates)
		u = c.usage(true)
		took := time.Since(part).Seconds()
		if o.slow == 0 {
			// What the machine leaves to the middle differs from one moment to the
			// next; what a request costs it does not.
			most = float64(u.CPU-before.CPU) / float64(each) / took
		}
		carried += most * took
		t.Logf("%.0f a second can be carried, %.0f offered, %.0f answered well; %s %d, %d exchanges, %d KiB", most, float64(c.fleet.up.sent.Load()-sent0)/took,
			float64(c.fleet.up.good.Load()-good0)/took, o.rule, u.Counters[o.rule]-began.Counters[o.rule], u.Gauges["exchanges"], u.KiB)
	}
	took, ended := time.Since(since).Seconds(), time.Now()
	c.fleet.greedy = false
	after := c.recovered(most/4, updates, calm, ended)
	// What waits behind what is served: all places; or what both sockets keep, 4 MiB
	// that count twice, in datagrams of 768 bytes, as the kernel sees them, and a
	// retransmission toward the server, whose answer found no room.
	longest := slowly + 200*time.Millisecond
	if o.slow == 0 {
		longest = 3*time.Second + time.Duration(2*(8<<20)/768/(float64(sum(y.good))/took)*float64(time.Second))
	}
	c.fleet.up.over(y, longest)
	u = c.usage(true)

	offered, good, shed := sum(y.offered), sum(y.good), u.Counters[o.rule]-began.Counters[o.rule]
	silent := offered - y.took.all - y.refused.all
	t.Logf("%.2f times what can be carried offered, %.2f times answered well, in %v at the median and %v at the 99th percentile (%v and %v at a quarter of it); 5.03 in %v",
		float64(offered)/carried, float64(good)/carried, y.took.quantile(.5), y.took.quantile(.99), calm.took.quantile(.5), calm.took.quantile(.99), y.refused.quantile(.99))
	t.Logf("%v; %d not answered; %s %d, overrun %d; the worst served device has %.2f of what all have; as before %v after it; %d KiB at most, %d before",
		y, silent, o.rule, shed, u.Counters["overrun"]-began.Counters["overrun"], y.least(greedy), after, peak.Load(), began.KiB)

	if float64(offered) < 1.8*carried {
		t.Errorf("%d requests were offered, %.0f can be carried: this run shows nothing", offered, carried)
	}
	if float64(good) < 0.6*carried {
		t.Errorf("%d requests are answered well, %.0f can be carried", good, carried)
	}
	if shed == 0 {
		t.Errorf("nothing is counted as %s", o.rule)
	}
	if q := y.took.quantile(.99); q > longest {
		t.Errorf("what is answered takes %v, not %v", q, longest)
	}
	for code := range y.codes {
		if !code.IsSuccess() && code != coap.ServiceUnavailable {
			t.Errorf("requests are refused with %v", code)
		}
	}
	if y.hasty > 0 {
		t.Errorf("%d of the 5.03 do not say when to come again (RFC 7252 §5.9.3.4)", y.hasty)
	}
	if o.told && silent > offered/100 {
		t.Errorf("%d of %d requests have no answer", silent, offered)
	}
	if lost := u.Counters["overrun"] - began.Counters["overrun"]; !o.told && silent > int(lost)+offered/100 {
		t.Errorf("%d requests have no answer, %d of them are accounted for", silent, lost)
	}
	if least := y.least(greedy); least < 0.5 {
		t.Errorf("a device has %.2f of what the others have", least)
	}
	if limit := int64(began.KiB + 3*(128<<10) + 65536); peak.Load() > limit { // what is kept both ways, the collector's share
		t.Errorf("%d KiB of memory, %d are allowed", peak.Load(), limit)
	}
	if after > 5*time.Second {
		t.Errorf("as before only %v after it", after)
	}
}

// throttle lets the middle run for a quarter of the time, as a control group with
// a quota does: what offers it twice what it can carry, and the server behind it,
// must have time left over, or their own limits were measured.
func (c *contender) throttle(t *testing.T) {
	t.Helper()
	const run, rest = 5 * time.Millisecond, 15 * time.Millisecond
	stop, done := make(chan struct{}), make(chan struct{})
	middle := c.cmd.Process
	go func() {
		defer close(done)
		for {
			_ = middle.Signal(syscall.SIGSTOP)
			time.Sleep(rest)
			_ = middle.Signal(syscall.SIGCONT)
			select {
			case <-stop:
				return
			case <-time.After(run):
			}
		}
	}()
	t.Cleanup(func() { close(stop); <-done })
}

// capacity is how many requests a second are answered well when as many are
// under way as there is room for, and what processor time each takes.
func (c *contender) capacity(inFlight int, d time.Duration) (rate float64, each time.Duration) {
	up, begin, end := &c.fleet.up, time.Now().Add(d/4), time.Now().Add(d+d/4) // until all is warm
	var good int64
	var before usage
	var since time.Time
	up.keep(inFlight, c.fleet.updates(c.at), func(int) int {
		switch now := time.Now(); {
		case now.After(end):
			n := up.good.Load() - good
			rate, each = float64(n)/now.Sub(since).Seconds(), (c.usage(false).CPU-before.CPU)/time.Duration(n)
			return 0
		case since.IsZero() && now.After(begin):
			good, before, since = up.good.Load(), c.usage(false), now
		}
		return burst
	})
	c.t.Logf("%.0f requests a second are carried, in %v of processor time each", rate, each)
	return rate, each
}

// offer sends requests at a rate a second, whatever becomes of them.
func (t *turns) offer(rate float64, d time.Duration, send func(k int)) {
	s0, start := t.sent.Load(), time.Now()
	for now := start; now.Sub(start) < d; now = time.Now() {
		due := int64(now.Sub(start).Seconds()*rate) - (t.sent.Load() - s0)
		for ; due > 0; due -= burst {
			send(int(min(due, burst)))
		}
		time.Sleep(200 * time.Microsecond)
	}
}

// recovered is how long after the end of an overload requests are answered as
// they were before.
func (c *contender) recovered(rate float64, send func(k int), calm *tally, ended time.Time) time.Duration {
	for {
		now := time.Now()
		y := c.fleet.up.watch(soakPeers)
		sent, good := c.fleet.up.paced(rate, 250*time.Millisecond, send)
		c.fleet.up.over(y, 0)
		if good*100 >= sent*99 && y.took.quantile(.5) <= 3*calm.took.quantile(.5) || time.Since(ended) > 20*time.Second {
			return now.Sub(ended).Round(10 * time.Millisecond)
		}
	}
}

// sampled keeps the most memory, in KiB, that the middle is seen with.
func (c *contender) sampled(t *testing.T) *atomic.Int64 {
	t.Helper()
	var peak atomic.Int64
	stop, done := make(chan struct{}), make(chan struct{})
	status := fmt.Sprintf("/proc/%d/statm", c.cmd.Process.Pid)
	go func() {
		defer close(done)
		for tick := time.NewTicker(50 * time.Millisecond); ; {
			select {
			case <-stop:
				tick.Stop()
				return
			case <-tick.C:
			}
			raw, err := os.ReadFile(status)
			f := strings.Fields(string(raw))
			if err != nil || len(f) < 2 {
				continue // it has ended
			}
			if pages, err := strconv.ParseInt(f[1], 10, 64); err == nil {
				peak.Store(max(peak.Load(), pages*int64(os.Getpagesize())/1024))
			}
		}
	}()
	t.Cleanup(func() { close(stop); <-done })
	return &peak
}

// least is the smallest share of good answers to requests that a device has,
// beside the share of all; without the first device, if that is greedy.
func (y *tally) least(greedy bool) float64 {
	offered, good := y.offered, y.good
	if greedy {
		offered, good = offered[1:], good[1:]
	}
	all, least := float64(sum(good))/float64(max(1, sum(offered))), math.Inf(1)
	for n := range offered {
		if offered[n] > 0 {
			least = min(least, float64(good[n])/float64(offered[n])/all)
		}
	}
	return least
}

// quantile returns an upper bound of a share of them, 0 if there are none.
func (l *latencies) quantile(q float64) time.Duration {
	left := int(math.Ceil(q * float64(l.all)))
	if left == 0 {
		return 0
	}
	for i, n := range l.n {
		if left -= n; left <= 0 {
			return time.Duration(i%8+9) << (i / 8) * time.Microsecond
		}
	}
	return math.MaxInt64
}
