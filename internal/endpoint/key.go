package endpoint

import (
	"crypto/sha256"
	"slices"

	"github.com/oscorelay/oscorelay/internal/coap"
	"github.com/oscorelay/oscorelay/oscore"
)

// cacheKey returns the request's Cache-Key (RFC 7252 §5.6) without what a
// block-wise transfer or a registration varies: Block1, Block2, Observe (RFC
// 7959 §2.10, RFC 7641 §2), and the options given. Request-Tag is part of it
// (RFC 9175 §3.3), Echo is not.
func cacheKey(code byte, opts coap.Options, without ...uint16) string {
	key := []byte{code}
	var previous uint16
	for _, o := range opts {
		switch {
		case o.Number == coap.Observe, o.Number == coap.Block1, o.Number == coap.Block2,
			coap.NoCacheKey(o.Number), slices.Contains(without, o.Number):
			continue
		}
		key = coap.AppendOption(key, previous, o.Number, o.Value)
		previous = o.Number
	}
	return string(key)
}

// payloadKey adds a FETCH's payload to a key (RFC 8132 §2: it is part of the
// Cache-Key).
func payloadKey(key string, payload []byte) string {
	if coap.Code(key[0]) != coap.FETCH || len(payload) == 0 {
		return key
	}
	sum := sha256.Sum256(payload)
	return key + "\xff" + string(sum[:])
}

// request is an inner request taken apart.
type request struct {
	code    byte
	opts    coap.Options
	payload []byte
}

func parse(m oscore.Message) (request, error) {
	opts, payload, err := coap.Split(m.Body)
	return request{m.Code, opts, payload}, err
}

func (r request) message(payload []byte) oscore.Message {
	return oscore.Message{Code: r.code, Body: coap.AppendBody(nil, r.opts, payload)}
}

// block returns the Block option of that number: ok is false if it is absent.
func (r request) block(number uint16) (b coap.Block, ok bool, err error) {
	value, ok := r.opts.Get(number)
	if !ok {
		return b, false, nil
	}
	b, err = coap.ParseBlock(value)
	return b, true, err
}

func (r request) path() string {
	s := ""
	for _, o := range r.opts {
		if o.Number == coap.URIPath {
			s += "/" + string(o.Value)
		}
	}
	if s == "" {
		return "/"
	}
	return s
}

// unsafe reports whether the method may change a resource.
func unsafe(code byte) bool {
	c := coap.Code(code)
	return c != coap.GET && c != coap.FETCH
}
