package oscore

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"crypto/sha512"
	"fmt"
	"hash"
	"strconv"

	"golang.org/x/crypto/chacha20poly1305"
)

// AEAD is a COSE AEAD algorithm, by its number in the IANA registry. The zero
// value means AES-CCM-16-64-128, RFC 8613's default (§3.2).
type AEAD int

// The AEAD algorithms of RFC 9053 §4 that fit OSCORE's nonce (§5.2).
const (
	A128GCM          AEAD = 1
	A192GCM          AEAD = 2
	A256GCM          AEAD = 3
	AESCCM16_64_128  AEAD = 10 // the default, mandatory to implement
	AESCCM16_64_256  AEAD = 11
	AESCCM64_64_128  AEAD = 12
	AESCCM64_64_256  AEAD = 13
	ChaCha20Poly1305 AEAD = 24
	AESCCM16_128_128 AEAD = 30
	AESCCM16_128_256 AEAD = 31
	AESCCM64_128_128 AEAD = 32
	AESCCM64_128_256 AEAD = 33
)

// aeadInfo is an AEAD's sizes in bytes and its usage limits.
type aeadInfo struct {
	name            string
	key, nonce, tag int
	ccm             bool
	limitV          uint64
}

// The limits are those of draft-ietf-core-oscore-key-limits §2.1.1.
var aeads = map[AEAD]aeadInfo{
	A128GCM:          {"A128GCM", 16, 12, 16, false, 1 << 20},
	A192GCM:          {"A192GCM", 24, 12, 16, false, 1 << 20},
	A256GCM:          {"A256GCM", 32, 12, 16, false, 1 << 20},
	AESCCM16_64_128:  {"AES-CCM-16-64-128", 16, 13, 8, true, 1 << 14},
	AESCCM16_64_256:  {"AES-CCM-16-64-256", 32, 13, 8, true, 1 << 14},
	AESCCM64_64_128:  {"AES-CCM-64-64-128", 16, 7, 8, true, 1 << 14},
	AESCCM64_64_256:  {"AES-CCM-64-64-256", 32, 7, 8, true, 1 << 14},
	ChaCha20Poly1305: {"ChaCha20/Poly1305", 32, 12, 16, false, 1 << 20},
	AESCCM16_128_128: {"AES-CCM-16-128-128", 16, 13, 16, true, 1 << 20},
	AESCCM16_128_256: {"AES-CCM-16-128-256", 32, 13, 16, true, 1 << 20},
	AESCCM64_128_128: {"AES-CCM-64-128-128", 16, 7, 16, true, 1 << 20},
	AESCCM64_128_256: {"AES-CCM-64-128-256", 32, 7, 16, true, 1 << 20},
}

// AEADs lists the supported algorithms in the order of their numbers.
func AEADs() []AEAD {
	return []AEAD{
		A128GCM, A192GCM, A256GCM, AESCCM16_64_128, AESCCM16_64_256, AESCCM64_64_128, AESCCM64_64_256,
		ChaCha20Poly1305, AESCCM16_128_128, AESCCM16_128_256, AESCCM64_128_128, AESCCM64_128_256,
	}
}

// String returns the registry's name, such as "AES-CCM-16-64-128".
func (a AEAD) String() string {
	if info, ok := aeads[a.orDefault()]; ok {
		return info.name
	}
	return "AEAD(" + strconv.Itoa(int(a)) + ")"
}

func (a AEAD) orDefault() AEAD {
	if a == 0 {
		return AESCCM16_64_128
	}
	return a
}

// ParseAEAD reads an algorithm's registry name or number, as configuration
// files hold it.
func ParseAEAD(s string) (AEAD, error) {
	for a, info := range aeads {
		if info.name == s || strconv.Itoa(int(a)) == s {
			return a, nil
		}
	}
	return 0, fmt.Errorf("oscore: unknown AEAD algorithm %q", s)
}

// MaxIDLen returns the longest Sender and Recipient ID that the algorithm's
// nonce has room for, in bytes: nonce length minus 6 (§3.3).
func (a AEAD) MaxIDLen() int {
	info, ok := aeads[a.orDefault()]
	if !ok {
		return 0
	}
	return info.nonce - 6
}

// KeyLen returns the length of the algorithm's key in bytes, 0 if unknown.
func (a AEAD) KeyLen() int { return aeads[a.orDefault()].key }

// NonceLen returns the length of the algorithm's nonce in bytes, 0 if unknown.
func (a AEAD) NonceLen() int { return aeads[a.orDefault()].nonce }

// TagLen returns the length of the algorithm's authentication tag in bytes, 0
// if unknown.
func (a AEAD) TagLen() int { return aeads[a.orDefault()].tag }

// newAEAD returns the algorithm's implementation for everything but AES-CCM,
// which package ccm provides in a form of its own.
func newAEAD(a AEAD, key []byte) (cipher.AEAD, error) {
	if a == ChaCha20Poly1305 {
		return chacha20poly1305.New(key)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// HKDF is the hash of an HMAC-based HKDF, by the COSE number of its HMAC. The
// zero value means HKDF SHA-256, RFC 8613's default (§3.2).
type HKDF int

// The HKDF algorithms. Some files and objects name them by the numbers of the
// direct key derivation instead (-10, -11): ParseHKDF takes both.
const (
	HKDFSHA256 HKDF = 5
	HKDFSHA384 HKDF = 6
	HKDFSHA512 HKDF = 7
)

func (h HKDF) orDefault() HKDF {
	if h == 0 {
		return HKDFSHA256
	}
	return h
}

// String returns a name such as "HKDF SHA-256".
func (h HKDF) String() string {
	switch h.orDefault() {
	case HKDFSHA256:
		return "HKDF SHA-256"
	case HKDFSHA384:
		return "HKDF SHA-384"
	case HKDFSHA512:
		return "HKDF SHA-512"
	}
	return "HKDF(" + strconv.Itoa(int(h)) + ")"
}

// HKDFs lists the supported hashes.
func HKDFs() []HKDF { return []HKDF{HKDFSHA256, HKDFSHA384, HKDFSHA512} }

// ParseHKDF reads a hash as configuration files and LwM2M Object 21 hold it: a
// name ("SHA-256", "sha256", "HKDF SHA-256") or a COSE number (5, 6, 7 for
// HMAC 256, 384 and 512; -10, -11 for direct+HKDF-SHA-256 and -512).
func ParseHKDF(s string) (HKDF, error) {
	switch s {
	case "HKDF SHA-256", "SHA-256", "sha256", "5", "-10":
		return HKDFSHA256, nil
	case "HKDF SHA-384", "SHA-384", "sha384", "6":
		return HKDFSHA384, nil
	case "HKDF SHA-512", "SHA-512", "sha512", "7", "-11":
		return HKDFSHA512, nil
	}
	return 0, fmt.Errorf("oscore: unknown HKDF algorithm %q", s)
}

// hash returns the constructor of the HKDF's hash, nil if unknown.
func (h HKDF) hash() func() hash.Hash {
	switch h.orDefault() {
	case HKDFSHA256:
		return sha256.New
	case HKDFSHA384:
		return sha512.New384
	case HKDFSHA512:
		return sha512.New
	}
	return nil
}
