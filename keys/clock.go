package keys

import (
	"time"
	"weak"
)

// Peers beyond restHot rest when they were not used for ageing, or twice that: it
// takes so long to look at all of them once.
const (
	restHot = 8192
	ageing  = time.Minute
	ageStep = time.Second
)

// age parks peers at rest: it looks at as many as makes a round in the time of ageing,
// and comes again while there are more than restHot.
func (r *Keyring) age() {
	const most = 128 // at a time
	r.mu.Lock()
	left := len(r.cold.clock) * int(ageStep) / int(ageing)
	for left > 0 && !r.closed && len(r.cold.clock) > restHot {
		n := min(left, most, len(r.cold.clock)-restHot)
		r.pass(nil, n, n)
		left -= n
		r.mu.Unlock()
		r.mu.Lock()
	}
	defer r.mu.Unlock()
	if r.closed || len(r.cold.clock) <= restHot {
		r.cold.ages = nil
		return
	}
	r.cold.ages.Reset(ageStep)
}

// evict parks peers until no more are hot than may be: those first that verified
// no message since the hand last passed. The caller holds r.mu and p.mu, and p
// stays.
func (r *Keyring) evict(p *Peer) {
	const most = 128 // at a time: the next one that wakes looks on
	if over := len(r.cold.clock) - r.cold.most; over > 0 {
		r.pass(p, over, min(most, 2*len(r.cold.clock)))
	}
}

// pass looks at some peers, from the clock's hand on, and parks some of those that
// verified no message since it last passed. The caller holds r.mu and p.mu, and p
// stays.
func (r *Keyring) pass(p *Peer, parks, looks int) {
	c := r.cold
	for ; parks > 0 && looks > 0; looks-- {
		if c.hand >= len(c.clock) {
			c.hand = 0
		}
		v := c.clock[c.hand]
		if v == p || v.ref.Swap(false) || !v.mu.TryLock() {
			c.hand++
			continue
		}
		if v.flight == nil && !v.noting {
			r.leaveClock(v)
			r.remove(v)
			state, large := v.park()
			v.evicted = true
			c.parking.put(v.place, state, large)
			c.remember(v)
			parks--
		} else {
			c.hand++
		}
		v.mu.Unlock()
	}
}

// remember keeps track of an evicted peer while somebody holds it.
func (c *cold) remember(p *Peer) {
	c.left[p.place] = weak.Make(p)
	if len(c.left) < c.sweep {
		return
	}
	for place, w := range c.left {
		if w.Value() == nil {
			delete(c.left, place)
		}
	}
	c.sweep = max(1024, 2*len(c.left))
}

// leaveClock takes a peer out of the clock. The caller holds r.mu.
func (r *Keyring) leaveClock(p *Peer) {
	c := r.cold
	last := len(c.clock) - 1
	c.clock[p.clock] = c.clock[last]
	c.clock[p.clock].clock = p.clock
	c.clock[last] = nil
	c.clock = c.clock[:last]
}
