package message

import (
	"time"

	"github.com/oscorelay/oscorelay/internal/coap"
)

// Outgoing is a message that was sent or waits to be.
type Outgoing[P comparable] struct {
	// Tag is what the caller gave to Send.
	Tag any

	peer    *peer[P]
	con     bool
	state   state
	mid     uint16
	size    int
	data    []byte // nil once it need not be sent again
	attempt int
	timeout time.Duration
	timer   timer[P]
	queued  node[*Outgoing[P]] // in peer.waiting or peer.recent
}

// state is where an outgoing message stands.
type state uint8

const (
	waiting state = iota // for NSTART
	flying               // confirmable, not acknowledged
	landed               // acknowledged, or never to be
	done                 // forgotten
)

// sentKey is what an acknowledgement or a Reset refers to (RFC 7252 §4.2).
type sentKey[P comparable] struct {
	peer P
	mid  uint16
}

// Peer returns the address it goes to.
func (o *Outgoing[P]) Peer() P { return o.peer.addr }

// Confirmable reports whether it is confirmable.
func (o *Outgoing[P]) Confirmable() bool { return o.con }

// Send sends a message of type Confirmable or NonConfirmable, a request, a
// response or a ping (Empty); its message ID is drawn here. A confirmable one
// is retransmitted until it is acknowledged, reset, forgotten or given up; it
// waits while NSTART others to that peer are unacknowledged. The errors are
// ErrFull and ErrNoMessageID.
func (l *Layer[P]) Send(now time.Time, to P, d coap.Datagram, tag any) (*Outgoing[P], error) {
	var err error
	if d.MessageID, err = l.MessageID(now, to); err != nil {
		return nil, err
	}
	return l.SendAs(now, to, d, tag)
}

// MessageID draws a message ID for [Layer.SendAs]. The errors are those of Send.
func (l *Layer[P]) MessageID(now time.Time, to P) (uint16, error) {
	p, err := l.peer(now, to)
	if err != nil {
		return 0, err
	}
	return l.messageID(now, p)
}

// SendAs is [Layer.Send] for a message that has its message ID: drawn by
// MessageID, so that the message is known before it goes out, or by an earlier
// process that may have sent it.
func (l *Layer[P]) SendAs(now time.Time, to P, d coap.Datagram, tag any) (*Outgoing[P], error) {
	p, err := l.peer(now, to)
	if err != nil {
		return nil, err
	}
	size := 8 + len(d.Token) + len(d.Body)
	if l.under >= l.cfg.MaxSent || p.sent >= l.cfg.PeerSent || l.bytes+size > l.cfg.MaxBytes && !l.spare(size) {
		return nil, ErrFull
	}
	o := &Outgoing[P]{Tag: tag, peer: p, con: d.Type == coap.Confirmable}
	o.timer.out = o
	o.mid = d.MessageID
	if old := l.sent[sentKey[P]{to, o.mid}]; old != nil {
		l.Forget(now, old)
	}
	data := d.Append(make([]byte, 0, size))
	l.sent[sentKey[P]{to, o.mid}] = o
	l.under++
	p.sent++
	if !o.con {
		o.state = landed
		l.emit(to, data)
		l.timers.set(&o.timer, now.Add(l.non))
		p.recent.push(&o.queued, o)
		if p.recent.n > recentNon {
			l.Forget(now, p.recent.head.value)
		}
		return o, nil
	}
	o.data, o.size = data, len(data)
	l.bytes += o.size
	if p.flying >= l.cfg.NStart {
		p.waiting.push(&o.queued, o)
		return o, nil
	}
	l.launch(now, o)
	return o, nil
}

// spare drops what is remembered of received messages for size bytes to send.
func (l *Layer[P]) spare(size int) bool {
	l.cfg.MaxBytes -= size
	l.shrink()
	l.cfg.MaxBytes += size
	return l.bytes+size <= l.cfg.MaxBytes
}

// launch transmits a confirmable message for the first time (§4.2).
func (l *Layer[P]) launch(now time.Time, o *Outgoing[P]) {
	o.state = flying
	o.peer.flying++
	jitter := float64(l.cfg.Rand()>>11) / (1 << 53)
	o.timeout = time.Duration(float64(l.cfg.AckTimeout) * (1 + jitter*(l.cfg.AckRandomFactor-1)))
	l.emit(o.peer.addr, o.data)
	l.timers.set(&o.timer, now.Add(o.timeout))
}

// due handles the deadline of an outgoing message and reports whether it is
// given up.
func (l *Layer[P]) due(now time.Time, o *Outgoing[P]) (gaveUp bool) {
	if o.state != flying { // its lifetime is over
		l.Forget(now, o)
		return false
	}
	if o.attempt >= l.cfg.MaxRetransmit {
		l.Forget(now, o)
		return true
	}
	o.attempt++
	o.timeout *= 2
	l.emit(o.peer.addr, o.data)
	l.timers.set(&o.timer, now.Add(o.timeout))
	return false
}

// landed ends the retransmission. The message stays known for its lifetime,
// since a response may still refer to it.
func (l *Layer[P]) landed(now time.Time, o *Outgoing[P]) {
	if o.state != flying {
		return
	}
	o.state = landed
	o.peer.flying--
	l.bytes -= o.size
	o.data, o.size = nil, 0
	l.timers.set(&o.timer, now.Add(l.lifetime))
	l.nextWaiting(now, o.peer)
}

// nextWaiting launches what NSTART held back.
func (l *Layer[P]) nextWaiting(now time.Time, p *peer[P]) {
	for p.flying < l.cfg.NStart && p.waiting.head != nil {
		o := p.waiting.head.value
		o.queued.remove()
		p.touched = now
		l.launch(now, o)
	}
}

// Forget ends a message: it is not transmitted again, and nothing that comes
// in refers to it. A message that is done is left alone, as is nil.
func (l *Layer[P]) Forget(now time.Time, o *Outgoing[P]) {
	if o == nil || o.state == done {
		return
	}
	was := o.state
	o.state = done
	l.timers.stop(&o.timer)
	o.queued.remove()
	l.bytes -= o.size
	o.data, o.size = nil, 0
	l.under--
	o.peer.sent--
	if key := (sentKey[P]{o.peer.addr, o.mid}); l.sent[key] == o {
		delete(l.sent, key)
	}
	if was == flying {
		o.peer.flying--
		l.nextWaiting(now, o.peer)
	}
}
