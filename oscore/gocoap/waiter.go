package gocoap

import (
	"context"
	"crypto/rand"
	"errors"
	"sync"
	"time"

	"github.com/oscorelay/oscorelay/internal/coap"
	"github.com/oscorelay/oscorelay/internal/endpoint"
	"github.com/oscorelay/oscorelay/oscore"
	"github.com/plgd-dev/go-coap/v3/message"
	coaperrors "github.com/plgd-dev/go-coap/v3/pkg/errors"
)

// waiter is a request under way: what comes under its tokens goes to its
// exchange.
type waiter struct {
	l       *link
	typ     message.Type
	steps   chan step
	stopped chan struct{}
	once    sync.Once
	hs      Handshake // whose message_3 goes out with the request, else nil
	err     error     // set before stopped is closed

	mu       sync.Mutex // taken before that of the link
	x        *endpoint.Exchange
	sent     oscore.Message
	verified bool // an answer to the message sent last was
	over     bool // nobody takes steps any more
	settled  bool // an observation is registered: nothing unprotected ends it
	plain    error
	grace    *time.Timer

	// Written with the link's lock held, too.
	token, partToken   string // of the message sent last, and of an outer block's request
	mid, partMID       int32
	endSend, endPart   context.CancelFunc // what is to be acknowledged need not be any more
	hasToken, hasParts bool
}

// step is what became of a response, with its place in the link's gate if it
// is something to send.
type step struct {
	endpoint.Step
	turn chan struct{}
}

// stepQueue is how many notifications may wait for the program; older ones
// make room, since the newest state is what counts (RFC 7641 §1.3).
const stepQueue = 64

func newWaiter(l *link, x *endpoint.Exchange, typ message.Type) *waiter {
	if typ != message.NonConfirmable {
		typ = message.Confirmable
	}
	queue := 2
	if x.Observes() {
		queue = stepQueue
	}
	return &waiter{l: l, x: x, typ: typ, mid: -1, partMID: -1, steps: make(chan step, queue), stopped: make(chan struct{})}
}

// sendNew sends a sealed message of the exchange under a new token, which takes
// the place of the earlier one. The caller has entered the link's gate.
func (w *waiter) sendNew(ctx context.Context, m oscore.Message) error {
	token := make(message.Token, 8)
	if _, err := rand.Read(token); err != nil {
		w.l.gate.leave()
		return err
	}
	return w.send(ctx, token, m)
}

// sendAgain sends a sealed message of the exchange under the token that it has.
// The caller has entered the link's gate.
func (w *waiter) sendAgain(ctx context.Context, m oscore.Message) error {
	w.mu.Lock()
	token := message.Token(w.token)
	w.mu.Unlock()
	return w.send(ctx, token, m)
}

// send sends a sealed message and, if it is confirmable, waits until it is
// acknowledged or answered. Then it leaves the link's gate.
func (w *waiter) send(ctx context.Context, token message.Token, m oscore.Message) error {
	l := w.l
	defer l.gate.leave()
	confirm := l.datagram && w.typ == message.Confirmable
	sending, end := ctx, context.CancelFunc(func() {})
	if confirm {
		sending, end = context.WithTimeout(ctx, maxTransmitWait)
	}
	defer end()
	err := errTaken
	for errors.Is(err, errTaken) && sending.Err() == nil {
		if err = w.sendOnce(sending, end, token, m); errors.Is(err, ErrClosed) {
			return err
		}
	}
	switch {
	case err == nil, ctx.Err() != nil: // the caller finds the latter
	case errors.Is(sending.Err(), context.DeadlineExceeded):
		w.fail(ErrNoAck)
	case sending.Err() == nil:
		w.refused(err)
	}
	return nil
}

// errTaken tells that a message of this side is under way with that message ID.
// go-coap moves its IDs by half of them when the peer's come near, and so comes
// back upon its own.
var errTaken = coaperrors.ErrKeyAlreadyExists

