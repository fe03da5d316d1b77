package handshake

import (
	"time"

	"github.com/oscorelay/oscorelay/internal/coap"
	"github.com/oscorelay/oscorelay/oscore"
)

// ServeCombined processes a request with the EDHOC option (RFC 9668 §3.3.1),
// outer blocks assembled: steps 1 to 7. If message_3 proves right its context
// is in the keyring, and proceed gets the request without message_3 and option,
// to be opened as any other; else refuse gets the answer, which nothing
// protects. One of the two is called once, maybe before ServeCombined returns.
func (s *Service) ServeCombined(now time.Time, source string, request oscore.Message, proceed, refuse func(oscore.Message)) {
	in := inbound{now: now, source: source, reply: refuse, combined: true}
	// 1. OSCORE option, payload of two parts
	opts, payload, err := coap.Split(request.Body)
	if err != nil {
		refuse(oscore.Message{Code: byte(coap.BadRequest)})
		return
	}
	if n := count(opts, coap.EDHOC); n > 1 { // RFC 7252 §5.4.5: one too many is an unknown critical option
		refuse(oscore.Message{Code: byte(coap.BadOption)})
		return
	}
	option, protected, err := oscore.FindOption(request)
	if err != nil || !protected || option.KID == nil {
		refuse(oscore.Message{Code: byte(coap.BadRequest)})
		return
	}
	// 2., 6. the two parts
	message3, ciphertext, ok := cutBstr(payload)
	if !ok || len(ciphertext) == 0 || len(message3) > MaxMessage {
		refuse(oscore.Message{Code: byte(coap.BadRequest)})
		return
	}
	// 3., 4. the session that kid names
	x := s.take(now, source, option.KID)
	switch {
	case x == nil:
		s.refuse(in, ErrNoSession)
		return
	case x.wait3 == nil:
		s.keep(now, x) // this flow has no combined request: nothing happened to the session
		s.refuse(in, ErrReversed)
		return
	case s.cfg.Message4:
		x.abort()
		s.cfg.Ring.ReleaseID([]byte(x.id))
		s.refuse(in, ErrSequential)
		return
	}
	work := func() {
		done, err := s.finish(now, source, x, message3) // 4., 5.
		if err != nil {
			s.refuse(in, err)
			return
		}
		end(done)
		// 7. the request as it was sealed
		proceed(oscore.Message{Code: request.Code, Body: coap.AppendBody(nil, opts.Without(coap.EDHOC), ciphertext)})
	}
	if !s.pool.run(work) {
		s.keep(now, x)
		s.busy(in, "busy")
	}
}

func count(opts coap.Options, number uint16) (n int) {
	for _, o := range opts {
		if o.Number == number {
			n++
		}
	}
	return n
}

// cutBstr cuts a CBOR byte string off the front, whose encoding is returned
// with its head: message_3 is one (RFC 9528 §5.4.1).
func cutBstr(b []byte) (item, rest []byte, ok bool) {
	if len(b) == 0 || b[0]>>5 != 2 {
		return nil, nil, false
	}
	head, n := 1, int(b[0]&0x1f)
	switch {
	case n == 24 && len(b) > 1:
		head, n = 2, int(b[1])
	case n == 25 && len(b) > 2:
		head, n = 3, int(b[1])<<8|int(b[2])
	case n >= 24:
		return nil, nil, false
	}
	if len(b) < head+n {
		return nil, nil, false
	}
	return b[:head+n], b[head+n:], true
}
