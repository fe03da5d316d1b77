package oscore

import (
	"slices"

	"github.com/oscorelay/oscorelay/internal/coap"
)

// OpenRequest verifies a protected request (§8.2) and makes r ready to seal
// its response. The message that comes back lies in dst's spare capacity if
// that is as long as m.Body, and then nothing is allocated; dst's own bytes
// stay, and dst must not overlap m.
//
//  1. outer Code and Class E options are discarded
//  2. the OSCORE option is decoded, kid and kid context must be this context's
//  3. the Partial IV must not have been received before
//  4. nonce and AAD are composed, the ciphertext is decrypted, and only then
//     does the replay window move
//  5. inner options, and outer ones of Class U, make up the message
//
// Errors that leave the context as it was: ErrUnprotected, ErrDecode,
// ErrNoContext, ErrReplay, ErrDecrypt. ErrUnproven comes with the message: it
// is authentic but the window is not initialised (Appendix B.1.2), so r can
// only be challenged. So does ErrLate, an ErrReplay that an Echo of the
// message's own can still mend. ErrPlaintext comes after the window moved: r
// can seal an error.
func (c *Context) OpenRequest(dst []byte, r *Request, m Message) (Message, error) {
	r.reset()
	var env envelope
	if err := env.unwrap(m); err != nil {
		return Message{}, err
	}
	if env.opt.PartialIV == nil || env.opt.KID == nil {
		return Message{}, ErrDecode // §5: both are present in requests
	}
	k := c.keys
	if !k.matches(&env.opt) {
		return Message{}, ErrNoContext
	}
	piv := pivNumber(env.opt.PartialIV)
	if c.window.Check(piv) == ErrReplay {
		return Message{}, ErrReplay
	}
	k.recipient.exchange(&r.exchange, int(k.nonceLen), env.opt.PartialIV)
	var in inside
	err := k.decrypt(&in, dst, &env, 0, r.nonce[:k.nonceLen], r.aadBytes())
	if err != nil {
		return Message{}, err
	}
	unproven := c.window.Accept(piv)
	if unproven == ErrReplay {
		return Message{}, ErrReplay
	}
	r.proven = unproven == nil
	r.keys, r.piv, r.self = k, piv, r
	var out Message
	if !isRequest(in.code) && !isSignal(in.code) {
		err = ErrPlaintext
	} else {
		err = in.inspect()
	}
	if err != nil {
		in.wipe()
	} else {
		r.observe, r.signal = in.observe == 0, isSignal(in.code)
		out = env.assemble(&in)
	}
	if !r.proven {
		// Freshness comes first: a malformed message is no reason to answer
		// under a nonce that may have been used before.
		return out, unproven
	}
	return out, err
}

// Open verifies a response to the request (§8.4), or a notification of the
// observation it registered (§8.4.2, §7.4.1). Buffers as in
// [Context.OpenRequest]. A failure changes nothing: the genuine response is
// still accepted afterwards.
//
// A notification's Observe value is set to the three least significant bytes
// of its Partial IV (§4.1.3.5.2), 0 where it has none. A response to a
// registration that has no inner Observe option ends the observation.
//
// Errors: ErrInvalid, ErrAnswered, ErrUnprotected, ErrDecode, ErrDecrypt,
// ErrPlaintext, ErrNotification, ErrStale.
func (p *Pending) Open(dst []byte, m Message) (Message, error) {
	if !p.valid() {
		return Message{}, ErrInvalid
	}
	return p.openUnder(dst, p.keys, m)
}

// OpenUnder is [Pending.Open] under the keys of another context: the client's
// reading of the first response of Appendix B.2. The nonce stays the request's.
func (p *Pending) OpenUnder(dst []byte, second *Context, m Message) (Message, error) {
	if !p.valid() {
		return Message{}, ErrInvalid
	}
	if second.keys.alg != p.keys.alg {
		return Message{}, ErrContextChanged
	}
	return p.openUnder(dst, second.keys, m)
}

