package gocoap

import (
	"context"
	"io"
	"sync"
	"time"

	"github.com/oscorelay/oscorelay/internal/endpoint"
	"github.com/oscorelay/oscorelay/oscore"
	"github.com/plgd-dev/go-coap/v3/message"
	"github.com/plgd-dev/go-coap/v3/message/codes"
	"github.com/plgd-dev/go-coap/v3/message/pool"
	"github.com/plgd-dev/go-coap/v3/mux"
)

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

	mu          sync.Mutex // orders the answer and the notifications
	acked       bool       // an empty acknowledgement went out: the answer is separate
	answered    bool
	observation *endpoint.Observation
	lastMID     int32
}

// separateAfter is when a confirmable request without an answer gets an empty
// acknowledgement: well before the client's first retransmission (RFC 7252
// §4.8: ACK_TIMEOUT is 2 s).
const separateAfter = time.Second

// deliver runs the handler.
func (s *serving) deliver(in *endpoint.Incoming) {
	s.in = in
	s.lastMID = -1
	key := servingKey{in.Peer.Name(), string(s.token)}
	s.l.mu.Lock()
	earlier := s.l.serving[key]
	if earlier == nil || !earlier.observing() {
		s.l.serving[key] = s
	}
	s.l.mu.Unlock()
	if s.l.datagram && s.typ == message.Confirmable {
		timer := time.AfterFunc(separateAfter, s.acknowledge)
		defer timer.Stop()
	}
	ctx := context.WithValue(s.l.conn.Context(), peerKey{}, in.Peer.Name())
	request := s.l.conn.AcquireMessage(ctx)
	response := s.l.conn.AcquireMessage(ctx)
	defer s.l.conn.ReleaseMessage(response)
	if err := fromOSCORE(request, in.Message); err != nil {
		return // Receive has walked it
	}
	request.SetToken(s.token)
	if s.l.datagram {
		request.SetType(s.typ)
		request.SetMessageID(s.mid)
	}
	response.SetToken(s.token)
	response.SetModified(false)
	w := &responseWriter{conn: &Client{Conn: s.l.conn, link: s.l, peer: in.Peer.Name(), serving: s}, message: response}
	if s.h == nil {
		_ = w.SetResponse(codes.NotFound, message.TextPlain, nil)
	} else {
		s.h.ServeCOAP(w, &mux.Message{Message: request, RouteParams: new(mux.RouteParams)})
	}
	if !request.IsHijacked() {
		s.l.conn.ReleaseMessage(request)
	}
	if w.message.IsModified() {
		m, err := toOSCORE(w.message)
		if err != nil {
			m = oscore.Message{Code: byte(codes.InternalServerError)}
		}
		_ = s.send(m, message.Unset)
	} else {
		s.acknowledge() // the handler answers later, by WriteMessage
	}
	s.forget()
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
	if err == nil {
		s.observation = s.in.Observation()
	}
	s.mu.Unlock()
	if err != nil {
		return err
	}
	if s.observation != nil {
		s.observe()
	}
	if !send {
		s.acknowledge() // No-Response: the request is acknowledged, not answered
		return nil
	}
	s.write(out)
	return nil
}

// observe makes the serving the one that notifications of its token belong to.
func (s *serving) observe() {
	key := servingKey{s.in.Peer.Name(), string(s.token)}
	s.l.mu.Lock()
	s.l.serving[key] = s
	s.l.mu.Unlock()
}

// notifyLocked sends a notification. s.mu is held, so that notifications go
// out in the order of their Partial IVs.
func (s *serving) notifyLocked(now time.Time, m oscore.Message, typ message.Type) error {
	if s.observation == nil {
		return endpoint.ErrEnded
	}
	out, err := s.observation.Notify(now, m)
	if err != nil {
		go s.forget()
		return err
	}
	if typ == message.Unset {
		typ = message.NonConfirmable
	}
	if !s.l.datagram {
		_, err = s.l.write(typ, -1, s.token, out)
		return err
	}
	msg := s.l.outgoing(s.l.conn.Context())
	if err := fromOSCORE(msg, out); err != nil {
		s.l.conn.ReleaseMessage(msg)
		return err
	}
	mid := s.l.conn.(interface{ GetMessageID() int32 }).GetMessageID()
	msg.SetToken(s.token)
	msg.SetType(typ)
	msg.SetMessageID(mid)
	s.l.mu.Lock()
	delete(s.l.resets, s.lastMID)
	s.l.resets[mid] = s
	s.lastMID = mid
	s.l.mu.Unlock()
	if typ != message.Confirmable {
		defer s.l.conn.ReleaseMessage(msg)
		return s.l.conn.WriteMessage(msg)
	}
	// A confirmable one waits for its acknowledgement; the next must not.
	go func() {
		defer s.l.conn.ReleaseMessage(msg)
		if err := s.l.conn.WriteMessage(msg); err != nil {
			s.end() // RFC 7641 §4.5: the client is gone
		}
	}()
	return nil
}

// write sends the answer: piggybacked, or separately once acknowledged.
func (s *serving) write(m oscore.Message) {
	typ, mid := message.NonConfirmable, int32(-1)
	s.mu.Lock()
	switch {
	case !s.l.datagram || s.typ != message.Confirmable:
	case s.acked:
		typ = message.Confirmable
	default:
		typ, mid = message.Acknowledgement, s.mid
		s.acked = true
	}
	s.mu.Unlock()
	if typ == message.Confirmable {
		_, _ = s.l.write(typ, mid, s.token, m) // retransmitted by go-coap; gives up by itself
		return
	}
	if typ == message.Acknowledgement {
		s.memory.set(typ, mid, s.token, m)
	}
	used, _ := s.l.write(typ, mid, s.token, m) // a lost answer is asked for again
	if typ == message.NonConfirmable && s.l.datagram {
		s.memory.set(typ, used, s.token, m)
	}
}

// acknowledge sends an empty acknowledgement unless the request has one.
func (s *serving) acknowledge() {
	if !s.l.datagram || s.typ != message.Confirmable {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.acked {
		return
	}
	s.acked = true
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
func (s *serving) forget() {
	s.mu.Lock()
	keep := !s.answered || s.observation != nil && !s.observation.Ended()
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
	if s.l.resets[s.lastMID] == s {
		delete(s.l.resets, s.lastMID)
	}
}

// end ends the observation, if there is one.
func (s *serving) end() {
	s.mu.Lock()
	o := s.observation
	s.answered = true
	s.mu.Unlock()
	if o != nil {
		o.End()
	}
	s.forget()
}

// responseWriter is what a handler answers through.
type responseWriter struct {
	conn    *Client
	message *pool.Message
}

func (w *responseWriter) SetResponse(code codes.Code, contentFormat message.MediaType, d io.ReadSeeker, opts ...message.Option) error {
	w.message.SetCode(code)
	w.message.ResetOptionsTo(opts)
	if d != nil {
		w.message.SetContentFormat(contentFormat)
		w.message.SetBody(d)
	} else {
		w.message.SetBody(nil)
	}
	return nil
}

func (w *responseWriter) Conn() mux.Conn             { return w.conn }
func (w *responseWriter) SetMessage(m *pool.Message) { w.message = m }
func (w *responseWriter) Message() *pool.Message     { return w.message }
