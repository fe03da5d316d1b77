package coap

// Block is the value of a Block1 or Block2 option (RFC 7959 §2.2).
type Block struct {
	Num  uint32 // block number, below 2^20
	More bool   // further blocks follow, or are there to be asked for
	SZX  uint8  // size exponent: the block has 2^(SZX+4) bytes; 7 is reserved (BERT over streams)
}

// MaxBlockNum is the largest block number that fits the option.
const MaxBlockNum = 1<<20 - 1

// ParseBlock decodes a Block1 or Block2 value. The reserved size exponent 7
// and values above three bytes are refused with an error that wraps
// [ErrFormat] (RFC 7959 §2.2: answered with 4.00).
func ParseBlock(value []byte) (Block, error) {
	v, ok := Uint(value)
	if !ok || len(value) > 3 {
		return Block{}, errBlockLong
	}
	b := Block{Num: v >> 4, More: v&8 != 0, SZX: uint8(v & 7)}
	if b.SZX == 7 {
		return Block{}, errBlockSize
	}
	return b, nil
}

const (
	errBlockLong = formatError("block option above three bytes")
	errBlockSize = formatError("block size exponent 7 is reserved")
)

// Size returns the block's size in bytes, 16 to 1024.
func (b Block) Size() int { return 1 << (b.SZX + 4) }

// Offset returns the position of the block's first byte in the whole body.
func (b Block) Offset() int { return int(b.Num) << (b.SZX + 4) }

// Append appends the option's value.
func (b Block) Append(dst []byte) []byte { return AppendUint(dst, b.value()) }

func (b Block) value() uint32 {
	v := b.Num<<4 | uint32(b.SZX&7)
	if b.More {
		v |= 8
	}
	return v
}

// SZX returns the largest size exponent whose block is not above size bytes:
// 0 (16 bytes) to 6 (1024 bytes).
func SZX(size int) uint8 {
	szx := uint8(6)
	for szx > 0 && 1<<(szx+4) > size {
		szx--
	}
	return szx
}
