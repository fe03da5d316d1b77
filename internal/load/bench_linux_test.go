package load

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/oscorelay/oscorelay/internal/coap"
	"github.com/oscorelay/oscorelay/internal/endpoint"
	"github.com/oscorelay/oscorelay/internal/freeport"
	"github.com/oscorelay/oscorelay/internal/terminate"
	"github.com/oscorelay/oscorelay/keys"
)

// inFlight is how many requests are under way at a time.
const inFlight = 256

// turn is how many requests a middle has before it is another's turn.
const turn = 4096

// contender is a middle, the fleet before it and the server behind it.
type contender struct {
	name string
	*process
	fleet   *fleet
	backend *backend

	cpu        time.Duration // in the turns so far
	done, lost int
	took       time.Duration
	kib        int
	allocs     uint64
}

// gateways' settings for as much from few devices as from many.
func contend(t testing.TB, name string, m mode, devices int, s settings) *contender {
	t.Helper()
	c := &contender{name: name, backend: newBackend(t, devices), fleet: newFleet(t, m, devices)}
	s.Name, s.Backend = name, c.backend.sock.Addr().String()
	if s.Kind == "gateway" {
		s.Base, s.UpstreamPort = makeStore(t, devices), freeport.Get(t)
		if s.DeviceExchanges == 0 {
			s.DeviceExchanges = 1024
		}
	}
	c.process = start(t, s)
	c.fleet.register(t, c.at, inFlight)
	return c
}

// slice gives the middle n requests, of the devices or of the server.
func (c *contender) slice(n int, t *turns, send func(k int)) {
	before, since := c.usage(false), time.Now()
	c.lost += t.closed(n, inFlight, send)
	c.took += time.Since(since)
	after := c.usage(false)
	c.cpu += after.CPU - before.CPU
	c.kib = after.KiB
	c.allocs += after.Allocs - before.Allocs
	c.done += n
}

func (c *contender) sliceUp(n int)   { c.slice(n, &c.fleet.up, c.fleet.updates(c.at)) }
func (c *contender) sliceDown(n int) { c.slice(n, &c.backend.asked, c.backend.questions()) }

// reset leaves out what was so far.
func (c *contender) reset() { c.cpu, c.done, c.lost, c.took, c.allocs = 0, 0, 0, 0, 0 }

// each is the processor time of a request, in µs.
func (c *contender) each() float64 { return float64(c.cpu.Nanoseconds()) / float64(c.done) / 1000 }

// report reports figures; time and allocations are those of one of the
// contenders.
func report(b *testing.B, of *contender, all ...*contender) {
	b.Helper()
	done, lost := 0, 0
	b.ReportMetric(of.each()*1000, "ns/op")
	b.ReportMetric(float64(of.allocs)/float64(of.done), "allocs/op")
	for _, c := range all {
		b.ReportMetric(c.each(), c.name+"-cpu-µs")
		done, lost = done+c.done, lost+c.lost
	}
	b.ReportMetric(float64(lost)/float64(done)*100, "lost-%")
}

// BenchmarkUp is a device's Update, passed on and answered: the processor time
// that a gateway takes for it with OSCORE and without, beside the keyless proxy and
// a forwarder that looks at nothing. Echo is the freshness policy that a daemon has
// unless it is told otherwise. Cold is a keyring with fewer contexts ready than
// devices that speak, so that each has to be brought in from the store.
func BenchmarkUp(b *testing.B) {
	for _, peers := range []int{1, 1000, 100_000} {
		b.Run(fmt.Sprintf("peers=%d", peers), func(b *testing.B) {
			bare := contend(b, "forwarder", opaque, peers, settings{Kind: "forwarder"})
			keyless := contend(b, "proxy", opaque, peers, settings{Kind: "proxy"})
			clear := contend(b, "plain", plain, peers, settings{Kind: "gateway", Plain: terminate.PlainObserve})
			oscore := contend(b, "sealed", sealed, peers, settings{Kind: "gateway", Hot: peers})
			fresh := contend(b, "sealed+echo", sealed, peers, settings{Kind: "gateway", Hot: peers, Freshness: endpoint.FreshUnsafe})
			all := []*contender{bare, keyless, clear, oscore, fresh}
			var cold *contender
			if peers > keys.DefaultHot {
				cold = contend(b, "cold", sealed, peers, settings{Kind: "gateway"})
				all = append(all, cold)
			}
			for _, c := range all {
				c.sliceUp(max(turn, peers))
				c.reset()
			}
			for b.Loop() {
				for _, c := range all {
					c.sliceUp(turn)
				}
			}
			report(b, oscore, all...)
			b.ReportMetric(keyless.each()/bare.each(), "proxy/forwarder")
			b.ReportMetric(clear.each()/bare.each(), "plain/forwarder")
			b.ReportMetric(oscore.each()/clear.each(), "sealed/plain")
			b.ReportMetric(fresh.each()/clear.each(), "sealed+echo/plain")
			if cold != nil {
				b.ReportMetric(cold.each()/clear.each(), "cold/plain")
			}
			b.ReportMetric(float64(oscore.kib)/1024, "sealed-MiB")
			b.ReportMetric(float64(clear.kib)/1024, "plain-MiB")
		})
	}
}

