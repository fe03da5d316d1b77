//go:build !amd64 || purego

package ccm

import "crypto/cipher"

// schedule is the expanded AES key: the standard library's. It cannot be
// wiped, only let go.
type schedule struct{ aes cipher.Block }

func (s *schedule) expand(key []byte) { s.aes = newBlock(key) }

// pass seals or opens in into out and returns the whole tag.
func (s *schedule) pass(h header, out, in, aad []byte, seal bool) block {
	return portable(s.aes, h, out, in, aad, seal)
}
