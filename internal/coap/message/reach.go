package message

import (
	"time"

	"github.com/oscorelay/oscorelay/internal/coap"
)

// reach is what is known of whether a peer receives at its address. Whoever
// can put any source address on a datagram must not have more sent there than
// a small multiple of what it sends itself (RFC 7252 §11.3, RFC 9175 §2.4).
//
// A peer shows it by an acknowledgement or a Reset that names a confirmable
// message that was sent to it and waits for that: NSTART of them and a ping, of
// 65536 message IDs that begin at a random number. Who has named wrong ones
// before is not believed until it is asked anew. Where what it is owed is more
// than what it may get, it is asked: with a ping, an empty confirmable message
// that every endpoint answers with a Reset (RFC 7252 §4.3). What it is owed is
// held until then. RFC 9175 §2.6 recommends 4.01 with an Echo option instead;
// many endpoints have no Echo, and a relay that asks for it once the server has
// answered would have the request run twice.
type reach[P comparable] struct {
	shown   bool
	credit  int          // bytes that it may still be sent
	wrong   int          // acknowledgements and Resets that name no message of ours
	ping    *Outgoing[P] // that waits for its Reset
	until   moment       // no other goes before
	pause   time.Duration
	heldOut int // bytes in holding
	holding []held[P]
}

// held is a datagram that waits until its peer has shown that it receives.
type held[P comparable] struct {
	data []byte
	out  *Outgoing[P] // what it is, if that is kept
}

// headers is what Ethernet, IPv6 and UDP put around a datagram, both ways:
// with it, and a factor of 3, what any request may be answered with unasked
// is the 136 bytes of RFC 9175 §2.4.
const headers = 14 + 40 + 8

const (
	maxWrong  = 16      // of 65536 guesses, a ping
	maxHeld   = 4       // datagrams, a peer
	maxCredit = 1 << 16 // bytes
)

// ping is the tag of the layer's own question.
type ping struct{}

// earn gives credit for what came in.
func (l *Layer[P]) earn(p *peer[P], size int) {
	if l.cfg.Amplification > 0 && !p.reach.shown {
		p.reach.credit = min(p.reach.credit+l.cfg.Amplification*(size+headers), maxCredit)
	}
}

// allowed reports whether so many bytes may be sent to a peer, and counts them.
func (l *Layer[P]) allowed(p *peer[P], size int) bool {
	if l.cfg.Amplification <= 0 || p.reach.shown {
		return true
	}
	if p.reach.credit < size+headers {
		return false
	}
	p.reach.credit -= size + headers
	return true
}

// hold keeps a datagram until its peer has shown that it receives, and asks it.
func (l *Layer[P]) hold(now moment, p *peer[P], h held[P]) error {
	l.withheld++
	if len(p.reach.holding) >= maxHeld || !l.spare(len(h.data)) {
		return ErrFull
	}
	l.keeps(len(h.data))
	p.reach.heldOut += len(h.data)
	p.reach.holding = append(p.reach.holding, h)
	if h.out != nil {
		h.out.held = true
	}
	l.probe(now, p)
	return nil
}

// Shown reports whether a peer has shown that it receives at its address. Where
// Config.Amplification sets no bound none is asked to, and all are believed.
func (l *Layer[P]) Shown(peer P) bool {
	if l.cfg.Amplification <= 0 {
		return true
	}
	p := l.lookup(&peer)
	return p != nil && p.reach.shown
}

// Ask has a peer that is remembered show that it receives, unless it has.
func (l *Layer[P]) Ask(now time.Time, peer P) {
	if p := l.lookup(&peer); p != nil && !l.Shown(peer) {
		l.probe(l.at(now), p)
	}
}

// probe asks a peer, unless it is being asked or was too lately.
func (l *Layer[P]) probe(now moment, p *peer[P]) {
	if p.reach.ping != nil || now < p.reach.until || !l.room(now, p, overhead+4) {
		return
	}
	p.reach.wrong = 0
	mid, err := l.messageID(now, p)
	if err != nil {
		return
	}
	if old := p.find(mid); old != nil {
		l.forget(now, old)
	}
	o := l.newOutgoing()
	o.Tag, o.peer, o.con, o.answer, o.sent, o.mid = ping{}, p, true, false, false, mid
	p.enter(o)
	l.under++
	p.sent++
	o.data = coap.Datagram{Type: coap.Confirmable, MessageID: mid}.Append(o.data[:0])
	l.keeps(overhead + len(o.data))
	p.reach.ping = o
	l.launch(now, o)
}

// answeredBy notes that a message named one of ours, or that it did not. The
// ping under which too many did not is void: another follows, under another
// message ID, so that a forger can keep no peer from being believed for longer
// than he keeps guessing.
func (l *Layer[P]) answeredBy(now moment, p *peer[P], o *Outgoing[P]) {
	if l.cfg.Amplification <= 0 || p.reach.shown {
		return
	}
	if o == nil {
		if p.reach.wrong++; p.reach.wrong == maxWrong && p.reach.ping != nil {
			l.forget(now, p.reach.ping)
			p.reach.ping = nil
			p.reach.pause = min(max(2*p.reach.pause, l.cfg.AckTimeout), l.lifetime)
			p.reach.until = now + int64(p.reach.pause)
		}
		return
	}
	if p.reach.wrong >= maxWrong || !o.con || o.state != flying {
		return // it may have guessed
	}
	p.reach.shown = true
	for _, h := range p.reach.holding {
		if h.out == nil || h.out.state != done {
			l.emit(p.addr, h.data)
			if h.out != nil {
				h.out.sent = true
			}
		}
	}
	l.dropHeld(p)
	for n := p.flight.head; n != nil; n = n.next {
		if x := n.value; x != o && x.state == flying && x.withheld {
			x.withheld, x.sent = false, true
			l.emit(p.addr, x.data)
		}
	}
}

func (l *Layer[P]) dropHeld(p *peer[P]) {
	l.keeps(-p.reach.heldOut)
	for _, h := range p.reach.holding {
		if h.out != nil {
			h.out.held = false
		}
	}
	p.reach.heldOut, p.reach.holding = 0, nil
}

// unreachable gives up, after a ping that was not answered, what it was to set
// free and all else that is under way there.
func (l *Layer[P]) unreachable(now moment, p *peer[P], f func(Event[P])) {
	p.reach.ping = nil
	var all []*Outgoing[P]
	for _, h := range p.reach.holding {
		if h.out != nil {
			all = append(all, h.out)
		}
	}
	l.dropHeld(p)
	for _, list := range []*list[*Outgoing[P]]{&p.waiting, &p.flight} { // waiting first: else it would fly
		for n := list.head; n != nil; n = n.next {
			all = append(all, n.value)
		}
	}
	l.giveUp(now, all, f) // what f sends is not meant, a new ping least of all
}
