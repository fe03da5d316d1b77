package message

import "time"

// peer is what is kept for one address, from the first message accepted from
// it or sent to it until EXCHANGE_LIFETIME after the last, or up to twice that.
type peer[P comparable] struct {
	// What every message touches stands together.
	addr     P
	touched  moment
	open     int // requests accepted and not answered
	seen     seen[P]
	received list[*Incoming[P]] // oldest first
	reach    reach[P]

	next    uint16 // message ID
	gone    bool
	flying  int                // confirmable messages that are not acknowledged
	sent    int                // messages in slots
	slots   []*Outgoing[P]     // by the last bits of their message ID; a power of two of them
	flight  list[*Outgoing[P]] // confirmable, transmitted
	waiting list[*Outgoing[P]] // confirmable, for NSTART
	recent  list[*Outgoing[P]] // non-confirmable, kept for a Reset

	heard   moment // when it last acknowledged something, or something of it was accepted
	watched moment // since when it stands in Layer.order
	order   node[*peer[P]]
	used    *[256]lifetimeSecond // when each run of 256 message IDs was last drawn from; made at the second run
}

// lifetimeSecond is a time in seconds since the Unix epoch, modulo 2^32, 0 for
// never.
type lifetimeSecond uint32

// recentNon is how many non-confirmable responses to a peer a Reset can refer
// to: notifications are cancelled that way (RFC 7641 §3.6).
const recentNon = 16

// find returns the message that an acknowledgement or a Reset refers to
// (RFC 7252 §4.2), or nil.
func (p *peer[P]) find(mid uint16) *Outgoing[P] {
	if len(p.slots) == 0 {
		return nil
	}
	if o := p.slots[int(mid)&(len(p.slots)-1)]; o != nil && o.mid == mid {
		return o
	}
	return nil
}

// enter puts a message into its slot. Where another has it there come to be
// twice as many: message IDs are drawn in turn, so that few are in the way.
func (p *peer[P]) enter(o *Outgoing[P]) {
	for {
		n := len(p.slots)
		if n > 0 && p.slots[int(o.mid)&(n-1)] == nil {
			p.slots[int(o.mid)&(n-1)] = o
			return
		}
		wider := make([]*Outgoing[P], max(2*n, 2))
		for _, x := range p.slots {
			if x != nil {
				wider[int(x.mid)&(len(wider)-1)] = x
			}
		}
		p.slots = wider
	}
}

func (p *peer[P]) remove(o *Outgoing[P]) {
	p.slots[int(o.mid)&(len(p.slots)-1)] = nil
	if p.sent == 0 && len(p.slots) > 4096 {
		p.slots = nil
	}
}

// lookup returns the peer of an address, or nil.
func (l *Layer[P]) lookup(addr *P) *peer[P] {
	if p := l.last; p != nil && p.addr == *addr {
		return p
	}
	p := l.peers[*addr]
	if p != nil {
		l.last = p
	}
	return p
}

// peer returns the peer of an address, making it if there is room.
func (l *Layer[P]) peer(now moment, addr *P) (*peer[P], error) {
	p := l.lookup(addr)
	if p == nil {
		if len(l.peers) >= l.cfg.MaxPeers && !l.dropPeer(now) {
			return nil, ErrFull
		}
		p = &peer[P]{addr: *addr, watched: now}
		if l.cfg.FirstID != nil {
			p.next = l.cfg.FirstID(p.addr)
		} else {
			p.next = uint16(l.cfg.Rand())
		}
		l.peers[p.addr] = p
		l.order.push(&p.order, p)
		l.last = p
	}
	p.touched = now
	return p, nil
}

// dropPeer forgets a peer that was silent since it came to stand first in the
// order, among the first few that nothing is under way to; a peer that spoke
// goes to the end instead. Where reachability is known, one that has never
// shown that it receives goes rather than none.
func (l *Layer[P]) dropPeer(now moment) bool {
	var fallback *peer[P]
	for range 8 {
		n := l.order.head
		if n == nil {
			break
		}
		p := n.value
		if p.sent == 0 && p.touched <= p.watched {
			l.forgetPeer(now, p)
			return true
		}
		if p.sent == 0 || fallback == nil && l.cfg.Amplification > 0 && !p.reach.shown {
			fallback = p
		}
		l.watch(now, p)
	}
	if fallback == nil {
		return false
	}
	l.forgetPeer(now, fallback)
	return true
}

// watch moves a peer to the end of the order.
func (l *Layer[P]) watch(now moment, p *peer[P]) {
	p.watched = now
	p.order.remove()
	l.order.push(&p.order, p)
}

func (l *Layer[P]) forgetPeer(now moment, p *peer[P]) {
	p.gone = true
	l.dropHeld(p)
	for p.received.head != nil {
		l.drop(p.received.head.value)
	}
	for _, list := range []*list[*Outgoing[P]]{&p.waiting, &p.flight, &p.recent} {
		for list.head != nil {
			l.forget(now, list.head.value)
		}
	}
	p.order.remove()
	delete(l.peers, p.addr)
	if l.last == p {
		l.last = nil
	}
}

// messageID draws the next message ID (RFC 7252 §4.4). They are drawn in turn;
// a run of 256 is not entered again within EXCHANGE_LIFETIME of its last use.
func (l *Layer[P]) messageID(now moment, p *peer[P]) (uint16, error) {
	run, second := p.next>>8, lifetimeSecond(time.Duration(now)/time.Second+1)|1<<31
	if p.next&0xff == 0 {
		if p.used == nil {
			p.used = new([256]lifetimeSecond)
			p.used[(run-1)&0xff] = second
		}
		if !l.cfg.ReuseIDs && p.used[run] != 0 && int32(second-p.used[run]) <= int32(l.lifetime/time.Second)+1 {
			return 0, ErrNoMessageID
		}
	}
	if p.used != nil {
		p.used[run] = second
	}
	mid := p.next
	p.next++
	return mid, nil
}

// expire forgets accepted messages whose lifetime is over, and silent peers.
func (l *Layer[P]) expire(now moment) {
	for i := range l.byAge {
		for n := l.byAge[i].head; n != nil && n.value.expires <= now; n = l.byAge[i].head {
			l.drop(n.value)
		}
	}
	for n := l.order.head; n != nil && now-n.value.watched > int64(l.lifetime); n = l.order.head {
		if p := n.value; p.sent == 0 && now-p.touched > int64(l.lifetime) {
			l.forgetPeer(now, p)
		} else {
			l.watch(now, p)
		}
	}
}
