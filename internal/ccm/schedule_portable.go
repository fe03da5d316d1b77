package ccm

import (
	"crypto/aes"
	"crypto/cipher"
)

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

// newBlock expands a key whose length has been checked.
func newBlock(key []byte) cipher.Block {
	b, err := aes.NewCipher(key)
	if err != nil {
		panic("ccm: crypto/aes refuses a key of legal length: " + err.Error())
	}
	return b
}
