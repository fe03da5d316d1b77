package endpoint

import (
	"bytes"
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
	request oscore.Message // the application's
	taken   request        // the same taken apart, by base
	marks   marks
	pending oscore.Pending
	cancel  *oscore.Pending // of the cancellation under way

	progress func(done, total int)
	// notification is the Observe value of the notification whose further
	// blocks this exchange fetches, nil otherwise.
	notification []byte

	over       bool
	answered   bool   // the message under way got an answer, and more may come
	echo       []byte // to put into the next message
	sentEcho   []byte // that the message under way holds
	echoRounds int

	upload   *clientUpload
	download *clientDownload
	restarts int

	derivation *derivation
	third      *oscore.Context
	deriving   *peerState // claimed for a run of Appendix B.2
}

// RequestOptions vary an exchange.
type RequestOptions struct {
	// Progress is called with the bytes done and the total, 0 if unknown, when
	// a block has been transferred.
	Progress func(done, total int)
	// Rederive runs Appendix B.2 first.
	Rederive bool
	// Dst is where the first message is appended, without allocation if its
	// spare capacity suffices. It must not overlap the request.
	Dst []byte
}

// StepKind says what a response means to its exchange.
type StepKind int

// The kinds of steps.
const (
	// Wait: the message was refused, for the reason in Err, and changed
	// nothing; the genuine response may still come.
	Wait StepKind = iota
	// Send: Message goes out under a new token, which takes the place of the
	// earlier one; under the same if SameToken is set.
	Send
	// Response: Message is the response; the exchange is over.
	Response
	// Notification: Message is a notification; more may come under the token.
	Notification
	// Failed: the exchange is over, with Err. A [BusyError] there tells that
	// the server did not act on the request and another exchange derives a new
	// context: wait for Done and begin again.
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
	// SameToken is set on a Send that repeats a cancellation, with an Echo:
	// server and client know the observation by its token.
	SameToken bool
}

// BusyError is returned by Begin while another exchange derives a new context
// with the peer: wait for Done and begin again.
type BusyError struct{ Done <-chan struct{} }

func (*BusyError) Error() string { return "endpoint: a new security context is being derived" }

// Begin protects a request to a peer and returns the exchange with the first
// message to send. The request's bytes must stay as they are until the exchange
// is over. Without a context that may seal nothing is sent: ErrNoPeer,
// ErrTainted.
func (e *Endpoint) Begin(_ time.Time, peer string, m oscore.Message, o RequestOptions) (*Exchange, oscore.Message, error) {
	var p oscore.Peer
	ok := false
	if e.cfg.Keyring != nil {
		p, ok = e.cfg.Keyring.Peer(peer)
	}
	if !ok {
		return nil, oscore.Message{}, ErrNoPeer
	}
	k, code := scan(m.Body)
	if code != 0 {
		return nil, oscore.Message{}, coap.ErrFormat
	}
	x := &Exchange{e: e, peer: p, request: m, marks: k, progress: o.Progress}
	derive, err := x.mustDerive(o.Rederive)
	if err != nil {
		return nil, oscore.Message{}, err
	}
	if !x.manual() {
		if fits, szx := e.limits(p, k.options); k.payload > fits {
			err = x.beginUpload(szx)
		}
	}
	var out oscore.Message
	switch {
	case err != nil:
	case derive:
		out, err = x.startDerivation()
	default:
		out, err = x.seal(o.Dst)
	}
	if err != nil {
		x.close()
		return nil, oscore.Message{}, err
	}
	return x, out, nil
}

// Resume takes up an exchange that an earlier process began with the request m,
// and that may still be answered: sealed is the message that went out, and is to
// be sent again as it is, under the same message ID and token. It fails with
// oscore.ErrContextChanged if the context is another one by now. An observation
// cannot be taken up.
func (e *Endpoint) Resume(peer string, m, sealed oscore.Message) (*Exchange, error) {
	var p oscore.Peer
	ok := false
	if e.cfg.Keyring != nil {
		p, ok = e.cfg.Keyring.Peer(peer)
	}
	if !ok {
		return nil, ErrNoPeer
	}
	k, code := scan(m.Body)
	if code != 0 || k.has&hasObserve != 0 {
		return nil, coap.ErrFormat
	}
	x := &Exchange{e: e, peer: p, request: m, marks: k}
	return x, p.Resume(&x.pending, sealed)
}

// manual reports whether the application asks for blocks itself.
func (x *Exchange) manual() bool {
	return x.e.cfg.Transparent || x.marks.has&(hasBlock1|hasBlock2) != 0
}

// base returns the application's request taken apart.
func (x *Exchange) base() request {
	if x.taken.code == 0 {
		x.taken, _ = parse(x.request) // scan has walked it
	}
	return x.taken
}

