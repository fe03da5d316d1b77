package endpoint

import (
	"github.com/oscorelay/oscorelay/internal/coap"
	"github.com/oscorelay/oscorelay/oscore"
)

// request is an inner message taken apart; only messages that hold an option
// of this package's concern, or that are cut into blocks, are.
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
	n := len(payload) + 1
	for _, o := range r.opts {
		n += len(o.Value) + 5
	}
	return oscore.Message{Code: r.code, Body: coap.AppendBody(make([]byte, 0, n), r.opts, payload)}
}

// marks is what this package reads of an inner message, found in one walk.
type marks struct {
	has            uint8
	noResponse     uint8
	observe        uint32
	block1, block2 coap.Block
	echo           []byte
	options        int // bytes of the options
	payload        int // bytes of the payload
}

const (
	hasObserve = 1 << iota
	hasBlock1
	hasBlock2
	hasEcho
	hasTag
	hasNoResponse
	// stripped are the options that are taken out before the application
	// sees a request.
	stripped = hasBlock1 | hasBlock2 | hasEcho | hasTag
)

// scan walks a body. code is 0, or the response code that tells what is wrong
// with it: 4.00 for a Block option with the reserved size (RFC 7959 §2.2) and
// for broken framing, 4.02 for one that appears twice (RFC 7252 §5.4.5).
func scan(body []byte) (k marks, code coap.Code) {
	w := coap.Walk(body)
	for w.Next() {
		switch w.Number {
		case coap.Observe:
			k.has |= hasObserve
			k.observe, _ = coap.Uint(w.Value)
		case coap.Block1:
			code = max(code, k.scanBlock(&k.block1, hasBlock1, w.Value))
		case coap.Block2:
			code = max(code, k.scanBlock(&k.block2, hasBlock2, w.Value))
		case coap.Echo:
			if n := len(w.Value); n >= 1 && n <= 40 { // else it is no Echo (RFC 7252 §5.4.3)
				k.echo = w.Value
			}
			k.has |= hasEcho
		case coap.RequestTag:
			k.has |= hasTag
		case coap.NoResponse:
			if v, ok := coap.Uint(w.Value); ok && len(w.Value) <= 1 {
				k.noResponse = uint8(v)
				k.has |= hasNoResponse
			}
		}
	}
	if w.Err() != nil {
		return k, coap.BadRequest
	}
	k.payload = len(w.Payload())
	k.options = len(body) - k.payload
	if k.payload > 0 {
		k.options--
	}
	return k, code
}

func (k *marks) scanBlock(b *coap.Block, bit uint8, value []byte) coap.Code {
	if k.has&bit != 0 {
		return coap.BadOption
	}
	k.has |= bit
	var err error
	if *b, err = coap.ParseBlock(value); err != nil {
		return coap.BadRequest
	}
	return 0
}

// strip takes the options of that number out of a body that scan has walked. It
// writes over the body, and never ahead of what it reads: the header that joins
// two deltas is not longer than the two were.
func strip(body []byte, number uint16) []byte {
	out, previous := body[:0], uint16(0)
	w := coap.Walk(body)
	for w.Next() {
		if w.Number != number {
			out = coap.AppendOption(out, previous, w.Number, w.Value)
			previous = w.Number
		}
	}
	return append(out, w.Rest()...)
}

// insert appends to dst a body that scan has walked, with one option more.
func insert(dst, body []byte, number uint16, value []byte) []byte {
	previous, done := uint16(0), false
	w := coap.Walk(body)
	for w.Next() {
		if !done && w.Number > number {
			dst = coap.AppendOption(dst, previous, number, value)
			previous, done = number, true
		}
		dst = coap.AppendOption(dst, previous, w.Number, w.Value)
		previous = w.Number
	}
	if !done {
		dst = coap.AppendOption(dst, previous, number, value)
	}
	return append(dst, w.Rest()...)
}
