package main

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/oscorelay/oscorelay/internal/endpoint"
	"github.com/oscorelay/oscorelay/internal/terminate"
	"github.com/oscorelay/oscorelay/keys"
)

// route is a running [[terminate]].
type route struct {
	*terminate.Gateway
	name   string
	policy atomic.Pointer[policy]
	told   int // devices that were plain when it was last logged
}

// policy is what a reload changes of a route, made ready to be asked for each
// message.
type policy struct {
	routeConfig
	contexts map[string]string // by endpoint name, those of Endpoints
	names    map[string]bool   // patterns that are names
	globs    []string
	all      bool
}

func newPolicy(c *routeConfig) *policy {
	p := &policy{routeConfig: *c, contexts: map[string]string{}, names: map[string]bool{}}
	for context, ep := range c.Endpoints {
		p.contexts[ep] = context
	}
	for _, x := range c.Contexts {
		switch {
		case x == "*":
			p.all = true
		case strings.ContainsAny(x, `*?[\`):
			p.globs = append(p.globs, x)
		default:
			p.names[x] = true
		}
	}
	return p
}

// accepts reports whether a context may come in here.
func (p *policy) accepts(context string) bool {
	return p.all || p.names[context] || accepts(p.globs, context)
}

// endpoint returns the endpoint name that a context stands for.
func (p *policy) endpoint(context string) string {
	if ep, ok := p.Endpoints[context]; ok {
		return ep
	}
	return context
}

// contextOf is its inverse; empty if no context has the name.
func (p *policy) contextOf(ep string) string {
	if context, ok := p.contexts[ep]; ok {
		return context
	}
	if _, renamed := p.Endpoints[ep]; renamed {
		return ""
	}
	return ep
}

var plainPolicies = map[string]terminate.Plain{
	"refuse": terminate.PlainRefuse, "accept": terminate.PlainAccept, "observe": terminate.PlainObserve,
}

var freshnessPolicies = map[string]endpoint.Freshness{
	"window": endpoint.FreshWindow, "first": endpoint.FreshFirst, "unsafe": endpoint.FreshUnsafe, "always": endpoint.FreshAlways,
}

// newRoute opens the sockets of a route.
func (d *daemon) newRoute(c *routeConfig) (*route, error) {
	r := &route{name: c.Name}
	r.policy.Store(newPolicy(c))
	cfg, err := gatewayConfig(c)
	if err != nil {
		return nil, err
	}
	cfg.Store, cfg.Keyring = d.reg.store, d.reg.ring
	cfg.Accepts = func(context string) bool { return r.policy.Load().accepts(context) }
	cfg.Endpoint = func(context string) string { return r.policy.Load().endpoint(context) }
	cfg.ContextOf = func(ep string) string { return r.policy.Load().contextOf(ep) }
	cfg.Drain = d.cfg.Drain.Duration
	cfg.Logger = slog.New(d.quiet)
	if r.Gateway, err = terminate.Listen(cfg); err != nil {
		if errors.Is(err, terminate.ErrConfig) {
			err = fmt.Errorf("%w: %w", errConfig, err)
		}
		return nil, fmt.Errorf("route %q: %w%s", c.Name, err, inUse(err))
	}
	return r, nil
}

// gatewayConfig is what a route's settings say by themselves.
func gatewayConfig(c *routeConfig) (cfg terminate.Config, err error) {
	listen, err := udpAddress(c.Listen)
	if err != nil {
		return cfg, err
	}
	backend, err := udpAddress(c.Backend)
	if err != nil {
		return cfg, err
	}
	upstream, err := upstreamPrefix(c, backend)
	if err != nil {
		return cfg, err
	}
	return terminate.Config{
		Name: c.Name, Listen: listen, Backend: backend, Upstream: upstream, UpstreamPort: uint16(c.UpstreamPort), UpstreamPorts: c.UpstreamPorts,
		Plain: plainPolicies[c.Plain], Freshness: freshnessPolicies[c.Freshness],
		AckTimeout: c.AckTimeout.Duration, Timeout: c.Timeout.Duration, Silent: c.Silent,
		DeviceNStart: c.Limits.NStart, MaxExchanges: c.Limits.Exchanges, DeviceExchanges: c.Limits.DeviceExchanges, MaxObservations: c.Limits.Observations,
		MaxDevices: c.Limits.Devices, MaxBytes: c.Limits.Bytes, MaxDatagram: c.Limits.Datagram,
	}, nil
}

// change gives a running route new settings. What devices it is no longer for,
// or that stand for another endpoint now, are forgotten: they register anew.
func (r *route) change(c *routeConfig) {
	old, now := r.policy.Load(), newPolicy(c)
	r.policy.Store(now)
	if old.Plain != now.Plain || old.Freshness != now.Freshness {
		r.SetPolicies(plainPolicies[now.Plain], freshnessPolicies[now.Freshness])
	}
	if slices.Equal(old.Contexts, now.Contexts) && maps.Equal(old.Endpoints, now.Endpoints) {
		return
	}
	var gone []string
	r.Devices(func(d terminate.Device) bool {
		if !now.accepts(d.Context) || old.endpoint(d.Context) != now.endpoint(d.Context) {
			gone = append(gone, d.Context)
		}
		return true
	})
	r.Forget(gone...)
}

// nextSteps tell what helps a device that does not get through, by what the
// gateway says of it.
var nextSteps = []struct{ why, next string }{
	{"do not decrypt", "compare both ends' keys: oscore diagnose --against the device's key file; if two devices share a kid, give one new keys"},
	{"replays", "if it lost its state: derive anew (Appendix B.2) or give both ends new keys; if not, somebody repeats its messages, and there is nothing to do"},
	{"another route", "it sends to the wrong address, or [terminate] contexts of this route leaves it out"},
	{"may not seal", keys.Mend},
	{"cannot be sealed", "oscored ctl contexts NAME tells the state of its keys; " + keys.Mend},
	{"answers in plain", "if it is the device, it lost its keys: give both ends new ones; if not, somebody on the way forges answers, and there is nothing to do"},
	{"registers as", "if the name is right, write it under [terminate.endpoints] and reload; if not, the device has another device's keys"},
	{"registers in plain", "give it its keys again, or find out who else registers under its name"},
	{"acknowledges no request", "it sleeps, is off, or a NAT forgot its address: it is back with its next Update; else look at the network"},
}

// nextStep is what to do about a device's trouble.
func nextStep(why string) string {
	if why == "" {
		return ""
	}
	for _, s := range nextSteps {
		if strings.Contains(why, s.why) {
			return s.next
		}
	}
	return "the log of that time, and oscored ctl contexts NAME, tell more"
}

// events are counters of a gateway that tell of no refusal.
var events = map[string]bool{
	"duplicate": true, "moved": true, "plain_passed": true, "observation_revived": true, "observation_cancelled": true,
	"journal_resumed": true, "journal_repeated": true, "echo_answered": true, "echo_challenge": true, "rederived": true,
}

// passed are those of messages that went through.
var passed = map[string]bool{"requests_up": true, "requests_down": true, "notifications": true}

// addressText is an address for people, empty if there is none.
func addressText(a netip.AddrPort) string {
	if !a.IsValid() {
		return ""
	}
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()).String()
}
