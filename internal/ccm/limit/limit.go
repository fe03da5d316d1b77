// Package limit measures the floor under AES-CCM on the machine at hand.
//
// A CBC-MAC is a chain: each block cipher call needs the result of the one
// before. However clever the rest, a single message cannot be sealed or opened
// in less time than its chain of dependent AES-128 encryptions takes.
// Benchmarks run [Chain] beside the real thing, so that the ratio comes out of
// one run and means the same on every machine.
package limit

import "crypto/aes"

// Blocks is the length of the chain for a plaintext of n bytes and additional
// data of aad bytes (up to 65279): B_0, the additional data behind its two
// bytes of length, the plaintext (RFC 3610 §2.2).
func Blocks(n, aad int) int {
	blocks := 1 + (n+15)/16
	if aad > 0 {
		blocks += (2 + aad + 15) / 16
	}
	return blocks
}

// key is the key of FIPS 197, Appendix A.1.
var key = []byte{
	0x2b, 0x7e, 0x15, 0x16, 0x28, 0xae, 0xd2, 0xa6, 0xab, 0xf7, 0x15, 0x88, 0x09, 0xcf, 0x4f, 0x3c,
}

var block = func() interface{ Encrypt(dst, src []byte) } {
	b, err := aes.NewCipher(key)
	if err != nil {
		panic("limit: " + err.Error())
	}
	return b
}()

// portable is the chain over crypto/aes.
func portable(x *[16]byte, n int) {
	for range n {
		block.Encrypt(x[:], x[:])
	}
}
