//go:build !purego

package ccm

import (
	"encoding/binary"
	"math/bits"

	"golang.org/x/sys/cpu"
)

// useAssembly says whether this processor has what ccm_amd64.s is made of.
// AVX is not needed: small gateways' processors have AES-NI without it.
var useAssembly = cpu.X86.HasAES && cpu.X86.HasSSSE3 && cpu.X86.HasSSE41

// schedule is the expanded AES key, held by value and without a pointer.
//
// On a processor without AES-NI rounds is 0 and the raw key stands at the
// front of keys; each message then expands it anew through crypto/aes, which
// costs little beside AES without hardware.
type schedule struct {
	keys    [15 * blockSize]byte
	rounds  uint8 // 10, 12 or 14; 0: not for the assembly
	keySize uint8
}

func (s *schedule) expand(key []byte) {
	if !useAssembly {
		s.expandPortable(key)
		return
	}
	switch s.keySize = uint8(len(key)); len(key) {
	case 16:
		s.rounds = 10
		expand128(&s.keys, &key[0])
	case 24:
		s.rounds = 12
		expand192(&s.keys, &key[0])
	case 32:
		s.rounds = 14
		expand256(&s.keys, &key[0])
	}
}

func (s *schedule) expandPortable(key []byte) {
	*s = schedule{keySize: uint8(len(key))}
	copy(s.keys[:], key)
}

// pass seals or opens in into out and leaves the whole tag in m.
func (s *schedule) pass(m *message, out, in, aad []byte, seal bool) {
	if s.rounds == 0 {
		m.tag = portable(newBlock(s.keys[:s.keySize]), &m.header, out, in, aad, seal)
		return
	}
	if len(aad) > 0 {
		aad = m.cutAAD(aad)
	}
	rest := len(in) % blockSize
	whole := len(in) - rest
	m.rest = uint64(rest)
	if rest > 0 {
		m.tail = loadPrefix(in[whole:])
	}
	var open uint64
	if !seal {
		open = 1
	}
	pass(&s.keys, uint64(s.rounds), m, ptr(aad), len(aad)/blockSize, ptr(out), ptr(in), whole/blockSize, open)
	if rest > 0 {
		storePrefix(out[whole:], m.tail)
	}
}

// message is laid out for the assembly, which reads it by offset: the header,
// and what of the additional data and of the data are not whole blocks where
// they lie. Go's stores and the assembly's loads are of one width, eight
// bytes, and so forward to each other.
type message struct {
	header          // 0
	tag      block  // 32: out: the whole tag
	tail     block  // 48: in: last bytes of the data, padded; out: their other form
	rest     uint64 // 64: bytes in tail
	aadEnds  uint64 // 72: 0, 1 (aadFirst) or 2 (aadLast too)
	aadFirst block  // 80: length and first bytes of the additional data
	aadLast  block  // 96: its last bytes, padded
}

// cutAAD cuts the additional data (not empty) into blocks (RFC 3610 §2.2) and
// returns what remains of it between the first and the last: whole blocks.
func (m *message) cutAAD(aad []byte) (whole []byte) {
	n := len(aad)
	if n >= 14 && n < 1<<16-1<<8 {
		// The common case: two bytes of length, fourteen of data.
		m.aadFirst = block{
			binary.LittleEndian.Uint64(aad)<<16 | uint64(bits.ReverseBytes16(uint16(n))),
			binary.LittleEndian.Uint64(aad[6:]),
		}
		aad = aad[14:]
	} else {
		var first [blockSize]byte
		at := putAADLength(&first, uint64(n))
		aad = aad[copy(first[at:], aad):]
		m.aadFirst = loadPrefix(first[:])
	}
	m.aadEnds = 1
	n = len(aad) &^ (blockSize - 1)
	if n < len(aad) {
		m.aadEnds = 2
		m.aadLast = loadPrefix(aad[n:])
	}
	return aad[:n]
}

// ptr returns a slice's start; the assembly looks there only if told of a block.
func ptr(b []byte) *byte {
	if len(b) == 0 {
		return nil
	}
	return &b[0]
}

//go:noescape
func expand128(keys *[15 * blockSize]byte, key *byte)

//go:noescape
func expand192(keys *[15 * blockSize]byte, key *byte)

//go:noescape
func expand256(keys *[15 * blockSize]byte, key *byte)

// pass runs the MAC over the header and the additional data, of which the whole
// blocks are at aad and the ends in the message; then it seals (open = 0) or
// opens (open = 1) whole blocks from in to out and the tail within the message,
// where it leaves the tag too.
//
//go:noescape
func pass(keys *[15 * blockSize]byte, rounds uint64, m *message, aad *byte, aadBlocks int,
	out, in *byte, blocks int, open uint64)
