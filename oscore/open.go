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
// only be challenged. ErrPlaintext comes after the window moved: r can seal an
// error.
func (c *Context) OpenRequest(dst []byte, r *Request, m Message) (Message, error) {
	r.reset()
	env, err := unwrap(m)
	if err != nil {
		return Message{}, err
	}
	if env.opt.PartialIV == nil || env.opt.KID == nil {
		return Message{}, ErrDecode // §5: both are present in requests
	}
	k := c.keys
	if !k.matches(&env.opt) {
		return Message{}, ErrNoContext
	}
	piv := env.opt.Sequence()
	if c.window.open {
		if err := c.window.Check(piv); err != nil {
			return Message{}, err
		}
	}
	k.recipient.exchange(&r.exchange, int(k.nonceLen), env.opt.PartialIV)
	nonce, aad := r.nonce[:k.nonceLen], r.aad[:r.aadLen]
	plain, err := k.decrypt(dst, env, nonce, aad)
	if err != nil {
		return Message{}, err
	}
	if c.window.open {
		if err := c.window.Accept(piv); err != nil {
			return Message{}, err
		}
		r.proven = true
	}
	r.keys, r.piv, r.self = k, piv, r
	out, seen, err := assemble(dst, plain, env, -1)
	if err == nil && !isRequest(out.Code) && !isSignal(out.Code) {
		err = ErrPlaintext
	}
	if err != nil {
		clear(plain)
		out = Message{}
	} else {
		r.observe, r.signal = seen.observe == 0, isSignal(out.Code)
	}
	if !r.proven {
		// Freshness comes first: a malformed message is no reason to answer
		// under a nonce that may have been used before.
		return out, ErrUnproven
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
	env, err := unwrap(m)
	if err != nil {
		return Message{}, err
	}
	// Step 4: the request's nonce, or one of the server's own Partial IV.
	nonce, piv := p.nonce, int64(-1)
	if env.opt.PartialIV != nil {
		nonce = k.recipient.nonce
		xorPIV(&nonce, int(k.nonceLen), env.opt.PartialIV)
		piv = int64(env.opt.Sequence())
	}
	plain, err := k.decrypt(dst, env, nonce[:k.nonceLen], p.aadBytes())
	if err != nil {
		return Message{}, err
	}
	out, seen, err := assemble(dst, plain, env, max(piv, 0))
	if err == nil && !isResponse(out.Code) && !(p.signal && isSignal(out.Code)) {
		err = ErrPlaintext
	}
	if err == nil {
		err = p.admit(seen.observe >= 0, piv)
	}
	if err != nil {
		clear(plain)
		return Message{}, err
	}
	return out, nil
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
	case piv < 0 && (p.nonceUsed || p.notified):
		// At most one without a Partial IV, and it counts as the oldest.
		return ErrNotification
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
	body       []byte
	carried    bool // some Class U option beside option 9 is to be carried over
	optionsLen int
}

// unwrap finds option 9 and the ciphertext (§8.2 step 2). Everything but
// Class U options is left behind.
func unwrap(m Message) (env envelope, err error) {
	var value []byte
	found := false
	w := coap.Walk(m.Body)
	for w.Next() {
		switch {
		case w.Number == coap.OSCORE:
			if found {
				return env, ErrDecode // not repeatable (RFC 7252 §5.4.5)
			}
			value, found = w.Value, true
		case classU(w.Number):
			env.carried = true
		}
	}
	if w.Err() != nil {
		return env, ErrDecode
	}
	if !found {
		return env, ErrUnprotected
	}
	env.ciphertext = w.Payload()
	if env.ciphertext == nil {
		return env, ErrDecode // §2: an OSCORE message has a payload
	}
	env.body, env.optionsLen = m.Body, len(m.Body)-len(env.ciphertext)-1
	env.opt, err = ParseOption(value)
	return env, err
}

// decrypt opens the ciphertext into dst's spare capacity, leaving room before
// it for the options that are carried over, and returns the plaintext.
func (k *keyset) decrypt(dst []byte, env envelope, nonce, aad []byte) ([]byte, error) {
	if len(env.ciphertext) < int(k.tagLen)+1 {
		return nil, ErrDecrypt // not even room for a Code
	}
	gap := 0
	if env.carried {
		gap = env.optionsLen
	}
	// Room also for the Observe value that assemble may write.
	dst = slices.Grow(dst, gap+len(env.ciphertext)+4)
	at := len(dst) + gap
	return k.open(dst[at:at:cap(dst)], nonce, env.ciphertext, aad)
}

// inside is what assemble saw in the plaintext.
type inside struct {
	observe int64 // value of the inner Observe option, -1 if absent
}

// assemble makes the message out of a plaintext: Code, inner options and
// payload, with the carried-over outer options merged in (§8.2 step 7).
// observe is the value that an inner Observe option of a response becomes, -1
// to leave it as it is.
func assemble(dst, plain []byte, env envelope, observe int64) (Message, inside, error) {
	seen := inside{observe: -1}
	if len(plain) == 0 {
		return Message{}, seen, ErrPlaintext
	}
	code, body := plain[0], plain[1:]
	w := coap.Walk(body)
	for w.Next() {
		switch w.Number {
		case coap.OSCORE:
			return Message{}, seen, ErrPlaintext // §4.1.3.7
		case coap.Observe:
			v, ok := coap.Uint(w.Value)
			if !ok || len(w.Value) > 3 || seen.observe >= 0 {
				return Message{}, seen, ErrPlaintext
			}
			seen.observe = int64(v)
		}
	}
	if w.Err() != nil {
		return Message{}, seen, ErrPlaintext
	}
	rewrite := observe >= 0 && seen.observe >= 0
	if !env.carried && !rewrite {
		return Message{code, body}, seen, nil
	}
	if rewrite {
		body = setObserve(body, uint32(observe)&0xffffff)
	}
	if env.carried {
		body = merge(dst[len(dst):cap(dst)], body, env)
	}
	return Message{code, body}, seen, nil
}

// setObserve gives the Observe option of a body the value v.
func setObserve(body []byte, v uint32) []byte {
	out := make([]byte, 0, len(body)+4)
	var previous uint16
	w := coap.Walk(body)
	for w.Next() {
		value := w.Value
		if w.Number == coap.Observe {
			var b [4]byte
			value = coap.AppendUint(b[:0], v)
		}
		out = coap.AppendOption(out, previous, w.Number, value)
		previous = w.Number
		if w.Number >= coap.Observe {
			break // the deltas after it are unchanged
		}
	}
	return append(out, w.Rest()...)
}

// merge writes the inner body with the outer Class U options among its own.
// An outer option that the plaintext holds too is left out: the inner one is
// authentic. The output may stand in front of body in one array: it never
// overtakes it, since merging does not lengthen an option.
func merge(out, body []byte, env envelope) []byte {
	if cap(out) < len(body)+env.optionsLen {
		out = make([]byte, 0, len(body)+env.optionsLen)
	}
	out = out[:0]
	var previous uint16
	put := func(number uint16, value []byte) {
		out = coap.AppendOption(out, previous, number, value)
		previous = number
	}
	inner := coap.Walk(body)
	more := inner.Next()
	outer := coap.Walk(env.body[:env.optionsLen])
	for outer.Next() {
		if outer.Number == coap.OSCORE || !classU(outer.Number) {
			continue
		}
		for more && inner.Number < outer.Number {
			put(inner.Number, inner.Value)
			more = inner.Next()
		}
		if more && inner.Number == outer.Number {
			continue
		}
		put(outer.Number, outer.Value)
	}
	for more {
		put(inner.Number, inner.Value)
		more = inner.Next()
	}
	return append(out, inner.Rest()...)
}
