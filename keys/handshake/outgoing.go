package handshake

import (
	"errors"
	"fmt"
	"time"

	"github.com/oscorelay/oscorelay/internal/coap"
	"github.com/oscorelay/oscorelay/keys"
	"github.com/oscorelay/oscorelay/keys/edhoc"
	"github.com/oscorelay/oscorelay/oscore"
)

// Peer says whom a handshake is meant for, and how it is to go.
type Peer struct {
	// Name is the peer in the Store that is expected, and nobody else; ""
	// takes any that the Store trusts.
	Name string
	// Trust, if set, decides in place of the Store.
	Trust edhoc.Trust
	// Path is the server's EDHOC resource; "" means /.well-known/edhoc.
	Path string
	// Combined sends message_3 with the first request (RFC 9668).
	Combined bool
	// Reverse has the server be the Initiator.
	Reverse bool
	// Message4 says that the peer's profile has message_4: without it the
	// handshake fails.
	Message4 bool
}

// Errors of the client's side.
var (
	// ErrAnswer: the server's answer is no EDHOC message.
	ErrAnswer = errors.New("handshake: server does not answer as an EDHOC resource does")
	// ErrUnconfirmed: message_4 is required and did not come.
	ErrUnconfirmed = errors.New("handshake: server sent no message_4")
)

// AnswerError is an answer without an EDHOC message.
type AnswerError struct{ Code coap.Code }

func (e *AnswerError) Error() string {
	return fmt.Sprintf("%v: %v %s", ErrAnswer, e.Code, e.Code.Name())
}

// Unwrap makes errors.Is(err, ErrAnswer) true.
func (e *AnswerError) Unwrap() error { return ErrAnswer }

// Outgoing is one handshake that this side, the CoAP client, begins. It is not
// safe for concurrent use.
type Outgoing struct {
	s     *Service
	peer  Peer
	trust edhoc.Trust
	path  []string

	step func(code coap.Code, payload []byte) (request []byte, more bool, err error)
	t    *transfer
	own  []byte // identifier held: C_I, or C_R in the reverse flow
	cr   []byte

	suites  []edhoc.Suite // SUITES_R, after a refusal
	again   bool          // message_1 went out anew
	echoed  bool
	wait2   *edhoc.WaitMessage2
	wait3   *edhoc.WaitMessage3
	done    *edhoc.InitiatorDone
	session *edhoc.Session
	first   []byte // message_1 or empty, as it went out
	m3      []byte // message_3, to be combined
	failure error  // to return once the peer was told
	in      entered
}

// To returns a handshake with a peer. Either Next returns an error, or
// [Outgoing.Close] ends what is left over.
func (s *Service) To(p Peer) (*Outgoing, error) {
	if p.Combined && (p.Message4 || p.Reverse) {
		return nil, fmt.Errorf("%w: Combined goes with neither Message4 nor Reverse (RFC 9668)", ErrConfig)
	}
	if p.Reverse && s.responder == nil || !p.Reverse && s.initiator == nil {
		return nil, fmt.Errorf("%w: no identity serves any of the methods in this role", ErrConfig)
	}
	o := &Outgoing{s: s, peer: p, trust: p.Trust, path: s.path}
	if p.Path != "" {
		o.path = segments(p.Path)
	} else {
		o.path = segments("/.well-known/edhoc")
	}
	switch {
	case o.trust != nil:
	case s.cfg.Store == nil:
		return nil, fmt.Errorf("%w: without a Store the peer needs a Trust", ErrConfig)
	case p.Name != "":
		o.trust = s.cfg.Store.Expect(p.Name)
	default:
		o.trust = s.cfg.Store.Anyone()
	}
	return o, nil
}

// Next takes the server's answer to the request before, the zero Message at
// first, and returns the next request. more false means that the handshake is
// over: the peer is in the keyring. reliable tells that the messages travel
// over a stream.
func (o *Outgoing) Next(now time.Time, reliable bool, answer oscore.Message) (request oscore.Message, more bool, err error) {
	request, more, err = o.next(now, reliable, answer)
	if err != nil {
		o.Close()
	}
	return request, more, err
}

func (o *Outgoing) next(now time.Time, reliable bool, answer oscore.Message) (oscore.Message, bool, error) {
	var body []byte
	var more bool
	var err error
	if o.t == nil {
		body, more, err = o.begin()
	} else {
		opts, payload, whole, terr := o.t.response(answer)
		if terr != nil {
			return oscore.Message{}, false, errors.Join(terr, o.failure)
		}
		if !whole {
			return o.t.request(reliable), true, nil
		}
		code := coap.Code(answer.Code)
		if echo, ok := opts.Get(coap.Echo); ok && code == coap.Unauthorized && o.first != nil && !o.echoed {
			o.echoed = true
			o.t = newTransfer(o.path, echo, o.first)
			return o.t.request(reliable), true, nil
		}
		body, more, err = o.step(code, payload)
	}
	if err != nil || !more {
		if o.m3 == nil {
			o.abortDone()
		}
		if err == nil && o.failure == nil && o.in.name == "" {
			err = o.enter(now)
		}
		return oscore.Message{}, false, errors.Join(err, o.failure)
	}
	o.t = newTransfer(o.path, nil, body)
	return o.t.request(reliable), true, nil
}

