package explain

import (
	"fmt"

	"github.com/oscorelay/oscorelay/oscore"
)

// Field is a piece of a message with its bytes and what they say.
type Field struct {
	Name    string `json:"name"`
	Bytes   Hex    `json:"hex"`
	Meaning string `json:"meaning"`
}

// OSCORE is an OSCORE option's value taken apart (RFC 8613 §6.1). A nil field
// is absent, an empty one present with no bytes.
type OSCORE struct {
	Value      Hex     `json:"value"`
	Sequence   *uint64 `json:"sequence,omitempty"` // the Partial IV as a number
	PartialIV  Hex     `json:"partial_iv,omitempty"`
	KIDContext *Hex    `json:"kid_context,omitempty"`
	KID        *Hex    `json:"kid,omitempty"`
	// Rederive is what the kid context holds if that is exactly one CBOR byte
	// string, as Appendix B.2 sends it.
	Rederive *Hex    `json:"kid_context_bstr,omitempty"`
	Fields   []Field `json:"fields"`
	Problem  string  `json:"problem,omitempty"` // why a receiver refuses the value

	option oscore.Option
}

// role is what a message is, for what its option must hold.
type role int

const (
	unknownRole role = iota
	requestRole
	responseRole
)

// OptionValue explains an OSCORE option's value on its own.
func OptionValue(value []byte) *OSCORE { return newOSCORE(value, unknownRole) }

// newOSCORE walks the value field by field as far as it goes, so that what is
// wrong can be named; whether it is accepted is [oscore.ParseOption]'s word.
func newOSCORE(value []byte, r role) *OSCORE {
	o := &OSCORE{Value: value}
	opt, err := oscore.ParseOption(value)
	o.option = opt
	if len(value) == 0 {
		o.add("(empty)", nil, "no Partial IV, no kid: a response under the request's nonce")
		o.forRole(r)
		return o
	}
	o.walk(value)
	if err != nil && o.Problem == "" {
		o.Problem = "the value does not decode"
	}
	if o.Problem == "" {
		o.forRole(r)
	}
	return o
}

func (o *OSCORE) add(name string, b []byte, meaning string) {
	o.Fields = append(o.Fields, Field{name, b, meaning})
}

// walk takes the fields of §6.1 in their order and stops at the first that is
// not there whole.
func (o *OSCORE) walk(value []byte) {
	flags, rest := value[0], value[1:]
	n, h, k := int(flags&7), flags&0x10 != 0, flags&8 != 0
	o.add("flags", value[:1], fmt.Sprintf("%08b: n=%d, k=%d, h=%d", flags, n, bit(k), bit(h)))
	switch {
	case flags&0xe0 != 0:
		o.Problem = fmt.Sprintf("reserved flag bits are set (%08b): a receiver answers 4.02", flags&0xe0)
	case n > 5:
		o.Problem = fmt.Sprintf("Partial IV length n=%d is reserved: 5 is the longest", n)
	case flags == 0:
		o.Problem = "flags that are all zero must be sent as an empty value"
	}
	if o.Problem != "" {
		return
	}
	if len(rest) < n {
		o.Problem = fmt.Sprintf("the Partial IV should have %s, %d are left", count(n, "byte"), len(rest))
		return
	}
	if n > 0 {
		o.PartialIV, rest = Hex(rest[:n]), rest[n:]
		seq := oscore.Option{PartialIV: o.PartialIV}.Sequence()
		o.Sequence = &seq
		o.add("Partial IV", o.PartialIV, fmt.Sprintf("sequence number %d", seq))
		if n > 1 && o.PartialIV[0] == 0 {
			o.Problem = "the Partial IV has leading zero bytes"
		}
	}
	if h {
		if len(rest) < 1 {
			o.Problem = "the kid context's length byte is missing"
			return
		}
		s := int(rest[0])
		o.add("s", rest[:1], "kid context of "+count(s, "byte"))
		if len(rest)-1 < s {
			o.Problem = fmt.Sprintf("the kid context should have %s, %d are left", count(s, "byte"), len(rest)-1)
			return
		}
		context := Hex(rest[1 : 1+s])
		rest = rest[1+s:]
		o.KIDContext = &context
		o.add("kid context", context, o.kidContextMeaning(context))
	}
	switch {
	case k:
		kid := Hex(rest)
		o.KID = &kid
		o.add("kid", kid, kidMeaning(kid))
	case len(rest) > 0:
		o.add("?", rest, count(len(rest), "byte")+" left over")
		o.Problem = "bytes are left over though the k flag says that there is no kid"
	}
}

func (o *OSCORE) kidContextMeaning(context Hex) string {
	if len(context) == 0 {
		return "present, empty: the ID Context"
	}
	if content, err := oscore.UnwrapBstr(context); err == nil {
		h := Hex(content)
		o.Rederive = &h
		return fmt.Sprintf("a CBOR byte string of %s: Appendix B.2 (a context derived anew), else the ID Context", count(len(content), "byte"))
	}
	text := "the ID Context"
	if printable(context) {
		text += ", as text " + quote(context)
	}
	return text
}

func kidMeaning(kid Hex) string {
	switch {
	case len(kid) == 0:
		return "present, empty: the sender's ID has no bytes"
	case printable(kid):
		return "the sender's ID, as text " + quote(kid)
	}
	return "the sender's ID"
}

// forRole checks what requests must hold (§5).
func (o *OSCORE) forRole(r role) {
	switch {
	case r == requestRole && o.PartialIV == nil:
		o.Problem = "a request must have a Partial IV (RFC 8613 section 5)"
	case r == requestRole && o.KID == nil:
		o.Problem = "a request must have a kid (RFC 8613 section 5)"
	}
}

func bit(b bool) int {
	if b {
		return 1
	}
	return 0
}
