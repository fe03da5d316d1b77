package oscore

import "github.com/oscorelay/oscorelay/internal/coap"

// classU holds the options that travel outside, unprotected and readable by
// proxies (§4.1, Figure 5; Hop-Limit by draft-ietf-core-oscore-capable-proxies
// §5; EDHOC by RFC 9668 §3.1), one bit a number: none is above 63. Everything
// else, options this package does not know included, is Class E and travels
// inside.
//
// Options that the RFC lists in both classes (Block1, Block2, Size1, Size2,
// Max-Age, No-Response, Echo, Request-Tag, Q-Block) go inside when an endpoint
// seals a message; outside they belong to a hop. Observe goes to both.
const classU uint64 = 1<<coap.URIHost | 1<<coap.URIPort | 1<<coap.OSCORE | 1<<coap.HopLimit |
	1<<coap.EDHOC | 1<<coap.ProxyURI | 1<<coap.ProxyScheme

// isClassU reports whether an option travels outside.
func isClassU(number uint16) bool { return number < 64 && classU>>number&1 != 0 }

// plain reports whether a body is well-formed and holds none but Class E
// options without Observe, so that it can be sealed or handed on as it stands.
// It is the short way for most messages: false only means that the body must
// be walked.
func plain(body []byte) bool {
	const careful = classU | 1<<coap.Observe
	number := uint(0)
	for i := 0; i < len(body); {
		b := body[i]
		if b == 0xff {
			return i+1 < len(body)
		}
		delta, length := uint(b>>4), int(b&15)
		i++
		if delta >= 13 {
			if delta != 13 || i >= len(body) {
				return false
			}
			delta += uint(body[i])
			i++
		}
		if length >= 13 {
			if length != 13 || i >= len(body) {
				return false
			}
			length += int(body[i])
			i++
		}
		number += delta
		if number < 64 && careful>>number&1 != 0 {
			return false
		}
		if i += length; i > len(body) || number > 0xffff {
			return false
		}
	}
	return true
}
