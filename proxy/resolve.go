package proxy

import (
	"context"
	"net/netip"
	"time"

	"github.com/oscorelay/oscorelay/internal/coap"
)

const (
	maxResolving   = 256              // look-ups at a time, a shard
	maxResolved    = 4096             // names remembered
	resolvedFor    = 60 * time.Second // how long
	resolveTimeout = 5 * time.Second
)

// resolved is what is remembered of a name.
type resolved struct {
	addr netip.Addr
	at   time.Time
}

// resolve finds a host's address and calls f with it, under the shard's lock:
// at once if it is remembered, else when the resolver has answered.
func (sh *shard) resolve(now time.Time, host string, f func(now time.Time, addr netip.Addr, bad *refusal)) {
	if r, ok := sh.names[host]; ok && now.Sub(r.at) < resolvedFor {
		f(now, r.addr, nil)
		return
	}
	if sh.resolving >= maxResolving {
		f(now, netip.Addr{}, refuse(coap.ServiceUnavailable, "overloaded"))
		return
	}
	sh.resolving++
	sh.wg.Go(func() {
		ctx, cancel := context.WithTimeout(sh.p.ctx, resolveTimeout)
		defer cancel()
		addrs, err := sh.p.cfg.Resolve(ctx, host)
		sh.mu.Lock()
		now := time.Now()
		sh.resolving--
		if err != nil || len(addrs) == 0 {
			f(now, netip.Addr{}, refuse(coap.BadGateway, "the host's name cannot be resolved"))
		} else {
			if len(sh.names) >= maxResolved {
				clear(sh.names)
			}
			sh.names[host] = resolved{addrs[0].Unmap(), now}
			f(now, addrs[0].Unmap(), nil)
		}
		out := batches{p: sh.p}
		out.collect(sh)
		sh.mu.Unlock()
		out.transmit()
		sh.poll.Wake() // there may be new times to wait for
	})
}
