package peer

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Numbers of the options that the assertions look at.
const (
	OptIfMatch       = 1
	OptETag          = 4
	OptIfNoneMatch   = 5
	OptObserve       = 6
	OptLocationPath  = 8
	OptOSCORE        = 9
	OptUriPath       = 11
	OptContentFormat = 12
	OptMaxAge        = 14
	OptUriQuery      = 15
	OptAccept        = 17
	OptBlock2        = 23
	OptBlock1        = 27
	OptEcho          = 252
	OptRequestTag    = 292
)

// Message is a CoAP datagram taken apart (RFC 7252 section 3). This reader is
// the tests' own, so that the wire is not judged by the code under test.
type Message struct {
	Type    byte
	Code    byte
	ID      uint16
	Token   []byte
	Options []Option
	Payload []byte
}

// Option is one option of a message.
type Option struct {
	Number uint16
	Value  []byte
}

var errFormat = errors.New("peer: not a CoAP datagram")

// ParseMessage reads a datagram.
func ParseMessage(b []byte) (Message, error) {
	if len(b) < 4 || b[0]>>6 != 1 || b[0]&15 > 8 || len(b) < 4+int(b[0]&15) {
		return Message{}, errFormat
	}
	end := 4 + int(b[0]&15)
	m := Message{Type: b[0] >> 4 & 3, Code: b[1], ID: binary.BigEndian.Uint16(b[2:]), Token: b[4:end]}
	rest, number := b[end:], 0
	for len(rest) > 0 {
		if rest[0] == 0xff {
			if len(rest) == 1 {
				return Message{}, errFormat
			}
			m.Payload = rest[1:]
			return m, nil
		}
		delta, length := int(rest[0]>>4), int(rest[0]&15)
		rest = rest[1:]
		var ok bool
		if delta, rest, ok = extended(delta, rest); !ok {
			return Message{}, errFormat
		}
		if length, rest, ok = extended(length, rest); !ok || length > len(rest) {
			return Message{}, errFormat
		}
		if number += delta; number > 0xffff {
			return Message{}, errFormat
		}
		m.Options = append(m.Options, Option{uint16(number), rest[:length]})
		rest = rest[length:]
	}
	return m, nil
}

// extended reads the extended form of an option's delta or length.
func extended(n int, b []byte) (value int, rest []byte, ok bool) {
	switch {
	case n < 13:
		return n, b, true
	case n == 13 && len(b) >= 1:
		return 13 + int(b[0]), b[1:], true
	case n == 14 && len(b) >= 2:
		return 269 + int(binary.BigEndian.Uint16(b)), b[2:], true
	}
	return 0, nil, false
}

// Option gives the first option with the number.
func (m Message) Option(number uint16) (value []byte, ok bool) {
	for _, o := range m.Options {
		if o.Number == number {
			return o.Value, true
		}
	}
	return nil, false
}

// IsRequest and IsResponse tell by the code's class; neither holds for an
// empty message, nor for one of RFC 8323's signalling.
func (m Message) IsRequest() bool  { return m.Code != 0 && m.Code>>5 == 0 }
func (m Message) IsResponse() bool { return m.Code>>5 >= 2 && m.Code>>5 <= 5 }

func (m Message) String() string {
	s := fmt.Sprintf("%s %s id=%04x token=%x", [...]string{"CON", "NON", "ACK", "RST"}[m.Type], Dotted(m.Code), m.ID, m.Token)
	for _, o := range m.Options {
		s += fmt.Sprintf(" %d=%x", o.Number, o.Value)
	}
	return s + fmt.Sprintf(" +%d", len(m.Payload))
}

// Dotted writes a code as people do: 2.05.
func Dotted(code byte) string { return fmt.Sprintf("%d.%02d", code>>5, code&31) }

// OSCOREOption is the content of option 9 (RFC 8613 section 6.1).
type OSCOREOption struct {
	PartialIV  []byte // nil if absent
	KIDContext []byte // nil if absent
	KID        []byte // nil if absent, empty if empty
}

// ParseOSCOREOption reads the value of option 9.
func ParseOSCOREOption(b []byte) (OSCOREOption, error) {
	var o OSCOREOption
	if len(b) == 0 {
		return o, nil
	}
	flags, rest := b[0], b[1:]
	n := int(flags & 7)
	if flags&0xe0 != 0 || n > 5 || len(rest) < n {
		return o, fmt.Errorf("peer: malformed OSCORE option %x", b)
	}
	if n > 0 {
		o.PartialIV, rest = rest[:n], rest[n:]
	}
	if flags&0x10 != 0 {
		if len(rest) == 0 || len(rest) < 1+int(rest[0]) {
			return o, fmt.Errorf("peer: truncated kid context in OSCORE option %x", b)
		}
		o.KIDContext, rest = rest[1:1+int(rest[0])], rest[1+int(rest[0]):]
	}
	if flags&8 != 0 {
		o.KID = rest
	} else if len(rest) > 0 {
		return o, fmt.Errorf("peer: OSCORE option %x has bytes but no kid flag", b)
	}
	return o, nil
}
