package coap

import (
	"encoding/binary"
	"errors"
	"strconv"
)

// Option numbers of the IANA registry that this project names.
const (
	IfMatch       uint16 = 1
	URIHost       uint16 = 3
	ETag          uint16 = 4
	IfNoneMatch   uint16 = 5
	Observe       uint16 = 6
	URIPort       uint16 = 7
	LocationPath  uint16 = 8
	OSCORE        uint16 = 9
	URIPath       uint16 = 11
	ContentFormat uint16 = 12
	MaxAge        uint16 = 14
	URIQuery      uint16 = 15
	HopLimit      uint16 = 16
	Accept        uint16 = 17
	QBlock1       uint16 = 19
	LocationQuery uint16 = 20
	EDHOC         uint16 = 21
	Block2        uint16 = 23
	Block1        uint16 = 27
	Size2         uint16 = 28
	QBlock2       uint16 = 31
	ProxyURI      uint16 = 35
	ProxyScheme   uint16 = 39
	Size1         uint16 = 60
	Echo          uint16 = 252
	NoResponse    uint16 = 258
	RequestTag    uint16 = 292
)

// Definition is what a registry entry says of an option: its value's length in
// bytes, and whether it may appear more than once.
type Definition struct {
	Name       string
	Min, Max   int
	Repeatable bool
}

var definitions = map[uint16]Definition{
	IfMatch:       {"If-Match", 0, 8, true},
	URIHost:       {"Uri-Host", 1, 255, false},
	ETag:          {"ETag", 1, 8, true},
	IfNoneMatch:   {"If-None-Match", 0, 0, false},
	Observe:       {"Observe", 0, 3, false},
	URIPort:       {"Uri-Port", 0, 2, false},
	LocationPath:  {"Location-Path", 0, 255, true},
	OSCORE:        {"OSCORE", 0, 255, false},
	URIPath:       {"Uri-Path", 0, 255, true},
	ContentFormat: {"Content-Format", 0, 2, false},
	MaxAge:        {"Max-Age", 0, 4, false},
	URIQuery:      {"Uri-Query", 0, 255, true},
	HopLimit:      {"Hop-Limit", 1, 1, false},
	Accept:        {"Accept", 0, 2, false},
	QBlock1:       {"Q-Block1", 0, 3, false},
	LocationQuery: {"Location-Query", 0, 255, true},
	EDHOC:         {"EDHOC", 0, 0, false},
	Block2:        {"Block2", 0, 3, false},
	Block1:        {"Block1", 0, 3, false},
	Size2:         {"Size2", 0, 4, false},
	QBlock2:       {"Q-Block2", 0, 3, true},
	ProxyURI:      {"Proxy-Uri", 1, 1034, false},
	ProxyScheme:   {"Proxy-Scheme", 1, 255, false},
	Size1:         {"Size1", 0, 4, false},
	Echo:          {"Echo", 1, 40, false},
	NoResponse:    {"No-Response", 0, 1, false},
	RequestTag:    {"Request-Tag", 0, 8, true},
}

// Define returns the registry's entry for an option number; ok is false for a
// number this package does not know.
func Define(number uint16) (d Definition, ok bool) {
	d, ok = definitions[number]
	return d, ok
}

// OptionName returns the option's registered name, or its number in decimal.
func OptionName(number uint16) string {
	if d, ok := definitions[number]; ok {
		return d.Name
	}
	return strconv.Itoa(int(number))
}

// Critical reports whether an endpoint that does not know the option must
// refuse the message (RFC 7252 §5.4.6: odd numbers).
func Critical(number uint16) bool { return number&1 != 0 }

// Unsafe reports whether a proxy that does not know the option must not
// forward the message (RFC 7252 §5.4.6).
func Unsafe(number uint16) bool { return number&2 != 0 }

// NoCacheKey reports whether the option is no part of the Cache-Key
// (RFC 7252 §5.4.6).
func NoCacheKey(number uint16) bool { return number&0x1e == 0x1c }

// ErrFormat is a message format error in the sense of RFC 7252 §3. Errors of
// this package that come from bytes of a peer wrap it.
var ErrFormat = errors.New("coap: message format error")

// formatError is an ErrFormat with its reason; the reasons are constants, so
// that refusing a message does not allocate.
type formatError string

func (e formatError) Error() string { return "coap: " + string(e) }
func (e formatError) Unwrap() error { return ErrFormat }

// The ways in which a message can break RFC 7252 §3, RFC 8974 §2.1 or
// RFC 8323 §3.2.
const (
	errVersion       = formatError("version is not 1")
	errShort         = formatError("message is cut short")
	errTokenLength   = formatError("token length 15 is reserved")
	errEmpty         = formatError("empty message with token or body")
	errReservedDelta = formatError("option delta 15 is reserved")
	errReservedLen   = formatError("option length 15 is reserved")
	errOptionShort   = formatError("option is cut short")
	errOptionNumber  = formatError("option number above 65535")
	errMarker        = formatError("payload marker without payload")
)

// Walker walks a body's options in place, in their order:
//
//	w := coap.Walk(body)
//	for w.Next() {
//		… w.Number, w.Value …
//	}
//	if err := w.Err(); err != nil { … }
//	payload := w.Payload()
type Walker struct {
	Number uint16 // of the current option
	Value  []byte // of the current option; aliases the body
	rest   []byte
	err    error
}

