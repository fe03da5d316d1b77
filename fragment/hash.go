package fragment

import (
	"bytes"
	"crypto/sha256"
	"encoding"
	"encoding/binary"
	"hash"
)

// Hash is a SHA-256 value: of a leaf, of a node, or a whole tree's root.
type Hash [sha256.Size]byte

// The domain separation of RFC 9162 §2.1.1.
const (
	leafPrefix = 0x00
	nodePrefix = 0x01
)

// hasher computes leaf and node hashes. It allocates once, when it is made.
//
// A tree hashes many short messages, where crypto/sha256's finalisation (a
// copy of the state, the padding, the FIPS indicator) costs as much as one
// compression. The fast path pads the message itself, so that Write sees whole
// blocks only and the chaining value is the digest; that value is read from
// the marshalled state. The layout of that state is crypto/sha256's own
// business, therefore newHasher compares both paths once and keeps the plain
// one where they differ.
type hasher struct {
	h     hash.Hash
	state encoding.BinaryAppender // nil: use Sum
	msg   [copyLeaf + 2*sha256.BlockSize]byte
	out   [128]byte
	zero  [2 * sha256.BlockSize]byte
}

// copyLeaf is the longest leaf that is copied behind its prefix; a longer one
// is hashed where it lies, with only its first and last block copied.
const copyLeaf = 512

// statePrefix is the length of the marshalled state's magic.
const statePrefix = 4

func newHasher() *hasher {
	h := &hasher{h: sha256.New()}
	h.state, _ = h.h.(encoding.BinaryAppender)
	for _, n := range []int{0, 1, 54, 55, 63, 64, 65, copyLeaf, copyLeaf + 1, 1024, 4096} {
		data := make([]byte, 1+n)
		for i := range data {
			data[i] = byte(i * 7)
		}
		data[0] = leafPrefix
		want := Hash(sha256.Sum256(data))
		if h.state != nil && h.leaf(data[1:]) != want {
			h.state = nil
		}
	}
	return h
}

// leaf returns H(00 ‖ data) (RFC 9162 §2.1.1).
func (h *hasher) leaf(data []byte) (sum Hash) {
	h.h.Reset()
	h.msg[0] = leafPrefix
	if h.state == nil {
		h.h.Write(h.msg[:1])
		h.h.Write(data)
		return h.sum()
	}
	size := uint64(1+len(data)) * 8
	if len(data) <= copyLeaf {
		n := 1 + copy(h.msg[1:], data)
		h.h.Write(h.pad(n, size))
		return h.value()
	}
	const head = sha256.BlockSize - 1
	copy(h.msg[1:], data[:head])
	h.h.Write(h.msg[:sha256.BlockSize])
	whole := (len(data) - head) &^ (sha256.BlockSize - 1)
	h.h.Write(data[head : head+whole])
	n := copy(h.msg[:], data[head+whole:])
	h.h.Write(h.pad(n, size))
	return h.value()
}

// node returns H(01 ‖ l ‖ r) (RFC 9162 §2.1.1).
func (h *hasher) node(l, r *Hash) (sum Hash) {
	h.h.Reset()
	h.msg[0] = nodePrefix
	n := 1 + copy(h.msg[1:], l[:])
	n += copy(h.msg[n:], r[:])
	if h.state == nil {
		h.h.Write(h.msg[:n])
		return h.sum()
	}
	h.h.Write(h.pad(n, uint64(n)*8))
	return h.value()
}

// pad completes the message in h.msg[:n], of so many bits in all, to whole
// blocks (FIPS 180-4 §5.1.1).
func (h *hasher) pad(n int, bits uint64) []byte {
	end := (n + 9 + sha256.BlockSize - 1) &^ (sha256.BlockSize - 1)
	copy(h.msg[n:end], h.zero[:])
	h.msg[n] = 0x80
	binary.BigEndian.PutUint64(h.msg[end-8:end], bits)
	return h.msg[:end]
}

// value reads the chaining value.
func (h *hasher) value() (sum Hash) {
	out, err := h.state.AppendBinary(h.out[:0])
	if err != nil || len(out) < statePrefix+len(sum) {
		return Hash{} // newHasher then sees a difference and takes the plain path
	}
	return Hash(out[statePrefix:])
}

func (h *hasher) sum() (sum Hash) {
	h.h.Sum(sum[:0:len(sum)])
	return sum
}

// stack folds hashes that arrive in order into the root of the tree above
// them (RFC 9162 §2.1.2): it holds the roots of the complete subtrees so far.
type stack struct {
	n     uint64
	roots [33]Hash
	depth int
}

func (s *stack) reset() { s.n, s.depth = 0, 0 }

// push appends one hash of the level below.
func (s *stack) push(h *hasher, sum Hash) {
	for bit := s.n; bit&1 == 1; bit >>= 1 {
		s.depth--
		sum = h.node(&s.roots[s.depth], &sum)
	}
	s.roots[s.depth] = sum
	s.depth++
	s.n++
}

// root returns the root of what was pushed, which must be something.
func (s *stack) root(h *hasher) Hash {
	sum := s.roots[s.depth-1]
	for i := s.depth - 2; i >= 0; i-- {
		sum = h.node(&s.roots[i], &sum)
	}
	return sum
}

// unit returns the root of the subtree over one unit's leaves of 2^l bytes.
func (h *hasher) unit(s *stack, data []byte, l uint8) Hash {
	size := 1 << l
	if len(data) <= size {
		return h.leaf(data)
	}
	s.reset()
	for len(data) > size {
		s.push(h, h.leaf(data[:size]))
		data = data[size:]
	}
	s.push(h, h.leaf(data))
	return s.root(h)
}

// page returns the root of the subtree over the first n hashes of a page.
func (h *hasher) page(s *stack, page []byte, n int) Hash {
	s.reset()
	for ; n > 0; n-- {
		s.push(h, Hash(page))
		page = page[len(Hash{}):]
	}
	return s.root(h)
}

// zeros reports whether b is all zero.
func zeros(b []byte) bool {
	for len(b) > 0 {
		n := min(len(b), len(zeroBlock))
		if !bytes.Equal(b[:n], zeroBlock[:n]) {
			return false
		}
		b = b[n:]
	}
	return true
}

var zeroBlock [256]byte
