package main

import (
	"context"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/oscorelay/oscorelay/internal/terminate"
	"github.com/oscorelay/oscorelay/proxy"
)

// newMetrics returns the handler of /metrics. What it shows it asks of the routes
// when it is asked.
func newMetrics(d *daemon) http.Handler {
	reg := prometheus.NewRegistry()
	reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), &collector{d})
	return promhttp.HandlerFor(reg, promhttp.HandlerOpts{})
}

// collector reads the daemon's state for Prometheus.
type collector struct{ *daemon }

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("oscored_"+name, help, labels, nil)
}

var (
	descInfo          = desc("build_info", "1, with the version.", "version")
	descUp            = desc("store_up", "1 if the store writes, 0 if it has stopped: nothing is sealed then.")
	descEpoch         = desc("store_epoch", "Starts of the store; it never goes back.")
	descStoreTaint    = desc("store_tainted", "1 if the store's past was unknown at this start: restored, copied, or without its anchor.")
	descContexts      = desc("contexts", "Contexts, hot ones ready in memory, cold ones in the store.", "state")
	descTainted       = desc("contexts_tainted", "Contexts that seal nothing, because the history of their numbers is unknown.")
	descRenew         = desc("contexts_renew", "Contexts in use whose key comes near the limit of its use.")
	descHeadroom      = desc("sequence_headroom", "Sender sequence numbers left to the context in use that has the fewest.")
	descRequests      = desc("requests_total", "Requests passed on, from devices (up) and from the backend (down).", "route", "direction")
	descNotifications = desc("notifications_total", "Notifications passed on.", "route")
	descRefused       = desc("refused_total", "Messages refused or dropped, by reason.", "route", "reason")
	descEvents        = desc("events_total", "What is neither passed nor refused, by kind.", "route", "event")
	descExchanges     = desc("exchanges", "Requests under way.", "route")
	descObservations  = desc("observations", "Observations; dormant ones wait for their device to be heard after a restart.", "route", "state")
	descDevices       = desc("devices", "Devices in memory, by how they speak.", "route", "security")
	descStuck         = desc("devices_stuck", "Devices that did not get through when they were last heard of; oscored ctl stuck tells why.", "route")
	descLatency       = desc("forward_seconds", "From a request to its answer, the other end's time included.", "route")
	descProxy         = desc("proxy_messages_total", "Messages of a keyless proxy, by what came of them.", "proxy", "outcome")
	descProxyNow      = desc("proxy_exchanges", "Requests under way in a keyless proxy.", "proxy")
)

// Describe implements prometheus.Collector.
func (c *collector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		descInfo, descUp, descEpoch, descStoreTaint, descContexts, descTainted, descRenew, descHeadroom, descRequests, descNotifications,
		descRefused, descEvents, descExchanges, descObservations, descDevices, descStuck, descLatency, descProxy, descProxyNow,
	} {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(out chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	count := func(d *prometheus.Desc, v uint64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	gauge(descInfo, 1, version())
	if reg := c.reg; reg != nil {
		gauge(descUp, flag01(reg.healthy(context.Background()) == nil))
		gauge(descEpoch, float64(reg.store.Epoch()))
		gauge(descStoreTaint, flag01(reg.store.Taint() != ""))
		s := c.survey.now(reg)
		gauge(descContexts, float64(s.hot), "hot")
		gauge(descContexts, float64(s.all-s.hot), "cold")
		gauge(descRenew, float64(s.renew))
		gauge(descHeadroom, float64(s.headroom))
		if n, known := c.survey.taints(); known {
			gauge(descTainted, float64(n))
		}
	}
	for _, r := range c.routes {
		s := r.Stats()
		count(descRequests, s.Counters["requests_up"], r.name, "up")
		count(descRequests, s.Counters["requests_down"], r.name, "down")
		count(descNotifications, s.Counters["notifications"], r.name)
		for name, n := range s.Counters {
			switch {
			case events[name]:
				count(descEvents, n, r.name, name)
			case !passed[name]:
				count(descRefused, n, r.name, name)
			}
		}
		gauge(descExchanges, float64(s.Gauges["exchanges"]), r.name)
		gauge(descObservations, float64(s.Gauges["observations"]-s.Gauges["observations_dormant"]), r.name, "awake")
		gauge(descObservations, float64(s.Gauges["observations_dormant"]), r.name, "dormant")
		gauge(descDevices, float64(s.Gauges["devices"]-s.Gauges["devices_plain"]), r.name, "sealed")
		gauge(descDevices, float64(s.Gauges["devices_plain"]), r.name, "plain")
		out <- latency(r.name, s.Latency)
		stuck := 0
		r.Devices(func(d terminate.Device) bool {
			if d.Stuck != "" {
				stuck++
			}
			return true
		})
		gauge(descStuck, float64(stuck), r.name)
	}
	for _, p := range c.proxies {
		s := p.Stats()
		for outcome, n := range proxyCounters(s) {
			count(descProxy, n, p.name, outcome)
		}
		gauge(descProxyNow, float64(s.Exchanges), p.name)
	}
}

// latency makes a histogram of a gateway's counts.
func latency(route string, l terminate.Latency) prometheus.Metric {
	buckets := map[float64]uint64{}
	var n uint64
	for i, b := range l.Bounds {
		n += l.Counts[i]
		buckets[b.Seconds()] = n
	}
	n += l.Counts[len(l.Bounds)]
	return prometheus.MustNewConstHistogram(descLatency, n, l.Sum.Seconds(), buckets, route)
}

// proxyCounters are a proxy's counters by their names.
func proxyCounters(s proxy.Stats) map[string]uint64 {
	return map[string]uint64{
		"requests": s.Requests, "responses": s.Responses, "refused": s.Refused, "shed": s.Shed, "timeouts": s.Timeouts,
		"bad_gateway": s.BadGateway, "duplicates": s.Duplicates, "malformed": s.Malformed, "unmatched": s.Unmatched, "overrun": s.Overrun,
	}
}

func flag01(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