// Receive processes a message that came under the exchange's token (RFC 8613
// §8.4). Whatever fails to verify is reported in a Wait and changes nothing.
func (x *Exchange) Receive(now time.Time, m oscore.Message) Step {
	return x.ReceiveInto(nil, now, m)
}

// ReceiveInto is Receive without allocation where dst's spare capacity suffices:
// a Response or Notification of a Transparent endpoint then stands in it. It must
// not overlap m.
func (x *Exchange) ReceiveInto(dst []byte, _ time.Time, m oscore.Message) Step {
	if !x.e.cfg.Transparent {
		dst = nil // bodies are put together of what was opened
	}
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
		return x.receiveFirst(&d.pending, d.id1, opt, m)
	}
	if x.cancel != nil {
		if inner, err := x.cancel.Open(nil, m); err == nil {
			return x.receiveCancelled(inner)
		}
	}
	inner, err := x.pending.Open(dst, m)
	if err != nil {
		if opt.KIDContext != nil && x.third == nil && x.peer.Settings().Rederive&oscore.RoleClient != 0 {
			return x.receiveFirst(&x.pending, x.peer.IDContext(), opt, m) // the server initiates B.2
		}
		return x.wait(err)
	}
	if err := x.adopt(); err != nil {
		return x.fail(err)
	}
	return x.receive(inner)
}

// receive goes on with a verified response.
func (x *Exchange) receive(m oscore.Message) Step {
	k, code := scan(m.Body)
	x.e.succeeded(x.peer.Name(), k.echo)
	if code != 0 {
		return x.fail(ErrTransfer)
	}
	if k.echo != nil && coap.Code(m.Code) == coap.Unauthorized {
		// RFC 9175 §2.3: the same request once more, with the Echo.
		if x.echoRounds++; x.echoRounds > maxEchoRounds {
			return x.fail(ErrEcho)
		}
		x.echo = bytes.Clone(k.echo)
		return x.resend()
	}
	x.echoRounds = 0
	if k.has&(hasBlock1|hasBlock2|hasEcho) == 0 && x.upload == nil && x.download == nil {
		return x.finish(m, k.has&hasObserve != 0)
	}
	resp, err := parse(m)
	if err != nil {
		return x.fail(err)
	}
	resp.opts = resp.opts.Without(coap.Echo)
	if x.e.cfg.Transparent {
		return x.finish(resp.message(resp.payload), k.has&hasObserve != 0)
	}
	if step, done := x.receiveBlock1(resp, k); !done {
		return step
	}
	return x.deliver(resp, k)
}

// maxEchoRounds bounds how often one message is repeated with another Echo.
const maxEchoRounds = 3

// deliver hands over a response, or asks for its next block.
func (x *Exchange) deliver(resp request, k marks) Step {
	notifies := k.has&hasObserve != 0
	if x.download != nil && coap.Code(resp.code) == coap.RequestEntityIncomplete && !unsafe(x.request.Code) && x.restarts < maxRestarts {
		return x.restart() // the server lost what it had of the request
	}
	if k.has&hasBlock2 != 0 && !x.manual() && (k.block2.More || k.block2.Num > 0 || x.download != nil) {
		if notifies {
			return x.continueNotification(resp, k.block2)
		}
		step, whole := x.receiveBlock2(resp, k.block2)
		if !whole {
			return step
		}
		resp = x.download.resp
		resp.payload = x.download.body
	}
	if !x.manual() {
		resp.opts = resp.opts.Without(coap.Block1, coap.Block2)
	}
	if x.notification != nil {
		// The program must be able to tell it from a response that ends the
		// observation (RFC 7641 §4.2).
		resp.opts = resp.opts.Without(coap.Observe).Add(coap.Observe, x.notification)
	}
	return x.finish(resp.message(resp.payload), notifies)
}

// finish hands a whole response over.
func (x *Exchange) finish(m oscore.Message, notifies bool) Step {
	if notifies {
		x.answered = true
		return Step{Kind: Notification, Message: m}
	}
	x.close()
	return Step{Kind: Response, Message: m}
}

// Cancel ends an observation (RFC 7641 §3.6): the message it returns goes out
// under the registration's token, and repeats its options. The response comes
// through Receive, as a Response; one that has further blocks comes without
// its payload.
//
// A registration whose body went out in blocks cannot be cancelled so:
// ErrTooLarge. Forgetting the token ends it, when a notification is reset.
func (x *Exchange) Cancel(time.Time) (oscore.Message, error) {
	if x.over || !x.Observes() {
		return oscore.Message{}, ErrEnded
	}
	if x.upload != nil {
		return oscore.Message{}, ErrTooLarge
	}
	x.echoRounds = 0
	return x.sealCancel(x.takeEcho())
}

func (x *Exchange) sealCancel(echo []byte) (oscore.Message, error) {
	r := x.base()
	r.opts = r.opts.Without(coap.Observe).AddUint(coap.Observe, 1)
	if echo != nil {
		r.opts = r.opts.Add(coap.Echo, echo)
	}
	pending := new(oscore.Pending)
	m, err := x.peer.SealRequest(nil, pending, r.message(r.payload))
	if err == nil {
		x.cancel = pending
	}
	return m, err
}

