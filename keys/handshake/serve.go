package handshake

import (
	"errors"
	"time"

	"github.com/oscorelay/oscorelay/internal/coap"
	"github.com/oscorelay/oscorelay/keys/edhoc"
	"github.com/oscorelay/oscorelay/oscore"
)

// The Content-Formats of RFC 9528 §10.9.
const (
	formatEDHOC    = 64 // application/edhoc+cbor-seq
	formatCIDEDHOC = 65 // application/cid-edhoc+cbor-seq
)

// newSession is the CBOR true in front of message_1.
const newSession = 0xf5

// Errors of the server's side beside those of package edhoc.
var (
	// ErrNoSession: no handshake waits for a message with that identifier.
	ErrNoSession = errors.New("handshake: no session has this connection identifier")
	// ErrBusy: too many handshakes at once.
	ErrBusy = errors.New("handshake: too many handshakes")
	// ErrSequential: message_3 came with a request where message_4 is needed.
	ErrSequential = errors.New("handshake: message_4 is required here, so message_3 must come alone")
	// ErrReversed: a message for the other role.
	ErrReversed = errors.New("handshake: message does not fit the session's flow")
	// ErrNoReverse: the server is asked to be the Initiator, and is none.
	ErrNoReverse = errors.New("handshake: the reverse flow is not served here")
)

// inbound is one whole message to the resource, on its way to an answer.
type inbound struct {
	now    time.Time
	source string
	reply  func(oscore.Message)

	length   int  // bytes of options and payload
	combined bool // with a request (RFC 9668)
}

// Serve answers a request to the EDHOC resource. source is the address it came
// from; reliable tells that it came over a stream, where no blocks are needed.
// reply is called once, maybe before Serve returns, maybe from a worker.
//
// A retransmission is the caller's to recognise, as for any other request.
func (s *Service) Serve(now time.Time, source string, reliable bool, request oscore.Message, reply func(oscore.Message)) {
	opts, _, err := coap.Split(request.Body)
	if err != nil {
		reply(oscore.Message{Code: byte(coap.BadRequest)})
		return
	}
	if coap.Code(request.Code) != coap.POST {
		reply(oscore.Message{Code: byte(coap.MethodNotAllowed)})
		return
	}
	if f, ok := opts.Uint(coap.ContentFormat); ok && f != formatCIDEDHOC {
		reply(oscore.Message{Code: byte(coap.UnsupportedContentFormat)})
		return
	}
	if f, ok := opts.Uint(coap.Accept); ok && f != formatEDHOC {
		reply(oscore.Message{Code: byte(coap.NotAcceptable)})
		return
	}
	if m, ok := s.answers.next(now, source, opts); ok {
		reply(m)
		return
	}
	var last []byte // Block1 of the last block, for the answer to acknowledge
	if v, ok := opts.Get(coap.Block1); ok {
		last = v
		out, whole := s.incoming.Request(now, source, request)
		if !whole {
			reply(out)
			return
		}
		request = out
	}
	opts, payload, err := coap.Split(request.Body)
	if err != nil {
		reply(oscore.Message{Code: byte(coap.BadRequest)})
		return
	}
	if len(payload) > MaxMessage {
		reply(oscore.Message{Code: byte(coap.RequestEntityTooLarge)})
		return
	}
	in := inbound{now: now, source: source, length: len(request.Body), reply: func(m oscore.Message) {
		if !reliable {
			m = s.answers.cut(now, source, last, m)
		}
		reply(m)
	}}
	echo, _ := opts.Get(coap.Echo)
	s.route(in, echo, payload)
}

