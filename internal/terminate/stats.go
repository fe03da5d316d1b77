package terminate

import (
	"errors"
	"math"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/oscorelay/oscorelay/internal/coap/message"
	"github.com/oscorelay/oscorelay/internal/endpoint"
)

// counters count since the start.
type counters struct {
	uplinks, downlinks, notifications         atomic.Uint64
	timeouts, shed, unmatched, unsent         atomic.Uint64
	malformed, duplicates, stranger           atomic.Uint64
	registration, moved, noAddress, noDevice  atomic.Uint64
	plainRefused, plainPassed, downgrades     atomic.Uint64
	notSealed, storage, backend, deviceSilent atomic.Uint64
	revived, cancelled, resumed, repeated     atomic.Uint64
	echoAnswered                              atomic.Uint64
	reasons                                   [len(reasonNames)]atomic.Uint64
	buckets                                   [len(latencyBounds) + 1]atomic.Uint64
	latencySum                                atomic.Int64
}

var reasonNames = [...]endpoint.Reason{
	endpoint.ReasonDecode, endpoint.ReasonNoContext, endpoint.ReasonReplay, endpoint.ReasonDecrypt, endpoint.ReasonPlaintext,
	endpoint.ReasonChallenge, endpoint.ReasonLimited, endpoint.ReasonForbidden, endpoint.ReasonStale, endpoint.ReasonPlain,
	endpoint.ReasonRederived, endpoint.ReasonUnprotected, endpoint.ReasonStorage, endpoint.ReasonTainted,
}

var latencyBounds = [...]time.Duration{
	500 * time.Microsecond, time.Millisecond, 2 * time.Millisecond, 5 * time.Millisecond, 10 * time.Millisecond, 25 * time.Millisecond,
	50 * time.Millisecond, 100 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond, time.Second, 2500 * time.Millisecond,
	5 * time.Second, 10 * time.Second, 30 * time.Second, 60 * time.Second,
}

func (c *counters) none(err error) {
	switch {
	case errors.Is(err, message.ErrDuplicate):
		c.duplicates.Add(1)
	case err != nil:
		c.malformed.Add(1)
	}
}

// latency counts how long an exchange took from its request to its answer.
func (c *counters) latency(d time.Duration) {
	i := 0
	for i < len(latencyBounds) && d > latencyBounds[i] {
		i++
	}
	c.buckets[i].Add(1)
	c.latencySum.Add(int64(d))
}

// event counts a refusal or a challenge of the endpoint.
func (g *Gateway) event(ev endpoint.Event) {
	for i, r := range reasonNames {
		if r == ev.Reason {
			g.c.reasons[i].Add(1)
		}
	}
	if ev.Reason == endpoint.ReasonRederived {
		g.rederivedMu.Lock()
		g.rederived = append(g.rederived, ev.Peer)
		g.rederivedMu.Unlock()
		g.anew.Store(true)
	}
}

// Latency is a histogram: how many exchanges took at most each bound.
type Latency struct {
	Bounds []time.Duration
	Counts []uint64 // one more than Bounds: those above the last; not cumulative
	Sum    time.Duration
}

// Stats are a gateway's counters since its start, and its gauges.
type Stats struct {
	Counters map[string]uint64
	Gauges   map[string]int
	Latency  Latency
}

