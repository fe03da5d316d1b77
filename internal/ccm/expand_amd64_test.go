//go:build !purego

package ccm

import (
	"bytes"
	"encoding/hex"
	"testing"
)

// FIPS 197, Appendix A: the last round key of each example, and nothing left
// behind it of a longer key that was there before.
func TestKeyExpansion(t *testing.T) {
	if !useAssembly {
		t.Skip("this processor has no AES-NI: key expansion is crypto/aes's")
	}
	var s schedule
	for _, c := range []struct{ key, last string }{
		{
			"603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4",
			"fe4890d1e6188d0b046df344706c631e",
		},
		{"8e73b0f7da0e6452c810f32b809079e562f8ead2522c6b7b", "e98ba06f448c773c8ecc720401002202"},
		{"2b7e151628aed2a6abf7158809cf4f3c", "d014f9a8c9ee2589e13f0cc8b6630ca6"},
	} {
		key, err := hex.DecodeString(c.key)
		if err != nil {
			t.Fatal(err)
		}
		s.expand(key)
		if !bytes.Equal(s.keys[:len(key)], key) {
			t.Errorf("AES-%d: the schedule begins with %x", 8*len(key), s.keys[:len(key)])
		}
		end := blockSize * (int(s.rounds) + 1)
		if got := hex.EncodeToString(s.keys[end-blockSize : end]); got != c.last {
			t.Errorf("AES-%d: last round key %s, want %s", 8*len(key), got, c.last)
		}
		if !bytes.Equal(s.keys[end:], make([]byte, len(s.keys)-end)) {
			t.Errorf("AES-%d: %x after the last round key", 8*len(key), s.keys[end:])
		}
	}
}
