package gocoap

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"github.com/oscorelay/oscorelay/internal/coap"
	"github.com/oscorelay/oscorelay/internal/endpoint"
	"github.com/oscorelay/oscorelay/oscore"
	"github.com/plgd-dev/go-coap/v3/message"
	"github.com/plgd-dev/go-coap/v3/message/codes"
	"github.com/plgd-dev/go-coap/v3/message/pool"
	"github.com/plgd-dev/go-coap/v3/mux"
)

// receiveRequest takes a protected request, off the connection's reader.
func (l *link) receiveRequest(h mux.Handler, m *pool.Message) {
	places := l.queued
	if l.datagram {
		places = l.handlers
	}
	if !l.room(places) {
		return
	}
	r, ok := l.take(m)
	if !ok {
		<-places
		return
	}
	go func() {
		defer func() { <-places }()
		l.serve(h, r)
	}()
}

// serve processes one protected request to its answer.
func (l *link) serve(h mux.Handler, r received) {
	s := &serving{l: l, h: h, typ: r.typ, mid: r.mid, token: r.token}
	r.wait()
	known, res := s.verify(time.Now(), r)
	close(r.done)
	switch {
	case known != nil:
		known.repeat(l)
	case res.Verdict == endpoint.Reply:
		s.write(res.Message)
	case res.Verdict != endpoint.Deliver:
	case l.datagram:
		s.deliver(res.Incoming)
	default:
		select {
		case l.handlers <- struct{}{}:
			defer func() { <-l.handlers }()
			s.deliver(res.Incoming)
		case <-l.conn.Context().Done():
		}
	}
}

// verify opens a request. known is set for the retransmission of one that was
// verified before.
func (s *serving) verify(now time.Time, r received) (known *remembered, res endpoint.Result) {
	l := s.l
	l.e.tick(now)
	var key uint64
	if l.datagram {
		key = memoryKey(r.typ, r.mid, r.token, r.in)
		l.mu.Lock()
		known = l.seen.load(now, key)
		l.mu.Unlock()
		if known != nil {
			return known, res
		}
	}
	in := r.in
	if _, ok := coap.Find(in.Body, coap.Block1); ok { // outer: a hop cut the message
		out, whole := l.e.outer.Request(now, l.source, in)
		if !whole {
			return nil, endpoint.Result{Verdict: endpoint.Reply, Message: out}
		}
		in = out
	}
	if _, ok := coap.Find(in.Body, coap.EDHOC); ok {
		if in, known, ok = s.takeEDHOC(now, key, in); !ok {
			return known, res // answered, or to be repeated
		}
	}
	res = l.e.ep.Receive(now, endpoint.Inbound{Source: l.source, Token: r.token, Reliable: !l.datagram, Message: in})
	if !res.Verified {
		return nil, res
	}
	l.proven.Store(true)
	if l.datagram {
		// Only a verified request may be answered from memory: a forged one with
		// the same message ID leaves no trace.
		l.mu.Lock()
		s.memory = l.seen.store(now, key)
		l.mu.Unlock()
	}
	return nil, res
}

// serving is a verified request on its way to an answer, and afterwards the
// observation that it registered.
type serving struct {
	l      *link
	h      mux.Handler
	typ    message.Type
	mid    int32
	token  message.Token
	memory *remembered
	in     *endpoint.Incoming
	at     time.Time

	mu          sync.Mutex // orders the answer and the notifications
	running     bool       // the handler
	acked       bool       // an empty acknowledgement went out: the answer is separate
	answered    bool
	observation *endpoint.Observation
	mids        []int32         // of the last notifications, oldest first; the link's lock guards it
	confirming  bool            // a confirmable notification waits for its acknowledgement
	held        *oscore.Message // the newest one, to be sent after it
}

// maxResettable is how many notifications of an observation a RST may name.
const maxResettable = 16

// separateAfter is when a confirmable request without an answer gets an empty
// acknowledgement: well before the client's first retransmission (RFC 7252
// §4.8: ACK_TIMEOUT is 2 s).
const separateAfter = time.Second

// maxTransmitWait is RFC 7252's MAX_TRANSMIT_WAIT: what was not acknowledged
// then never will be. go-coap gives up without telling the sender.
const maxTransmitWait = 93 * time.Second

