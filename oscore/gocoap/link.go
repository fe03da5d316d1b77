package gocoap

import (
	"context"
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
	udpclient "github.com/plgd-dev/go-coap/v3/udp/client"
)

// link is a go-coap connection with what OSCORE needs beside it: requests sent
// and waiting, requests received and not answered, observations, and the memory
// of verified requests for their retransmissions.
type link struct {
	e        *Endpoint
	conn     mux.Conn
	datagram bool
	source   string
	queued   chan struct{} // bounds the messages received and not done with
	handlers chan struct{} // bounds the handlers that run
	gate     gate
	last     atomic.Int64 // when something was received
	proven   atomic.Bool  // something verified
	bound    atomic.Bool  // the endpoint sees what the connection receives
	local    atomic.Pointer[coapnet.ControlMessage]
	ids      usedIDs // message IDs

	mu      sync.Mutex
	closed  bool
	tail    chan struct{}      // closed when the last message that arrived is verified
	waiting map[string]*waiter // by token: requests sent
	unacked map[int32]*waiter  // by message ID: confirmable messages of requests
	serving map[servingKey]*serving
	resets  map[int32]*serving // by message ID: notifications that a RST would end
	seen    memory
	acked   recent
	// handshakes remembers requests that nothing vouches for (EDHOC).
	handshakes memory
}

type servingKey struct{ peer, token string }

const (
	// queuedPerHandler is how many messages may wait, per handler.
	queuedPerHandler = 16
	// maxServing bounds the requests of a connection that may be answered by
	// their token later on.
	maxServing = 1024
)

// link returns the link of a connection, making it on first use.
func (e *Endpoint) link(conn mux.Conn, datagram bool) *link {
	if l, ok := e.links.Load(conn); ok {
		return l.(*link)
	}
	l := &link{
		e: e, conn: conn, datagram: datagram,
		queued:   make(chan struct{}, queuedPerHandler*e.cfg.MaxHandlers),
		handlers: make(chan struct{}, e.cfg.MaxHandlers),
		waiting:  map[string]*waiter{}, unacked: map[int32]*waiter{},
		serving: map[servingKey]*serving{}, resets: map[int32]*serving{},
	}
	if a := conn.RemoteAddr(); a != nil {
		l.source = a.String()
	}
	if old, loaded := e.links.LoadOrStore(conn, l); loaded {
		return old.(*link)
	}
	conn.AddOnClose(l.close)
	if conn.Context().Err() != nil {
		l.close() // it was closed before; nobody would call
	}
	return l
}

// close ends what hangs on the connection.
func (l *link) close() {
	l.e.links.CompareAndDelete(l.conn, l)
	l.mu.Lock()
	asked, answering := l.waiting, l.serving
	l.closed = true
	l.waiting, l.serving = map[string]*waiter{}, map[servingKey]*serving{}
	l.unacked, l.resets = map[int32]*waiter{}, map[int32]*serving{}
	l.seen, l.handshakes = memory{}, memory{}
	l.mu.Unlock()
	for _, w := range asked {
		w.fail(ErrClosed)
	}
	for _, s := range answering {
		s.end()
	}
}

// sweep drops what is of no use any more.
func (l *link) sweep(now time.Time) {
	l.mu.Lock()
	l.seen.expire(now)
	l.handshakes.expire(now)
	servings := make([]*serving, 0, len(l.serving))
	for _, s := range l.serving {
		servings = append(servings, s)
	}
	l.mu.Unlock()
	for _, s := range servings {
		s.forget(now)
	}
}

// asks reports whether requests wait for their responses.
func (l *link) asks() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.waiting) > 0
}

