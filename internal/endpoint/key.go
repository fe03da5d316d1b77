package endpoint

import (
	"crypto/sha256"
	"slices"

	"github.com/oscorelay/oscorelay/internal/coap"
)

// cacheKey returns what an inner request and its further blocks have in common
// (RFC 7959 §2.10, RFC 9175 §1.1 "matchable"): the Cache-Key of RFC 7252 §5.6
// without Block1, Block2, Observe and the options given. Request-Tag is part of
// it (RFC 9175 §3.3), Echo is not. Options of Class U are not either: nothing
// protects them, and a proxy changes them under way (Hop-Limit by RFC 8768).
func cacheKey(code byte, opts coap.Options, without ...uint16) string {
	return string(appendKey([]byte{code}, opts, func(n uint16) bool {
		switch n {
		case coap.URIHost, coap.URIPort, coap.HopLimit, coap.EDHOC, coap.ProxyURI, coap.ProxyScheme:
			return true
		}
		return slices.Contains(without, n)
	}))
}

// outerKey is the same for a protected message: all of its options are what a
// hop put there, and OSCORE among them names the message.
func outerKey(code byte, opts coap.Options) string {
	return string(appendKey([]byte{code}, opts, func(uint16) bool { return false }))
}

func appendKey(key []byte, opts coap.Options, without func(uint16) bool) []byte {
	var previous uint16
	for _, o := range opts {
		switch {
		case o.Number == coap.Observe, o.Number == coap.Block1, o.Number == coap.Block2,
			coap.NoCacheKey(o.Number), without(o.Number):
			continue
		}
		key = coap.AppendOption(key, previous, o.Number, o.Value)
		previous = o.Number
	}
	return key
}

// payloadKey adds a FETCH's payload to a key (RFC 8132 §2: it is part of the
// Cache-Key). No option begins with 0xff, so the parts stay apart.
func payloadKey(key string, payload []byte) string {
	if coap.Code(key[0]) != coap.FETCH || len(payload) == 0 {
		return key
	}
	sum := sha256.Sum256(payload)
	return key + "\xff" + string(sum[:])
}

// unsafe reports whether the method may change a resource.
func unsafe(code byte) bool {
	c := coap.Code(code)
	return c != coap.GET && c != coap.FETCH
}
