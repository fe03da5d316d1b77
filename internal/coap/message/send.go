package message

import (
	"time"

	"github.com/oscorelay/oscorelay/internal/coap"
)

// Outgoing is a message that was sent or waits to be.
type Outgoing[P comparable] struct {
	// Tag is what the caller gave to Send.
	Tag any

	peer     *peer[P]
	con      bool
	answer   bool // a response
	sent     bool // its peer may know it
	state    state
	mid      uint16
	attempt  int
	timeout  time.Duration
	withheld bool               // it waits for its peer to show that it receives
	held     bool               // reach.holding refers to it, or giveUp
	due      moment             // in Layer.ending
	index    int                // in Layer.again, plus one; 0: none
	data     []byte             // empty once it need not be sent again
	queued   node[*Outgoing[P]] // in a list of its peer's
	ends     node[*Outgoing[P]] // in Layer.ending
}

// state is where an outgoing message stands.
type state uint8

const (
	waiting state = iota // for NSTART
	flying               // confirmable, not acknowledged
	landed               // acknowledged, or never to be
	done                 // forgotten
)

// Peer returns the address it goes to.
func (o *Outgoing[P]) Peer() P { return o.peer.addr }

// Waiting reports whether NSTART has kept it back so far.
func (o *Outgoing[P]) Waiting() bool { return o.state == waiting }

// Confirmable reports whether it is confirmable.
func (o *Outgoing[P]) Confirmable() bool { return o.con }

// Send sends a message of type Confirmable or NonConfirmable, a request, a
// response or a ping (Empty); its message ID is drawn here. A confirmable one
// is retransmitted until it is acknowledged, reset, forgotten or given up; it
// waits while NSTART others to that peer are unacknowledged. A non-confirmable
// one without a tag is sent and forgotten: it returns nil. The errors are
// ErrFull and ErrNoMessageID.
func (l *Layer[P]) Send(now time.Time, to P, d coap.Datagram, tag any) (*Outgoing[P], error) {
	return l.send(l.at(now), &to, d, tag, false)
}

// MessageID draws a message ID for [Layer.SendAs]. The errors are those of Send.
func (l *Layer[P]) MessageID(now time.Time, to P) (uint16, error) {
	at := l.at(now)
	p, err := l.peer(at, &to)
	if err != nil {
		return 0, err
	}
	return l.messageID(at, p)
}

// SendAs is [Layer.Send] for a message that has its message ID: drawn by
// MessageID, so that the message is known before it goes out, or by an earlier
// process that may have sent it.
func (l *Layer[P]) SendAs(now time.Time, to P, d coap.Datagram, tag any) (*Outgoing[P], error) {
	return l.send(l.at(now), &to, d, tag, true)
}

func (l *Layer[P]) send(now moment, to *P, d coap.Datagram, tag any, drawn bool) (*Outgoing[P], error) {
	p, err := l.peer(now, to)
	if err != nil {
		return nil, err
	}
	con := d.Type == coap.Confirmable
	if !con && tag == nil {
		if !drawn {
			if d.MessageID, err = l.messageID(now, p); err != nil {
				return nil, err
			}
		}
		if l.allowed(p, 8+len(d.Token)+len(d.Body)) {
			l.emitMessage(p.addr, d)
			return nil, nil
		}
		return nil, l.hold(now, p, held[P]{data: d.Append(nil)})
	}
	size := 8 + len(d.Token) + len(d.Body)
	if !l.room(now, p, overhead+size) {
		return nil, ErrFull
	}
	if !drawn {
		if d.MessageID, err = l.messageID(now, p); err != nil {
			return nil, err
		}
	}
	mid := d.MessageID
	if old := p.find(mid); old != nil {
		l.forget(now, old)
	}
	o := l.newOutgoing()
	o.Tag, o.peer, o.con, o.answer, o.mid = tag, p, con, d.Code.IsResponse(), mid
	o.sent = drawn // by an earlier process, it may be
	p.enter(o)
	l.under++
	p.sent++
	l.keeps(overhead)
	if !con {
		o.state = landed
		if o.answer {
			l.end(2, o, now+int64(l.non))
			if p.recent.push(&o.queued, o); p.recent.n > recentNon {
				l.forget(now, p.recent.head.value)
			}
		} else { // its caller ends it
			l.end(1, o, now+int64(l.non))
			p.flight.push(&o.queued, o)
		}
		if l.allowed(p, size) {
			o.sent = true
			l.emitMessage(p.addr, d)
			return o, nil
		}
		if err := l.hold(now, p, held[P]{data: d.Append(nil), out: o}); err != nil {
			l.forget(now, o)
			return nil, err
		}
		return o, nil
	}
	if cap(o.data) == 0 {
		o.data = make([]byte, 0, size)
	}
	o.data = d.Append(o.data[:0])
	l.keeps(len(o.data))
	if p.flying >= l.cfg.NStart {
		o.state = waiting
		p.waiting.push(&o.queued, o)
		return o, nil
	}
	l.launch(now, o)
	return o, nil
}

// maxFree bounds the messages kept for use again, and maxKept the buffer that
// one of them may bring along.
const (
	maxFree = 1 << 12
	maxKept = 1 << 11
)

func (l *Layer[P]) newOutgoing() *Outgoing[P] {
	n := len(l.freeOut)
	if n == 0 {
		return new(Outgoing[P])
	}
	o := l.freeOut[n-1]
	l.freeOut[n-1] = nil
	l.freeOut = l.freeOut[:n-1]
	o.state = waiting
	return o
}

