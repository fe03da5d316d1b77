package ccm

import (
	"errors"
	"fmt"
	"io"
)

// Errors. A wrong nonce length or an unusable key is the caller's mistake;
// ErrOpen is the only answer a peer's bytes can bring about.
var (
	// ErrKeySize: an AES key has 16, 24 or 32 bytes.
	ErrKeySize = errors.New("ccm: key must be 16, 24 or 32 bytes")
	// ErrNonceSize: CCM nonces have 7 to 13 bytes, and one key has one length.
	ErrNonceSize = errors.New("ccm: wrong nonce length")
	// ErrTagSize: CCM tags have 4, 6, 8, 10, 12, 14 or 16 bytes.
	ErrTagSize = errors.New("ccm: tag must be 4, 6, 8, 10, 12, 14 or 16 bytes")
	// ErrTooLong: the plaintext's length does not fit the length field, which
	// has 15 - nonce length bytes (65535 bytes at most for a 13-byte nonce).
	ErrTooLong = errors.New("ccm: plaintext too long for the nonce length")
	// ErrNoKey: the Key was never initialised, or it was wiped.
	ErrNoKey = errors.New("ccm: key not initialised")
	// ErrOpen: the ciphertext is not one that this key, nonce and additional
	// data made. Why (too short, too long, wrong tag) is deliberately not said.
	ErrOpen = errors.New("ccm: message authentication failed")
)

// Key is an expanded AES key together with CCM's two parameters, the nonce and
// the tag length. The zero value is unusable: Seal and Open return [ErrNoKey].
//
// A Key is a plain value. On amd64 it holds no pointer, so copying it copies
// the secret and [Key.Wipe] erases this copy alone. After Init any number of
// goroutines may use it at once.
type Key struct {
	cipher    schedule
	nonceSize uint8
	tagSize   uint8
}

// Init expands a 16, 24 or 32-byte AES key for nonces of nonceSize (7..13) and
// tags of tagSize (4, 6, ..16) bytes. On an error the Key is left unusable.
func (k *Key) Init(key []byte, nonceSize, tagSize int) error {
	if err := legal(len(key), nonceSize, tagSize); err != nil {
		k.Wipe()
		return err
	}
	k.cipher.expand(key)
	k.nonceSize = uint8(nonceSize)
	k.tagSize = uint8(tagSize)
	return nil
}

// legal refuses what NIST SP 800-38C §5.3 and A.1 do not define.
func legal(keySize, nonceSize, tagSize int) error {
	switch {
	case keySize != 16 && keySize != 24 && keySize != 32:
		return ErrKeySize
	case nonceSize < 7 || nonceSize > 13:
		return ErrNonceSize
	case tagSize < 4 || tagSize > 16 || tagSize&1 != 0:
		return ErrTagSize
	}
	return nil
}

// NonceSize is the length of every nonce, in bytes.
func (k *Key) NonceSize() int { return int(k.nonceSize) }

// Overhead is the length of the tag, in bytes: what Seal adds to a plaintext.
func (k *Key) Overhead() int { return int(k.tagSize) }

// Wipe erases the key, which is unusable from then on. Without the assembly's
// build the expanded key is the standard library's and is only let go.
func (k *Key) Wipe() { *k = Key{} }

// Seal encrypts and authenticates plaintext, authenticates aad, and appends
// ciphertext and tag to dst. It allocates only if dst lacks the capacity (the
// portable twin: see the package comment).
//
// To seal in place pass plaintext[:0] as dst. Any other overlap of the output
// with plaintext or aad panics: it is a mistake in the program that would
// corrupt a message. A pair of key and nonce must never be used twice.
func (k *Key) Seal(dst, nonce, plaintext, aad []byte) ([]byte, error) {
	if err := k.check(nonce); err != nil {
		return nil, err
	}
	if !fits(len(plaintext), nonce) {
		return nil, ErrTooLong
	}
	ret, out := grow(dst, len(plaintext)+int(k.tagSize))
	if overlap(out, plaintext) && start(out) != start(plaintext) || overlap(out, aad) {
		panic("ccm: invalid buffer overlap")
	}
	h := newHeader(k.tagSize, nonce, len(plaintext), len(aad))
	tag := k.cipher.pass(h, out[:len(plaintext)], plaintext, aad, true)
	storePrefix(out[len(plaintext):], tag)
	return ret, nil
}

// Open authenticates ciphertext (which ends in the tag) and aad, decrypts, and
// appends the plaintext to dst. It allocates as Seal does.
//
// To open in place pass ciphertext[:0] as dst; overlaps are treated as in Seal.
// On [ErrOpen] the output region is zeroed, so a failed attempt in place
// destroys the ciphertext: whoever wants to try another key opens into a
// separate buffer.
func (k *Key) Open(dst, nonce, ciphertext, aad []byte) ([]byte, error) {
	if err := k.check(nonce); err != nil {
		return nil, err
	}
	n := len(ciphertext) - int(k.tagSize)
	if n < 0 || !fits(n, nonce) {
		return nil, ErrOpen
	}
	ret, out := grow(dst, n)
	if overlap(out, ciphertext) && start(out) != start(ciphertext) || overlap(out, aad) {
		panic("ccm: invalid buffer overlap")
	}
	got := loadPrefix(ciphertext[n:])
	h := newHeader(k.tagSize, nonce, n, len(aad))
	tag := k.cipher.pass(h, out, ciphertext[:n], aad, false)
	if !tag.equalPrefix(got, int(k.tagSize)) {
		clear(out)
		return nil, ErrOpen
	}
	return ret, nil
}

// check refuses an unusable key and a nonce of the wrong length.
func (k *Key) check(nonce []byte) error {
	if len(nonce) != int(k.nonceSize) || len(nonce) == 0 {
		if k.nonceSize == 0 {
			return ErrNoKey
		}
		return ErrNonceSize
	}
	return nil
}

// fits says whether n is at most 2^(8·L) - 1, L = 15 - len(nonce).
func fits(n int, nonce []byte) bool {
	l := 15 - len(nonce)
	return l >= 8 || uint64(n)>>(8*uint(l)) == 0
}

// Format keeps the key out of every fmt verb.
func (k Key) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "ccm.Key(redacted)") }

// grow extends dst by n bytes, in its own array if the capacity suffices.
func grow(dst []byte, n int) (ret, tail []byte) {
	total := len(dst) + n
	if cap(dst) >= total {
		ret = dst[:total]
	} else {
		ret = make([]byte, total)
		copy(ret, dst)
	}
	return ret, ret[len(dst):]
}
