package gocoap

import (
	"context"
	"hash/maphash"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/oscorelay/oscorelay/internal/coap"
	"github.com/oscorelay/oscorelay/internal/endpoint"
	"github.com/oscorelay/oscorelay/oscore"
	"github.com/plgd-dev/go-coap/v3/message"
	"github.com/plgd-dev/go-coap/v3/message/codes"
	"github.com/plgd-dev/go-coap/v3/message/pool"
	"github.com/plgd-dev/go-coap/v3/mux"
	coapnet "github.com/plgd-dev/go-coap/v3/net"
)

// link is a go-coap connection with what OSCORE needs beside it: requests sent
// and waiting, requests received and not answered, observations, and the memory
// of verified requests for their retransmissions.
type link struct {
	e        *Endpoint
	conn     mux.Conn
	datagram bool
	source   string
	handlers chan struct{} // bounds the handlers that run
	local    atomic.Pointer[coapnet.ControlMessage]

	mu      sync.Mutex
	waiting map[string]*waiter // by token: requests sent
	serving map[servingKey]*serving
	resets  map[int32]*serving // by message ID: notifications that a RST would end
	seen    memory
}

type servingKey struct{ peer, token string }

// link returns the link of a connection, making it on first use.
func (e *Endpoint) link(conn mux.Conn, datagram bool) *link {
	if l, ok := e.links.Load(conn); ok {
		return l.(*link)
	}
	l := &link{
		e: e, conn: conn, datagram: datagram, handlers: make(chan struct{}, e.cfg.MaxHandlers),
		waiting: map[string]*waiter{}, serving: map[servingKey]*serving{}, resets: map[int32]*serving{},
		seen: memory{seed: maphash.MakeSeed(), byKey: map[uint64]*remembered{}},
	}
	if a := conn.RemoteAddr(); a != nil {
		l.source = a.String()
	}
	if old, loaded := e.links.LoadOrStore(conn, l); loaded {
		return old.(*link)
	}
	conn.AddOnClose(l.close)
	return l
}

// close ends what hangs on the connection.
func (l *link) close() {
	l.e.links.Delete(l.conn)
	l.mu.Lock()
	asked, answering := l.waiting, l.serving
	l.waiting, l.serving = map[string]*waiter{}, map[servingKey]*serving{}
	l.mu.Unlock()
	for _, w := range asked {
		w.fail(ErrClosed)
	}
	for _, s := range answering {
		s.end()
	}
}

// inspect takes a datagram before go-coap matches its message ID; true means
// that go-coap must not see it. A piggybacked answer that fails to verify must
// not stop the retransmission of the request, so it is dropped; one that
// verifies goes on to stop it.
func (l *link) inspect(h mux.Handler, m *pool.Message) (drop bool) {
	switch m.Type() {
	case message.Reset:
		l.reset(m.MessageID())
		return false
	case message.Acknowledgement:
		if w := l.waiter(m.Token()); w != nil && coap.Code(m.Code()).IsResponse() {
			return !w.receive(m)
		}
		return false
	}
	return l.receive(h, m)
}

// arrivedAt notes at which of this host's addresses a datagram arrived, for
// answers to leave from it.
func (l *link) arrivedAt(cm *coapnet.ControlMessage) {
	if cm == nil || len(cm.Dst) == 0 || cm.Dst.IsMulticast() {
		return
	}
	if old := l.local.Load(); old != nil && old.IfIndex == cm.GetIfIndex() && old.Src.Equal(cm.Dst) {
		return
	}
	l.local.Store(&coapnet.ControlMessage{IfIndex: cm.GetIfIndex(), Src: append(net.IP(nil), cm.Dst...)})
}

// outgoing returns a message to fill in, which leaves from the address that the
// peer sends to.
func (l *link) outgoing(ctx context.Context) *pool.Message {
	m := l.conn.AcquireMessage(ctx)
	if cm := l.local.Load(); cm != nil {
		m.SetControlMessage(cm)
	}
	return m
}

// receive takes a message that is OSCORE's business; false leaves it to
// go-coap. The caller releases the message.
func (l *link) receive(h mux.Handler, m *pool.Message) bool {
	code := coap.Code(m.Code())
	protected := m.HasOption(optionOSCORE)
	switch {
	case code.IsRequest() && protected:
		return l.receiveRequest(h, m)
	case code.IsResponse():
		w := l.waiter(m.Token())
		if w == nil && !protected {
			return false // answers a plain request of the program's own
		}
		l.receiveResponse(w, m)
		return true
	}
	return false
}

