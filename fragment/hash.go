package fragment

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"hash"

	"github.com/oscorelay/oscorelay/internal/sha256x2"
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
// A tree hashes many short messages. Where the processor has the instructions,
// two are hashed at once: leaves of one unit, nodes of one level. There the
// hasher also pads a single message itself, since crypto/sha256's finalisation
// costs as much as one more block. Elsewhere it is crypto/sha256.
type hasher struct {
	plain hash.Hash // nil: sha256x2
	lane  [2]sha256x2.State
	msg   [copyLeaf + 2*sha256.BlockSize]byte
	twin  [copyLeaf + 2*sha256.BlockSize]byte // the second message
	zero  [2 * sha256.BlockSize]byte
	out   Hash         // of plain
	row   [maxFan]Hash // one level of a unit or a page
}

// maxFan is the most hashes a page holds, and above the most leaves of a unit.
const maxFan = 1 << (MaxExponent - 5)

// copyLeaf is the longest leaf that is copied behind its prefix; a longer one
// is hashed where it lies, with only its first and last block copied.
const copyLeaf = 1024

func newHasher() *hasher {
	h := &hasher{}
	if !sha256x2.Available() {
		h.plain = sha256.New()
	}
	return h
}

// leaf returns H(00 ‖ data) (RFC 9162 §2.1.1).
func (h *hasher) leaf(data []byte) (sum Hash) {
	h.msg[0] = leafPrefix
	if h.plain != nil {
		h.plain.Reset()
		h.plain.Write(h.msg[:1])
		h.plain.Write(data)
		return Hash(h.plain.Sum(h.out[:0]))
	}
	h.lane[0] = sha256x2.Initial
	size, n := uint64(1+len(data))*8, 0
	if len(data) <= copyLeaf {
		n = 1 + copy(h.msg[1:], data)
	} else {
		const head = sha256.BlockSize - 1
		copy(h.msg[1:], data[:head])
		sha256x2.Alone(&h.lane[0], h.msg[:sha256.BlockSize])
		whole := (len(data) - head) &^ (sha256.BlockSize - 1)
		sha256x2.Alone(&h.lane[0], data[head:head+whole])
		n = copy(h.msg[:], data[head+whole:])
	}
	sha256x2.Alone(&h.lane[0], h.pad(h.msg[:], n, size))
	h.lane[0].Put((*[32]byte)(&sum))
	return sum
}

// leaves puts the hashes of two leaves of one length into out.
func (h *hasher) leaves(out []Hash, a, b []byte) {
	if h.plain != nil {
		out[0], out[1] = h.leaf(a), h.leaf(b)
		return
	}
	h.lane[0], h.lane[1] = sha256x2.Initial, sha256x2.Initial
	h.msg[0], h.twin[0] = leafPrefix, leafPrefix
	size, n := uint64(1+len(a))*8, 0
	if len(a) <= copyLeaf {
		n = 1 + copy(h.msg[1:], a)
		copy(h.twin[1:], b)
	} else {
		const head = sha256.BlockSize - 1
		copy(h.msg[1:], a[:head])
		copy(h.twin[1:], b[:head])
		h.blocks(h.msg[:sha256.BlockSize], h.twin[:sha256.BlockSize])
		whole := (len(a) - head) &^ (sha256.BlockSize - 1)
		h.blocks(a[head:head+whole], b[head:head+whole])
		n = copy(h.msg[:], a[head+whole:])
		copy(h.twin[:], b[head+whole:])
	}
	h.blocks(h.pad(h.msg[:], n, size), h.pad(h.twin[:], n, size))
	h.put(out)
}

// node returns H(01 ‖ l ‖ r) (RFC 9162 §2.1.1).
func (h *hasher) node(l, r *Hash) (sum Hash) {
	n := join(&h.msg, l, r)
	if h.plain != nil {
		h.plain.Reset()
		h.plain.Write(h.msg[:n])
		return Hash(h.plain.Sum(h.out[:0]))
	}
	h.lane[0] = sha256x2.Initial
	sha256x2.Alone(&h.lane[0], h.pad(h.msg[:], n, uint64(n)*8))
	h.lane[0].Put((*[32]byte)(&sum))
	return sum
}

// nodes puts the hashes of two nodes, of which below holds the four children,
// into out. The two may overlap.
func (h *hasher) nodes(out, below []Hash) {
	if h.plain != nil {
		a, b := h.node(&below[0], &below[1]), h.node(&below[2], &below[3])
		out[0], out[1] = a, b
		return
	}
	h.lane[0], h.lane[1] = sha256x2.Initial, sha256x2.Initial
	n := join(&h.msg, &below[0], &below[1])
	join(&h.twin, &below[2], &below[3])
	h.blocks(h.pad(h.msg[:], n, uint64(n)*8), h.pad(h.twin[:], n, uint64(n)*8))
	h.put(out)
}

func join(msg *[copyLeaf + 2*sha256.BlockSize]byte, l, r *Hash) int {
	msg[0] = nodePrefix
	copy(msg[1:], l[:])
	copy(msg[1+len(l):], r[:])
	return 1 + len(l) + len(r)
}

func (h *hasher) blocks(a, b []byte) { sha256x2.Blocks(&h.lane[0], &h.lane[1], a, b) }

func (h *hasher) put(out []Hash) {
	h.lane[0].Put((*[32]byte)(&out[0]))
	h.lane[1].Put((*[32]byte)(&out[1]))
}

// pad completes the message in msg[:n], of so many bits in all, to whole blocks
// (FIPS 180-4 §5.1.1).
func (h *hasher) pad(msg []byte, n int, bits uint64) []byte {
	end := (n + 9 + sha256.BlockSize - 1) &^ (sha256.BlockSize - 1)
	copy(msg[n:end], h.zero[:])
	msg[n] = 0x80
	binary.BigEndian.PutUint64(msg[end-8:end], bits)
	return msg[:end]
}

// stack folds hashes that arrive in order into the root of the tree above
// them (RFC 9162 §2.1.2): it holds the roots of the complete subtrees so far.
type stack struct {
	n     uint64
	roots [33]Hash
	depth int
}

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
func (h *hasher) unit(data []byte, l uint8) Hash {
	size, n := 1<<l, 0
	for ; len(data) >= 2*size; data = data[2*size:] {
		h.leaves(h.row[n:n+2], data[:size], data[size:2*size])
		n += 2
	}
	for len(data) > 0 {
		part := data[:min(size, len(data))]
		h.row[n] = h.leaf(part)
		data = data[len(part):]
		n++
	}
	return h.reduce(n)
}

// page returns the root of the subtree over the first n hashes of a page.
func (h *hasher) page(page []byte, n int) Hash {
	for i := range n {
		h.row[i] = Hash(page[i*len(Hash{}):])
	}
	return h.reduce(n)
}

// reduce folds the first n hashes of the row, level by level, into their root:
// the last of an odd number goes up as it is.
func (h *hasher) reduce(n int) Hash {
	for n > 1 {
		i := 0
		for ; i+4 <= n; i += 4 {
			h.nodes(h.row[i/2:i/2+2], h.row[i:i+4])
		}
		for ; i+2 <= n; i += 2 {
			h.row[i/2] = h.node(&h.row[i], &h.row[i+1])
		}
		if n&1 == 1 {
			h.row[n/2] = h.row[n-1]
		}
		n = (n + 1) / 2
	}
	return h.row[0]
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