func (p *Pending) openUnder(dst []byte, k *keyset, m Message) (Message, error) {
	if p.done {
		return Message{}, ErrAnswered
	}
	var env envelope
	if err := env.unwrap(m); err != nil {
		return Message{}, err
	}
	// Step 4: the request's nonce, or one of the server's own Partial IV.
	nonce, piv := p.nonceBytes(), int64(-1)
	if env.opt.PartialIV != nil {
		p.own = k.recipient.nonce
		xorPIV(&p.own, int(k.nonceLen), env.opt.PartialIV)
		nonce, piv = p.own[:k.nonceLen], int64(pivNumber(env.opt.PartialIV))
	}
	var in inside
	err := k.decrypt(&in, dst, &env, roomForObserve, nonce, p.aadBytes())
	if err != nil {
		return Message{}, err
	}
	if !isResponse(in.code) && !(p.signal && isSignal(in.code)) {
		err = ErrPlaintext
	} else {
		err = in.inspect()
	}
	if err == nil {
		err = p.admit(in.observe >= 0, piv)
	}
	if err != nil {
		in.wipe()
		return Message{}, err
	}
	if in.observe >= 0 {
		in.setObserve(uint32(max(piv, 0)) & 0xffffff)
	}
	return env.assemble(&in), nil
}

// admit applies the rules for notifications (§7.4.1, §8.4.2 step A) and moves
// the state of p. piv is -1 where the response has none.
func (p *Pending) admit(notification bool, piv int64) error {
	switch {
	case notification && !p.observe:
		return ErrNotification // §4.1.3.5.2
	case !notification:
		p.done = true // the only response, or the end of an observation
		return nil
	case piv < 0 && p.nonceUsed:
		return ErrNotification // at most one without a Partial IV
	case piv < 0 && p.notified:
		return ErrStale // it counts as the oldest
	case piv < 0:
		p.nonceUsed = true
		return nil
	case p.notified && uint64(piv) <= p.notification:
		return ErrStale
	}
	p.notified, p.notification = true, uint64(piv)
	return nil
}

// envelope is a protected message taken apart.
type envelope struct {
	opt        Option
	ciphertext []byte
	outer      []byte // the outer options, if some of Class U are to be carried over
}

// unwrap finds option 9 and the ciphertext (§8.2 step 2). Everything but
// Class U options is left behind.
func (e *envelope) unwrap(m Message) error {
	// Most messages have option 9 alone outside, or behind Observe.
	b, delta := m.Body, byte(coap.OSCORE)
	if len(b) > 4 && b[0]>>4 == byte(coap.Observe) && b[0]&15 <= 3 {
		b, delta = b[1+int(b[0]&15):], byte(coap.OSCORE-coap.Observe)
	}
	if len(b) > 2 && b[0]>>4 == delta && b[0]&15 <= 13 {
		n, at := int(b[0]&15), 1
		if n == 13 {
			n, at = 13+int(b[1]), 2
		}
		if end := at + n; end+1 < len(b) && b[end] == 0xff {
			e.ciphertext = b[end+1:]
			return e.opt.parse(b[at:end:end])
		}
	}
	return e.unwrapMixed(m.Body)
}

func (e *envelope) unwrapMixed(body []byte) error {
	var value []byte
	found, carried := false, false
	w := coap.Walk(body)
	for w.Next() {
		switch {
		case w.Number == coap.OSCORE:
			if found {
				return ErrDecode // not repeatable (RFC 7252 §5.4.5)
			}
			value, found = w.Value, true
		case isClassU(w.Number):
			carried = true
		}
	}
	if w.Err() != nil {
		return ErrDecode
	}
	if !found {
		return ErrUnprotected
	}
	if e.ciphertext = w.Payload(); e.ciphertext == nil {
		return ErrDecode // §2: an OSCORE message has a payload
	}
	if carried {
		e.outer = body[:len(body)-len(e.ciphertext)-1]
	}
	return e.opt.parse(value)
}

