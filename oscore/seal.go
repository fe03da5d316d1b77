package oscore

import (
	"slices"

	"github.com/oscorelay/oscorelay/internal/coap"
)

// SealRequest protects a request (§8.1) and makes p ready to open its
// responses. The protected message is appended to dst: Body begins where dst
// ends, in the same array if its capacity suffices; dst must not overlap m.
// With [Overhead] bytes and the kid context's length more capacity than m.Body
// is long it does not allocate.
//
//  1. which option travels where: Class E inside, Class U outside, Observe in
//     both, Proxy-Uri split (§4.1)
//  2. the sender sequence number is spent, nonce and AAD composed (§5.2, §5.4)
//  3. Code, Class E options and payload are encrypted (§5.3)
//  4. outer code POST, or FETCH with Observe (§4.2)
//
// All options of a signalling message (RFC 8323) travel inside (§4.3).
//
// Errors: ErrCode, ErrNested, ErrTooLong, ErrLeaseExhausted,
// ErrSequenceExhausted, and format errors of the body. A sequence number is
// spent, and p changed, only when all else is right.
func (c *Context) SealRequest(dst []byte, p *Pending, m Message) (Message, error) {
	if !isRequest(m.Code) && !isSignal(m.Code) {
		return Message{}, ErrCode
	}
	var s parts
	s.observe = -1
	if !plain(m.Body) || isSignal(m.Code) {
		if err := s.divide(m); err != nil {
			return Message{}, err
		}
		if s.proxyURI {
			var err error
			if m.Body, err = splitProxyURI(m.Body); err != nil {
				return Message{}, err
			}
		}
	}
	outer := byte(codePOST)
	if s.observe >= 0 {
		outer = codeFETCH
	}
	return c.sealRequest(dst, p, m, outer, &s)
}

// Overhead is how many bytes a protected body is longer than the body at most,
// the kid context (as [Context.SetKIDContext] gives it) not counted.
const Overhead = 64

// SealRequestAs protects a request whose options the caller has divided by a
// policy of its own: inner is encrypted as it is, outer gives the code and the
// options that travel outside (no OSCORE option, no payload). Hops that add or
// remove layers, and gateways that set a path prefix, divide differently from
// §4.1. Buffers and errors as in [Context.SealRequest].
func (c *Context) SealRequestAs(dst []byte, p *Pending, inner, outer Message) (Message, error) {
	if !isRequest(inner.Code) && !isSignal(inner.Code) || !isRequest(outer.Code) {
		return Message{}, ErrCode
	}
	var s parts
	s.observe = -1
	if err := s.divided(inner, outer.Body); err != nil {
		return Message{}, err
	}
	return c.sealRequest(dst, p, inner, outer.Code, &s)
}

func (c *Context) sealRequest(dst []byte, p *Pending, m Message, outer byte, s *parts) (Message, error) {
	k := c.keys
	if len(m.Body) >= int(k.maxPlain) {
		return Message{}, ErrTooLong
	}
	n, err := c.take()
	if err != nil {
		return Message{}, err
	}
	var buf [maxPIVLen]byte
	piv := buf[:putPIV(&buf, n)]
	k.sender.exchange(&p.exchange, int(k.nonceLen), piv)
	p.keys, p.piv, p.self = k, n, p
	p.observe, p.signal = s.observe == 0, isSignal(m.Code)
	p.done, p.nonceUsed, p.notified, p.notification = false, false, false, 0
	var opt Option // filled in field by field: a literal would be copied
	opt.PartialIV, opt.KIDContext, opt.KID = piv, c.kidContext, k.sender.kid()
	return k.protect(dst, p.nonceBytes(), p.aadBytes(), m, outer, s, &opt)
}

// Seal protects the one response that may use the request's own nonce
// (§8.3 step 3): no Partial IV travels. Exactly one call succeeds, whatever
// else is sealed for the request; after it comes ErrNonceSpent, and
// [Context.SealResponse] is the way. Buffers as in [Context.SealRequest].
//
// Errors: ErrInvalid, ErrUnproven, ErrNonceSpent, ErrCode, ErrNested,
// ErrTooLong, ErrNotification for an Observe option in the response to a
// request that did not register, and format errors of the body.
func (r *Request) Seal(dst []byte, m Message) (Message, error) {
	if !r.valid() {
		return Message{}, ErrInvalid
	}
	if !r.proven {
		return Message{}, ErrUnproven
	}
	return r.sealOnce(dst, r.keys, m, &Option{})
}

// SealUnder is [Request.Seal] under the keys of another context and with a kid
// context in the option: the server's first response of Appendix B.2, which is
// protected with the second security context. The nonce stays the request's,
// byte for byte. The request need not be proven: the second context's keys come
// from fresh randomness, so that no nonce was ever used under them. For the
// same reason the second context serves one SealUnder, ErrNonceSpent after it:
// R2 must not be used again.
func (r *Request) SealUnder(dst []byte, second *Context, kidContext []byte, m Message) (Message, error) {
	if !r.valid() || len(kidContext) > MaxKIDContext {
		return Message{}, ErrInvalid
	}
	if second.keys == r.keys || second.keys.alg != r.keys.alg {
		return Message{}, ErrContextChanged
	}
	return r.sealOnce(dst, second.keys, m, &Option{KIDContext: kidContext})
}

