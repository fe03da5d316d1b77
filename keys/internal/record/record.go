// Package record is how stores write down what they keep, integers in network
// order.
package record

import (
	"encoding/binary"
	"fmt"

	"github.com/oscorelay/oscorelay/keys"
	"github.com/oscorelay/oscorelay/oscore"
)

// Identity checks the length of an identity that comes as bytes.
func Identity(b []byte) (id keys.Identity, err error) {
	if len(b) != len(id) {
		return id, fmt.Errorf("keys: an identity has %d bytes, not %d", len(id), len(b))
	}
	return keys.Identity(b), nil
}

// Fields takes a record apart; after an overrun all it returns is zero.
type Fields struct {
	B    []byte // what is left
	Over bool   // more was asked for than there is
}

// Take returns the next n bytes, or zeros after an overrun.
func (f *Fields) Take(n int) []byte {
	if n > len(f.B) {
		f.B, f.Over = nil, true
		return make([]byte, n)
	}
	out := f.B[:n]
	f.B = f.B[n:]
	return out
}

// ID returns an identity.
func (f *Fields) ID() keys.Identity { return keys.Identity(f.Take(16)) }

// Byte returns a byte.
func (f *Fields) Byte() uint8 { return f.Take(1)[0] }

// U16 returns a number of two bytes.
func (f *Fields) U16() int { return int(binary.BigEndian.Uint16(f.Take(2))) }

// U64 returns a number of eight bytes.
func (f *Fields) U64() uint64 { return binary.BigEndian.Uint64(f.Take(8)) }

// AppendWindow appends a window's state:
//
//	size (2)  floor (8)  next (8)  bits (8 a word)
func AppendWindow(dst []byte, w oscore.WindowState) []byte {
	dst = binary.BigEndian.AppendUint16(dst, uint16(w.Size))
	dst = binary.BigEndian.AppendUint64(dst, w.Floor)
	dst = binary.BigEndian.AppendUint64(dst, w.Next)
	for _, word := range w.Bits {
		dst = binary.BigEndian.AppendUint64(dst, word)
	}
	return dst
}

// Window returns a window's state.
func (f *Fields) Window() oscore.WindowState {
	w := oscore.WindowState{Size: f.U16(), Floor: f.U64(), Next: f.U64()}
	for range (w.Size + 63) / 64 {
		if f.Over {
			break
		}
		w.Bits = append(w.Bits, f.U64())
	}
	return w
}