// Walk starts a walk over a body: options, then 0xff and a payload if any.
func Walk(body []byte) Walker { return Walker{rest: body} }

// Next moves to the next option. It returns false at the payload marker, at
// the end and on a format error; Err tells which.
func (w *Walker) Next() bool {
	b := w.rest
	if len(b) == 0 || b[0] == 0xff || w.err != nil {
		if len(b) == 1 && b[0] == 0xff {
			w.err = errMarker
		}
		return false
	}
	delta, length := uint32(b[0]>>4), uint32(b[0]&0xf)
	b = b[1:]
	if delta >= 13 {
		switch {
		case delta == 15:
			return w.fail(errReservedDelta)
		case delta == 13 && len(b) >= 1:
			delta = 13 + uint32(b[0])
			b = b[1:]
		case delta == 14 && len(b) >= 2:
			delta = 269 + uint32(binary.BigEndian.Uint16(b))
			b = b[2:]
		default:
			return w.fail(errOptionShort)
		}
	}
	if length >= 13 {
		switch {
		case length == 15:
			return w.fail(errReservedLen)
		case length == 13 && len(b) >= 1:
			length = 13 + uint32(b[0])
			b = b[1:]
		case length == 14 && len(b) >= 2:
			length = 269 + uint32(binary.BigEndian.Uint16(b))
			b = b[2:]
		default:
			return w.fail(errOptionShort)
		}
	}
	number := uint32(w.Number) + delta
	if number > 0xffff {
		return w.fail(errOptionNumber)
	}
	if uint32(len(b)) < length {
		return w.fail(errOptionShort)
	}
	w.Number, w.Value, w.rest = uint16(number), b[:length:length], b[length:]
	return true
}

func (w *Walker) fail(err error) bool {
	w.err, w.rest, w.Value = err, nil, nil
	return false
}

// Err returns the format error that ended the walk, or nil. Errors wrap
// [ErrFormat].
func (w *Walker) Err() error { return w.err }

// Payload returns what follows the marker, nil if there is none. It is
// meaningful once Next has returned false. It aliases the body.
func (w *Walker) Payload() []byte {
	if w.err != nil || len(w.rest) < 2 {
		return nil
	}
	return w.rest[1:]
}

// Rest returns the bytes that the walk has not passed yet: further options,
// the marker and the payload.
func (w *Walker) Rest() []byte { return w.rest }

// Uint decodes an option value of format uint (RFC 7252 §3.2). Leading zero
// bytes are accepted; ok is false above four bytes.
func Uint(value []byte) (v uint32, ok bool) {
	if len(value) > 4 {
		return 0, false
	}
	for _, b := range value {
		v = v<<8 | uint32(b)
	}
	return v, true
}

// AppendUint appends v in the shortest form of option format uint: zero is the
// empty string.
func AppendUint(dst []byte, v uint32) []byte {
	switch {
	case v == 0:
		return dst
	case v < 1<<8:
		return append(dst, byte(v))
	case v < 1<<16:
		return append(dst, byte(v>>8), byte(v))
	case v < 1<<24:
		return append(dst, byte(v>>16), byte(v>>8), byte(v))
	}
	return append(dst, byte(v>>24), byte(v>>16), byte(v>>8), byte(v))
}

// AppendOption appends one option. previous is the number of the option
// appended before it, 0 at the start of a body; number must not be smaller.
// A value above 65804 bytes does not fit an option.
func AppendOption(dst []byte, previous, number uint16, value []byte) []byte {
	return append(AppendOptionHeader(dst, previous, number, len(value)), value...)
}

// AppendOptionHeader appends the delta and length of an option whose value of
// that many bytes the caller appends next.
func AppendOptionHeader(dst []byte, previous, number uint16, length int) []byte {
	if number < previous || length > 65804 {
		panic("coap: option out of order or too long") // the caller's own data
	}
	delta := uint32(number - previous)
	if delta < 13 && length < 13 {
		return append(dst, byte(delta<<4|uint32(length)))
	}
	dn, ln := nibble(delta), nibble(uint32(length))
	dst = append(dst, dn<<4|ln)
	dst = appendExtended(dst, dn, delta)
	return appendExtended(dst, ln, uint32(length))
}

// OptionSize returns the bytes that AppendOption appends.
func OptionSize(previous, number uint16, length int) int {
	return 1 + extendedSize(uint32(number-previous)) + extendedSize(uint32(length)) + length
}

// nibble returns the 4-bit field that announces v (RFC 7252 §3.1).
func nibble(v uint32) byte {
	switch {
	case v < 13:
		return byte(v)
	case v < 269:
		return 13
	}
	return 14
}

// appendExtended appends the extended field that the nibble announces.
func appendExtended(dst []byte, nibble byte, v uint32) []byte {
	switch nibble {
	case 13:
		return append(dst, byte(v-13))
	case 14:
		return binary.BigEndian.AppendUint16(dst, uint16(v-269))
	}
	return dst
}

func extendedSize(v uint32) int {
	switch {
	case v < 13:
		return 0
	case v < 269:
		return 1
	}
	return 2
}
