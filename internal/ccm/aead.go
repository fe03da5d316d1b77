package ccm

import "crypto/cipher"

// New returns AES-CCM in the standard library's shape. As the interface
// demands, Seal panics on a nonce of the wrong length or a plaintext that is
// too long, and Open panics on a nonce of the wrong length.
func New(key []byte, nonceSize, tagSize int) (cipher.AEAD, error) {
	a := new(aead)
	if err := a.key.Init(key, nonceSize, tagSize); err != nil {
		return nil, err
	}
	return a, nil
}

type aead struct{ key Key }

func (a *aead) NonceSize() int { return a.key.NonceSize() }
func (a *aead) Overhead() int  { return a.key.Overhead() }

func (a *aead) Seal(dst, nonce, plaintext, aad []byte) []byte {
	out, err := a.key.Seal(dst, nonce, plaintext, aad)
	if err != nil {
		panic(err)
	}
	return out
}

func (a *aead) Open(dst, nonce, ciphertext, aad []byte) ([]byte, error) {
	if len(nonce) != a.key.NonceSize() {
		panic(ErrNonceSize)
	}
	return a.key.Open(dst, nonce, ciphertext, aad)
}