// inside is a plaintext taken apart.
type inside struct {
	buf     []byte // room, then the plaintext
	start   int    // where in buf the body begins, after the Code
	code    byte
	observe int64 // value of the Observe option, -1 if absent
	at      int   // where in buf the Observe option stands
}

func (in *inside) body() []byte { return in.buf[in.start:] }

// decrypt opens the ciphertext into dst's spare capacity, leaving room before
// it for the options that are carried over and that many bytes more, and fills
// in a zero inside.
func (k *keyset) decrypt(in *inside, dst []byte, e *envelope, room int, nonce, aad []byte) error {
	n := len(e.ciphertext) - int(k.tagLen)
	if n < 1 {
		return ErrDecrypt // not even room for a Code
	}
	room += len(e.outer)
	buf := slices.Grow(dst, room+n)[len(dst):]
	plaintext, err := k.open(buf[room:room:room+n], nonce, e.ciphertext, aad)
	if err != nil {
		return err
	}
	in.buf, in.start, in.code, in.observe = buf[:room+n], room+1, plaintext[0], -1
	return nil
}

// inspect checks what the AEAD has verified (§5.3): a well-formed body without
// an OSCORE option (§4.1.3.7).
func (in *inside) inspect() error {
	if plain(in.body()) {
		return nil
	}
	w := coap.Walk(in.body())
	for at := in.start; w.Next(); at = len(in.buf) - len(w.Rest()) {
		switch {
		case w.Number == coap.OSCORE:
			return ErrPlaintext
		case w.Number == coap.Observe && !isSignal(in.code):
			v, ok := coap.Uint(w.Value)
			if !ok || len(w.Value) > 3 || in.observe >= 0 {
				return ErrPlaintext
			}
			in.observe, in.at = int64(v), at
		}
	}
	if w.Err() != nil {
		return ErrPlaintext
	}
	return nil
}

// wipe overwrites a plaintext that is not handed on.
func (in *inside) wipe() { clear(in.buf) }

// roomForObserve is what setObserve needs in front of the plaintext: three
// bytes, less the Code's.
const roomForObserve = 2

// setObserve gives the Observe option, which the body has, the value v. What
// stands before the value moves into the room in front of the body.
func (in *inside) setObserve(v uint32) {
	var b [4]byte
	value := coap.AppendUint(b[:0], v)
	head := in.buf[in.at] // delta and length are below 13: one byte
	start := in.start + int(head&15) - len(value)
	at := start + copy(in.buf[start:], in.buf[in.start:in.at])
	in.buf[at] = head&0xf0 | byte(len(value))
	copy(in.buf[at+1:], value)
	in.start, in.at = start, at
}

// assemble makes the message out of a plaintext: Code, inner options and
// payload, with the outer options of Class U merged in (§8.2 step 7). A
// signalling message has no outer options (§4.3).
func (e *envelope) assemble(in *inside) Message {
	if e.outer == nil || isSignal(in.code) {
		return Message{in.code, in.body()}
	}
	return Message{in.code, merge(in.buf[:0], in.body(), e.outer)}
}

// merge writes the inner body with the outer Class U options among its own.
// An outer option that the plaintext holds too is left out: the inner one is
// authentic (§8.2 step 7). The output stands in front of the body in one array,
// as far in front as outer is long: it never overtakes the body, since merging
// does not lengthen an option.
func merge(out, body, outer []byte) []byte {
	var previous uint16
	inner := coap.Walk(body)
	more := inner.Next()
	w := coap.Walk(outer)
	for w.Next() {
		if w.Number == coap.OSCORE || !isClassU(w.Number) {
			continue
		}
		for more && inner.Number < w.Number {
			out = coap.AppendOption(out, previous, inner.Number, inner.Value)
			previous = inner.Number
			more = inner.Next()
		}
		if more && inner.Number == w.Number {
			continue
		}
		out = coap.AppendOption(out, previous, w.Number, w.Value)
		previous = w.Number
	}
	for more {
		out = coap.AppendOption(out, previous, inner.Number, inner.Value)
		previous = inner.Number
		more = inner.Next()
	}
	return append(out, inner.Rest()...)
}