// sendOnce sends under a new message ID.
func (w *waiter) sendOnce(ctx context.Context, end context.CancelFunc, token message.Token, m oscore.Message) error {
	l := w.l
	confirm := l.datagram && w.typ == message.Confirmable
	mid := l.messageID()
	w.mu.Lock()
	w.sent, w.verified = m, false
	l.mu.Lock()
	closed := l.closed
	if !closed {
		if w.hasToken && w.token != string(token) {
			delete(l.waiting, w.token)
		}
		w.token, w.mid, w.hasToken, w.endSend = string(token), mid, true, end
		l.waiting[w.token] = w
		if confirm {
			l.unacked[mid] = w
		}
	}
	l.mu.Unlock()
	w.mu.Unlock()
	if closed {
		return ErrClosed
	}
	err := l.write(ctx, w.typ, mid, token, m)
	if confirm {
		l.mu.Lock()
		if l.unacked[mid] == w {
			delete(l.unacked, mid)
		}
		l.mu.Unlock()
	}
	return err
}

// next waits for the exchange's next response or notification, sending what
// the exchange wants to be sent.
func (w *waiter) next(ctx context.Context) (endpoint.Step, error) {
	for {
		select {
		case s := <-w.steps:
			switch s.Kind {
			case endpoint.Send:
				if err := w.l.gate.wait(ctx, s.turn); err != nil {
					return s.Step, w.reason(err)
				}
				again := w.sendNew
				if s.SameToken { // a cancellation, with the Echo that it was asked for
					again = w.sendAgain
				}
				if err := again(ctx, s.Message); err != nil {
					return s.Step, err
				}
			case endpoint.Failed:
				return s.Step, s.Err
			default:
				return s.Step, nil
			}
		case <-w.stopped:
			return endpoint.Step{}, w.err
		case <-w.l.conn.Context().Done():
			return endpoint.Step{}, ErrClosed
		case <-ctx.Done():
			return endpoint.Step{}, w.reason(ctx.Err())
		}
	}
}

// reason explains why nothing came.
func (w *waiter) reason(err error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.plain != nil:
		return errors.Join(w.plain, err)
	case !w.l.bound.Load():
		return errors.Join(ErrUnbound, err)
	}
	return err
}

// receive passes a message to the exchange. It reports whether the message is
// to be acknowledged, and whether it verified.
func (w *waiter) receive(r received) (took, verified bool) {
	now := time.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	if r.typ == message.Acknowledgement && r.mid != w.mid && r.mid != w.partMID {
		return false, false
	}
	in, whole, took := w.assemble(now, r.in)
	if !whole {
		return took, false
	}
	// What the exchange seals now is to go out next.
	s := step{turn: w.l.gate.queue(true)}
	s.Step = w.x.Receive(now, in)
	if s.Kind != endpoint.Send || w.over {
		w.l.gate.giveUp(s.turn)
		s.turn = nil
	}
	switch s.Kind {
	case endpoint.Wait:
		var plain *endpoint.PlainError
		if errors.As(s.Err, &plain) {
			w.refusedLocked(w.plainError(plain, in))
		}
		// An old notification is authentic all the same: acknowledge it.
		stale := errors.Is(s.Err, oscore.ErrStale)
		return stale, stale
	case endpoint.Failed:
		if errors.Is(s.Err, endpoint.ErrEnded) {
			return false, false
		}
	case endpoint.Notification:
		w.settled = true
	}
	w.verified = true
	w.endTransmission()
	if w.grace != nil {
		w.grace.Stop()
		w.plain, w.grace = nil, nil
	}
	for {
		select {
		case w.steps <- s:
			return true, true
		default:
			w.dropStep()
		}
	}
}

// dropStep takes the oldest step out of the queue, if there is one.
func (w *waiter) dropStep() bool {
	select {
	case s := <-w.steps:
		if s.turn != nil {
			w.l.gate.giveUp(s.turn)
		}
		return true
	default:
		return false
	}
}

// endTransmission stops the retransmission of what was answered.
func (w *waiter) endTransmission() {
	if w.endSend != nil {
		w.endSend()
	}
	if w.endPart != nil {
		w.endPart()
	}
}

