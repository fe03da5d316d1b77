//go:build !amd64 || purego

package ccm

import "crypto/cipher"

// schedule is the expanded AES key: the standard library's.
type schedule struct{ block cipher.Block }

func (s *schedule) expand(key []byte) {
	s.block = newBlock(key)
}

func (s *schedule) seal(tag *[blockSize]byte, out, plaintext []byte, h header, aad []byte) {
	portable(s.block, tag, out, plaintext, h, aad, true)
}

func (s *schedule) open(tag *[blockSize]byte, out, ciphertext []byte, h header, aad []byte) {
	portable(s.block, tag, out, ciphertext, h, aad, false)
}
