package sha256x2

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"math/rand/v2"
	"testing"
)

// padded is a message after FIPS 180-4 §5.1.1.
func padded(m []byte) []byte {
	p := append(bytes.Clone(m), 0x80)
	for len(p)%BlockSize != 56 {
		p = append(p, 0)
	}
	return binary.BigEndian.AppendUint64(p, uint64(len(m))*8)
}

func TestEqualsSHA256(t *testing.T) {
	if !Available() {
		t.Skip("this processor has no SHA instructions: crypto/sha256 is used instead")
	}
	rng := rand.NewChaCha8([32]byte{1})
	for n := range 1200 {
		p, q := make([]byte, n), make([]byte, n)
		_, _ = rng.Read(p)
		_, _ = rng.Read(q)
		// In one go, and cut into two calls.
		for _, cut := range []int{0, BlockSize} {
			a, b := Initial, Initial
			pp, qq := padded(p), padded(q)
			k := min(cut, len(pp))
			Blocks(&a, &b, pp[:k], qq[:k])
			Blocks(&a, &b, pp[k:], qq[k:])
			c := Initial
			Alone(&c, pp[:k])
			Alone(&c, pp[k:])
			if c != a {
				t.Fatalf("%d bytes: alone it differs", n)
			}
			var da, db [32]byte
			a.Put(&da)
			b.Put(&db)
			if da != sha256.Sum256(p) || db != sha256.Sum256(q) {
				t.Fatalf("%d bytes: the digest differs", n)
			}
		}
	}
}

func TestBlocksTakesWholeBlocksOfBoth(t *testing.T) {
	if !Available() {
		t.Skip("this processor has no SHA instructions")
	}
	a, b := Initial, Initial
	Blocks(&a, &b, make([]byte, 63), make([]byte, 200))
	if a != Initial || b != Initial {
		t.Fatal("less than a block was taken")
	}
}

func BenchmarkBlocks(b *testing.B) {
	if !Available() {
		b.Skip("this processor has no SHA instructions")
	}
	p, q := make([]byte, 1024), make([]byte, 1024)
	s0, s1 := Initial, Initial
	b.SetBytes(2048)
	for b.Loop() {
		Blocks(&s0, &s1, p, q)
	}
}

func BenchmarkAlone(b *testing.B) {
	if !Available() {
		b.Skip("this processor has no SHA instructions")
	}
	p := make([]byte, 1024)
	s := Initial
	b.SetBytes(1024)
	for b.Loop() {
		Alone(&s, p)
	}
}
