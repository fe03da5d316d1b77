package proxy

import (
	"context"
	"maps"
	"net/netip"
	"time"

	"github.com/oscorelay/oscorelay/internal/coap"
)

const (
	maxResolving   = 256              // requests that wait for a name that a client chose, a shard
	maxResolved    = 4096             // names remembered
	resolvedFor    = 60 * time.Second // how long
	resolveTimeout = 5 * time.Second
)

// resolved is what is remembered of a name.
type resolved struct {
	addr netip.Addr
	at   time.Time
}

// name is a host's name, of a route or chosen by a client: what clients make up
// takes nothing from routes.
type name struct {
	host string
	open bool
}

type found = func(now time.Time, addr netip.Addr, bad *refusal)

// resolve finds a host's address and calls f with it, under the shard's lock:
// at once if it is remembered, else when the resolver has answered. A name is
// looked up once at a time. A route's address is used on where its name cannot
// be resolved any more.
func (sh *shard) resolve(now time.Time, host string, open bool, f found) {
	k, limit := name{host, open}, sh.cfg.MaxExchanges
	if open {
		limit = min(limit, maxResolving)
	}
	if r, ok := sh.names[k]; ok && now.Sub(r.at) < resolvedFor {
		f(now, r.addr, nil)
		return
	}
	waiting := &sh.resolving[0]
	if open {
		waiting = &sh.resolving[1]
	}
	if *waiting >= limit {
		f(now, netip.Addr{}, overloaded())
		return
	}
	*waiting++
	sh.asked[k] = append(sh.asked[k], f)
	if len(sh.asked[k]) > 1 {
		return
	}
	sh.wg.Go(func() {
		ctx, cancel := context.WithTimeout(sh.p.ctx, resolveTimeout)
		defer cancel()
		addrs, err := sh.p.cfg.Resolve(ctx, host)
		sh.mu.Lock()
		now, addr, bad := time.Now(), netip.Addr{}, (*refusal)(nil)
		before, known := sh.names[k]
		switch {
		case err == nil && len(addrs) > 0:
			addr = addrs[0].Unmap()
			sh.remember(k, resolved{addr, now})
		case known && !open:
			addr = before.addr
			sh.remember(k, resolved{addr, now.Add(resolveTimeout - resolvedFor)}) // ask again soon
		default:
			bad = refuse(coap.BadGateway, "the host's name cannot be resolved")
		}
		fs := sh.asked[k]
		delete(sh.asked, k)
		for _, f := range fs {
			*waiting--
			f(now, addr, bad)
		}
		out := batches{p: sh.p}
		out.collect(sh)
		sh.mu.Unlock()
		out.transmit()
		sh.poll.Wake() // there may be new times to wait for
	})
}

func (sh *shard) remember(k name, r resolved) {
	if len(sh.names) >= maxResolved {
		maps.DeleteFunc(sh.names, func(k name, _ resolved) bool { return k.open })
	}
	sh.names[k] = r
}
