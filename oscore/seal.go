package oscore

import (
	"slices"

	"github.com/oscorelay/oscorelay/internal/coap"
)

// SealRequest protects a request (§8.1) and makes p ready to open its
// responses. The protected message is appended to dst: Body begins where dst
// ends, in the same array if its capacity suffices; dst must not overlap m.
// With 64 bytes more capacity than m.Body is long it does not allocate.
//
//  1. which option travels where: Class E inside, Class U outside, Observe in
//     both, Proxy-Uri split (§4.1)
//  2. the sender sequence number is spent, nonce and AAD composed (§5.2, §5.4)
//  3. Code, Class E options and payload are encrypted (§5.3)
//  4. outer code POST, or FETCH with Observe (§4.2)
//
// Errors: ErrCode, ErrNested, ErrTooLong, ErrLeaseExhausted,
// ErrSequenceExhausted, and format errors of the body. A sequence number is
// spent only when all else is right.
func (c *Context) SealRequest(dst []byte, p *Pending, m Message) (Message, error) {
	if !isRequest(m.Code) && !isSignal(m.Code) {
		return Message{}, ErrCode
	}
	s, err := split(m.Body)
	if err != nil {
		return Message{}, err
	}
	if s.proxyURI {
		if m.Body, err = splitProxyURI(m.Body); err != nil {
			return Message{}, err
		}
		if s, err = split(m.Body); err != nil {
			return Message{}, err
		}
	}
	outer := Message{Code: codePOST}
	if s.observe >= 0 && isRequest(m.Code) {
		outer.Code = codeFETCH
	}
	return c.sealRequest(dst, p, m, outer, s)
}

// SealRequestAs protects a request whose options the caller has divided by a
// policy of its own: inner is encrypted as it is, outer gives the code and the
// options that travel outside (no OSCORE option, no payload). Hops that add or
// remove layers, and gateways that set a path prefix, divide differently from
// §4.1. Buffers and errors as in [Context.SealRequest].
func (c *Context) SealRequestAs(dst []byte, p *Pending, inner, outer Message) (Message, error) {
	if !isRequest(inner.Code) && !isSignal(inner.Code) || !isRequest(outer.Code) {
		return Message{}, ErrCode
	}
	s, err := splitAs(inner.Body, outer.Body)
	if err != nil {
		return Message{}, err
	}
	return c.sealRequest(dst, p, inner, outer, s)
}

func (c *Context) sealRequest(dst []byte, p *Pending, m, outer Message, s parts) (Message, error) {
	k := c.keys
	if s.innerMax > k.maxPlain-1 {
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

	kid := k.senderID
	if kid == nil {
		kid = []byte{}
	}
	opt := Option{PartialIV: piv, KIDContext: k.kidContext, KID: kid}
	return k.protect(dst, &p.exchange, p.nonceBytes(), m, outer, s, opt, false)
}

// Seal protects the one response that may use the request's own nonce
// (§8.3 step 3): no Partial IV travels. Exactly one call succeeds, whatever
// else is sealed for the request; after it comes ErrNonceSpent, and
// [Context.SealResponse] is the way. Buffers as in [Context.SealRequest].
//
// Errors: ErrInvalid, ErrUnproven, ErrNonceSpent, ErrCode, ErrNested,
// ErrTooLong, and format errors of the body.
func (r *Request) Seal(dst []byte, m Message) (Message, error) {
	if !r.valid() {
		return Message{}, ErrInvalid
	}
	if !r.proven {
		return Message{}, ErrUnproven
	}
	return r.sealOnce(dst, r.keys, m, Option{})
}

// SealUnder is [Request.Seal] under the keys of another context and with a kid
// context in the option: the server's first response of Appendix B.2, which is
// protected with the second security context. The nonce stays the request's.
// The request need not be proven: the second context's keys come from fresh
// randomness, so that no nonce was ever used under them.
func (r *Request) SealUnder(dst []byte, second *Context, kidContext []byte, m Message) (Message, error) {
	if !r.valid() {
		return Message{}, ErrInvalid
	}
	if second.keys == r.keys || second.keys.alg != r.keys.alg {
		return Message{}, ErrContextChanged
	}
	return r.sealOnce(dst, second.keys, m, Option{KIDContext: kidContext})
}

func (r *Request) sealOnce(dst []byte, k *keyset, m Message, opt Option) (Message, error) {
	s, err := r.checkResponse(k, m)
	if err != nil {
		return Message{}, err
	}
	if !r.spent.CompareAndSwap(false, true) {
		return Message{}, ErrNonceSpent
	}
	return k.protect(dst, &r.exchange, r.nonceBytes(), m, responseOuter(s), s, opt, true)
}

// SealResponse protects a response under a Partial IV of the server's own
// (§8.3 step 3): every notification after the first (§8.3.1), a second
// response, and any response of an endpoint that cannot rule out that another
// one answers too. Buffers as in [Context.SealRequest].
//
// Errors: ErrInvalid, ErrUnproven, ErrContextChanged when the context was
// derived anew since the request, and those of [Context.SealRequest].
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
	s, err := r.checkResponse(k, m)
	if err != nil {
		return Message{}, err
	}
	n, err := c.take()
	if err != nil {
		return Message{}, err
	}
	var buf [maxPIVLen]byte
	piv := buf[:putPIV(&buf, n)]
	nonce := k.sender.nonce
	xorPIV(&nonce, int(k.nonceLen), piv)
	return k.protect(dst, &r.exchange, nonce[:k.nonceLen], m, responseOuter(s), s, Option{PartialIV: piv}, true)
}

