package endpoint

import (
	"errors"
	"time"

	"github.com/oscorelay/oscorelay/internal/coap"
	"github.com/oscorelay/oscorelay/oscore"
)

// Exchange is the client's side of one request, from the application's point
// of view: an Echo round trip, the blocks of either body, and a context derived
// anew are steps of one exchange. It is not safe for concurrent use.
//
// The caller sends each message that an exchange returns under a token of its
// own, feeds back every response that comes under that token, and does what
// the [Step] says until its own deadline; then it calls Abandon.
type Exchange struct {
	e       *Endpoint
	peer    oscore.Peer
	base    request // the application's request
	whole   []byte  // its payload
	pending *oscore.Pending
	cancel  *oscore.Pending // of the cancellation under way

	progress func(done, total int)
	// notification is the Observe value of the notification whose further
	// blocks this exchange fetches, nil otherwise.
	notification []byte
	observe      bool
	manual       bool // the application asks for blocks itself
	over         bool
	echo         []byte // to put into the next message
	echoRounds   int

	upload   *clientUpload
	download *clientDownload

	derivation *derivation
	third      *oscore.Context
	deriving   bool
}

// RequestOptions vary an exchange.
type RequestOptions struct {
	// Progress is called with the bytes done and the total, 0 if unknown, when
	// a block has been transferred.
	Progress func(done, total int)
	// Rederive runs Appendix B.2 first.
	Rederive bool
}

// StepKind says what a response means to its exchange.
type StepKind int

// The kinds of steps.
const (
	// Wait: the message was refused, for the reason in Err, and changed
	// nothing; the genuine response may still come.
	Wait StepKind = iota
	// Send: Message goes out under a new token, which takes the place of the
	// earlier one.
	Send
	// Response: Message is the response; the exchange is over.
	Response
	// Notification: Message is a notification; more may come under the token.
	Notification
	// Failed: the exchange is over, with Err.
	Failed
)

// Step is what became of a response.
type Step struct {
	Kind    StepKind
	Message oscore.Message
	Err     error
	// More is set on a Notification whose body has further blocks: an exchange
	// of its own that yields the whole body; Message is then its first message
	// to send, not the notification.
	More *Exchange
}

// BusyError is returned by Begin while another exchange derives a new context
// with the peer: wait for Done and begin again.
type BusyError struct{ Done <-chan struct{} }

func (*BusyError) Error() string { return "endpoint: a new security context is being derived" }

// Begin protects a request to a peer and returns the exchange with the first
// message to send. Without a context that may seal nothing is sent: ErrNoPeer,
// ErrTainted.
func (e *Endpoint) Begin(now time.Time, peer string, m oscore.Message, o RequestOptions) (*Exchange, oscore.Message, error) {
	var p oscore.Peer
	ok := false
	if e.cfg.Keyring != nil {
		p, ok = e.cfg.Keyring.Peer(peer)
	}
	if !ok {
		return nil, oscore.Message{}, ErrNoPeer
	}
	base, err := parse(m)
	if err != nil {
		return nil, oscore.Message{}, err
	}
	x := &Exchange{e: e, peer: p, base: base, whole: base.payload, progress: o.Progress}
	v, has := base.opts.Uint(coap.Observe)
	x.observe = has && v == 0
	_, b1 := base.opts.Get(coap.Block1)
	_, b2 := base.opts.Get(coap.Block2)
	x.manual = b1 || b2
	derive, err := e.mustDerive(p, o.Rederive)
	if err != nil {
		return nil, oscore.Message{}, err
	}
	x.deriving = derive
	if !x.manual && len(x.whole) > e.blockSize(p) {
		x.beginUpload(coap.SZX(e.blockSize(p)))
	}
	var out oscore.Message
	if derive {
		out, err = x.startDerivation()
	} else {
		out, err = x.seal()
	}
	if err != nil {
		x.close()
		return nil, oscore.Message{}, err
	}
	return x, out, nil
}