// Stats returns the counters. Names are those of docs/OPERATIONS.md.
func (g *Gateway) Stats() Stats {
	c := &g.c
	s := Stats{Counters: map[string]uint64{
		"requests_up": c.uplinks.Load(), "requests_down": c.downlinks.Load(), "notifications": c.notifications.Load(),
		"timeout": c.timeouts.Load(), "queue_full": c.shed.Load(), "unmatched": c.unmatched.Load(), "unsent": c.unsent.Load(),
		"malformed": c.malformed.Load(), "duplicate": c.duplicates.Load(), "stranger": c.stranger.Load(),
		"registration_refused": c.registration.Load(), "moved": c.moved.Load(), "no_address": c.noAddress.Load(), "no_device": c.noDevice.Load(),
		"plain_refused": c.plainRefused.Load(), "plain_passed": c.plainPassed.Load(), "plain_downgrade": c.downgrades.Load(),
		"not_sealed": c.notSealed.Load(), "store_failed": c.storage.Load(), "backend_failed": c.backend.Load(), "device_silent": c.deviceSilent.Load(),
		"observation_revived": c.revived.Load(), "observation_cancelled": c.cancelled.Load(),
		"overrun":         g.front.Overrun() + g.back.overrun(),
		"journal_resumed": c.resumed.Load(), "journal_repeated": c.repeated.Load(), "echo_answered": c.echoAnswered.Load(),
	}}
	for i, r := range reasonNames {
		s.Counters[string(r)] = c.reasons[i].Load()
	}
	s.Latency = Latency{Bounds: latencyBounds[:], Counts: make([]uint64, len(c.buckets)), Sum: time.Duration(c.latencySum.Load())}
	for i := range c.buckets {
		s.Latency.Counts[i] = c.buckets[i].Load()
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	s.Gauges = map[string]int{"devices": len(g.devices), "exchanges": g.waiting.n, "devices_plain": len(g.plain)}
	s.Gauges["observations"], s.Gauges["observations_dormant"] = g.observed, g.asleep
	return s
}

// Device is what an operator sees of one.
type Device struct {
	Context      string
	Endpoint     string
	Index        uint32
	Address      netip.AddrPort // where it was last heard of; not valid: never
	Upstream     netip.AddrPort // what the backend knows it by
	Location     string         // of its registration; empty: none
	LastSeen     time.Time      // zero: not since the start
	Plain        bool           // speaks without OSCORE
	Exchanges    int
	Observations int
	Dormant      int       // observations that wait for it to be heard
	Stuck        string    // why it does not get through; empty: it does, as far as is known
	Since        time.Time // of Stuck
}

func (g *Gateway) show(d *device) Device {
	upstream, _ := g.back.of(d.index)
	return Device{
		Context: d.name, Endpoint: d.endpoint, Index: d.index, Address: d.at.remote, Upstream: upstream,
		Location: d.location, LastSeen: d.seen, Plain: d.plain, Exchanges: d.up + d.down,
		Observations: d.observations + len(d.observing), Dormant: d.asleep, Stuck: d.trouble.what, Since: d.trouble.at,
	}
}

// someDevices is how many are looked at in one go, with the traffic waiting.
const someDevices = 256

// Devices calls fn for each device in memory, in no order, until it returns false.
// One that comes meanwhile may be left out, and one that others left be called for
// twice.
func (g *Gateway) Devices(fn func(Device) bool) {
	some := make([]Device, 0, someDevices)
	for end := math.MaxInt; end > 0; {
		some = some[:0]
		g.mu.Lock()
		end = min(end, len(g.all)) // what leaves is replaced by the last, which was seen
		for ; end > 0 && len(some) < someDevices; end-- {
			some = append(some, g.show(g.all[end-1]))
		}
		g.mu.Unlock()
		for i := range some {
			if !fn(some[i]) {
				return
			}
		}
	}
}

// Device returns the device of a context, if it is in memory.
func (g *Gateway) Device(context string) (Device, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if d := g.devices[context]; d != nil {
		return g.show(d), true
	}
	return Device{}, false
}

// trouble notes why a device does not get through.
func (g *Gateway) trouble(now time.Time, d *device, what string) {
	d.trouble = trouble{now, what}
}

// troubled notes it of a request that was refused. That it names the device's
// context is all that is known: anybody may have sent it.
func (g *Gateway) troubled(now time.Time, o *opened) {
	d := g.devices[o.res.Peer]
	if d == nil {
		return
	}
	switch o.res.Reason {
	case endpoint.ReasonDecrypt:
		g.trouble(now, d, "requests under its kid do not decrypt: another secret, or another device's kid")
	case endpoint.ReasonReplay:
		g.trouble(now, d, "its requests are replays: it repeats old ones, or lost its sequence numbers")
	case endpoint.ReasonForbidden:
		g.trouble(now, d, "its context belongs to another route")
	case endpoint.ReasonTainted, endpoint.ReasonStorage:
		g.trouble(now, d, "its context may not seal: "+errText(o.res.Err))
	}
}

// doubted notes a response that nothing vouches for.
func (g *Gateway) doubted(now time.Time, d *downlink, err error) {
	g.letOn(d) // it reached somebody
	var plain *endpoint.PlainError
	if errors.As(err, &plain) {
		g.trouble(now, d.dev, "it, or somebody on the way, answers in plain: "+plain.Error())
	}
}

func errText(err error) string {
	if err == nil {
		return "unknown"
	}
	return err.Error()
}
