package oscore

import "github.com/oscorelay/oscorelay/internal/coap"

// classU reports whether an option travels outside, unprotected and readable
// by proxies (§4.1, Figure 5; Hop-Limit by RFC 8768 §3; EDHOC by RFC 9668
// §3.1). Everything else, options this package does not know included, is
// Class E and travels inside.
//
// Options that the RFC lists in both classes (Block1, Block2, Size1, Size2,
// Max-Age, No-Response, Echo, Request-Tag, Q-Block) go inside when an endpoint
// seals a message; outside they belong to a hop. Observe goes to both.
func classU(number uint16) bool {
	switch number {
	case coap.URIHost, coap.URIPort, coap.OSCORE, coap.HopLimit, coap.EDHOC, coap.ProxyURI, coap.ProxyScheme:
		return true
	}
	return false
}
