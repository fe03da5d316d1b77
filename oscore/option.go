package oscore

import (
	"encoding/binary"

	"github.com/oscorelay/oscorelay/internal/coap"
)

// Option is the decoded value of an OSCORE option, the compressed COSE header
// (§6.1):
//
//	 0 1 2 3 4 5 6 7 <----- n bytes -----> <-1-> <-- s bytes --> <-- rest -->
//	+-+-+-+-+-+-+-+-+---------------------+-----+---------------+------------+
//	|0 0 0|h|k|  n  |     Partial IV      |  s  |  kid context  |    kid     |
//	+-+-+-+-+-+-+-+-+---------------------+-----+---------------+------------+
//
// A nil field is absent; an empty one that is not nil is present with no bytes.
type Option struct {
	PartialIV  []byte // 1 to 5 bytes, no leading zero byte (§5)
	KIDContext []byte
	KID        []byte
}

const (
	flagKIDContext = 0x10
	flagKID        = 0x08
	maskPIVLen     = 0x07
	maskReserved   = 0xe0
	maxPIVLen      = 5
	maxOption      = 255 // bytes (§2)
)

// ParseOption decodes an OSCORE option's value. It returns ErrDecode for
// reserved flag bits, the reserved Partial IV lengths 6 and 7, a Partial IV
// with leading zero bytes, a value that ends early, has bytes left over or is
// above 255 bytes, and the zero flag byte that must be an empty value (§2). The
// fields alias value.
func ParseOption(value []byte) (Option, error) {
	var o Option
	if err := o.parse(value); err != nil {
		return Option{}, err
	}
	return o, nil
}

// parse fills in a zero o; on an error it leaves o in any state.
func (o *Option) parse(value []byte) error {
	if len(value) == 0 {
		return nil
	}
	flags, rest := value[0], value[1:]
	n := int(flags & maskPIVLen)
	if flags == 0 || flags&maskReserved != 0 || n > maxPIVLen || len(rest) < n || len(value) > maxOption {
		return ErrDecode
	}
	if n > 0 {
		if n > 1 && rest[0] == 0 {
			return ErrDecode // §5: no leading zeros; 0 itself is one zero byte
		}
		o.PartialIV, rest = rest[:n:n], rest[n:]
	}
	if flags&flagKIDContext != 0 {
		if len(rest) < 1 || len(rest)-1 < int(rest[0]) {
			return ErrDecode
		}
		s := int(rest[0])
		o.KIDContext, rest = rest[1:1+s:1+s], rest[1+s:]
	}
	switch {
	case flags&flagKID != 0:
		o.KID = rest[:len(rest):len(rest)]
	case len(rest) > 0:
		return ErrDecode
	}
	return nil
}

// Size returns the length of the option's value in bytes.
func (o Option) Size() int { return o.size() }

func (o *Option) size() int {
	if o.PartialIV == nil && o.KIDContext == nil && o.KID == nil {
		return 0
	}
	n := 1 + len(o.PartialIV) + len(o.KID)
	if o.KIDContext != nil {
		n += 1 + len(o.KIDContext)
	}
	return n
}

// Append appends the option's value. The fields must keep to the limits that
// their comments give.
func (o Option) Append(dst []byte) []byte { return o.append(dst) }

func (o *Option) append(dst []byte) []byte {
	if o.PartialIV == nil && o.KIDContext == nil && o.KID == nil {
		return dst // §2: flags all zero ⇒ empty value
	}
	flags := byte(len(o.PartialIV))
	if o.KIDContext != nil {
		flags |= flagKIDContext
	}
	if o.KID != nil {
		flags |= flagKID
	}
	dst = append(dst, flags)
	//lint:ignore S1011 for so few bytes a call of memmove costs more
	for _, b := range o.PartialIV {
		dst = append(dst, b)
	}
	if o.KIDContext != nil {
		dst = append(dst, byte(len(o.KIDContext)))
		dst = append(dst, o.KIDContext...)
	}
	//lint:ignore S1011 for so few bytes a call of memmove costs more
	for _, b := range o.KID {
		dst = append(dst, b)
	}
	return dst
}

// Sequence returns the Partial IV as a number.
func (o Option) Sequence() uint64 { return pivNumber(o.PartialIV) }

// FindOption returns the OSCORE option of a message. protected tells whether
// there is one at all; without one the message is ordinary CoAP. It returns
// ErrDecode if the option is there twice (RFC 7252 §5.4.5), if its value does
// not parse, or if the options' framing is broken. The result aliases m.
func FindOption(m Message) (o Option, protected bool, err error) {
	var value []byte
	w := coap.Walk(m.Body)
	for w.Next() {
		if w.Number != coap.OSCORE {
			continue
		}
		if protected {
			return Option{}, true, ErrDecode
		}
		value, protected = w.Value, true
	}
	if w.Err() != nil {
		return Option{}, protected, ErrDecode
	}
	if !protected {
		return Option{}, false, nil
	}
	o, err = ParseOption(value)
	return o, true, err
}

// pivNumber reads a Partial IV of up to five bytes.
func pivNumber(piv []byte) (n uint64) {
	for _, b := range piv {
		n = n<<8 | uint64(b)
	}
	return n
}

// putPIV writes the Partial IV of n, shortest form, and returns its length
// (§5: 0 is the byte 00).
func putPIV(dst *[maxPIVLen]byte, n uint64) int {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], n)
	i := 3
	for i < 7 && b[i] == 0 {
		i++
	}
	return copy(dst[:], b[i:])
}
