package fragment

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"

	"github.com/veraison/go-cose"
)

// ContentType stands in the protected header's typ parameter (label 16, RFC
// 9596), so that a signature over something else is never taken for one over a
// manifest. It is not registered.
const ContentType = "application/lwm2m-frag+cose"

// Envelope is a COSE_Sign1 whose form has been checked and whose signature has
// not: enough to cut, serve or look at an image, for which no key is needed.
// Nothing may be installed by its word.
type Envelope struct {
	manifest Manifest
	alg      Algorithm
	kid      []byte
	sign1    []byte
	hash     Hash
}

// Signed is a manifest whose signature has been verified. Only [Open] makes
// one, and every image needs one.
type Signed struct {
	envelope // not exported, so that nobody else can put one together
	key      PublicKey
}

type envelope = Envelope

// Envelope returns what is known without the signature, for [Cut].
func (s *Signed) Envelope() *Envelope {
	e := s.envelope
	return &e
}

// Manifest returns what was signed.
func (e *Envelope) Manifest() Manifest { return e.manifest }

// Signer returns the algorithm and the identifier of the key that signed, as
// the envelope says.
func (e *Envelope) Signer() (Algorithm, []byte) { return e.alg, e.kid }

// Bytes returns the COSE_Sign1. The caller must not change it.
func (e *Envelope) Bytes() []byte { return e.sign1 }

// Hash returns the SHA-256 of the COSE_Sign1's bytes: the manifest's name.
func (e *Envelope) Hash() Hash { return e.hash }

// Key returns the trusted key that verified the signature.
func (s *Signed) Key() PublicKey { return s.key }

// protectedHeader is the COSE_Sign1's protected header.
type protectedHeader struct {
	Alg Algorithm `cbor:"1,keyasint"`
	KID []byte    `cbor:"4,keyasint"`
	Typ string    `cbor:"16,keyasint"`
}

// sign1 is COSE_Sign1 without its tag (RFC 9052 §4.2).
type sign1 struct {
	_           struct{} `cbor:",toarray"`
	Protected   []byte
	Unprotected struct{}
	Payload     []byte
	Signature   []byte
}

// sign1Tag is the encoded tag 18 (RFC 9052 §2).
const sign1Tag = 0xd2

// Sign signs a manifest and returns the COSE_Sign1_Tagged. rand may be nil for
// Ed25519.
func Sign(rand io.Reader, m Manifest, s Signer) ([]byte, error) {
	payload, err := m.marshal()
	if err != nil {
		return nil, err
	}
	signer, err := s.signer()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBadKey, err)
	}
	msg := cose.Sign1Message{
		Headers: cose.Headers{
			Protected: cose.ProtectedHeader{
				cose.HeaderLabelAlgorithm: cose.Algorithm(s.Alg),
				cose.HeaderLabelKeyID:     s.KID,
				cose.HeaderLabelType:      ContentType,
			},
			Unprotected: cose.UnprotectedHeader{},
		},
		Payload: payload,
	}
	if err := msg.Sign(rand, nil, signer); err != nil {
		return nil, fmt.Errorf("fragment: signing: %w", err)
	}
	b, err := msg.MarshalCBOR()
	if err != nil {
		return nil, fmt.Errorf("fragment: signing: %w", err)
	}
	if len(b) > MaxHeader-infoSize {
		return nil, fmt.Errorf("%w: %d bytes signed; a header holds %d", ErrManifest, len(b), MaxHeader-infoSize)
	}
	return b, nil
}

// split reads the envelope and the protected header, in their only encoding.
func split(b []byte) (sign1, protectedHeader, error) {
	var (
		e sign1
		p protectedHeader
	)
	switch {
	case len(b) > MaxHeader:
		return e, p, fmt.Errorf("%w: %d bytes; at most %d", ErrHeader, len(b), MaxHeader)
	case len(b) == 0 || b[0] != sign1Tag:
		return e, p, fmt.Errorf("%w: no COSE_Sign1_Tagged", ErrHeader)
	}
	if err := decodeExact(b[1:], &e); err != nil {
		return e, p, fmt.Errorf("%w: COSE_Sign1: %w", ErrHeader, err)
	}
	if err := decodeExact(e.Protected, &p); err != nil {
		return e, p, fmt.Errorf("%w: protected header: %w", ErrHeader, err)
	}
	switch {
	case p.Typ != ContentType:
		return e, p, fmt.Errorf("%w: typ is not %s", ErrHeader, ContentType)
	case !p.Alg.allowed():
		return e, p, fmt.Errorf("%w: %v signs it", ErrAlgorithm, p.Alg)
	case len(p.KID) == 0 || len(p.KID) > maxKID:
		return e, p, fmt.Errorf("%w: kid of %d bytes", ErrHeader, len(p.KID))
	}
	return e, p, nil
}

// Parse reads a COSE_Sign1_Tagged without verifying its signature: see
// [Envelope].
func Parse(b []byte) (*Envelope, error) {
	e, p, err := split(b)
	if err != nil {
		return nil, err
	}
	return newEnvelope(b, e, p)
}

func newEnvelope(b []byte, e sign1, p protectedHeader) (*Envelope, error) {
	m, err := parseManifest(e.Payload)
	if err != nil {
		return nil, err
	}
	return &Envelope{manifest: m, alg: p.Alg, kid: p.KID, sign1: bytes.Clone(b), hash: sha256.Sum256(b)}, nil
}

// Open verifies a COSE_Sign1_Tagged against the trusted keys and returns its
// manifest. It does not ask whether the image is for this device: see [Policy].
func Open(b []byte, keys ...PublicKey) (*Signed, error) {
	// 1. The envelope and the protected header.
	e, p, err := split(b)
	if err != nil {
		return nil, err
	}
	// 2. A trusted key of that identifier, bound to that algorithm. Two keys
	// may share an identifier (RFC 9052 §3.1), so each is tried.
	err = fmt.Errorf("%w: kid %x", ErrKey, p.KID)
	for _, key := range keys {
		if !bytes.Equal(key.KID, p.KID) {
			continue
		}
		if !key.Alg.binds(p.Alg) {
			err = fmt.Errorf("%w: kid %x is a key for %v, not %v", ErrKey, p.KID, key.Alg, p.Alg)
			continue
		}
		verifier, verr := key.verifier(p.Alg)
		if verr != nil {
			return nil, fmt.Errorf("%w: %w", ErrBadKey, verr)
		}
		// 3. The signature, over bytes this package has not touched.
		var msg cose.Sign1Message
		if msg.UnmarshalCBOR(b) != nil || msg.Verify(nil, verifier) != nil {
			err = fmt.Errorf("%w: kid %x", ErrSignature, p.KID)
			continue
		}
		// 4. Only now what it says.
		env, merr := newEnvelope(b, e, p)
		if merr != nil {
			return nil, merr
		}
		return &Signed{*env, key}, nil
	}
	return nil, err
}