func (r *Request) sealOnce(dst []byte, k *keyset, m Message, opt *Option) (Message, error) {
	var s parts
	s.observe, s.response = -1, true
	if err := r.checkResponse(k, m, &s); err != nil {
		return Message{}, err
	}
	if !r.spent.CompareAndSwap(false, true) {
		return Message{}, ErrNonceSpent
	}
	if k != r.keys && !k.lent.CompareAndSwap(false, true) {
		return Message{}, ErrNonceSpent
	}
	return k.protect(dst, r.nonceBytes(), r.aadBytes(), m, responseCode(&s), &s, opt)
}

// SealResponse protects a response under a Partial IV of the server's own
// (§8.3 step 3): every notification after the first (§8.3.1), a second
// response, and any response of an endpoint that cannot rule out that another
// one answers too. Buffers as in [Context.SealRequest].
//
// Errors: ErrInvalid, ErrUnproven, ErrContextChanged when the context was
// derived anew since the request, and those of [Context.SealRequest] and
// [Request.Seal].
func (c *Context) SealResponse(dst []byte, r *Request, m Message) (Message, error) {
	if !r.valid() {
		return Message{}, ErrInvalid
	}
	if !r.proven {
		return Message{}, ErrUnproven
	}
	return c.sealNumbered(dst, r, m)
}

// SealChallenge answers a request that could not be proven fresh: 4.01
// (Unauthorized) with an Echo option and nothing else, under a Partial IV of
// the server's own (Appendix B.1.2, RFC 9175 §2.3). echo is 1 to 40 bytes. It
// spends a sequence number, so the caller limits challenges.
func (c *Context) SealChallenge(dst []byte, r *Request, echo []byte) (Message, error) {
	if !r.valid() || len(echo) < 1 || len(echo) > 40 {
		return Message{}, ErrInvalid
	}
	var buf [48]byte
	return c.sealNumbered(dst, r, Message{code401, coap.AppendOption(buf[:0], 0, coap.Echo, echo)})
}

func (c *Context) sealNumbered(dst []byte, r *Request, m Message) (Message, error) {
	k := c.keys
	if r.keys != k {
		return Message{}, ErrContextChanged
	}
	var s parts
	s.observe, s.response = -1, true
	if err := r.checkResponse(k, m, &s); err != nil {
		return Message{}, err
	}
	n, err := c.take()
	if err != nil {
		return Message{}, err
	}
	var buf [maxPIVLen]byte
	piv := buf[:putPIV(&buf, n)]
	c.nonce = k.sender.nonce
	xorPIV(&c.nonce, int(k.nonceLen), piv)
	var opt Option
	opt.PartialIV = piv
	return k.protect(dst, c.nonce[:k.nonceLen], r.aadBytes(), m, responseCode(&s), &s, &opt)
}

func (r *Request) checkResponse(k *keyset, m Message, s *parts) error {
	if !isResponse(m.Code) && !(r.signal && isSignal(m.Code)) {
		return ErrCode
	}
	if !plain(m.Body) || isSignal(m.Code) {
		if err := s.divide(m); err != nil {
			return err
		}
		if s.observe >= 0 && !r.observe {
			return ErrNotification // the client would have to drop it (§4.1.3.5.2)
		}
	}
	if len(m.Body) >= int(k.maxPlain) {
		return ErrTooLong
	}
	return nil
}

// responseCode returns the outer code of a response: 2.04, or 2.05 with
// Observe (§4.2).
func responseCode(s *parts) byte {
	if s.observe >= 0 {
		return codeContent
	}
	return codeChanged
}

// parts says how a message divides into inner and outer options. As it is
// made, nothing but option 9 travels outside.
type parts struct {
	response bool
	mixed    bool   // some option travels outside: the body must be divided
	alone    bool   // that option is Observe, and no other
	proxyURI bool   // a Proxy-Uri is among them, with a path or a query
	given    bool   // outer is the caller's own division
	outer    []byte // options that the caller set outside
	observe  int64  // value of the Observe option, -1 if absent
	at       int    // where in the body the Observe option stands
	length   int    // of its value
}

