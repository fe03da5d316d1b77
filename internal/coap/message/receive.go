package message

import (
	"hash/maphash"
	"time"

	"github.com/oscorelay/oscorelay/internal/coap"
)

// Incoming is a message that was accepted.
type Incoming[P comparable] struct {
	peer    *peer[P]
	hash    uint64       // of all its bytes
	chain   *Incoming[P] // the next in its peer's table
	typ     coap.Type
	mid     uint16
	gone    bool // dropped from the table
	open    bool // the caller holds it, to answer it
	acked   bool // acknowledged, with or without an answer
	token   []byte
	reply   []byte // the acknowledgement, for duplicates; empty: none
	expires moment
	due     moment             // the acknowledgement
	delayed node[*Incoming[P]] // in Layer.delayed
	byAge   node[*Incoming[P]]
	ofPeer  node[*Incoming[P]]

	// Room for a token and a reply of usual size, after all pointers, so that
	// the collector does not look at it.
	shortToken [8]byte
	shortReply [64]byte
}

// Peer returns the address it came from.
func (in *Incoming[P]) Peer() P { return in.peer.addr }

// Token returns its token, which must not be changed.
func (in *Incoming[P]) Token() []byte { return in.token }

// Confirmable reports whether it was confirmable.
func (in *Incoming[P]) Confirmable() bool { return in.typ == coap.Confirmable }

// Receive takes a datagram in. A request or a response that it returns leaves
// no trace until it is accepted. The event aliases data.
func (l *Layer[P]) Receive(now time.Time, from P, data []byte) Event[P] {
	d, err := coap.ParseDatagram(data)
	if err == nil {
		err = coap.Check(d.Body)
	}
	ev := Event[P]{Peer: from, Message: d, Err: err, size: len(data), accepted: l.accepted}
	if err != nil {
		// §4.2: a confirmable message that cannot be understood is reset; §4.3:
		// any other is ignored. What is no CoAP at all is not answered.
		if len(data) >= 4 && data[0]>>6 == 1 && d.Type == coap.Confirmable {
			l.empty(from, coap.Reset, d.MessageID)
		}
		return ev
	}
	at := l.at(now)
	p := l.lookup(&from)
	ev.peer = p
	if d.Type == coap.Acknowledgement || d.Type == coap.Reset {
		if p == nil { // §4.2: ignored
			return ev
		}
		if o := p.find(d.MessageID); o != nil && o.sent {
			ev.Sent = o
		}
		l.answeredBy(at, p, ev.Sent)
		return l.answered(at, ev)
	}
	switch {
	case d.Code == coap.Empty && d.Type == coap.Confirmable: // §4.3: a ping
		l.empty(from, coap.Reset, d.MessageID)
		return ev
	case d.Code.IsRequest():
		ev.Kind = Request
	case d.Code.IsResponse():
		ev.Kind = Response
	default: // reserved, or a signal that belongs on a stream
		if d.Type == coap.Confirmable {
			l.empty(from, coap.Reset, d.MessageID)
		}
		return ev
	}
	ev.hash = maphash.Bytes(l.seed, data)
	if p == nil {
		return ev
	}
	in := p.seen.find(ev.Message.MessageID, ev.hash)
	ev.judged = in == nil
	if in != nil && in.expires > at {
		ev.Kind, ev.Err = None, ErrDuplicate
		if len(in.reply) == 0 {
			return ev
		}
		l.earn(p, len(data))
		if l.allowed(p, len(in.reply)) { // §4.5: acknowledge each copy in the same way
			l.emit(from, in.reply)
		} else {
			l.withheld++
			l.probe(at, p)
		}
	}
	return ev
}

// answered handles an acknowledgement or a Reset.
func (l *Layer[P]) answered(now moment, ev Event[P]) Event[P] {
	o := ev.Sent
	if o == nil || o.state == done { // §4.2: ignored
		ev.Sent = nil
		return ev
	}
	o.peer.heard = now
	if o.Tag == (ping{}) {
		l.forget(now, o)
		ev.Sent = nil
		return ev
	}
	switch code := ev.Message.Code; {
	case ev.Message.Type == coap.Reset && code == coap.Empty:
		ev.Kind = Reset
		l.forget(now, o)
	case ev.Message.Type == coap.Reset, !o.con:
		ev.Sent = nil
	case code == coap.Empty && o.state == flying:
		ev.Kind = Acknowledged
		if o.answer { // nothing comes that could refer to it
			l.forget(now, o)
		} else {
			l.landed(now, o)
		}
	case code.IsResponse() && !o.answer:
		ev.Kind = Response
	}
	return ev
}