// assemble puts a response together that a hop cut (RFC 8613 §4.1.3.4.2). took
// tells that the message was a block of it.
func (w *waiter) assemble(now time.Time, in oscore.Message) (out oscore.Message, whole, took bool) {
	if _, cut := coap.Find(in.Body, coap.Block2); !cut {
		return in, true, false
	}
	if _, protected := coap.Find(in.Body, coap.OSCORE); !protected {
		return in, true, false
	}
	out, whole, next, ok := w.l.e.outer.Response(now, w.l.source+"\xff"+w.token, in)
	if whole || !ok {
		return out, whole, ok
	}
	w.endTransmission()
	w.fetch(next)
	return out, false, true
}

// fetch asks the hop for an outer block: by the request as it was sealed,
// without its payload unless that selects the resource (RFC 8132 §2), under a
// token of its own, since that of an observation stays in use.
func (w *waiter) fetch(next coap.Block) {
	opts, payload, err := coap.Split(w.sent.Body)
	token := make(message.Token, 8)
	if _, rerr := rand.Read(token); err != nil || rerr != nil {
		return
	}
	if coap.Code(w.sent.Code) != coap.FETCH {
		payload = nil
	}
	opts = opts.Without(coap.Observe, coap.Block1, coap.Block2, coap.Size1).Add(coap.Block2, next.Append(nil))
	m := oscore.Message{Code: w.sent.Code, Body: coap.AppendBody(nil, opts, payload)}
	l := w.l
	ctx, end := context.WithTimeout(l.conn.Context(), maxTransmitWait)
	l.mu.Lock()
	w.dropPart()
	w.partToken, w.partMID, w.hasParts, w.endPart = string(token), l.messageID(), true, end
	mid := w.partMID
	l.waiting[w.partToken] = w
	l.unacked[mid] = w
	l.mu.Unlock()
	go func() {
		defer end()
		_ = l.write(ctx, w.typ, mid, token, m) // the request's own deadline tells
	}()
}

// dropPart forgets the request for an outer block. The link's lock is held.
func (w *waiter) dropPart() {
	if !w.hasParts {
		return
	}
	w.hasParts = false
	if w.l.waiting[w.partToken] == w {
		delete(w.l.waiting, w.partToken)
	}
	if w.l.unacked[w.partMID] == w {
		delete(w.l.unacked, w.partMID)
	}
}

// refused notes an answer that nothing protects. The genuine one may still
// come: the request fails only after a while.
func (w *waiter) refused(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.refusedLocked(err)
}

func (w *waiter) refusedLocked(err error) {
	if w.plain != nil || w.settled || w.verified {
		return
	}
	w.plain = err
	wait := w.l.e.cfg.PlainErrorWait
	if wait <= 0 {
		return
	}
	w.grace = time.AfterFunc(wait, func() {
		w.mu.Lock()
		still := w.plain == err && !w.verified
		w.mu.Unlock()
		if still {
			w.fail(err)
		}
	})
}

// fail ends the wait with an error.
func (w *waiter) fail(err error) {
	w.once.Do(func() {
		w.err = err
		close(w.stopped)
	})
	w.mu.Lock()
	defer w.mu.Unlock()
	w.endTransmission()
}

// abandon gives the exchange up: no verified answer came.
func (w *waiter) abandon() {
	w.mu.Lock()
	w.x.Abandon()
	w.mu.Unlock()
	w.stop()
}

// stop takes the waiter out of its link.
func (w *waiter) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	l := w.l
	l.mu.Lock()
	if w.hasToken && l.waiting[w.token] == w {
		delete(l.waiting, w.token)
	}
	if l.unacked[w.mid] == w {
		delete(l.unacked, w.mid)
	}
	w.dropPart()
	l.mu.Unlock()
	w.endTransmission()
	if w.grace != nil {
		w.grace.Stop()
	}
	w.x.Close()
	w.over = true
	for w.dropStep() {
	}
}
