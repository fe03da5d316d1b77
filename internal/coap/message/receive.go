package message

import (
	"bytes"
	"hash/maphash"
	"time"

	"github.com/oscorelay/oscorelay/internal/coap"
)

// Incoming is a message that was accepted.
type Incoming[P comparable] struct {
	peer    *peer[P]
	hash    uint64
	typ     coap.Type
	mid     uint16
	token   []byte
	expires time.Time
	gone    bool   // dropped from the table
	acked   bool   // acknowledged, with or without an answer
	reply   []byte // the acknowledgement, for duplicates
	timer   timer[P]
	byAge   node[*Incoming[P]]
	ofPeer  node[*Incoming[P]]
}

// Peer returns the address it came from.
func (in *Incoming[P]) Peer() P { return in.peer.addr }

// Token returns its token, which must not be changed.
func (in *Incoming[P]) Token() []byte { return in.token }

// Confirmable reports whether it was confirmable.
func (in *Incoming[P]) Confirmable() bool { return in.typ == coap.Confirmable }

// receivedKey identifies a message by all of its bytes and its sender.
type receivedKey[P comparable] struct {
	peer P
	hash uint64
}

// Receive takes a datagram in. A request or a response that it returns leaves
// no trace until it is accepted. The event aliases data.
func (l *Layer[P]) Receive(now time.Time, from P, data []byte) Event[P] {
	d, err := coap.ParseDatagram(data)
	if err == nil {
		err = coap.Check(d.Body)
	}
	ev := Event[P]{Peer: from, Message: d, Err: err}
	if err != nil {
		// §4.2: a confirmable message that cannot be understood is reset; §4.3:
		// any other is ignored. What is no CoAP at all is not answered.
		if len(data) >= 4 && data[0]>>6 == 1 && d.Type == coap.Confirmable {
			l.empty(from, coap.Reset, d.MessageID)
		}
		return ev
	}
	switch d.Type {
	case coap.Acknowledgement, coap.Reset:
		ev.Sent = l.sent[sentKey[P]{from, d.MessageID}]
		return l.answered(now, ev)
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
	if in := l.received[receivedKey[P]{from, ev.hash}]; in != nil && in.expires.After(now) {
		if in.reply != nil { // §4.5: acknowledge each copy in the same way
			l.emit(from, in.reply)
		}
		ev.Kind, ev.Err = None, ErrDuplicate
	}
	return ev
}

// answered handles an acknowledgement or a Reset.
func (l *Layer[P]) answered(now time.Time, ev Event[P]) Event[P] {
	o := ev.Sent
	if o == nil || o.state == done { // §4.2: ignored
		ev.Sent = nil
		return ev
	}
	switch code := ev.Message.Code; {
	case ev.Message.Type == coap.Reset && code == coap.Empty:
		ev.Kind = Reset
		l.Forget(now, o)
	case ev.Message.Type == coap.Reset, !o.con:
		ev.Sent = nil
	case code == coap.Empty && o.state == flying:
		ev.Kind = Acknowledged
		l.landed(now, o)
	case code.IsResponse():
		ev.Kind = Response
	}
	return ev
}

// AcceptRequest commits a request that the caller has verified: copies of it
// are duplicates from now on. It returns ErrDuplicate if a copy was accepted
// between, and ErrFull. A confirmable one is acknowledged with its answer, or
// without it after AckDelay.
func (l *Layer[P]) AcceptRequest(now time.Time, ev Event[P]) (*Incoming[P], error) {
	in, err := l.remember(now, ev)
	if err != nil {
		return nil, err
	}
	if in.Confirmable() {
		l.timers.set(&in.timer, now.Add(l.cfg.AckDelay))
	}
	return in, nil
}

// AcceptResponse commits a response that the caller has verified, acknowledges
// it if it is confirmable, and ends the retransmission of the request if it is
// piggybacked. Of any other the caller ends it, by [Layer.Forget].
func (l *Layer[P]) AcceptResponse(now time.Time, ev Event[P]) error {
	if ev.Message.Type == coap.Acknowledgement {
		if ev.Sent == nil || ev.Sent.state == done {
			return ErrDuplicate
		}
		l.Forget(now, ev.Sent)
		return nil
	}
	in, err := l.remember(now, ev)
	if err == nil && in.Confirmable() {
		l.acknowledge(in)
	}
	return err
}

// Reject answers a request or response with a Reset (§4.2, §4.3) and remembers
// nothing.
func (l *Layer[P]) Reject(ev Event[P]) {
	if t := ev.Message.Type; t == coap.Confirmable || t == coap.NonConfirmable {
		l.empty(ev.Peer, coap.Reset, ev.Message.MessageID)
	}
}

// Refuse answers a request with an error and remembers nothing: a copy of it
// is judged anew.
func (l *Layer[P]) Refuse(ev Event[P], code coap.Code, body []byte) {
	d := coap.Datagram{Type: coap.Acknowledgement, Code: code, MessageID: ev.Message.MessageID, Token: ev.Message.Token, Body: body}
	if ev.Message.Type == coap.NonConfirmable {
		d.Type, d.MessageID = coap.NonConfirmable, uint16(l.cfg.Rand())
	}
	l.emit(ev.Peer, d.Append(make([]byte, 0, 8+len(d.Token)+len(body))))
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
	l.timers.stop(&in.timer)
	l.keep(in, l.empty(in.peer.addr, coap.Acknowledgement, in.mid))
}

// Respond answers a request that was accepted: in the acknowledgement if none
// was sent yet (§5.2.1), else as a message of the type given (§5.2.2, §5.2.3),
// which it returns.
func (l *Layer[P]) Respond(now time.Time, in *Incoming[P], typ coap.Type, code coap.Code, body []byte, tag any) (*Outgoing[P], error) {
	d := coap.Datagram{Type: typ, Code: code, Token: in.token, Body: body}
	if !in.Confirmable() || in.acked {
		return l.Send(now, in.peer.addr, d, tag)
	}
	d.Type, d.MessageID = coap.Acknowledgement, in.mid
	data := d.Append(make([]byte, 0, 8+len(d.Token)+len(body)))
	in.acked = true
	l.timers.stop(&in.timer)
	l.keep(in, data)
	l.emit(in.peer.addr, data)
	return nil, nil
}

// keep keeps the acknowledgement for duplicates, as long as there is room.
func (l *Layer[P]) keep(in *Incoming[P], reply []byte) {
	if in.gone {
		return
	}
	in.reply = reply
	l.bytes += len(reply)
	l.shrink()
}

// remember enters a message into the table of those accepted.
func (l *Layer[P]) remember(now time.Time, ev Event[P]) (*Incoming[P], error) {
	key := receivedKey[P]{ev.Peer, ev.hash}
	if old := l.received[key]; old != nil {
		if old.expires.After(now) {
			return nil, ErrDuplicate
		}
		l.drop(old)
	}
	p, err := l.peer(now, ev.Peer)
	if err != nil {
		return nil, err
	}
	in := &Incoming[P]{peer: p, hash: ev.hash, typ: ev.Message.Type, mid: ev.Message.MessageID, token: bytes.Clone(ev.Message.Token)}
	in.timer.in = in
	age := 0
	in.expires = now.Add(l.lifetime)
	if in.typ == coap.NonConfirmable {
		age, in.expires = 1, now.Add(l.non)
	}
	l.received[key] = in
	l.byAge[age].push(&in.byAge, in)
	p.received.push(&in.ofPeer, in)
	l.bytes += len(in.token)
	if p.received.n > l.cfg.PeerReceived {
		l.drop(p.received.head.value)
	}
	l.shrink()
	return in, nil
}

// shrink drops the oldest of what is remembered until the limits hold.
func (l *Layer[P]) shrink() {
	for len(l.received) > l.cfg.MaxReceived || l.bytes > l.cfg.MaxBytes {
		con, non := l.byAge[0].head, l.byAge[1].head
		switch {
		case con == nil && non == nil:
			return
		case con == nil || non != nil && l.lifetime-l.non > con.value.expires.Sub(non.value.expires):
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
	l.bytes -= len(in.token) + len(in.reply)
	in.reply = nil
	in.byAge.remove()
	in.ofPeer.remove()
	delete(l.received, receivedKey[P]{in.peer.addr, in.hash})
}
