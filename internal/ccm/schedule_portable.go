//go:build !amd64 || purego

package ccm

import "crypto/cipher"

// schedule is the expanded AES key: the standard library's. It cannot be
// wiped, only let go.
type schedule struct{ aes cipher.Block }

func (s *schedule) expand(key []byte) { s.aes = newBlock(key) }

// message is what a call hands to pass and gets back.
type message struct {
	header
	tag block
}

// pass seals or opens in into out and leaves the whole tag in m.
func (s *schedule) pass(m *message, out, in, aad []byte, seal bool) {
	m.tag = portable(s.aes, &m.header, out, in, aad, seal)
}
