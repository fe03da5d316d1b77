package gocoap

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
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

// Handshakes answers EDHOC (RFC 9528), and puts the contexts that come of it
// into the endpoint's keyring: *handshake.Service of keys/handshake. It is an
// interface so that a program without EDHOC does not link it.
type Handshakes interface {
	// Path is the path of the EDHOC resource.
	Path() string
	// Serve answers a request to the resource, once, soon or later.
	Serve(now time.Time, source string, reliable bool, request oscore.Message, reply func(oscore.Message))
	// ServeCombined takes message_3 off a request with the EDHOC option (RFC
	// 9668) and calls one of the two functions: proceed with the request as it
	// was sealed, or refuse with the answer.
	ServeCombined(now time.Time, source string, request oscore.Message, proceed, refuse func(oscore.Message))
	// Watch has f called with the name of each peer whose context changed.
	Watch(f func(peer string))
	// Expire drops what is too old.
	Expire(now time.Time)
}

// Handshake is one handshake of the client's: *handshake.Outgoing.
type Handshake interface {
	// Next takes an answer, the zero Message at first, and returns the next
	// request, or more false once the context is in the keyring.
	Next(now time.Time, reliable bool, answer oscore.Message) (request oscore.Message, more bool, err error)
	// Name returns the peer's name in the keyring.
	Name() string
	// Pending reports whether message_3 is to go out with the first request.
	Pending() bool
	// Combine puts message_3 in front of a sealed request; ok false says that
	// it does not fit, and Sequential's request is to go first.
	Combine(sealed oscore.Message) (out oscore.Message, ok bool, err error)
	Sequential(reliable bool) oscore.Message
	// Refused reads an unprotected answer: an error message's error, or nil.
	Refused(answer oscore.Message) error
	// Confirm records that a protected answer verified.
	Confirm()
	// Close ends a handshake that came to nothing.
	Close()
}

// ErrHandshake: the request that carried the end of the handshake failed, and
// with it the context: shake hands again.
var ErrHandshake = errors.New("gocoap: handshake did not come to its end")

// Handshake runs a handshake over a connection that was made with this
// endpoint's options, and returns the protected connection to the peer that has
// proved who it is:
//
//	hs, err := service.To(handshake.Peer{Name: "server"})
//	conn, err := udp.Dial(addr, ep.UDPClient(nil)...)
//	c, err := ep.Handshake(ctx, conn, hs)
//
// A handshake that is to be combined with the first request ends with that
// request; others wait for it. If it fails, all fail with [ErrHandshake].
func (e *Endpoint) Handshake(ctx context.Context, conn mux.Conn, hs Handshake) (*Client, error) {
	if c, ok := conn.(*Client); ok {
		conn = c.Conn
	}
	_, datagram := conn.(interface{ GetMessageID() int32 })
	l := e.link(conn, datagram)
	if err := l.shake(ctx, hs, oscore.Message{}); err != nil {
		hs.Close()
		return nil, err
	}
	c := e.Client(conn, hs.Name())
	c.first = &firstRequest{hs: hs, turn: make(chan struct{}, 1), over: !hs.Pending()}
	return c, nil
}

// shake sends requests until the handshake has no more of them.
func (l *link) shake(ctx context.Context, hs Handshake, answer oscore.Message) error {
	for {
		m, more, err := hs.Next(time.Now(), !l.datagram, answer)
		if err != nil || !more {
			return err
		}
		if answer, err = l.ask(ctx, m); err != nil {
			return err
		}
	}
}

// ask sends a plain request and waits for its answer, which nothing protects.
func (l *link) ask(ctx context.Context, m oscore.Message) (oscore.Message, error) {
	req := l.outgoing(ctx)
	defer l.conn.ReleaseMessage(req)
	if err := fromOSCORE(req, m); err != nil {
		return oscore.Message{}, err
	}
	token := make(message.Token, 8)
	_, _ = rand.Read(token) // never fails (crypto/rand)
	req.SetToken(token)
	req.SetType(message.Confirmable)
	resp, err := l.conn.Do(req)
	if err != nil {
		if l.conn.Context().Err() != nil {
			err = fmt.Errorf("%w: %w", ErrClosed, err)
		}
		return oscore.Message{}, err
	}
	defer l.conn.ReleaseMessage(resp)
	return toOSCORE(resp)
}

// firstRequest orders the first requests after a handshake whose message_3
// goes out with one: that one tells how the handshake went, and the others wait
// for it (RFC 9668 §3.2.1: no two at once).
type firstRequest struct {
	hs       Handshake
	turn     chan struct{} // held by the request that goes first
	answered sync.Once

	mu   sync.Mutex
	over bool
	err  error
}

// confirm records the first protected answer: until then nothing has proved that
// the peer has the context, too.
func (f *firstRequest) confirm() {
	if f != nil {
		f.answered.Do(f.hs.Confirm)
	}
}

