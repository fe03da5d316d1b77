package ccm

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/subtle"
	"sync"
)

// The portable twin: CCM over any cipher.Block, RFC 3610 step by step. It is
// the whole implementation where there is no assembly, and what the assembly
// is fuzzed against.

// bulk is the message length from which crypto/cipher's CTR beats the block
// loop although it costs an allocation.
const bulk = 128

// scratch is what a call needs besides its arguments. cipher.Block is an
// interface, so whatever is handed to it must live on the heap: the scratch is
// pooled, and the caller's slices are copied through it so that they need not.
type scratch struct {
	mac, ctr, stream [blockSize]byte
	chunk            [32 * blockSize]byte
}

var scratches = sync.Pool{New: func() any { return new(scratch) }}

func newScratch() *scratch { return scratches.Get().(*scratch) }

// free wipes and returns the scratch; used is the number of bytes of the chunk
// that were touched.
func (s *scratch) free(used int) {
	s.mac, s.ctr, s.stream = [blockSize]byte{}, [blockSize]byte{}, [blockSize]byte{}
	clear(s.chunk[:used])
	scratches.Put(s)
}

// newBlock expands a key whose length has been checked.
func newBlock(key []byte) cipher.Block {
	b, err := aes.NewCipher(key)
	if err != nil {
		panic("ccm: crypto/aes refuses a key of legal length: " + err.Error())
	}
	return b
}

// portable seals or opens in into out and returns the whole tag, which the
// caller writes or compares.
func portable(b cipher.Block, h header, out, in, aad []byte, seal bool) block {
	s := newScratch()
	s.start(b, &h, aad)
	used := 0
	if len(in) < bulk {
		s.data(b, out, in, &h, seal)
	} else {
		used = s.bulk(b, out, in, &h, seal)
	}
	tag := s.finish(b, &h)
	s.free(used)
	return tag
}

// start runs the CBC-MAC over B_0 and the additional data (RFC 3610 §2.2).
func (s *scratch) start(b cipher.Block, h *header, aad []byte) {
	putBlock(&s.mac, h.b0Hi, h.b0Lo)
	b.Encrypt(s.mac[:], s.mac[:])
	if len(aad) == 0 {
		return
	}
	var first [blockSize]byte
	n := putAADLength(&first, uint64(len(aad)))
	aad = aad[copy(first[n:], aad):]
	s.absorb(b, first[:])
	s.absorbAll(b, aad)
}

// absorb runs the CBC-MAC over one block, padded with zeros.
func (s *scratch) absorb(b cipher.Block, block []byte) {
	subtle.XORBytes(s.mac[:], s.mac[:], block)
	b.Encrypt(s.mac[:], s.mac[:])
}

// data walks the message block by block: MAC of the plaintext (RFC 3610 §2.2),
// XOR with S_i (§2.3).
func (s *scratch) data(b cipher.Block, out, in []byte, h *header, seal bool) {
	for i := uint64(1); len(in) > 0; i++ {
		n := min(blockSize, len(in))
		putBlock(&s.ctr, h.a0Hi, h.a0Lo+i)
		b.Encrypt(s.stream[:], s.ctr[:])
		if seal {
			s.absorb(b, in[:n])
		}
		subtle.XORBytes(out, s.stream[:], in[:n])
		if !seal {
			s.absorb(b, out[:n])
		}
		in, out = in[n:], out[n:]
	}
}

// bulk does the same with the standard library's CTR, a chunk at a time, and
// returns how much of the chunk it used.
func (s *scratch) bulk(b cipher.Block, out, in []byte, h *header, seal bool) int {
	putBlock(&s.ctr, h.a0Hi, h.a0Lo+1)
	ctr := cipher.NewCTR(b, s.ctr[:])
	used := min(len(in), len(s.chunk))
	for len(in) > 0 {
		n := copy(s.chunk[:], in)
		if seal {
			s.absorbAll(b, s.chunk[:n])
		}
		ctr.XORKeyStream(s.chunk[:n], s.chunk[:n])
		if !seal {
			s.absorbAll(b, s.chunk[:n])
		}
		copy(out, s.chunk[:n])
		in, out = in[n:], out[n:]
	}
	return used
}

// absorbAll runs the CBC-MAC over data, the last block padded with zeros.
func (s *scratch) absorbAll(b cipher.Block, data []byte) {
	for len(data) > 0 {
		n := min(blockSize, len(data))
		s.absorb(b, data[:n])
		data = data[n:]
	}
}

// finish encrypts the MAC with S_0, which makes the tag (RFC 3610 §2.3).
func (s *scratch) finish(b cipher.Block, h *header) block {
	putBlock(&s.ctr, h.a0Hi, h.a0Lo)
	b.Encrypt(s.stream[:], s.ctr[:])
	subtle.XORBytes(s.mac[:], s.mac[:], s.stream[:])
	return loadPrefix(s.mac[:])
}