// abortDone wipes what is left of the handshake once message_4 can no longer be
// read: the session alone is of use from here on.
func (o *Outgoing) abortDone() {
	if o.done != nil {
		o.done.Abort()
	}
}

// begin makes the first request.
func (o *Outgoing) begin() (body []byte, more bool, err error) {
	if o.peer.Reverse {
		o.step, o.first = o.onMessage1, []byte{}
		return nil, true, nil
	}
	if o.own == nil {
		if o.own, err = o.s.cfg.Ring.ReserveFreeID(); err != nil {
			return nil, false, err
		}
	}
	message1, wait2, err := o.s.initiator.Message1(edhoc.Start{ConnectionID: o.own, PeerSuites: o.suites})
	if err != nil {
		return nil, false, err
	}
	o.wait2, o.step = wait2, o.onMessage2
	o.first = append([]byte{newSession}, message1...)
	return o.first, true, nil
}

// onMessage2 takes message_2 (RFC 9528 §5.3.3) and makes message_3.
func (o *Outgoing) onMessage2(code coap.Code, payload []byte) ([]byte, bool, error) {
	o.first = nil
	if code != coap.Changed {
		err := refusal(code, payload)
		var peer *edhoc.PeerError
		if errors.As(err, &peer) && peer.Message.Code == edhoc.CodeWrongSuite && len(peer.Message.Suites) > 0 && !o.again {
			o.again, o.suites = true, peer.Message.Suites
			o.wait2.Abort()
			if body, more, err := o.begin(); err == nil {
				return body, more, nil
			}
		}
		return nil, false, err
	}
	got, err := o.wait2.Message2(payload)
	if err != nil {
		if cr := o.wait2.ConnectionID(); cr != nil {
			return o.tell(cr, err)
		}
		return nil, false, err
	}
	o.cr = got.ConnectionID()
	verified, err := got.Authenticate(o.trust)
	if err != nil {
		return o.tell(o.cr, err)
	}
	message3, done, err := verified.Message3()
	if err != nil {
		return nil, false, err
	}
	o.done, o.session = done, done.Session()
	if o.peer.Combined {
		o.m3 = message3
		return nil, false, nil
	}
	o.step = o.onMessage4
	return append(edhoc.AppendConnectionID(nil, o.cr), message3...), true, nil
}

// onMessage4 takes the answer to message_3.
func (o *Outgoing) onMessage4(code coap.Code, payload []byte) ([]byte, bool, error) {
	switch {
	case code != coap.Changed:
		return nil, false, refusal(code, payload)
	case len(payload) > 0:
		_, err := o.done.Message4(payload)
		return nil, false, err
	case o.peer.Message4:
		return nil, false, ErrUnconfirmed
	}
	return nil, false, nil
}

// onMessage1 takes message_1 of the reverse flow and makes message_2.
func (o *Outgoing) onMessage1(code coap.Code, payload []byte) ([]byte, bool, error) {
	o.first = nil
	if code != coap.Changed {
		return nil, false, refusal(code, payload)
	}
	got, err := o.s.responder.Message1(payload)
	if err != nil {
		return nil, false, err
	}
	ci := got.Message().CI
	if o.own, err = o.s.cfg.Ring.ReserveFreeID(ci); err != nil {
		got.Abort()
		return nil, false, err
	}
	message2, wait3, err := got.Message2(edhoc.Reply{ConnectionID: o.own})
	if err != nil {
		return o.tell(ci, err)
	}
	o.wait3 = wait3
	o.step = func(code coap.Code, payload []byte) ([]byte, bool, error) { return o.onMessage3(ci, code, payload) }
	return append(edhoc.AppendConnectionID(nil, ci), message2...), true, nil
}

// onMessage3 takes message_3 of the reverse flow.
func (o *Outgoing) onMessage3(ci []byte, code coap.Code, payload []byte) ([]byte, bool, error) {
	if code != coap.Changed {
		return nil, false, refusal(code, payload)
	}
	got, err := o.wait3.Message3(payload)
	if err != nil {
		return o.tell(ci, err)
	}
	done, err := got.Authenticate(o.trust)
	if err != nil {
		return o.tell(ci, err)
	}
	o.session = done.Session()
	if !o.peer.Message4 {
		return nil, false, nil
	}
	message4, err := done.Message4()
	if err != nil {
		return nil, false, err
	}
	o.step = func(code coap.Code, payload []byte) ([]byte, bool, error) {
		if code != coap.Changed {
			return nil, false, refusal(code, payload)
		}
		return nil, false, nil
	}
	return append(edhoc.AppendConnectionID(nil, ci), message4...), true, nil
}

