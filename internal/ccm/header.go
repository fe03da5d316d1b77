package ccm

import "encoding/binary"

// header is what CCM puts before the data: the blocks B_0 and A_0, each as two
// big-endian halves. The counter of A_i then is lo + i: the length check of
// Seal and Open keeps i within the counter's L bytes, so that the addition
// never carries into the nonce (RFC 3610 §2.3).
type header struct {
	b0Hi, b0Lo uint64 // flags, nonce, length of the data (RFC 3610 §2.2)
	a0Hi, a0Lo uint64 // flags, nonce, counter 0 (RFC 3610 §2.3)
}

// newHeader formats B_0 and A_0 for a message of n bytes and additional data
// of aadLen bytes. All sizes have been checked.
func newHeader(tagSize uint8, nonce []byte, n, aadLen int) header {
	l := uint64(15 - len(nonce))
	// Bytes 1..7 of both blocks are the nonce's first seven; its rest, if any,
	// is left-aligned in the low half.
	var hi, lo uint64
	if len(nonce) > 7 {
		hi = binary.BigEndian.Uint64(nonce[:8]) >> 8
		lo = binary.BigEndian.Uint64(nonce[len(nonce)-8:]) << (8 * l)
	} else {
		hi = uint64(binary.BigEndian.Uint32(nonce[:4]))<<24 | uint64(binary.BigEndian.Uint32(nonce[3:7]))&0xffffff
	}
	// Flags = 64·Adata + 8·M' + L', M' = (M-2)/2, L' = L-1.
	flags := uint64(tagSize-2)<<2 | (l - 1)
	if aadLen > 0 {
		flags |= 1 << 6
	}
	return header{
		b0Hi: flags<<56 | hi, b0Lo: lo | uint64(n),
		a0Hi: (l-1)<<56 | hi, a0Lo: lo,
	}
}

// putBlock writes a block given as two big-endian halves.
func putBlock(b *[blockSize]byte, hi, lo uint64) {
	binary.BigEndian.PutUint64(b[:8], hi)
	binary.BigEndian.PutUint64(b[8:], lo)
}

// putAADLength writes the encoding of the additional data's length (> 0) and
// returns its size: 2, 6 or 10 bytes (RFC 3610 §2.2).
func putAADLength(b *[blockSize]byte, n uint64) int {
	switch {
	case n < 1<<16-1<<8:
		binary.BigEndian.PutUint16(b[:], uint16(n))
		return 2
	case n < 1<<32:
		b[0], b[1] = 0xff, 0xfe
		binary.BigEndian.PutUint32(b[2:], uint32(n))
		return 6
	default:
		b[0], b[1] = 0xff, 0xff
		binary.BigEndian.PutUint64(b[2:], n)
		return 10
	}
}