// receiveResponse takes a response that is not piggybacked.
func (l *link) receiveResponse(w *waiter, m *pool.Message) {
	switch {
	case w != nil && w.receive(m):
		if l.datagram && m.Type() == message.Confirmable {
			l.writeEmpty(message.Acknowledgement, m.MessageID())
		}
	case w == nil && l.datagram && m.Type() == message.Confirmable:
		l.writeEmpty(message.Reset, m.MessageID()) // RFC 7252 §4.2, and the end of an observation
	}
}

// receiveRequest takes a protected request, off the connection's reader.
func (l *link) receiveRequest(h mux.Handler, m *pool.Message) bool {
	in, err := toOSCORE(m)
	typ, mid, token := m.Type(), m.MessageID(), append(message.Token{}, m.Token()...)
	if err != nil {
		return true
	}
	select {
	case l.handlers <- struct{}{}:
	default:
		return true // a confirmable request comes again
	}
	go func() {
		defer func() { <-l.handlers }()
		l.serve(h, in, typ, mid, token)
	}()
	return true
}

// serve processes one protected request to its answer.
func (l *link) serve(h mux.Handler, in oscore.Message, typ message.Type, mid int32, token message.Token) {
	now := time.Now()
	l.e.tick(now)
	s := &serving{l: l, h: h, typ: typ, mid: mid, token: token}
	if _, ok := coap.Find(in.Body, coap.Block1); ok { // outer: a hop cut the message
		out, whole := l.e.outer.Request(now, l.source, in)
		if !whole {
			s.write(out)
			return
		}
		in = out
	}
	if l.datagram {
		l.mu.Lock()
		known := l.seen.load(now, mid, token, in)
		l.mu.Unlock()
		if known != nil {
			known.repeat(l)
			return
		}
	}
	res := l.e.ep.Receive(now, endpoint.Inbound{Source: l.source, Token: token, Reliable: !l.datagram, Message: in})
	if res.Verified && l.datagram {
		// Only a verified request may be answered from memory: a forged one with
		// the same message ID leaves no trace.
		s.memory = &remembered{}
		l.mu.Lock()
		l.seen.store(now, mid, token, in, s.memory)
		l.mu.Unlock()
	}
	switch res.Verdict {
	case endpoint.Reply:
		s.write(res.Message)
	case endpoint.Deliver:
		s.deliver(res.Incoming)
	}
}

// write sends a message of this side's own, in plain or protected already.
func (l *link) write(typ message.Type, mid int32, token message.Token, m oscore.Message) (int32, error) {
	msg := l.outgoing(l.conn.Context())
	defer l.conn.ReleaseMessage(msg)
	if err := fromOSCORE(msg, m); err != nil {
		return 0, err
	}
	msg.SetToken(token)
	if l.datagram {
		msg.SetType(typ)
		if mid >= 0 {
			msg.SetMessageID(mid)
		} else if u, ok := l.conn.(interface{ GetMessageID() int32 }); ok {
			mid = u.GetMessageID()
			msg.SetMessageID(mid)
		}
	}
	return mid, l.conn.WriteMessage(msg)
}

// writeEmpty sends an empty acknowledgement or reset.
func (l *link) writeEmpty(typ message.Type, mid int32) {
	msg := l.outgoing(l.conn.Context())
	defer l.conn.ReleaseMessage(msg)
	msg.SetCode(codes.Empty)
	msg.SetType(typ)
	msg.SetMessageID(mid)
	_ = l.conn.WriteMessage(msg) // the peer sends its message again
}

// reset ends the observation whose notification was reset, or tells the
// request that it was. Nothing protects a RST.
func (l *link) reset(mid int32) {
	l.mu.Lock()
	s := l.resets[mid]
	var asked *waiter
	for _, w := range l.waiting {
		if w.mid == mid {
			asked = w
		}
	}
	l.mu.Unlock()
	if s != nil {
		s.end()
	}
	if asked != nil {
		asked.refused(ErrReset)
	}
}

func (l *link) waiter(token message.Token) *waiter {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.waiting[string(token)]
}
