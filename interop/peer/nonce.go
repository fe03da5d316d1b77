package peer

import (
	"bytes"
	"fmt"
)

// Ends is a security context as the wire shows it: the Sender IDs of the ends
// at the relay's client and server side, and the kid context that its requests
// carry, nil for none.
type Ends struct{ Client, Server, KIDContext []byte }

// NonceUse counts what [Capture.NonceUse] looked at.
type NonceUse struct {
	Sealed    int // messages with option 9
	Nonces    int // different nonces among them
	Repeats   int // the same bytes once more: retransmissions
	Unmatched int // responses to a request that the capture does not hold
}

// nonce is what RFC 8613 section 5.2 makes a nonce of, together with the key
// it is used under: a key belongs to a context and a direction, the nonce is
// the Partial IV and the ID of the end that drew it. A response without a
// Partial IV takes its request's.
type nonce struct {
	context   int
	toServer  bool
	drawnBy   bool // by the client's side
	partialIV uint64
}

// NonceUse returns an error for each message that was sealed under a nonce
// that other bytes were sealed under before, whatever restarts lie between,
// and for each that belongs to none of the contexts.
//
// It holds for both roles of both ends: a number that an end drew for a
// request and again for a response, and two different answers to one request
// under its nonce, are found too.
func (c Capture) NonceUse(contexts ...Ends) (use NonceUse, errs []error) {
	type exchange struct {
		client   string
		toServer bool
		token    string
	}
	requests := map[exchange]nonce{}
	sealed := map[nonce][]byte{}
	for i, d := range c {
		m, err := ParseMessage(d.Bytes)
		if err != nil {
			errs = append(errs, fmt.Errorf("datagram %d: %w", i, err))
			continue
		}
		value, ok := m.Option(OptOSCORE)
		if !ok {
			continue
		}
		use.Sealed++
		o, err := ParseOSCOREOption(value)
		if err != nil {
			errs = append(errs, fmt.Errorf("datagram %d: %w", i, err))
			continue
		}
		var n nonce
		if m.IsRequest() {
			n = nonce{contextOf(contexts, d.ToServer, o), d.ToServer, d.ToServer, number(o.PartialIV)}
			if n.context < 0 || o.PartialIV == nil {
				errs = append(errs, fmt.Errorf("datagram %d: a request of no known context: %s", i, m))
				continue
			}
			requests[exchange{d.Client.String(), d.ToServer, string(m.Token)}] = n
		} else {
			request, found := requests[exchange{d.Client.String(), !d.ToServer, string(m.Token)}]
			if !found {
				use.Unmatched++
				continue
			}
			n = nonce{request.context, d.ToServer, request.drawnBy, request.partialIV}
			if o.PartialIV != nil {
				n.drawnBy, n.partialIV = d.ToServer, number(o.PartialIV)
			}
		}
		before, used := sealed[n]
		switch {
		case !used:
			sealed[n] = m.Payload
		case bytes.Equal(before, m.Payload):
			use.Repeats++
		default:
			errs = append(errs, fmt.Errorf("datagram %d seals other bytes under a used nonce: context %d, sent to the server: %v, Partial IV %d drawn by the client: %v: %s",
				i, n.context, n.toServer, n.partialIV, n.drawnBy, m))
		}
	}
	use.Nonces = len(sealed)
	return use, errs
}

// contextOf finds a request's context by its kid and kid context, -1 if there
// is none.
func contextOf(contexts []Ends, toServer bool, o OSCOREOption) int {
	for i, e := range contexts {
		kid := e.Server
		if toServer {
			kid = e.Client
		}
		if o.KID != nil && bytes.Equal(kid, o.KID) && bytes.Equal(e.KIDContext, o.KIDContext) {
			return i
		}
	}
	return -1
}

func number(partialIV []byte) (n uint64) {
	for _, b := range partialIV {
		n = n<<8 | uint64(b)
	}
	return n
}

// diagnostics are the texts of the errors of RFC 8613 section 8.2, by code.
var diagnostics = map[byte][]string{
	0x80: {"Decryption failed"},
	0x81: {"Security context not found", "Replay detected"},
	0x82: {"Failed to decode COSE"},
}

// IsOSCOREError reports whether a message without option 9 is one of the errors
// that RFC 8613 section 8.2 sends in plain: its code, its text or none, and
// beside Max-Age no option.
func (m Message) IsOSCOREError() bool {
	texts, ok := diagnostics[m.Code]
	for _, o := range m.Options {
		ok = ok && o.Number == OptMaxAge
	}
	known := len(m.Payload) == 0
	for _, s := range texts {
		known = known || string(m.Payload) == s
	}
	return ok && known
}
