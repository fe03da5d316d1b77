package edhoc

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"crypto/sha512"
	"fmt"
	"hash"
	"slices"

	"github.com/veraison/go-cose"
	"golang.org/x/crypto/chacha20poly1305"

	"github.com/oscorelay/oscorelay/internal/ccm"
)

// Suite is the label of a cipher suite (RFC 9528 §3.6, §10.2).
type Suite int

// DefaultSuites is the order of preference where [Config].Suites is nil:
// first what devices most likely share, then what costs more bytes or time.
// Those that an endpoint has no identity for are left out.
var DefaultSuites = []Suite{2, 3, 0, 1, 5, 4, 6, 24}

// COSE numbers of the algorithms in the suites.
const (
	algA128GCM   = 1
	algA256GCM   = 3
	algCCM64128  = 10 // AES-CCM-16-64-128
	algChaCha    = 24
	algCCM128128 = 30 // AES-CCM-16-128-128
	algSHA256    = -16
	algSHA384    = -43
)

// suiteParams is a suite spelled out.
type suiteParams struct {
	suite     Suite
	aead      *aeadParams
	hash      *hashParams
	macLength int // of a static DH party
	curve     *curveParams
	signature cose.Algorithm
	appAEAD   *aeadParams
	appHash   *hashParams
}

type aeadParams struct {
	cose              int
	key, nonce        int
	newAEAD           func(key []byte) (cipher.AEAD, error)
	longestIdentifier int // of an OSCORE endpoint: nonce length - 6 (RFC 8613 §3.3)
}

type hashParams struct {
	cose int
	size int
	new  func() hash.Hash
}

var (
	aesCCM64  = &aeadParams{algCCM64128, 16, 13, func(k []byte) (cipher.AEAD, error) { return ccm.New(k, 13, 8) }, 7}
	aesCCM128 = &aeadParams{algCCM128128, 16, 13, func(k []byte) (cipher.AEAD, error) { return ccm.New(k, 13, 16) }, 7}
	a128GCM   = &aeadParams{algA128GCM, 16, 12, newGCM, 6}
	a256GCM   = &aeadParams{algA256GCM, 32, 12, newGCM, 6}
	chaCha    = &aeadParams{algChaCha, 32, 12, chacha20poly1305.New, 6}

	hashSHA256 = &hashParams{algSHA256, sha256.Size, sha256.New}
	hashSHA384 = &hashParams{algSHA384, sha512.Size384, sha512.New384}
)

func newGCM(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// suites is the registry of RFC 9528 §10.2 but for suite 25.
var suites = map[Suite]*suiteParams{
	0:  {0, aesCCM64, hashSHA256, 8, curveX25519, cose.AlgorithmEdDSA, aesCCM64, hashSHA256},
	1:  {1, aesCCM128, hashSHA256, 16, curveX25519, cose.AlgorithmEdDSA, aesCCM64, hashSHA256},
	2:  {2, aesCCM64, hashSHA256, 8, curveP256, cose.AlgorithmES256, aesCCM64, hashSHA256},
	3:  {3, aesCCM128, hashSHA256, 16, curveP256, cose.AlgorithmES256, aesCCM64, hashSHA256},
	4:  {4, chaCha, hashSHA256, 16, curveX25519, cose.AlgorithmEdDSA, chaCha, hashSHA256},
	5:  {5, chaCha, hashSHA256, 16, curveP256, cose.AlgorithmES256, chaCha, hashSHA256},
	6:  {6, a128GCM, hashSHA256, 16, curveX25519, cose.AlgorithmES256, a128GCM, hashSHA256},
	24: {24, a256GCM, hashSHA384, 16, curveP384, cose.AlgorithmES384, a256GCM, hashSHA384},
}

// sum hashes the concatenation of the parts.
func (h *hashParams) sum(parts ...[]byte) []byte {
	d := h.new()
	for _, p := range parts {
		d.Write(p)
	}
	return d.Sum(nil)
}

// signatureCurve is the curve that the suite's signature algorithm is used
// with here: ES256 with P-256, ES384 with P-384, EdDSA with Ed25519.
func (s *suiteParams) signatureCurve() int {
	switch s.signature {
	case cose.AlgorithmES256:
		return crvP256
	case cose.AlgorithmES384:
		return crvP384
	}
	return crvEd25519
}

// signatureSize is the length of a signature of the suite in bytes.
func (s *suiteParams) signatureSize() int {
	if s.signature == cose.AlgorithmES384 {
		return 96
	}
	return 64
}

// appendSuites appends a suites field: an int for one, else an array.
func appendSuites(dst []byte, list []Suite) []byte {
	if len(list) != 1 {
		dst = appendHead(dst, majorArray, uint64(len(list)))
	}
	for _, s := range list {
		dst = appendInt(dst, int(s))
	}
	return dst
}

// maxSuites bounds a received suites field.
const maxSuites = 64

// parseSuites consumes a suites field: an int, or an array of two and more.
func parseSuites(c *cursor) ([]Suite, error) {
	if major, ok := c.major(); !ok || major != majorArray {
		s, err := c.int()
		if err != nil {
			return nil, err
		}
		return []Suite{Suite(s)}, nil
	}
	_, n, err := c.head()
	if err != nil {
		return nil, err
	}
	if n < 2 || n > maxSuites {
		return nil, fmt.Errorf("%w: array of %d cipher suites", ErrMalformed, n)
	}
	list := make([]Suite, n)
	for i := range list {
		s, err := c.int()
		if err != nil {
			return nil, err
		}
		if slices.Contains(list[:i], Suite(s)) {
			return nil, fmt.Errorf("%w: cipher suite %d twice", ErrMalformed, s)
		}
		list[i] = Suite(s)
	}
	return list, nil
}

// selectSuite is the Initiator's choice (RFC 9528 §5.2.2): the most preferred,
// or the most preferred among what the Responder was heard to support.
func selectSuite(preferred, peer []Suite) (Suite, error) {
	if peer == nil {
		return preferred[0], nil
	}
	for _, s := range preferred {
		if slices.Contains(peer, s) {
			return s, nil
		}
	}
	return 0, fmt.Errorf("%w: peer supports %s, we %s", ErrWrongSuite, joinSuites(peer), joinSuites(preferred))
}

// acceptSuite is the Responder's judgement of SUITES_I (RFC 9528 §5.2.3): the
// selected suite, its last, must be the first that supported says yes to.
// ours is told to the Initiator when nothing fits.
func acceptSuite(suitesI []Suite, supported func(Suite) bool, ours []Suite) (Suite, error) {
	i := slices.IndexFunc(suitesI, supported)
	switch {
	case i < 0:
		return 0, &SuiteError{ours}
	case i < len(suitesI)-1:
		return 0, &SuiteError{[]Suite{suitesI[i]}}
	}
	return suitesI[i], nil
}
