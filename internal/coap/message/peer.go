package message

import "time"

// peer is what is kept for one address, from the first message accepted from
// it or sent to it until EXCHANGE_LIFETIME after the last.
type peer[P comparable] struct {
	addr     P
	touched  time.Time
	order    node[*peer[P]]
	received list[*Incoming[P]] // oldest first

	flying  int                // confirmable messages that are not acknowledged
	sent    int                // messages kept in Layer.sent or waiting
	waiting list[*Outgoing[P]] // for NSTART
	recent  list[*Outgoing[P]] // non-confirmable, kept for a Reset

	next uint16               // message ID
	used *[256]lifetimeSecond // when each run of 256 message IDs was last drawn from; made at the second run
}

// lifetimeSecond is a time in seconds since the Unix epoch, modulo 2^32, 0 for
// never.
type lifetimeSecond uint32

// recentNon is how many non-confirmable messages to a peer a Reset can refer
// to: notifications are cancelled that way (RFC 7641 §3.6).
const recentNon = 16

// peer returns the peer of an address, making it if there is room.
func (l *Layer[P]) peer(now time.Time, addr P) (*peer[P], error) {
	p := l.peers[addr]
	if p == nil {
		if len(l.peers) >= l.cfg.MaxPeers && !l.dropPeer() {
			return nil, ErrFull
		}
		p = &peer[P]{addr: addr}
		if l.cfg.FirstID != nil {
			p.next = l.cfg.FirstID(addr)
		} else {
			p.next = uint16(l.cfg.Rand())
		}
		l.peers[addr] = p
	}
	p.touched = now
	p.order.remove()
	l.order.push(&p.order, p)
	return p, nil
}

// dropPeer forgets the peer that was silent for longest among the first few
// that nothing is under way to.
func (l *Layer[P]) dropPeer() bool {
	n := l.order.head
	for range 8 {
		if n == nil {
			return false
		}
		if n.value.sent == 0 {
			l.forget(n.value)
			return true
		}
		n = n.next
	}
	return false
}

func (l *Layer[P]) forget(p *peer[P]) {
	for p.received.head != nil {
		l.drop(p.received.head.value)
	}
	p.order.remove()
	delete(l.peers, p.addr)
}

// messageID draws the next message ID (RFC 7252 §4.4). They are drawn in turn;
// a run of 256 is not entered again within EXCHANGE_LIFETIME of its last use.
func (l *Layer[P]) messageID(now time.Time, p *peer[P]) (uint16, error) {
	run, second := p.next>>8, lifetimeSecond(now.Unix())|1
	if p.next&0xff == 0 {
		if p.used == nil {
			p.used = new([256]lifetimeSecond)
			p.used[(run-1)&0xff] = second
		}
		if !l.cfg.ReuseIDs && p.used[run] != 0 && second-p.used[run] <= lifetimeSecond(l.lifetime/time.Second)+1 {
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
func (l *Layer[P]) expire(now time.Time) {
	for i := range l.byAge {
		for n := l.byAge[i].head; n != nil && !n.value.expires.After(now); n = l.byAge[i].head {
			l.drop(n.value)
		}
	}
	for n := l.order.head; n != nil && now.Sub(n.value.touched) > l.lifetime; n = l.order.head {
		p := n.value
		if p.sent == 0 {
			l.forget(p)
			continue
		}
		p.touched = now
		p.order.remove()
		l.order.push(&p.order, p)
	}
}