// Unanswered returns how many requests of an event's peer were accepted and
// neither answered nor released, and how many messages wait for it to
// acknowledge others.
func (l *Layer[P]) Unanswered(ev *Event[P]) int {
	if ev.peer == nil {
		return 0
	}
	return ev.peer.open + ev.peer.waiting.n
}

// Waiting returns how many confirmable messages wait for NSTART to a peer.
func (l *Layer[P]) Waiting(to P) int {
	if p := l.lookup(&to); p != nil {
		return p.waiting.n
	}
	return 0
}

// AcceptRequest commits a request that the caller has verified: copies of it
// are duplicates from now on. It returns ErrDuplicate if a copy was accepted
// between, and ErrFull. A confirmable one is acknowledged with its answer, or
// without it after AckDelay. The caller owes an answer: [Layer.Respond], or
// [Layer.Release] if there is to be none.
func (l *Layer[P]) AcceptRequest(now time.Time, ev Event[P]) (*Incoming[P], error) {
	at := l.at(now)
	in, err := l.remember(at, &ev)
	if err != nil {
		return nil, err
	}
	in.peer.open++
	if in.Confirmable() {
		in.due = at + int64(l.cfg.AckDelay)
		l.delayed.push(&in.delayed, in)
	}
	return in, nil
}

// AcceptResponse commits a response that the caller has verified, acknowledges
// it if it is confirmable, and ends its request, as [Layer.Forget] does, if it
// is piggybacked. Of any other the caller ends it.
func (l *Layer[P]) AcceptResponse(now time.Time, ev Event[P]) error {
	if ev.Message.Type == coap.Acknowledgement {
		// Verified later, it may find its request ended, or become another.
		o := ev.Sent
		if o == nil || o.state == done || o.mid != ev.Message.MessageID || o.peer.addr != ev.Peer {
			return ErrDuplicate
		}
		l.Forget(now, ev.Sent)
		return nil
	}
	in, err := l.remember(l.at(now), &ev)
	if err != nil {
		return err
	}
	if in.Confirmable() {
		l.acknowledge(in)
	}
	l.close(in)
	return nil
}

// Reject answers a request or response with a Reset (§4.2, §4.3) and remembers
// nothing.
func (l *Layer[P]) Reject(ev Event[P]) {
	if t := ev.Message.Type; t == coap.Confirmable || t == coap.NonConfirmable {
		l.empty(ev.Peer, coap.Reset, ev.Message.MessageID)
	}
}

// Refuse answers a request with an error and remembers nothing: a copy of it
// is judged anew. Where Config.Amplification does not let the whole answer go,
// it goes without its body.
func (l *Layer[P]) Refuse(ev Event[P], code coap.Code, body []byte) {
	d := coap.Datagram{Type: coap.Acknowledgement, Code: code, MessageID: ev.Message.MessageID, Token: ev.Message.Token, Body: body}
	if ev.Message.Type == coap.NonConfirmable {
		d.Type, d.MessageID = coap.NonConfirmable, uint16(l.cfg.Rand())
	}
	if a := l.cfg.Amplification; a > 0 && (ev.peer == nil || !ev.peer.reach.shown) && 4+len(d.Token)+len(body)+headers > a*(ev.size+headers) {
		d.Body = nil
	}
	l.emitMessage(ev.Peer, d)
}

// Acknowledge acknowledges a confirmable request without an answer, before
// AckDelay is over; the answer then travels separately (§5.2.2).
func (l *Layer[P]) Acknowledge(in *Incoming[P]) {
	if in.Confirmable() && !in.acked {
		l.acknowledge(in)
	}
}

func (l *Layer[P]) acknowledge(in *Incoming[P]) {
	in.acked = true
	in.delayed.remove()
	l.keep(in, l.emitMessage(in.peer.addr, coap.Datagram{Type: coap.Acknowledgement, MessageID: in.mid}))
}

// Respond answers a request that was accepted: in the acknowledgement if none
// was sent yet (§5.2.1), else as a message of the type given (§5.2.2, §5.2.3),
// which it returns. Without a tag a non-confirmable one is not kept. The
// request is released, whatever becomes of the answer.
func (l *Layer[P]) Respond(now time.Time, in *Incoming[P], typ coap.Type, code coap.Code, body []byte, tag any) (*Outgoing[P], error) {
	at := l.at(now)
	d := coap.Datagram{Type: typ, Code: code, Token: in.token, Body: body}
	if !in.Confirmable() || in.acked {
		o, err := l.send(at, &in.peer.addr, d, tag, false)
		l.Release(in)
		return o, err
	}
	d.Type, d.MessageID = coap.Acknowledgement, in.mid
	in.acked = true
	in.delayed.remove()
	p := in.peer
	if l.allowed(p, 8+len(d.Token)+len(body)) {
		l.keep(in, l.emitMessage(p.addr, d))
		l.Release(in)
		return nil, nil
	}
	data := d.Append(nil)
	l.keep(in, data)
	l.Release(in)
	return nil, l.hold(at, p, held[P]{data: data})
}

