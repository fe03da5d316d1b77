package oscoretest

import (
	"time"

	"github.com/oscorelay/oscorelay/internal/coap"
)

// Script decides what the relay passes on in place of a message: nothing, the
// same, something else, several. The packet is the script's own to change.
type Script func(Packet) []Packet

// Pass passes a message on.
func Pass(p Packet) []Packet { return []Packet{p} }

// Drop loses a message. It stays in the capture, and [Relay.Deliver] can bring
// it later.
func Drop(Packet) []Packet { return nil }

// Duplicate delivers a message twice.
func Duplicate(p Packet) []Packet { return []Packet{p, p.clone()} }

// Delay delivers a message when the pair's clock was advanced by d.
func Delay(d time.Duration) Script {
	return func(p Packet) []Packet {
		p.wait = d
		return []Packet{p}
	}
}

// Flip changes one bit: 0 to 7 are the outer code's, the others the body's. A
// message that has no such bit passes.
func Flip(bit int) Script {
	return func(p Packet) []Packet {
		switch {
		case bit < 0 || bit >= p.Bits():
		case bit < 8:
			p.Message.Code ^= 1 << bit
		default:
			p.Message.Body[bit/8-1] ^= 1 << (bit % 8)
		}
		return []Packet{p}
	}
}

// Reverse keeps n messages back and delivers them the last first, and so on.
func Reverse(n int) Script {
	var kept []Packet
	return func(p Packet) []Packet {
		kept = append([]Packet{p}, kept...)
		if len(kept) < n {
			return nil
		}
		out := kept
		kept = nil
		return out
	}
}

// Swap gives each of two responses in turn the other's token: each comes as
// the answer to the other's request. Requests pass.
func Swap() Script {
	var kept *Packet
	return func(p Packet) []Packet {
		if !p.IsResponse() {
			return []Packet{p}
		}
		if kept == nil {
			kept = &p
			return nil
		}
		first := *kept
		kept = nil
		first.Token, p.Token = p.Token, first.Token
		return []Packet{first, p}
	}
}

// SetOption sets an outer option, in place of all of that number.
func SetOption(number uint16, value []byte) Script {
	return edit(func(o coap.Options) coap.Options { return o.Without(number).Add(number, value) })
}

// Strip removes an outer option: Strip(9) makes a protected message one that
// nothing protects.
func Strip(number uint16) Script {
	return edit(func(o coap.Options) coap.Options { return o.Without(number) })
}

func edit(f func(coap.Options) coap.Options) Script {
	return func(p Packet) []Packet {
		if opts, payload, err := coap.Split(p.Message.Body); err == nil {
			p.Message.Body = coap.AppendBody(nil, f(opts), payload)
		}
		return []Packet{p}
	}
}

// Once does it to the first message and passes the others.
func Once(s Script) Script {
	done := false
	return Only(func(Packet) bool {
		first := !done
		done = true
		return first
	}, s)
}

// Only does it to the messages that match and passes the others.
func Only(match func(Packet) bool, s Script) Script {
	return func(p Packet) []Packet {
		if match(p) {
			return s(p)
		}
		return []Packet{p}
	}
}