// earlierEnv names a test binary of an earlier state of the tree (go test -c).
const earlierEnv = "OSCORE_LOAD_EARLIER"

// BenchmarkEarlier compares a gateway with one of an earlier state, in one run: a
// change of a few percent shows on a machine that has other work.
func BenchmarkEarlier(b *testing.B) {
	binary := os.Getenv(earlierEnv)
	if binary == "" {
		b.Skip(earlierEnv + " names no test binary")
	}
	for _, m := range []mode{plain, sealed} {
		for _, peers := range []int{1000, 20_000} {
			b.Run(fmt.Sprintf("%s/peers=%d", [...]string{"sealed", "plain"}[m], peers), func(b *testing.B) {
				s := settings{Kind: "gateway", Plain: terminate.PlainObserve}
				now := contend(b, "now", m, peers, s)
				s.Binary = binary
				earlier := contend(b, "earlier", m, peers, s)
				slices := []func(*contender){func(c *contender) { c.sliceUp(turn / 4) }, func(c *contender) { c.sliceDown(turn / 4) }}
				for i, name := range []string{"up", "down"} {
					slices[i](now)
					slices[i](earlier)
					now.reset()
					earlier.reset()
					for range b.N {
						slices[i](earlier)
						slices[i](now)
					}
					b.ReportMetric(now.each(), name+"-cpu-µs")
					b.ReportMetric(now.each()/earlier.each(), name+"-now/earlier")
				}
			})
		}
	}
}

// BenchmarkDown is the same for a Read of the server. The execute is an unsafe
// request, which is in the journal, on the disk, before it goes out.
func BenchmarkDown(b *testing.B) {
	for _, peers := range []int{1, 1000, 100_000} {
		for _, what := range []struct {
			name   string
			method coap.Code
		}{{"read", coap.GET}, {"execute", coap.POST}} {
			b.Run(fmt.Sprintf("%s/peers=%d", what.name, peers), func(b *testing.B) {
				clear := contend(b, "plain", plain, peers, settings{Kind: "gateway", Plain: terminate.PlainObserve})
				oscore := contend(b, "sealed", sealed, peers, settings{Kind: "gateway", Hot: peers})
				all := []*contender{clear, oscore}
				for _, c := range all {
					c.backend.method = what.method
					c.sliceDown(turn)
					c.reset()
				}
				for b.Loop() {
					for _, c := range all {
						c.sliceDown(turn)
					}
				}
				report(b, oscore, all...)
				b.ReportMetric(oscore.each()/clear.each(), "sealed/plain")
				b.ReportMetric(float64(oscore.done)/oscore.took.Seconds(), "sealed-requests/s")
			})
		}
	}
}

// BenchmarkStart is the devices of one store that all register after a restart by
// kill -9: the time until the last of them has, an Echo round trip each, what the
// gateway takes for it, and how long it took to start.
func BenchmarkStart(b *testing.B) {
	const peers = 100_000
	b.Run(fmt.Sprintf("peers=%d", peers), func(b *testing.B) {
		s := settings{Kind: "gateway", Freshness: endpoint.FreshUnsafe}
		back, f := newBackend(b, peers), newFleet(b, sealed, peers)
		s.Backend, s.Base, s.UpstreamPort = back.sock.Addr().String(), makeStore(b, peers), freeport.Get(b)
		p := start(b, s)
		f.register(b, p.at, inFlight)
		var ready, took, cpu time.Duration
		kib, requests, failed := 0, 0, f.failed.Load()
		for b.Loop() {
			p.kill()
			f.mu.Lock()
			for n := range f.devices {
				f.devices[n].registered = false
			}
			f.mu.Unlock()
			since := time.Now()
			p = start(b, s)
			ready += time.Since(since)
			idle, since := p.usage(false), time.Now()
			requests += f.register(b, p.at, inFlight)
			took += time.Since(since)
			u := p.usage(false)
			cpu += u.CPU - idle.CPU
			kib = max(kib, u.KiB)
		}
		n := float64(b.N)
		b.ReportMetric(ready.Seconds()*1000/n, "ready-ms")
		b.ReportMetric(took.Seconds()/n, "registered-s")
		b.ReportMetric(float64(cpu.Microseconds())/float64(requests), "cpu-µs/request")
		b.ReportMetric(float64(requests)/n/peers, "requests/device")
		b.ReportMetric(float64(f.failed.Load()-failed)/n, "errors")
		b.ReportMetric(float64(kib)/1024, "MiB")
	})
}