// deliver runs the handler. A panic of the handler is not recovered: it ends
// the process, as with go-coap itself.
func (s *serving) deliver(in *endpoint.Incoming) {
	s.in, s.at, s.running = in, time.Now(), true
	s.register()
	if s.l.datagram && s.typ == message.Confirmable {
		timer := time.AfterFunc(separateAfter, s.acknowledge)
		defer timer.Stop()
	}
	ctx := context.WithValue(s.l.conn.Context(), requestKey{}, in)
	request := s.l.conn.AcquireMessage(ctx)
	if err := fromOSCORE(request, in.Message); err != nil {
		return // Receive has walked it
	}
	generation := request.Generation()
	request.SetToken(s.token)
	if s.l.datagram {
		request.SetType(s.typ)
		request.SetMessageID(s.mid)
	}
	w := &responseWriter{conn: &Client{Conn: s.l.conn, link: s.l, peer: in.Peer.Name(), serving: s}, message: s.l.conn.AcquireMessage(ctx)}
	defer func() { s.l.conn.ReleaseMessage(w.message) }()
	w.message.SetToken(s.token)
	w.message.SetModified(false)
	switch {
	case unknownCritical(request.Options()):
		_ = w.SetResponse(codes.BadOption, message.TextPlain, nil)
	case s.h == nil:
		_ = w.SetResponse(codes.NotFound, message.TextPlain, nil)
	default:
		s.h.ServeCOAP(w, &mux.Message{Message: request, RouteParams: new(mux.RouteParams)})
	}
	if !request.IsHijacked() && request.Generation() == generation {
		s.l.conn.ReleaseMessage(request)
	}
	if w.message.IsModified() {
		m, err := toOSCORE(w.message)
		if err != nil {
			m = oscore.Message{Code: byte(codes.InternalServerError)}
		}
		if err := s.send(m, message.Unset); err != nil {
			s.l.e.report("response", in.Peer.Name(), err)
		}
	} else {
		s.acknowledge() // the handler answers later, by WriteMessage
	}
	s.mu.Lock()
	s.running = false
	s.mu.Unlock()
	s.forget(time.Now())
}

// register makes the request one that WriteMessage finds by its token, unless
// an observation has that token, which its cancellation does.
func (s *serving) register() {
	key := servingKey{s.in.Peer.Name(), string(s.token)}
	s.l.mu.Lock()
	earlier, room := s.l.serving[key], len(s.l.serving) < maxServing
	s.l.mu.Unlock()
	if !room || earlier != nil && earlier.observing() {
		return
	}
	s.l.mu.Lock()
	if !s.l.closed {
		s.l.serving[key] = s
	}
	s.l.mu.Unlock()
}

// send protects the answer, or once that is given a notification, and sends it.
func (s *serving) send(m oscore.Message, typ message.Type) error {
	s.mu.Lock()
	now := time.Now()
	if s.answered {
		err := s.notifyLocked(now, m, typ)
		s.mu.Unlock()
		return err
	}
	s.answered = true
	out, send, err := s.in.Respond(now, m)
	observes := err == nil && s.in.Observation() != nil
	if observes {
		s.observation = s.in.Observation()
	}
	s.mu.Unlock()
	switch {
	case err != nil:
		s.acknowledge()
		return err
	case observes && !s.observe():
		s.end() // the connection was closed meanwhile
		return ErrClosed
	case !send:
		s.acknowledge() // No-Response: the request is acknowledged, not answered
		return nil
	}
	s.write(out)
	return nil
}

// observe makes the serving the one that notifications of its token belong to.
func (s *serving) observe() bool {
	key := servingKey{s.in.Peer.Name(), string(s.token)}
	s.l.mu.Lock()
	defer s.l.mu.Unlock()
	if s.l.closed {
		return false
	}
	s.l.serving[key] = s
	return true
}

// notifyLocked sends a notification. s.mu is held, so that notifications go
// out in the order of their Partial IVs.
func (s *serving) notifyLocked(now time.Time, m oscore.Message, typ message.Type) error {
	if s.observation == nil {
		return endpoint.ErrEnded
	}
	confirm := typ == message.Confirmable && s.l.datagram
	s.held = nil
	if confirm && s.confirming {
		s.held = &m // RFC 7641 §4.5.2: one at a time, and the newest state counts
		return nil
	}
	out, err := s.observation.Notify(now, m)
	if err != nil {
		go s.forget(now)
		return err
	}
	mid := s.l.messageID()
	if s.l.datagram {
		s.resettable(mid)
	}
	if !confirm {
		return s.l.write(s.l.conn.Context(), message.NonConfirmable, mid, s.token, out)
	}
	s.confirming = true
	go s.confirm(mid, out)
	return nil
}

// resettable notes the message ID of a notification: a RST for one of the last
// ends the observation, though others went out meanwhile.
func (s *serving) resettable(mid int32) {
	s.l.mu.Lock()
	defer s.l.mu.Unlock()
	if s.l.closed {
		return
	}
	if len(s.mids) == maxResettable {
		if s.l.resets[s.mids[0]] == s {
			delete(s.l.resets, s.mids[0])
		}
		s.mids = append(s.mids[:0], s.mids[1:]...)
	}
	s.mids = append(s.mids, mid)
	s.l.resets[mid] = s
}