// mustDerive decides whether the exchange begins with Appendix B.2, and claims
// the peer for it.
func (e *Endpoint) mustDerive(p oscore.Peer, asked bool) (bool, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	settings := p.Settings()
	s := e.state(p.Name())
	if s.deriving != nil {
		return false, &BusyError{s.deriving}
	}
	able := settings.Rederive&oscore.RoleClient != 0
	want := asked || p.Tainted() || able && (settings.RederiveOnStart && !s.started || s.failures >= e.cfg.RederiveAfter)
	if !want {
		return false, nil
	}
	if !able {
		if p.Tainted() {
			return false, ErrTainted
		}
		return false, ErrRederive
	}
	s.deriving = make(chan struct{})
	return true, nil
}

// stopDeriving releases the peer after a run of Appendix B.2.
func (x *Exchange) stopDeriving() {
	if !x.deriving {
		return
	}
	x.deriving = false
	x.e.mu.Lock()
	defer x.e.mu.Unlock()
	s := x.e.state(x.peer.Name())
	close(s.deriving)
	s.deriving = nil
}

// Receive processes a message that came under the exchange's token (RFC 8613
// §8.4). Whatever fails to verify is reported in a Wait and changes nothing.
func (x *Exchange) Receive(now time.Time, m oscore.Message) Step {
	if x.over {
		return Step{Kind: Failed, Err: ErrEnded}
	}
	opt, protected, err := oscore.FindOption(m)
	if err != nil {
		return x.wait(err)
	}
	if !protected {
		// Anybody can have made it: report, never act (Appendix D.5.3).
		return x.wait(newPlainError(m))
	}
	if d := x.derivation; d != nil {
		return x.receiveFirst(now, &d.pending, d.id1, opt, m)
	}
	if x.cancel != nil {
		if inner, err := x.cancel.Open(nil, m); err == nil {
			x.close()
			return Step{Kind: Response, Message: inner}
		}
	}
	inner, err := x.pending.Open(nil, m)
	if err != nil {
		if opt.KIDContext != nil && x.third == nil && x.peer.Settings().Rederive&oscore.RoleClient != 0 {
			return x.receiveFirst(now, x.pending, x.peer.IDContext(), opt, m) // the server initiates B.2
		}
		return x.wait(err)
	}
	if err := x.adopt(); err != nil {
		return x.fail(err)
	}
	return x.receive(now, inner)
}

// receive goes on with a verified response.
func (x *Exchange) receive(now time.Time, m oscore.Message) Step {
	resp, err := parse(m)
	if err != nil {
		return x.fail(err)
	}
	echo, hasEcho := resp.opts.Get(coap.Echo)
	x.e.succeeded(x.peer.Name(), echo)
	resp.opts = resp.opts.Without(coap.Echo)
	if hasEcho && coap.Code(resp.code) == coap.Unauthorized {
		// RFC 9175 §2.3: the same request once more, with the Echo.
		if x.echoRounds++; x.echoRounds > 3 {
			return x.fail(ErrEcho)
		}
		x.echo = append([]byte{}, echo...)
		return x.resend(now)
	}
	x.echoRounds = 0
	if x.upload != nil {
		if step, done := x.receiveContinue(now, resp); !done {
			return step
		}
	}
	return x.deliver(now, resp)
}

// deliver hands over a response, or asks for its next block.
func (x *Exchange) deliver(now time.Time, resp request) Step {
	_, notifies := resp.opts.Get(coap.Observe)
	b, isBlock, err := resp.block(coap.Block2)
	if err != nil {
		return x.fail(ErrTransfer)
	}
	if isBlock && !x.manual && (b.More || b.Num > 0 || x.download != nil) {
		if notifies {
			return x.continueNotification(now, resp, b)
		}
		step, whole := x.receiveBlock2(now, resp, b)
		if !whole {
			return step
		}
		resp = x.download.resp
		resp.payload = x.download.body
	}
	if !x.manual {
		resp.opts = resp.opts.Without(coap.Block1, coap.Block2)
	}
	if x.notification != nil {
		resp.opts = resp.opts.Without(coap.Observe).Add(coap.Observe, x.notification)
	}
	out := resp.message(resp.payload)
	if notifies {
		return Step{Kind: Notification, Message: out}
	}
	x.close()
	return Step{Kind: Response, Message: out}
}

