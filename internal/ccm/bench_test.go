package ccm

import (
	"fmt"
	"testing"

	"github.com/oscorelay/oscorelay/internal/ccm/limit"
)

// The message that the benchmarks seal: AES-CCM-16-64-128 as OSCORE uses it,
// with additional data of 24 bytes. SerialLimit/<n> is the chain of dependent
// AES blocks that the CBC-MAC of the same message needs; Seal/<n> divided by
// it is the ratio to the limit.
const (
	benchNonce = 13
	benchTag   = 8
	benchAAD   = 24
)

var benchSizes = []int{0, 16, 32, 64, 256, 1024}

func benchSeal(b *testing.B, im implementation) {
	for _, n := range benchSizes {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			k := im.key(b, noise(1, 16), benchNonce, benchTag)
			nonce, aad, buf := noise(2, benchNonce), noise(3, benchAAD), make([]byte, n, n+benchTag)
			b.SetBytes(int64(n))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := k.Seal(buf[:0], nonce, buf, aad); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func benchOpen(b *testing.B, im implementation) {
	for _, n := range benchSizes {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			k := im.key(b, noise(1, 16), benchNonce, benchTag)
			nonce, aad, out := noise(2, benchNonce), noise(3, benchAAD), make([]byte, n)
			sealed, err := k.Seal(nil, nonce, out, aad)
			if err != nil {
				b.Fatal(err)
			}
			b.SetBytes(int64(n))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := k.Open(out[:0], nonce, sealed, aad); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

var defaultImplementation = implementation{"default", (*Key).Init}

func BenchmarkSeal(b *testing.B) { benchSeal(b, defaultImplementation) }
func BenchmarkOpen(b *testing.B) { benchOpen(b, defaultImplementation) }

func BenchmarkSerialLimit(b *testing.B) {
	for _, n := range benchSizes {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			blocks := limit.Blocks(n, benchAAD)
			var x [16]byte
			b.SetBytes(int64(n))
			for b.Loop() {
				limit.Chain(&x, blocks)
			}
		})
	}
}

// BenchmarkPortable seals with the portable twin over an expanded key, as a
// build without assembly does.
func BenchmarkPortable(b *testing.B) { benchPortable(b, true) }

func BenchmarkPortableOpen(b *testing.B) { benchPortable(b, false) }

func benchPortable(b *testing.B, seal bool) {
	for _, n := range benchSizes {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			aes := newBlock(noise(1, 16))
			nonce, aad, buf := noise(2, benchNonce), noise(3, benchAAD), make([]byte, n)
			b.SetBytes(int64(n))
			b.ReportAllocs()
			for b.Loop() {
				portable(aes, newHeader(benchTag, nonce, n, len(aad)), buf, buf, aad, seal)
			}
		})
	}
}

// BenchmarkPion seals with pion/dtls's CCM, which the portable twin must never
// be slower than.
func BenchmarkPion(b *testing.B) {
	for _, n := range benchSizes {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			a := newPion(b, noise(1, 16), benchNonce, benchTag)
			nonce, aad, buf := noise(2, benchNonce), noise(3, benchAAD), make([]byte, n, n+benchTag)
			b.SetBytes(int64(n))
			b.ReportAllocs()
			for b.Loop() {
				a.Seal(buf[:0], nonce, buf, aad)
			}
		})
	}
}

func BenchmarkPionOpen(b *testing.B) {
	for _, n := range benchSizes {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			a := newPion(b, noise(1, 16), benchNonce, benchTag)
			nonce, aad, out := noise(2, benchNonce), noise(3, benchAAD), make([]byte, n)
			sealed := a.Seal(nil, nonce, out, aad)
			b.SetBytes(int64(n))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := a.Open(out[:0], nonce, sealed, aad); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkInit is the key expansion.
func BenchmarkInit(b *testing.B) {
	for _, size := range keySizes {
		b.Run(fmt.Sprintf("AES-%d", 8*size), func(b *testing.B) {
			key := noise(1, size)
			var k Key
			b.ReportAllocs()
			for b.Loop() {
				if err := k.Init(key, benchNonce, benchTag); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