// confirm sends a confirmable notification and waits for its acknowledgement.
func (s *serving) confirm(mid int32, out oscore.Message) {
	ctx, cancel := context.WithTimeout(s.l.conn.Context(), maxTransmitWait)
	defer cancel()
	err := s.l.write(ctx, message.Confirmable, mid, s.token, out)
	for errors.Is(err, errTaken) {
		mid = s.l.messageID()
		s.resettable(mid)
		err = s.l.write(ctx, message.Confirmable, mid, s.token, out)
	}
	if err != nil {
		s.end() // RFC 7641 §4.5: the client is gone
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.confirming = false
	if held := s.held; held != nil && err == nil {
		_ = s.notifyLocked(time.Now(), *held, message.Confirmable) // ends the observation by itself
	}
}

// write sends the answer: piggybacked, or separately once acknowledged.
func (s *serving) write(m oscore.Message) {
	ctx := s.l.conn.Context()
	s.mu.Lock()
	separate := s.acked
	s.acked = true
	s.mu.Unlock()
	switch {
	case !s.l.datagram:
		_ = s.l.write(ctx, message.NonConfirmable, -1, s.token, m) // the connection is gone
	case s.typ != message.Confirmable:
		mid := s.l.messageID()
		s.memory.set(message.NonConfirmable, mid, s.token, m)
		_ = s.l.write(ctx, message.NonConfirmable, mid, s.token, m)
	case !separate:
		s.memory.set(message.Acknowledgement, s.mid, s.token, m)
		_ = s.l.write(ctx, message.Acknowledgement, s.mid, s.token, m) // asked for again if lost
	default:
		go func() {
			ctx, cancel := context.WithTimeout(ctx, maxTransmitWait)
			defer cancel()
			_ = s.l.write(ctx, message.Confirmable, s.l.messageID(), s.token, m) // the client gave up, too
		}()
	}
}

// acknowledge sends an empty acknowledgement unless the request has one.
func (s *serving) acknowledge() {
	if !s.l.datagram || s.typ != message.Confirmable {
		return
	}
	s.mu.Lock()
	acked := s.acked
	s.acked = true
	s.mu.Unlock()
	if acked {
		return
	}
	s.memory.set(message.Acknowledgement, s.mid, nil, oscore.Message{})
	s.l.writeEmpty(message.Acknowledgement, s.mid)
}

func (s *serving) observing() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.observation != nil && !s.observation.Ended()
}

// forget takes the serving out of its link unless an answer or notifications
// are still to come.
func (s *serving) forget(now time.Time) {
	s.mu.Lock()
	observing := s.observation != nil && !s.observation.Ended()
	owed := !s.answered && now.Sub(s.at) <= exchangeLifetime
	keep := s.running || observing || owed
	s.mu.Unlock()
	if keep {
		return
	}
	key := servingKey{s.in.Peer.Name(), string(s.token)}
	s.l.mu.Lock()
	defer s.l.mu.Unlock()
	if s.l.serving[key] == s {
		delete(s.l.serving, key)
	}
	for _, mid := range s.mids {
		if s.l.resets[mid] == s {
			delete(s.l.resets, mid)
		}
	}
	s.mids = nil
}

// end ends the observation, if there is one.
func (s *serving) end() {
	s.mu.Lock()
	o := s.observation
	s.answered, s.held = true, nil
	s.mu.Unlock()
	if o != nil {
		o.End()
	}
	s.forget(time.Now())
}

// unknownCritical reports whether a request holds an option that go-coap would
// have refused outside (RFC 7252 §5.4.1), or one that belongs outside (EDHOC,
// RFC 9668 §3.3.1).
func unknownCritical(options message.Options) bool {
	for _, o := range options {
		_, known := message.CoapOptionDefs[o.ID]
		if o.ID&1 == 1 && (!known || o.ID == message.QBlock1 || o.ID == message.QBlock2 || o.ID == optionEDHOC) {
			return true
		}
	}
	return false
}

// responseWriter is what a handler answers through.
type responseWriter struct {
	conn    *Client
	message *pool.Message
}

func (w *responseWriter) SetResponse(code codes.Code, contentFormat message.MediaType, d io.ReadSeeker, opts ...message.Option) error {
	w.message.SetCode(code)
	w.message.ResetOptionsTo(opts)
	w.message.SetBody(d)
	if d != nil {
		w.message.SetContentFormat(contentFormat)
	}
	return nil
}

func (w *responseWriter) Conn() mux.Conn { return w.conn }

// SetMessage replaces the response and releases the earlier one, as go-coap's
// own response writer does.
func (w *responseWriter) SetMessage(m *pool.Message) {
	if m != w.message {
		w.conn.ReleaseMessage(w.message)
	}
	w.message = m
}

func (w *responseWriter) Message() *pool.Message { return w.message }
