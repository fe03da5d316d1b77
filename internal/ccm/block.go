package ccm

import "encoding/binary"

const blockSize = 16

// block is sixteen bytes in little-endian halves. Unlike an array it travels
// in registers.
type block struct{ lo, hi uint64 }

// loadPrefix reads 1 to 16 bytes as a block padded with zeros.
func loadPrefix(b []byte) block {
	n := len(b)
	switch {
	case n >= 8:
		return block{
			binary.LittleEndian.Uint64(b),
			binary.LittleEndian.Uint64(b[n-8:]) >> (8 * uint(16-n)),
		}
	case n >= 4:
		return block{lo: uint64(binary.LittleEndian.Uint32(b)) |
			uint64(binary.LittleEndian.Uint32(b[n-4:]))<<(8*uint(n-4))}
	default:
		lo := uint64(b[0])
		if n > 1 {
			lo |= uint64(b[1])<<8 | uint64(b[n-1])<<(8*uint(n-1))
		}
		return block{lo: lo}
	}
}

// storePrefix writes the first 0 to 16 bytes of a block.
func storePrefix(b []byte, v block) {
	n := len(b)
	switch {
	case n >= 8:
		binary.LittleEndian.PutUint64(b, v.lo)
		binary.LittleEndian.PutUint64(b[n-8:], v.lo>>(8*uint(n-8))|v.hi<<(8*uint(16-n)))
	case n >= 4:
		binary.LittleEndian.PutUint32(b, uint32(v.lo))
		binary.LittleEndian.PutUint32(b[n-4:], uint32(v.lo>>(8*uint(n-4))))
	default:
		for i := range b {
			b[i] = byte(v.lo >> (8 * uint(i)))
		}
	}
}

// equalPrefix compares the first n bytes (4..16) in constant time.
func (v block) equalPrefix(w block, n int) bool {
	lo, hi := v.lo^w.lo, v.hi^w.hi
	if n <= 8 {
		return lo<<(8*uint(8-n)) == 0
	}
	return lo|hi<<(8*uint(16-n)) == 0
}