// route finds what a message belongs to (RFC 9528 Appendix A.2).
func (s *Service) route(in inbound, echo, payload []byte) {
	if len(payload) == 0 && !s.cfg.Reverse {
		s.refuse(in, ErrNoReverse)
		return
	}
	begins := len(payload) == 0 || payload[0] == newSession
	if begins {
		switch s.limits.begin(in.now, in.source, in.length, echo) {
		case prove:
			s.event("echo_challenge", "", in.source, nil)
			opts := coap.Options{}.Add(coap.Echo, s.limits.echo(in.now, in.source))
			in.reply(oscore.Message{Code: byte(coap.Unauthorized), Body: coap.AppendBody(nil, opts, nil)})
			return
		case wait:
			s.busy(in, "rate_limited")
			return
		}
		s.expire(in.now)
		work := func() { s.message1(in, payload[1:]) }
		if len(payload) == 0 {
			work = func() { s.trigger(in) }
		}
		if !s.pool.run(work) {
			s.busy(in, "busy")
		}
		return
	}
	id, rest, err := edhoc.CutConnectionID(payload)
	if err != nil {
		s.refuse(in, err)
		return
	}
	x := s.take(in.now, in.source, id)
	if x == nil {
		s.refuse(in, ErrNoSession)
		return
	}
	work := func() { s.message3(in, x, rest) }
	switch {
	case x.wait2 != nil:
		work = func() { s.message2(in, x, rest) }
	case x.wait4 != nil:
		work = func() { s.message4(in, x, rest) }
	}
	if !s.pool.run(work) {
		s.keep(in.now, x)
		s.busy(in, "busy")
	}
}

// busy asks to come again.
func (s *Service) busy(in inbound, reason string) {
	s.event(reason, "", in.source, ErrBusy)
	in.reply(busyAnswer())
}

func busyAnswer() oscore.Message {
	opts := coap.Options{}.AddUint(coap.MaxAge, 1)
	return oscore.Message{Code: byte(coap.ServiceUnavailable), Body: coap.AppendBody(nil, opts, nil)}
}

// changed answers with an EDHOC message, or nothing but the code.
func (in inbound) changed(message []byte) {
	var opts coap.Options
	if len(message) > 0 {
		opts = opts.AddUint(coap.ContentFormat, formatEDHOC)
	}
	in.reply(oscore.Message{Code: byte(coap.Changed), Body: coap.AppendBody(nil, opts, message)})
}

// refuse answers with an error message (RFC 9528 §6, Appendix A.2.3).
func (s *Service) refuse(in inbound, err error) {
	reason := "rejected"
	if errors.Is(err, ErrNoSession) {
		reason = "no_session"
	}
	s.event(reason, "", in.source, err)
	in.reply(in.errorAnswer(err))
}

// localError is a failure of this side, such as of its storage.
type localError struct{ error }

func (e localError) Unwrap() error { return e.error }

func (in inbound) errorAnswer(err error) oscore.Message {
	var peer *edhoc.PeerError
	if errors.As(err, &peer) {
		return oscore.Message{Code: byte(coap.Changed)} // taken note of; an error is not answered by another
	}
	code := coap.BadRequest
	var local localError
	if errors.As(err, &local) {
		code = coap.InternalServerError
	}
	message := edhoc.AppendError(nil, err)
	own := []error{ErrNoSession, ErrSequential, ErrReversed, ErrNoReverse, edhoc.ErrIgnored}
	if in.combined { // the one error code there is (RFC 9668 §3.3.1)
		own = append(own, edhoc.ErrUnknownCredential)
	}
	for _, own := range own {
		if errors.Is(err, own) {
			message = edhoc.ErrorMessage{Code: edhoc.CodeUnspecified, Diagnostic: texts[own]}.Append(nil)
		}
	}
	if len(message) == 0 {
		return oscore.Message{Code: byte(code)}
	}
	opts := coap.Options{}.AddUint(coap.ContentFormat, formatEDHOC)
	return oscore.Message{Code: byte(code), Body: coap.AppendBody(nil, opts, message)}
}

var texts = map[error]string{
	ErrNoSession:  "No such session",
	ErrSequential: "message_4 is required: send message_3 alone",
	ErrReversed:   "Message does not fit the flow",
	ErrNoReverse:  "The reverse flow is not served here",

	edhoc.ErrIgnored:           "Decryption failed", // put aside: the session waits on, whoever this came from
	edhoc.ErrUnknownCredential: "Unknown credential referenced",
}