// turn is held by the first request; nil means that it is another.
type turn struct {
	f    *firstRequest
	sent bool
}

// enter waits until the first request is over, or is the caller's turn.
func (f *firstRequest) enter(ctx context.Context) (*turn, error) {
	if f == nil {
		return nil, nil
	}
	f.mu.Lock()
	over, err := f.over, f.err
	f.mu.Unlock()
	if over {
		return nil, err
	}
	select {
	case f.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.over {
		<-f.turn
		return nil, f.err
	}
	return &turn{f: f}, nil
}

// leave says how the first request went. If message_3 has not gone out, the
// next may try.
func (t *turn) leave(err error) error {
	if t == nil {
		return err
	}
	f := t.f
	f.mu.Lock()
	switch {
	case err == nil:
		f.over = true
	case t.sent:
		f.hs.Close()
		err = fmt.Errorf("%w: %w", ErrHandshake, err)
		f.over, f.err = true, err
	}
	f.mu.Unlock()
	<-f.turn
	return err
}

// combine puts message_3 in front of a sealed request, or sends it alone where
// the two do not fit (RFC 9668 §3.2.2).
func (t *turn) combine(ctx context.Context, w *waiter, m oscore.Message) (oscore.Message, error) {
	if t == nil {
		return m, nil
	}
	l := w.l
	t.sent, w.hs = true, t.f.hs
	out, ok, err := t.f.hs.Combine(m)
	if err != nil || ok {
		return out, err
	}
	answer, err := l.ask(ctx, t.f.hs.Sequential(!l.datagram))
	if err != nil {
		return m, err
	}
	return m, l.shake(ctx, t.f.hs, answer)
}

// plainError is what an unprotected answer comes to: it may end the handshake.
func (w *waiter) plainError(plain *endpoint.PlainError, answer oscore.Message) error {
	if w.hs != nil {
		if err := w.hs.Refused(answer); err != nil {
			return err
		}
	}
	return &PlainError{codes.Code(plain.Code), plain.Diagnostic}
}

// isEDHOC reports whether a plain request is for the EDHOC resource, or means
// to be a combined one without being protected.
func (e *Endpoint) isEDHOC(m *pool.Message) bool {
	if m.HasOption(optionOSCORE) {
		return false
	}
	return m.HasOption(optionEDHOC) || e.cfg.EDHOC != nil && pathOf(m.Options()) == e.cfg.EDHOC.Path()
}

// receiveEDHOC takes a request for the EDHOC resource. It returns at once:
// whatever costs anything is done by the Handshakes' own workers.
func (l *link) receiveEDHOC(m *pool.Message) {
	in, err := toOSCORE(m)
	if err != nil {
		return
	}
	now := time.Now()
	l.e.tick(now)
	s := &serving{l: l, typ: m.Type(), mid: m.MessageID(), token: append(message.Token{}, m.Token()...)}
	if !l.datagram {
		s.typ = message.NonConfirmable
	}
	if known := s.begin(now, memoryKey(s.typ, s.mid, s.token, in)); known != nil {
		known.repeat(l)
		return
	}
	switch {
	case !m.HasOption(optionEDHOC):
		l.e.cfg.EDHOC.Serve(now, l.source, !l.datagram, in, s.write)
	case l.e.cfg.EDHOC == nil: // a critical option that nobody here understands
		s.write(oscore.Message{Code: byte(coap.BadOption)})
	default: // RFC 9668 §3.3.1 step 1
		s.write(oscore.Message{Code: byte(coap.BadRequest)})
	}
}

// begin remembers a request that nothing vouches for yet, for its
// retransmissions, or returns what is remembered. They are remembered apart from
// verified requests, which they cannot push out.
func (s *serving) begin(now time.Time, key uint64) *remembered {
	l := s.l
	if !l.datagram {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if known := l.handshakes.load(now, key); known != nil {
		return known
	}
	s.memory = l.handshakes.store(now, key)
	return nil
}

// takeEDHOC takes message_3 off a protected request with the EDHOC option, and
// returns the request as it was sealed. ok is false if the request is answered,
// or known and to be answered again.
func (s *serving) takeEDHOC(now time.Time, key uint64, in oscore.Message) (out oscore.Message, known *remembered, ok bool) {
	if known := s.begin(now, key); known != nil {
		return out, known, false
	}
	if s.l.e.cfg.EDHOC == nil {
		s.write(oscore.Message{Code: byte(coap.BadOption)})
		return out, nil, false
	}
	done := make(chan struct{})
	s.l.e.cfg.EDHOC.ServeCombined(now, s.l.source, in,
		func(rebuilt oscore.Message) {
			out, ok = rebuilt, true
			close(done)
		},
		func(answer oscore.Message) {
			s.write(answer)
			close(done)
		})
	<-done
	return out, nil, ok
}
