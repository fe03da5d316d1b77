package mallory

import (
	"bytes"

	"github.com/oscorelay/oscorelay/internal/coap"
)

// Flip returns the datagram with one bit changed.
func Flip(data []byte, bit int) []byte {
	out := bytes.Clone(data)
	out[bit/8] ^= 1 << (bit % 8)
	return out
}

// Parse takes a datagram apart; ok is false if it is none.
func Parse(data []byte) (d coap.Datagram, opts coap.Options, payload []byte, ok bool) {
	d, err := coap.ParseDatagram(data)
	if err != nil {
		return d, nil, nil, false
	}
	opts, payload, err = coap.Split(d.Body)
	return d, opts, payload, err == nil
}

// Edit returns the datagram with what f makes of it; what is no datagram comes
// back as it is.
func Edit(data []byte, f func(d *coap.Datagram, opts *coap.Options, payload *[]byte)) []byte {
	d, opts, payload, ok := Parse(data)
	if !ok {
		return data
	}
	f(&d, &opts, &payload)
	d.Body = coap.AppendBody(nil, opts, payload)
	return d.Append(nil)
}

// Strip returns the datagram without an option.
func Strip(data []byte, option uint16) []byte {
	return Edit(data, func(_ *coap.Datagram, opts *coap.Options, _ *[]byte) { *opts = opts.Without(option) })
}

// Retoken returns the datagram as an answer to another request: with its
// message ID and token.
func Retoken(data, like []byte) []byte {
	to, _, _, ok := Parse(like)
	if !ok {
		return data
	}
	return Edit(data, func(d *coap.Datagram, _ *coap.Options, _ *[]byte) {
		d.MessageID, d.Token, d.Type = to.MessageID, to.Token, to.Type
	})
}

// Protected reports whether a datagram holds an OSCORE option.
func Protected(data []byte) bool {
	_, opts, _, ok := Parse(data)
	if !ok {
		return false
	}
	_, found := opts.Get(coap.OSCORE)
	return found
}

// Fresh gives a message another message ID, and a request another token, made of
// a random number, so that it is a new one to who receives it.
func Fresh(data []byte, random uint64) []byte { return freshen(data, random) }