// inspect takes a message before go-coap acts on it; drop tells go-coap not
// to. What is protected never reaches go-coap, and no message that fails to
// verify stops the retransmission of a request, as go-coap would do for its
// message ID alone.
func (l *link) inspect(h mux.Handler, m *pool.Message) (drop bool) {
	l.bound.Store(true)
	l.last.Store(time.Now().UnixNano())
	code := coap.Code(m.Code())
	switch {
	case l.datagram && !wellTyped(m.Type(), code):
		return true
	case l.datagram && m.Type() == message.Reset:
		l.reset(m.MessageID())
		return false
	case code.IsRequest() && m.HasOption(optionOSCORE):
		l.receiveRequest(h, m)
		return true
	case code.IsRequest() && l.e.isEDHOC(m):
		l.receiveEDHOC(m)
		return true
	case code.IsRequest():
		return l.refusePlain(h, m)
	case code.IsResponse():
		return l.receiveResponse(m)
	}
	return false
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

// wellTyped reports whether a datagram of the type may have the code (RFC 7252
// §4.1, Table 1). go-coap hands others to the router, and answers them.
func wellTyped(typ message.Type, code coap.Code) bool {
	switch typ {
	case message.Confirmable:
		return code == 0 || code.IsRequest() || code.IsResponse()
	case message.NonConfirmable:
		return code.IsRequest() || code.IsResponse()
	case message.Acknowledgement:
		return code == 0 || code.IsResponse()
	}
	return code == 0
}

// refusePlain answers a request without OSCORE by 4.01, unless the program
// wants it. go-coap would remember the answer, and look through all that it
// remembers at each datagram.
func (l *link) refusePlain(h mux.Handler, m *pool.Message) (drop bool) {
	allow := l.e.cfg.AllowPlain
	if h != nil && allow != nil && allow(m.Code(), pathOf(m.Options())) {
		return false
	}
	answer, ok := l.e.ep.RefusePlain(time.Now(), endpoint.Inbound{Source: l.source})
	switch {
	case !ok:
	case l.datagram && m.Type() == message.Confirmable:
		_ = l.write(l.conn.Context(), message.Acknowledgement, m.MessageID(), m.Token(), answer)
	default:
		_ = l.write(l.conn.Context(), message.NonConfirmable, l.messageID(), m.Token(), answer)
	}
	return true
}

// received is a copy of a message, in its place in the order of arrival.
type received struct {
	typ   message.Type
	mid   int32
	token message.Token
	in    oscore.Message
	turn  <-chan struct{} // nil or closed when its predecessor is verified
	done  chan struct{}   // to be closed when it is itself
}

// take copies a message, which go-coap recycles. Messages are verified in the
// order of arrival: by goroutines in any order the replay window could leave
// one behind.
func (l *link) take(m *pool.Message) (r received, ok bool) {
	in, err := toOSCORE(m)
	if err != nil {
		return r, false
	}
	r = received{typ: m.Type(), mid: m.MessageID(), token: append(message.Token{}, m.Token()...), in: in, done: make(chan struct{})}
	if !l.datagram {
		r.typ = message.NonConfirmable
	}
	l.mu.Lock()
	r.turn, l.tail = l.tail, r.done
	l.mu.Unlock()
	return r, true
}

func (r *received) wait() {
	if r.turn != nil {
		<-r.turn
	}
}

// room takes a place in a bounded set. A datagram that finds none is dropped
// and comes again; a stream is not read on.
func (l *link) room(places chan struct{}) bool {
	select {
	case places <- struct{}{}:
		return true
	default:
	}
	if l.datagram {
		return false
	}
	select {
	case places <- struct{}{}:
		return true
	case <-l.conn.Context().Done():
		return false
	}
}

// receiveResponse takes a response; drop is false for what answers a plain
// request of the program's own.
func (l *link) receiveResponse(m *pool.Message) (drop bool) {
	l.mu.Lock()
	w := l.waiting[string(m.Token())]
	mine := l.datagram && l.unacked[m.MessageID()] != nil
	known := l.acked.has(m.MessageID(), m.Token())
	l.mu.Unlock()
	protected := m.HasOption(optionOSCORE)
	switch {
	case w == nil && !protected && !mine:
		return false
	case w == nil && l.datagram && m.Type() == message.Confirmable && known:
		l.writeEmpty(message.Acknowledgement, m.MessageID()) // ours was lost
		return true
	case w == nil && l.datagram && protected && m.Type() != message.Acknowledgement &&
		(m.Type() == message.Confirmable || m.HasOption(message.Observe)):
		l.writeEmpty(message.Reset, m.MessageID()) // RFC 7252 §4.2; RFC 7641 §3.6: ends an observation that is not known here
		return true
	case w == nil, !l.room(l.queued):
		return true
	}
	r, ok := l.take(m)
	if !ok {
		<-l.queued
		return true
	}
	go func() {
		defer func() { <-l.queued }()
		r.wait()
		took, verified := w.receive(r)
		close(r.done)
		if verified {
			l.proven.Store(true)
		}
		if took && r.typ == message.Confirmable {
			l.mu.Lock()
			l.acked.add(r.mid, r.token)
			l.mu.Unlock()
			l.writeEmpty(message.Acknowledgement, r.mid)
		}
	}()
	return true
}

// recent remembers the last confirmable responses that were acknowledged: when
// the acknowledgement is lost they come again, maybe after the exchange.
type recent struct {
	entries [16]struct {
		mid   int32
		token string
	}
	next int
}

func (r *recent) add(mid int32, token message.Token) {
	e := &r.entries[r.next%len(r.entries)]
	e.mid, e.token = mid, string(token)
	r.next++
}

func (r *recent) has(mid int32, token message.Token) bool {
	for i := range r.entries[:min(r.next, len(r.entries))] {
		if e := &r.entries[i]; e.mid == mid && e.token == string(token) {
			return true
		}
	}
	return false
}

// write sends a message of this side's own, in plain or protected already.
func (l *link) write(ctx context.Context, typ message.Type, mid int32, token message.Token, m oscore.Message) error {
	msg := l.outgoing(ctx)
	defer l.conn.ReleaseMessage(msg)
	if err := fromOSCORE(msg, m); err != nil {
		return err
	}
	msg.SetToken(token)
	if l.datagram {
		msg.SetType(typ)
		msg.SetMessageID(mid)
	}
	return l.conn.WriteMessage(msg)
}

// messageID returns a new message ID, -1 for a stream.
func (l *link) messageID() int32 {
	if c, ok := l.conn.(interface{ GetMessageID() int32 }); ok && l.datagram {
		return l.ids.next(time.Now(), c.GetMessageID)
	}
	return -1
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
	s, asked := l.resets[mid], l.unacked[mid]
	l.mu.Unlock()
	if s != nil {
		s.end()
	}
	if asked != nil {
		asked.refused(ErrReset)
	}
}

// checkBound reports whether the endpoint sees what the connection receives. A
// connection that was made without the endpoint's options is found out by an
// acknowledgement of nothing, which no go-coap acts upon; a stream cannot be
// asked, but has its peer's first signalling message seen soon.
func (l *link) checkBound() error {
	c, ok := l.conn.(*udpclient.Conn)
	if !ok || l.bound.Load() {
		return nil
	}
	mid := uint16(c.GetMessageID())
	probe := []byte{1<<6 | byte(message.Acknowledgement)<<4, 0, byte(mid >> 8), byte(mid)}
	if err := c.Process(nil, probe); err == nil && !l.bound.Load() {
		return ErrUnbound
	}
	return nil
}