func (r *Request) checkResponse(k *keyset, m Message) (parts, error) {
	if !isResponse(m.Code) && !(r.signal && isSignal(m.Code)) {
		return parts{}, ErrCode
	}
	s, err := split(m.Body)
	if err == nil && s.innerMax > k.maxPlain-1 {
		err = ErrTooLong
	}
	return s, err
}

// responseOuter returns the outer code of a response: 2.04, or 2.05 with
// Observe (§4.2).
func responseOuter(s parts) Message {
	if s.observe >= 0 {
		return Message{Code: codeContent}
	}
	return Message{Code: codeChanged}
}

// parts says how a body divides into inner and outer options.
type parts struct {
	observe  int64  // value of the Observe option, -1 if absent
	mixed    bool   // some option travels outside: the body must be divided
	proxyURI bool   // a Proxy-Uri is among them, still whole
	innerMax int    // upper bound of the inner body's length
	outer    []byte // options that the caller set outside; nil for the class table
}

// split walks a body and finds what travels outside by the class table.
func split(body []byte) (parts, error) {
	s := parts{observe: -1, innerMax: len(body)}
	w := coap.Walk(body)
	for w.Next() {
		switch {
		case w.Number == coap.Observe:
			v, ok := coap.Uint(w.Value)
			if !ok || len(w.Value) > 3 {
				return s, coap.ErrFormat
			}
			s.observe, s.mixed = int64(v), true
		case w.Number == coap.OSCORE:
			return s, ErrNested
		case classU(w.Number):
			s.mixed = true
			if w.Number == coap.ProxyURI {
				s.proxyURI = needsSplit(w.Value)
			}
		}
	}
	if s.mixed {
		s.innerMax += 8 // deltas may grow where options are taken out
	}
	return s, w.Err()
}

// splitAs checks an inner and an outer body that a caller divided.
func splitAs(inner, outer []byte) (parts, error) {
	s := parts{observe: -1, innerMax: len(inner), outer: outer}
	if s.outer == nil {
		s.outer = []byte{}
	}
	w := coap.Walk(inner)
	for w.Next() {
		if w.Number == coap.Observe {
			v, _ := coap.Uint(w.Value)
			s.observe = int64(v)
		}
	}
	if w.Err() != nil {
		return s, w.Err()
	}
	o := coap.Walk(outer)
	for o.Next() {
		if o.Number == coap.OSCORE {
			return s, ErrNested
		}
	}
	if o.Err() == nil && o.Payload() != nil {
		return s, coap.ErrFormat
	}
	return s, o.Err()
}

// protect writes the OSCORE message: outer options with option 9 among them,
// the marker, and the ciphertext of code and inner body, encrypted where it
// stands.
func (k *keyset) protect(dst []byte, x *exchange, nonce []byte, m, outer Message, s parts, opt Option, response bool) (Message, error) {
	start := len(dst)
	dst = slices.Grow(dst, len(m.Body)+len(s.outer)+opt.Size()+int(k.tagLen)+24)
	switch {
	case s.outer != nil:
		dst = appendOuter(dst, s.outer, opt, func(uint16) bool { return true })
	case s.mixed:
		dst = appendOuter(dst, m.Body, opt, func(n uint16) bool { return n == coap.Observe || classU(n) })
	default:
		dst = appendOSCORE(dst, 0, opt)
	}
	dst = append(dst, 0xff)
	plain := len(dst)
	dst = append(dst, m.Code)
	if s.mixed && s.outer == nil {
		dst = appendInner(dst, m.Body, response)
	} else {
		dst = append(dst, m.Body...)
	}
	out, err := k.seal(dst[:plain], nonce, dst[plain:], x.aadBytes())
	if err != nil {
		clear(dst[start:]) // the plaintext must not stay behind
		return Message{}, err
	}
	return Message{outer.Code, out[start:]}, nil
}

// appendOSCORE appends option 9.
func appendOSCORE(dst []byte, previous uint16, opt Option) []byte {
	dst = coap.AppendOptionHeader(dst, previous, coap.OSCORE, opt.Size())
	return opt.Append(dst)
}

// appendOuter appends those options of the body that keep says, with option 9
// in its place (§4.1.2: deltas count among the outer options).
func appendOuter(dst, body []byte, opt Option, keep func(uint16) bool) []byte {
	var previous uint16
	placed := false
	w := coap.Walk(body)
	for w.Next() {
		if !keep(w.Number) {
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
		if classU(w.Number) {
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
