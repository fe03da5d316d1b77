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
	rounds  uint8 // 10, 12 or 14; 0: not for the assembly
	keySize uint8
	keys    [15 * blockSize]byte
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

func (s *schedule) seal(tag *[blockSize]byte, out, plaintext []byte, h header, aad []byte) {
	s.pass(tag, out, plaintext, h, aad, false)
}

func (s *schedule) open(tag *[blockSize]byte, out, ciphertext []byte, h header, aad []byte) {
	s.pass(tag, out, ciphertext, h, aad, true)
}

func (s *schedule) pass(tag *[blockSize]byte, out, in []byte, h header, aad []byte, opening bool) {
	if s.rounds == 0 {
		portable(newBlock(s.keys[:s.keySize]), tag, out, in, h, aad, !opening)
		return
	}
	f := frame{header: h}
	whole := f.setAAD(aad)
	rest := f.setTail(in)
	var mode uint64
	if opening {
		mode = 1
	}
	pass(&s.keys, uint64(s.rounds), &f, ptr(whole), len(whole)/blockSize,
		ptr(out), ptr(in), len(in)/blockSize, mode)
	storePrefix(out[len(in)-rest:], f.tail)
	*tag = f.tag
}

// frame is a message laid out for the assembly, which reads it by offset: the
// header, and what of the additional data and of the data are not whole blocks
// where they lie. Its pairs are blocks in little-endian halves, so that Go's
// stores and the assembly's loads are of one width and forward to each other.
type frame struct {
	header                   // 0
	aadFirst [2]uint64       // 32: length and first bytes of the additional data
	aadLast  [2]uint64       // 48: its last bytes, padded
	aadEnds  uint64          // 64: 0, 1 (aadFirst) or 2 (aadLast too)
	rest     uint64          // 72: bytes in tail
	tail     [2]uint64       // 80: in: last bytes of the data, padded; out: their other form
	tag      [blockSize]byte // 96: out: the whole tag
}

// setAAD cuts the additional data into blocks (RFC 3610 §2.2) and returns what
// remains of it between the first and the last: whole blocks.
func (f *frame) setAAD(aad []byte) (whole []byte) {
	n := len(aad)
	if n == 0 {
		return nil
	}
	f.aadEnds = 1
	if n < 1<<16-1<<8 && n >= 14 {
		// The common case: two bytes of length, fourteen of data.
		lo := binary.LittleEndian.Uint64(aad)
		f.aadFirst[0] = lo<<16 | uint64(bits.ReverseBytes16(uint16(n)))
		f.aadFirst[1] = binary.LittleEndian.Uint64(aad[6:])
		aad = aad[14:]
	} else {
		var first [blockSize]byte
		at := putAADLength(&first, uint64(n))
		aad = aad[copy(first[at:], aad):]
		f.aadFirst[0] = binary.LittleEndian.Uint64(first[:8])
		f.aadFirst[1] = binary.LittleEndian.Uint64(first[8:])
	}
	n = len(aad) &^ (blockSize - 1)
	if n < len(aad) {
		f.aadEnds = 2
		f.aadLast = loadPrefix(aad[n:])
	}
	return aad[:n]
}

// setTail takes what of the data does not fill a block and returns its length.
func (f *frame) setTail(in []byte) int {
	rest := len(in) % blockSize
	f.rest = uint64(rest)
	if rest > 0 {
		f.tail = loadPrefix(in[len(in)-rest:])
	}
	return rest
}

// loadPrefix reads 1 to 15 bytes as a block padded with zeros.
func loadPrefix(b []byte) [2]uint64 {
	n := len(b)
	switch {
	case n >= 8:
		return [2]uint64{
			binary.LittleEndian.Uint64(b),
			binary.LittleEndian.Uint64(b[n-8:]) >> (8 * uint(16-n)),
		}
	case n >= 4:
		return [2]uint64{
			uint64(binary.LittleEndian.Uint32(b)) |
				uint64(binary.LittleEndian.Uint32(b[n-4:]))<<(8*uint(n-4)),
		}
	default:
		v := uint64(b[0])
		if n > 1 {
			v |= uint64(b[1]) << 8
		}
		if n > 2 {
			v |= uint64(b[2]) << 16
		}
		return [2]uint64{v}
	}
}

// storePrefix writes the first 0 to 15 bytes of a block.
func storePrefix(b []byte, v [2]uint64) {
	n := len(b)
	switch {
	case n >= 8:
		binary.LittleEndian.PutUint64(b, v[0])
		binary.LittleEndian.PutUint64(b[n-8:], v[0]>>(8*uint(n-8))|v[1]<<(8*uint(16-n)))
	case n >= 4:
		binary.LittleEndian.PutUint32(b, uint32(v[0]))
		binary.LittleEndian.PutUint32(b[n-4:], uint32(v[0]>>(8*uint(n-4))))
	default:
		for i := range b {
			b[i] = byte(v[0] >> (8 * uint(i)))
		}
	}
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
// blocks are at aad and the ends in the frame; then it seals (open = 0)
// or opens (open = 1) whole blocks from in to out and the frame's tail within
// the frame, where it leaves the whole tag too.
//
//go:noescape
func pass(keys *[15 * blockSize]byte, rounds uint64, f *frame, aad *byte, aadBlocks int,
	out, in *byte, blocks int, open uint64)