// receiveCancelled processes the answer to a cancellation.
func (x *Exchange) receiveCancelled(m oscore.Message) Step {
	k, _ := scan(m.Body)
	x.e.succeeded(x.peer.Name(), k.echo)
	if k.echo != nil && coap.Code(m.Code) == coap.Unauthorized {
		if x.echoRounds++; x.echoRounds > maxEchoRounds {
			return x.fail(ErrEcho)
		}
		out, err := x.sealCancel(k.echo)
		if err != nil {
			return x.fail(err)
		}
		return Step{Kind: Send, Message: out, SameToken: true}
	}
	if r, err := parse(m); err == nil && k.has&(hasEcho|hasBlock2) != 0 {
		if k.block2.More {
			r.payload = nil // nobody asks for the rest
		}
		r.opts = r.opts.Without(coap.Echo, coap.Block2, coap.Size2)
		m = r.message(r.payload)
	}
	return x.finish(m, false)
}

// Observes reports whether the request registers an observation.
func (x *Exchange) Observes() bool { return x.marks.has&hasObserve != 0 && x.marks.observe == 0 }

// Peer returns the peer's name.
func (x *Exchange) Peer() string { return x.peer.Name() }

// Abandon ends the exchange without an answer: the caller's deadline passed.
// Several in a row make the endpoint derive a new context, where the peer's
// settings allow (Config.RederiveAfter). One whose No-Response option asked for
// silence does not count, nor an observation that had notifications.
func (x *Exchange) Abandon() {
	if x.over {
		return
	}
	if !x.answered && x.marks.noResponse == 0 {
		s := x.e.state(x.peer.Name())
		s.mu.Lock()
		s.failures++
		s.mu.Unlock()
	}
	x.release(false)
}

// Close ends the exchange; nothing is counted against the peer.
func (x *Exchange) Close() { x.release(false) }

// close ends an exchange whose last message got its answer, or was not sent.
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
	case errors.Is(err, oscore.ErrPlaintext), errors.Is(err, oscore.ErrNotification), errors.Is(err, ErrTransfer):
		reason = ReasonPlaintext
	}
	x.e.event(Event{Reason: reason, Peer: x.peer.Name(), Err: err})
	return Step{Kind: Wait, Err: err}
}

func (x *Exchange) fail(err error) Step {
	x.close()
	return Step{Kind: Failed, Err: err}
}

// resend protects the message that the exchange is at, with a new Partial IV.
func (x *Exchange) resend() Step {
	m, err := x.seal(nil)
	if err != nil {
		return x.fail(err)
	}
	return Step{Kind: Send, Message: m}
}

// Reseal returns the message that the exchange is at under a new Partial IV, in
// place of one that was held back so long that the peer's replay window may
// have passed it by.
func (x *Exchange) Reseal() (oscore.Message, error) {
	switch {
	case x.over:
		return oscore.Message{}, ErrEnded
	case x.derivation != nil:
		return x.startDerivation()
	case x.echo == nil:
		x.echo = x.sentEcho
	}
	return x.seal(nil)
}

// seal protects the message that the exchange is at.
func (x *Exchange) seal(dst []byte) (oscore.Message, error) {
	m := x.request
	echo := x.takeEcho()
	x.sentEcho = echo
	if echo != nil || x.upload != nil || x.download != nil {
		r := x.base()
		payload := r.payload
		switch {
		case x.download != nil:
			r, payload = x.download.next(x)
		case x.upload != nil:
			r, payload = x.upload.block(r)
		}
		if echo != nil {
			r.opts = append(coap.Options{}, r.opts...).Add(coap.Echo, echo)
		}
		m = r.message(payload)
	}
	if x.third != nil {
		return x.third.SealRequest(dst, &x.pending, m)
	}
	return x.peer.SealRequest(dst, &x.pending, m)
}

// takeEcho returns the Echo value that the next message carries: the one that
// challenged this exchange, or the last one the peer offered.
func (x *Exchange) takeEcho() []byte {
	if echo := x.echo; echo != nil {
		x.echo = nil
		return echo
	}
	s := x.e.find(x.peer.Name())
	if s == nil || x.third != nil {
		return nil // an Echo stays within the context it came in
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.echo == "" {
		return nil
	}
	echo := []byte(s.echo)
	s.echo = ""
	return echo
}

// succeeded notes a verified response and the Echo value it offers for the
// next request (RFC 9175 §2.3).
func (e *Endpoint) succeeded(peer string, echo []byte) {
	s := e.find(peer)
	if s == nil {
		if echo == nil {
			return
		}
		s = e.state(peer)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failures = 0
	if echo != nil {
		s.echo = string(echo)
	}
}
