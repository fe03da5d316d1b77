package sha256x2

import "encoding/binary"

// BlockSize is the size of a message block in bytes.
const BlockSize = 64

// State is a chaining value (FIPS 180-4 §6.2).
type State [8]uint32

// Initial is the first chaining value (§5.3.3).
var Initial = State{
	0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
	0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19,
}

// Available reports whether [Blocks] and [Alone] may be called on this machine.
func Available() bool { return available }

// Blocks puts as many whole blocks of two messages through the compression
// function as both have. It panics where it is not [Available].
func Blocks(a, b *State, p, q []byte) {
	if n := min(len(p), len(q)) / BlockSize; n > 0 {
		blocks(a, b, &p[0], &q[0], n)
	}
}

// Alone puts the whole blocks of one message through the compression function.
// It panics where it is not [Available].
func Alone(a *State, p []byte) {
	if n := len(p) / BlockSize; n > 0 {
		alone(a, &p[0], n)
	}
}

// Put writes a chaining value as a digest (§6.2.2, at the end).
func (s *State) Put(digest *[32]byte) {
	for i, w := range s {
		binary.BigEndian.PutUint32(digest[4*i:], w)
	}
}