// tell has the server told of an error by one more request, whatever is
// answered (RFC 9528 §6).
func (o *Outgoing) tell(id []byte, err error) ([]byte, bool, error) {
	message := edhoc.AppendError(nil, err)
	if len(message) == 0 {
		return nil, false, err
	}
	o.failure = err
	o.step = func(coap.Code, []byte) ([]byte, bool, error) { return nil, false, nil }
	return append(edhoc.AppendConnectionID(nil, id), message...), true, nil
}

// refusal makes an error of an error answer. Nothing protects it.
func refusal(code coap.Code, payload []byte) error {
	if code == coap.ServiceUnavailable {
		return fmt.Errorf("%w, says the server", ErrBusy)
	}
	if m, err := edhoc.ParseErrorMessage(payload); err == nil && !code.IsSuccess() {
		return &edhoc.PeerError{Message: m}
	}
	return &AnswerError{code}
}

// enter puts the context into the keyring.
func (o *Outgoing) enter(now time.Time) error {
	var err error
	o.own = nil // the ring's from here on
	if o.in, err = o.s.enter(now, "", o.session, false); err != nil {
		return err
	}
	if o.session.Confirmed() { // by message_4
		o.forgetOld()
	}
	return nil
}

// Name returns the peer's name in the keyring, once the handshake is over.
func (o *Outgoing) Name() string { return o.in.name }

// Session returns the session, nil before the peer has proved who it is.
func (o *Outgoing) Session() *edhoc.Session { return o.session }

// Entry returns the context for a key store to keep, once it is confirmed: by
// message_4, or by the first protected answer (see Confirm).
func (o *Outgoing) Entry() (keys.Entry, error) {
	if o.session == nil {
		return keys.Entry{}, edhoc.ErrWiped
	}
	return o.s.entry(o.session)
}

// Pending reports whether message_3 is still to go out with a request.
func (o *Outgoing) Pending() bool { return o.m3 != nil }

// Combine returns a sealed request with message_3 in front of its ciphertext
// (RFC 9668 §3.2.1). ok is false, and out the request as it is, if the two
// together exceed MAX_UNFRAGMENTED_SIZE: then Sequential's messages go first
// (§3.2.2 step B).
func (o *Outgoing) Combine(sealed oscore.Message) (out oscore.Message, ok bool, err error) {
	opts, payload, err := coap.Split(sealed.Body)
	if err != nil {
		return sealed, false, err
	}
	if len(o.m3)+len(payload) > o.s.cfg.MaxUnfragmented {
		return sealed, false, nil
	}
	payload = append(append(make([]byte, 0, len(o.m3)+len(payload)), o.m3...), payload...)
	o.m3 = nil
	o.abortDone()
	return oscore.Message{Code: sealed.Code, Body: coap.AppendBody(nil, opts.Add(coap.EDHOC, nil), payload)}, true, nil
}

// Sequential gives up the combined request: it returns the first request that
// takes message_3 alone, to be followed up with Next.
func (o *Outgoing) Sequential(reliable bool) oscore.Message {
	body := append(edhoc.AppendConnectionID(nil, o.cr), o.m3...)
	o.m3, o.step = nil, o.onMessage4
	o.t = newTransfer(o.path, nil, body)
	return o.t.request(reliable)
}

// Refused reads an unprotected answer to a combined request: an EDHOC error
// message, or nil if it is none.
func (o *Outgoing) Refused(answer oscore.Message) error {
	opts, payload, err := coap.Split(answer.Body)
	if err != nil || coap.Code(answer.Code).IsSuccess() {
		return nil
	}
	if f, ok := opts.Uint(coap.ContentFormat); !ok || f != formatEDHOC {
		return nil
	}
	m, err := edhoc.ParseErrorMessage(payload)
	if err != nil {
		return nil
	}
	return &edhoc.PeerError{Message: m}
}

// Confirm records that an answer under the new context has verified. The context
// whose place it took is forgotten then: the peer has no use for it any more.
func (o *Outgoing) Confirm() {
	if o.session != nil {
		o.session.Confirm()
		o.forgetOld()
	}
}

func (o *Outgoing) forgetOld() {
	o.s.forget(o.in.old)
	o.in.old = nil
}

// Close ends a handshake that came to nothing: its context is taken out, and the
// one before it put back. After one that ended well it is not needed.
func (o *Outgoing) Close() {
	if o.wait2 != nil {
		o.wait2.Abort()
	}
	if o.wait3 != nil {
		o.wait3.Abort()
	}
	if o.session != nil {
		o.session.Wipe()
	}
	if o.own != nil {
		o.s.cfg.Ring.ReleaseID(o.own)
		o.own = nil
	}
	o.abortDone()
	if o.in.name != "" {
		o.s.undo(o.in)
		o.in = entered{}
	}
}