// Release gives up a request that was accepted and is not to be answered. One
// that was answered or released before is left alone.
func (l *Layer[P]) Release(in *Incoming[P]) {
	if !in.open {
		return
	}
	if in.Confirmable() && !in.acked {
		l.acknowledge(in)
	}
	in.peer.open--
	l.close(in)
}

// close ends the caller's hold on a message.
func (l *Layer[P]) close(in *Incoming[P]) {
	in.open = false
	if in.gone {
		l.recycleIn(in)
	}
}

// keep keeps the acknowledgement for duplicates, as long as there is room.
func (l *Layer[P]) keep(in *Incoming[P], reply []byte) {
	if in.gone {
		return
	}
	in.reply = append(in.reply[:0], reply...)
	l.keeps(len(reply))
	l.shrink(0)
}

// remember enters a message into the table of those accepted.
func (l *Layer[P]) remember(now moment, ev *Event[P]) (*Incoming[P], error) {
	p, err := l.peer(now, &ev.Peer)
	if err != nil {
		return nil, err
	}
	l.earn(p, ev.size)
	p.heard = now
	mid := ev.Message.MessageID
	if !ev.judged || ev.accepted != l.accepted { // else it is new, as Receive saw
		if old := p.seen.find(mid, ev.hash); old != nil {
			if old.expires > now {
				return nil, ErrDuplicate
			}
			l.drop(old)
		}
	}
	l.accepted++
	in := l.newIncoming()
	in.open = true // else it might be dropped at once, and become another
	in.peer, in.hash, in.typ, in.mid = p, ev.hash, ev.Message.Type, mid
	in.token = append(in.shortToken[:0], ev.Message.Token...)
	age := 0
	in.expires = now + int64(l.lifetime)
	if in.typ == coap.NonConfirmable {
		age, in.expires = 1, now+int64(l.non)
	}
	excess := p.seen.enter(in, &p.received)
	l.remembered++
	l.byAge[age].push(&in.byAge, in)
	p.received.push(&in.ofPeer, in)
	l.keeps(overhead + len(in.token))
	if excess != nil {
		l.drop(excess)
	}
	if p.received.n > l.cfg.PeerReceived {
		l.drop(p.received.head.value)
	}
	l.shrink(0)
	return in, nil
}

func (l *Layer[P]) newIncoming() *Incoming[P] {
	n := len(l.freeIn)
	if n == 0 {
		slab := make([]Incoming[P], 32)
		for i := range slab {
			slab[i].reply = slab[i].shortReply[:0]
			l.freeIn = append(l.freeIn, &slab[i])
		}
		n = len(slab)
	}
	in := l.freeIn[n-1]
	l.freeIn[n-1] = nil
	l.freeIn = l.freeIn[:n-1]
	return in
}

func (l *Layer[P]) recycleIn(in *Incoming[P]) {
	if l.cfg.Reuse && len(l.freeIn) < maxFree {
		*in = Incoming[P]{}
		in.reply = in.shortReply[:0]
		l.freeIn = append(l.freeIn, in)
	}
}

// shrink drops the oldest of what is remembered until the limits hold, with
// room for so many bytes more.
func (l *Layer[P]) shrink(room int) {
	for l.remembered > l.cfg.MaxReceived || *l.total+room > l.cfg.MaxBytes {
		con, non := l.byAge[0].head, l.byAge[1].head
		switch {
		case con == nil && non == nil:
			return
		case con == nil || non != nil && int64(l.lifetime-l.non) < con.value.expires-non.value.expires:
			l.drop(non.value)
		default:
			l.drop(con.value)
		}
	}
}

// drop forgets a message. Its request can still be answered.
func (l *Layer[P]) drop(in *Incoming[P]) {
	if in.gone {
		return
	}
	in.gone = true
	l.keeps(-overhead - len(in.token) - len(in.reply))
	in.reply = in.reply[:0]
	in.byAge.remove()
	in.ofPeer.remove()
	in.peer.seen.remove(in)
	in.peer.seen.narrow(&in.peer.received)
	l.remembered--
	if !in.open {
		l.recycleIn(in)
	}
}
