package soak

import (
	"encoding/binary"
	"errors"
)

// Types of a message (RFC 7252 §3).
const (
	confirmable    = 0
	nonConfirmable = 1
)

// Numbers of the options that are looked at.
const (
	optObserve = 6
	optOSCORE  = 9
	optURIPath = 11
	optMaxAge  = 14
	optEcho    = 252
)

// datagram is a CoAP message taken apart (RFC 7252 §3).
type datagram struct {
	typ   byte
	code  byte
	mid   uint16
	token []byte
	body
}

// body is the options and the payload, of a datagram or inside.
type body struct {
	options []option
	payload []byte
}

type option struct {
	number int
	value  []byte
}

var (
	errFormat = errors.New("not a CoAP message")
	errOption = errors.New("option 9 is malformed")
)

func parseDatagram(b []byte) (d datagram, err error) {
	if len(b) < 4 || b[0]>>6 != 1 || b[0]&15 > 8 || len(b) < 4+int(b[0]&15) {
		return d, errFormat
	}
	end := 4 + int(b[0]&15)
	d = datagram{typ: b[0] >> 4 & 3, code: b[1], mid: binary.BigEndian.Uint16(b[2:]), token: b[4:end]}
	d.body, err = parseBody(b[end:])
	return d, err
}

func parseBody(b []byte) (out body, err error) {
	number := 0
	for len(b) > 0 {
		if b[0] == 0xff {
			if len(b) == 1 {
				return out, errFormat
			}
			out.payload = b[1:]
			return out, nil
		}
		n, m := int(b[0]>>4), int(b[0]&15)
		b = b[1:]
		var ok1, ok2 bool
		n, b, ok1 = extended(n, b)
		m, b, ok2 = extended(m, b)
		if !ok1 || !ok2 || m > len(b) || number+n > 0xffff {
			return out, errFormat
		}
		number += n
		out.options = append(out.options, option{number, b[:m]})
		b = b[m:]
	}
	return out, nil
}

func extended(n int, b []byte) (int, []byte, bool) {
	switch {
	case n < 13:
		return n, b, true
	case n == 13 && len(b) >= 1:
		return 13 + int(b[0]), b[1:], true
	case n == 14 && len(b) >= 2:
		return 269 + int(binary.BigEndian.Uint16(b)), b[2:], true
	}
	return 0, b, false
}

func (b *body) find(number int) (value []byte, has bool) {
	for _, o := range b.options {
		if o.number == number {
			return o.value, true
		}
	}
	return nil, false
}

func (b *body) path() (path string) {
	for _, o := range b.options {
		if o.number == optURIPath {
			path += "/" + string(o.value)
		}
	}
	return path
}

// header is the value of option 9 (RFC 8613 §6.1).
type header struct {
	partialIV, kidContext, kid []byte
	hasKID                     bool
}

func parseHeader(b []byte) (h header, err error) {
	if len(b) == 0 {
		return h, nil
	}
	flags, n := b[0], int(b[0]&7)
	b = b[1:]
	if flags&0xe0 != 0 || n > 5 || n > len(b) {
		return h, errOption
	}
	h.partialIV, b = b[:n], b[n:]
	if flags&0x10 != 0 {
		if len(b) < 1 || int(b[0]) > len(b)-1 {
			return h, errOption
		}
		h.kidContext, b = b[1:1+int(b[0])], b[1+int(b[0]):]
	}
	if h.hasKID = flags&8 != 0; h.hasKID {
		h.kid, b = b, nil
	}
	if len(b) > 0 {
		return h, errOption
	}
	return h, nil
}

func number(partialIV []byte) (n uint64) {
	for _, b := range partialIV {
		n = n<<8 | uint64(b)
	}
	return n
}