// recycle takes a message back that its owner has ended, and so holds no more.
// It stays done, so that to end it twice is no harm.
func (l *Layer[P]) recycle(o *Outgoing[P]) {
	if l.cfg.Reuse && !o.held && len(l.freeOut) < maxFree && cap(o.data) <= maxKept {
		*o = Outgoing[P]{state: done, data: o.data[:0]}
		l.freeOut = append(l.freeOut, o)
	}
}

// room makes room for a message of size bytes. Non-confirmable responses, which
// are kept for a Reset alone, give way to it, the oldest first.
func (l *Layer[P]) room(now moment, p *peer[P], size int) bool {
	if p.sent >= l.cfg.PeerSent && p.recent.head != nil {
		l.forget(now, p.recent.head.value)
	}
	if p.sent >= l.cfg.PeerSent {
		return false
	}
	for l.under >= l.cfg.MaxSent || !l.spare(size) {
		n := l.ending[2].head
		if n == nil {
			return false
		}
		l.forget(now, n.value)
	}
	return true
}

// spare drops what is remembered of received messages for size bytes to send.
func (l *Layer[P]) spare(size int) bool {
	if *l.total+size > l.cfg.MaxBytes {
		l.shrink(size)
	}
	return *l.total+size <= l.cfg.MaxBytes
}

// launch transmits a confirmable message for the first time (§4.2).
func (l *Layer[P]) launch(now moment, o *Outgoing[P]) {
	o.state = flying
	o.peer.flying++
	o.peer.flight.push(&o.queued, o)
	jitter := float64(l.cfg.Rand()>>11) / (1 << 53)
	o.timeout = time.Duration(float64(l.cfg.AckTimeout) * (1 + jitter*(l.cfg.AckRandomFactor-1)))
	l.transmit(now, o)
}

// transmit sends a confirmable message, unless its peer has not shown that it
// receives and has had enough. The ping that asks it always goes.
func (l *Layer[P]) transmit(now moment, o *Outgoing[P]) {
	if o.withheld = o.Tag != (ping{}) && !l.allowed(o.peer, len(o.data)); !o.withheld {
		o.sent = true
		l.emit(o.peer.addr, o.data)
	} else {
		l.withheld++
		l.probe(now, o.peer)
	}
	l.again.set(o, now+int64(o.timeout))
}

// due handles the deadline of a confirmable message. When one is given up and
// nothing was heard of its peer since it was first sent, the responses that wait
// behind it go too: there may be thousands, of which each would take
// MAX_TRANSMIT_WAIT. Requests are their owner's to end.
func (l *Layer[P]) due(now moment, o *Outgoing[P], f func(Event[P])) {
	if o.attempt < l.cfg.MaxRetransmit {
		o.attempt++
		o.timeout *= 2
		l.transmit(now, o)
		return
	}
	if o.Tag == (ping{}) {
		l.forget(now, o)
		l.unreachable(now, o.peer, f)
		return
	}
	var all []*Outgoing[P]
	if launched := now - int64(2*o.timeout-o.timeout>>o.attempt); o.peer.heard <= launched {
		for n := o.peer.waiting.head; n != nil; n = n.next {
			if n.value.answer {
				all = append(all, n.value)
			}
		}
	}
	l.giveUp(now, append(all, o), f)
}

// giveUp ends messages and tells f, which may end those whose turn has not come,
// and send others: none becomes another before its turn.
func (l *Layer[P]) giveUp(now moment, all []*Outgoing[P], f func(Event[P])) {
	for _, o := range all {
		o.held = true
	}
	for _, o := range all {
		if o.state != done {
			peer := o.peer.addr
			l.forget(now, o)
			f(Event[P]{Kind: GaveUp, Peer: peer, Sent: o})
		}
		o.held = false
	}
}

// end keeps a message that is not to be transmitted again until a moment.
func (l *Layer[P]) end(class int, o *Outgoing[P], at moment) {
	o.due = at
	l.ending[class].push(&o.ends, o)
}

// landed ends the retransmission. The message stays known for its lifetime,
// since a response may still refer to it.
func (l *Layer[P]) landed(now moment, o *Outgoing[P]) {
	if o.state != flying {
		return
	}
	o.state = landed
	o.peer.flying--
	l.keeps(-len(o.data))
	o.data = o.data[:0]
	l.again.stop(o)
	l.end(0, o, now+int64(l.lifetime))
	l.nextWaiting(now, o.peer)
}

// nextWaiting launches what NSTART held back.
func (l *Layer[P]) nextWaiting(now moment, p *peer[P]) {
	for !p.gone && p.flying < l.cfg.NStart && p.waiting.head != nil {
		o := p.waiting.head.value
		o.queued.remove()
		p.touched = now
		l.launch(now, o)
	}
}

// Forget ends a message: it is not transmitted again, and nothing that comes
// in refers to it. With Config.Reuse it may become another message. A message
// that is done is left alone, as is nil.
func (l *Layer[P]) Forget(now time.Time, o *Outgoing[P]) {
	if o == nil || o.state == done {
		return
	}
	l.forget(l.at(now), o)
	l.recycle(o)
}

// forget ends a message that its owner may still hold.
func (l *Layer[P]) forget(now moment, o *Outgoing[P]) {
	if o.state == done {
		return
	}
	was := o.state
	o.state = done
	l.again.stop(o)
	o.queued.remove()
	o.ends.remove()
	l.keeps(-overhead - len(o.data))
	o.data = o.data[:0]
	l.under--
	o.peer.sent--
	o.peer.remove(o)
	if was == flying {
		o.peer.flying--
		l.nextWaiting(now, o.peer)
	}
}