// divide walks a body and finds what travels outside by the class table.
func (s *parts) divide(m Message) error {
	seen := uint64(0)
	w := coap.Walk(m.Body)
	for at := 0; w.Next(); at = len(m.Body) - len(w.Rest()) {
		n := w.Number
		switch {
		case n == coap.OSCORE:
			return ErrNested
		case isSignal(m.Code):
			continue // numbers have a meaning of their own, and all go inside (§4.3)
		case n != coap.Observe && !isClassU(n):
			continue
		case seen>>n&1 != 0:
			return coap.ErrFormat // none of them may be repeated (RFC 7252 §5.4.5)
		}
		seen |= 1 << n
		s.mixed = true
		switch n {
		case coap.Observe:
			v, ok := coap.Uint(w.Value)
			if !ok || len(w.Value) > 3 {
				return coap.ErrFormat
			}
			s.observe, s.at, s.length = int64(v), at, len(w.Value)
		case coap.ProxyURI:
			origin, _, _, err := divideURI(string(w.Value))
			s.proxyURI = err != nil || origin != string(w.Value)
		}
	}
	s.alone = seen == 1<<coap.Observe
	return w.Err()
}

// divided checks an inner and an outer body that a caller divided.
func (s *parts) divided(inner Message, outer []byte) error {
	s.outer, s.given = outer, true
	w := coap.Walk(inner.Body)
	for w.Next() {
		if w.Number == coap.Observe && !isSignal(inner.Code) {
			v, ok := coap.Uint(w.Value)
			if !ok || len(w.Value) > 3 || s.observe >= 0 {
				return coap.ErrFormat
			}
			s.observe = int64(v)
		}
	}
	if w.Err() != nil {
		return w.Err()
	}
	o := coap.Walk(outer)
	for o.Next() {
		if o.Number == coap.OSCORE {
			return ErrNested
		}
	}
	if o.Err() == nil && o.Payload() != nil {
		return coap.ErrFormat
	}
	return o.Err()
}

// protect writes the OSCORE message: outer options with option 9 among them,
// the marker, and the ciphertext of code and inner body, encrypted where it
// stands.
func (k *keyset) protect(dst, nonce, aad []byte, m Message, outer byte, s *parts, opt *Option) (Message, error) {
	start := len(dst)
	dst = slices.Grow(dst, len(m.Body)+len(s.outer)+len(opt.KIDContext)+Overhead)
	switch {
	case s.given:
		dst = appendOuter(dst, s.outer, opt, ^uint64(0))
	case s.alone:
		// One byte of header: the number and the length are below 13.
		dst = append(dst, byte(coap.Observe)<<4|byte(s.length))
		dst = append(dst, m.Body[s.at+1:s.at+1+s.length]...)
		dst = appendOSCORE(dst, coap.Observe, opt)
	case s.mixed:
		dst = appendOuter(dst, m.Body, opt, classU|1<<coap.Observe)
	default:
		dst = appendOSCORE(dst, 0, opt)
	}
	plain := len(dst) + 1
	dst = append(dst, 0xff, m.Code)
	switch {
	case s.alone && s.response:
		// The inner Observe is empty (§4.1.3.5.2); all else stays as it is.
		dst = append(dst, m.Body[:s.at]...)
		dst = append(dst, m.Body[s.at]&0xf0)
		dst = append(dst, m.Body[s.at+1+s.length:]...)
	case s.mixed && !s.alone:
		dst = appendInner(dst, m.Body, s.response)
	default:
		dst = append(dst, m.Body...)
	}
	out, err := k.seal(dst[:plain], nonce, dst[plain:], aad)
	if err != nil {
		clear(dst[start:]) // the plaintext must not stay behind
		return Message{}, err
	}
	return Message{outer, out[start:]}, nil
}

// appendOSCORE appends option 9.
func appendOSCORE(dst []byte, previous uint16, opt *Option) []byte {
	dst = coap.AppendOptionHeader(dst, previous, coap.OSCORE, opt.size())
	return opt.append(dst)
}

// appendOuter appends those options of the body whose bit is set in keep, and
// all from 64 on if all are, with option 9 in its place (§4.1.2: deltas count
// among the outer options).
func appendOuter(dst, body []byte, opt *Option, keep uint64) []byte {
	var previous uint16
	placed := false
	w := coap.Walk(body)
	for w.Next() {
		if keep != ^uint64(0) && (w.Number >= 64 || keep>>w.Number&1 == 0) {
			continue
		}
		if !placed && w.Number > coap.OSCORE {
			dst, previous, placed = appendOSCORE(dst, previous, opt), coap.OSCORE, true
		}
		dst = coap.AppendOption(dst, previous, w.Number, w.Value)
		previous = w.Number
	}
	if !placed {
		dst = appendOSCORE(dst, previous, opt)
	}
	return dst
}

// appendInner appends the Class E options and the payload. In a response the
// inner Observe is empty (§4.1.3.5.2).
func appendInner(dst, body []byte, response bool) []byte {
	var previous uint16
	w := coap.Walk(body)
	for w.Next() {
		if isClassU(w.Number) {
			continue
		}
		value := w.Value
		if response && w.Number == coap.Observe {
			value = nil
		}
		dst = coap.AppendOption(dst, previous, w.Number, value)
		previous = w.Number
	}
	return append(dst, w.Rest()...)
}
