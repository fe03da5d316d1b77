//go:build !purego

package ccm

import (
	"encoding/binary"
	"math/bits"
	"unsafe"

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

// pass seals or opens in into out and returns the whole tag.
func (s *schedule) pass(h header, out, in, aad []byte, seal bool) block {
	if s.rounds == 0 {
		return portable(newBlock(s.keys[:s.keySize]), h, out, in, aad, seal)
	}
	first, aadLen := block{}, -1
	if n := len(aad); n >= 14 && n < 1<<16-1<<8 {
		first = shortAAD(aad)
		aad, aadLen = aad[14:], n-14
	} else if n > 0 {
		first, aad = firstAAD(aad)
		aadLen = len(aad)
	}
	var open uint64
	if !seal {
		open = 1
	}
	lo, hi := pass(&s.keys, uint64(s.rounds), h.b0Hi, h.b0Lo, h.a0Hi, h.a0Lo,
		first.lo, first.hi, unsafe.SliceData(aad), aadLen,
		unsafe.SliceData(out), unsafe.SliceData(in), len(in), open)
	return block{lo, hi}
}

// shortAAD is firstAAD in the common case: two bytes of length, fourteen of
// data.
func shortAAD(aad []byte) block {
	return block{
		binary.LittleEndian.Uint64(aad)<<16 | uint64(bits.ReverseBytes16(uint16(len(aad)))),
		binary.LittleEndian.Uint64(aad[6:]),
	}
}

// firstAAD makes the first block of the additional data (not empty), which is
// its length and what then fits, and returns what does not.
func firstAAD(aad []byte) (first block, rest []byte) {
	var b [blockSize]byte
	n := putAADLength(&b, uint64(len(aad)))
	n = copy(b[n:], aad)
	return loadPrefix(b[:]), aad[n:]
}

//go:noescape
func expand128(keys *[15 * blockSize]byte, key *byte)

//go:noescape
func expand192(keys *[15 * blockSize]byte, key *byte)

//go:noescape
func expand256(keys *[15 * blockSize]byte, key *byte)

// pass runs the MAC over B_0 and the additional data, whose first block is
// given and whose other aadLen bytes are at aad (aadLen < 0: there is none);
// then it seals (open = 0) or opens (open = 1) n bytes from in to out.
//
//go:noescape
func pass(keys *[15 * blockSize]byte, rounds uint64, b0Hi, b0Lo, a0Hi, a0Lo uint64,
	aadLo, aadHi uint64, aad *byte, aadLen int,
	out, in *byte, n int, open uint64) (tagLo, tagHi uint64)
