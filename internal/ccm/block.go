package ccm

import (
	"crypto/aes"
	"crypto/cipher"
)

// newBlock expands a key whose length has been checked.
func newBlock(key []byte) cipher.Block {
	b, err := aes.NewCipher(key)
	if err != nil {
		panic("ccm: crypto/aes refuses a key of legal length: " + err.Error())
	}
	return b
}