// Cancel ends an observation (RFC 7641 §3.6): the message it returns goes out
// under the registration's token, and repeats its options. The response comes
// through Receive.
func (x *Exchange) Cancel(now time.Time) (oscore.Message, error) {
	if x.over || !x.observe {
		return oscore.Message{}, ErrEnded
	}
	r := request{x.base.code, x.base.opts.Without(coap.Observe).AddUint(coap.Observe, 1), x.whole}
	x.cancel = new(oscore.Pending)
	return x.peer.SealRequest(nil, x.cancel, r.message(r.payload))
}

// Observes reports whether the request registers an observation.
func (x *Exchange) Observes() bool { return x.observe }

// Peer returns the peer's name.
func (x *Exchange) Peer() string { return x.peer.Name() }

// Abandon ends the exchange without an answer: the caller's deadline passed.
// Several in a row make the endpoint derive a new context, where the peer's
// settings allow (Config.RederiveAfter).
func (x *Exchange) Abandon() {
	if x.over {
		return
	}
	x.e.mu.Lock()
	x.e.state(x.peer.Name()).failures++
	x.e.mu.Unlock()
	x.release(false)
}

// Close ends the exchange; nothing is counted against the peer.
func (x *Exchange) Close() { x.release(false) }

// close ends an exchange whose request got its answer.
func (x *Exchange) close() { x.release(true) }

func (x *Exchange) release(concluded bool) {
	if x.over {
		return
	}
	x.over = true
	x.stopDeriving()
	if x.upload != nil {
		x.upload.conclude(x, concluded)
	}
}

func (x *Exchange) wait(err error) Step {
	reason := ReasonDecrypt
	var plain *PlainError
	switch {
	case errors.As(err, &plain):
		reason = ReasonPlain
	case errors.Is(err, oscore.ErrStale), errors.Is(err, oscore.ErrAnswered):
		reason = ReasonStale
	case errors.Is(err, oscore.ErrDecode):
		reason = ReasonDecode
	}
	x.e.event(Event{Reason: reason, Peer: x.peer.Name(), Err: err})
	return Step{Kind: Wait, Err: err}
}

func (x *Exchange) fail(err error) Step {
	x.close()
	return Step{Kind: Failed, Err: err}
}

// resend protects the current message anew, with a new Partial IV.
func (x *Exchange) resend(time.Time) Step {
	m, err := x.seal()
	if err != nil {
		return x.fail(err)
	}
	return Step{Kind: Send, Message: m}
}

// Reseal returns the message that the exchange is at under a new Partial IV, in
// place of one that was held back so long that the peer's replay window may
// have passed it by.
func (x *Exchange) Reseal() (oscore.Message, error) {
	if x.over {
		return oscore.Message{}, ErrEnded
	}
	return x.seal()
}

// seal protects the message that the exchange is at.
func (x *Exchange) seal() (oscore.Message, error) {
	r := x.base
	payload := x.whole
	switch {
	case x.download != nil:
		r, payload = x.download.next(x)
	case x.upload != nil:
		r, payload = x.upload.block(x.base, x.whole)
	}
	if echo := x.takeEcho(); echo != nil {
		r.opts = append(coap.Options{}, r.opts...).Add(coap.Echo, echo)
	}
	x.pending = new(oscore.Pending)
	m := r.message(payload)
	if x.third != nil {
		return x.third.SealRequest(nil, x.pending, m)
	}
	return x.peer.SealRequest(nil, x.pending, m)
}

// takeEcho returns the Echo value that the next message carries: the one that
// challenged this exchange, or the last one the peer offered.
func (x *Exchange) takeEcho() []byte {
	if echo := x.echo; echo != nil {
		x.echo = nil
		return echo
	}
	x.e.mu.Lock()
	defer x.e.mu.Unlock()
	s := x.e.state(x.peer.Name())
	echo := s.echo
	s.echo = nil
	return echo
}

// succeeded notes a verified response and the Echo value it offers for the
// next request (RFC 9175 §2.3).
func (e *Endpoint) succeeded(peer string, echo []byte) {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := e.state(peer)
	s.failures = 0
	if len(echo) > 0 && len(echo) <= 40 {
		s.echo = append([]byte{}, echo...)
	}
}
