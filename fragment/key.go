package fragment

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/veraison/go-cose"
)

// Algorithm is a signature algorithm of the COSE Algorithms registry.
type Algorithm int64

// The algorithms a manifest may be signed with. A key is bound to one of them;
// EdDSA is the older, curve-independent name of Ed25519, and a key of either
// name verifies both.
const (
	ES256   Algorithm = -7  // ECDSA with SHA-256 (RFC 9053)
	EdDSA   Algorithm = -8  // RFC 9053; here always over Ed25519
	ESP256  Algorithm = -9  // ECDSA over P-256 with SHA-256 (RFC 9864)
	Ed25519 Algorithm = -19 // RFC 9864
)

func (a Algorithm) String() string {
	switch a {
	case ES256:
		return "ES256"
	case EdDSA:
		return "EdDSA"
	case ESP256:
		return "ESP256"
	case Ed25519:
		return "Ed25519"
	}
	return fmt.Sprintf("algorithm %d", int64(a))
}

// allowed reports whether the algorithm is in the format's list.
func (a Algorithm) allowed() bool {
	return a == ES256 || a == EdDSA || a == ESP256 || a == Ed25519
}

// binds reports whether a key of algorithm a may verify a signature that says
// it was made with b.
func (a Algorithm) binds(b Algorithm) bool {
	ed := func(x Algorithm) bool { return x == EdDSA || x == Ed25519 }
	return a == b || ed(a) && ed(b)
}

// PublicKey is an author's key as a device trusts it: one identifier, one
// algorithm.
type PublicKey struct {
	KID []byte
	Alg Algorithm
	Key crypto.PublicKey // *ecdsa.PublicKey on P-256 or ed25519.PublicKey
}

// Signer is an author's private key, which may live in a token.
type Signer struct {
	KID []byte
	Alg Algorithm
	Key crypto.Signer
}

// String shows a signer without its key.
func (s Signer) String() string { return fmt.Sprintf("%v signer %x", s.Alg, s.KID) }

// GoString shows a signer without its key.
func (s Signer) GoString() string { return s.String() }

// Public returns what a device needs to verify the signer's manifests.
func (s Signer) Public() PublicKey { return PublicKey{s.KID, s.Alg, s.Key.Public()} }

// ErrBadKey is a key that cannot be used.
var ErrBadKey = errors.New("fragment: unusable key")

// NewSigner binds a private key to an algorithm; 0 takes ESP256 or Ed25519
// after the key's curve. Without a kid it is the key's [Thumbprint].
func NewSigner(key crypto.Signer, alg Algorithm, kid []byte) (Signer, error) {
	pub, err := NewPublicKey(key.Public(), alg, kid)
	if err != nil {
		return Signer{}, err
	}
	return Signer{pub.KID, pub.Alg, key}, nil
}

// NewPublicKey binds a public key to an algorithm; 0 takes ESP256 or Ed25519
// after the key's curve. Without a kid it is the key's [Thumbprint].
func NewPublicKey(key crypto.PublicKey, alg Algorithm, kid []byte) (PublicKey, error) {
	var fits []Algorithm
	switch k := key.(type) {
	case *ecdsa.PublicKey:
		if k.Curve != elliptic.P256() {
			return PublicKey{}, fmt.Errorf("%w: an EC key on %s; use P-256", ErrBadKey, k.Curve.Params().Name)
		}
		fits = []Algorithm{ESP256, ES256}
	case ed25519.PublicKey:
		fits = []Algorithm{Ed25519, EdDSA}
	default:
		return PublicKey{}, fmt.Errorf("%w: a %T; use P-256 or Ed25519", ErrBadKey, key)
	}
	if alg == 0 {
		alg = fits[0]
	}
	if alg != fits[0] && alg != fits[1] {
		return PublicKey{}, fmt.Errorf("%w: %v with a key for %v or %v", ErrBadKey, alg, fits[0], fits[1])
	}
	if len(kid) > maxKID {
		return PublicKey{}, fmt.Errorf("%w: kid of %d bytes; at most %d", ErrBadKey, len(kid), maxKID)
	}
	if len(kid) == 0 {
		var err error
		if kid, err = Thumbprint(key); err != nil {
			return PublicKey{}, err
		}
	}
	return PublicKey{KID: kid, Alg: alg, Key: key}, nil
}

// Labels and values of COSE_Key (RFC 9052 §7, RFC 9053 §7).
const (
	ktyOKP, ktyEC2           = 1, 2
	crvP256, crvEd25519      = 1, 6
	thumbprintKID            = 8 // bytes of the thumbprint that serve as kid
	coordinateSize           = 32
	uncompressed        byte = 4 // SEC 1 §2.3.3
)

// coseKey is the part of a COSE_Key that matters here. Unknown parameters are
// refused: key_ops or a base IV would have to be obeyed.
type coseKey struct {
	Kty int64  `cbor:"1,keyasint"`
	KID []byte `cbor:"2,keyasint,omitempty"`
	Alg int64  `cbor:"3,keyasint,omitempty"`
	Crv int64  `cbor:"-1,keyasint"`
	X   []byte `cbor:"-2,keyasint,omitempty"`
	Y   []byte `cbor:"-3,keyasint,omitempty"`
	D   []byte `cbor:"-4,keyasint,omitempty"`
}

// newCOSEKey returns the required members of a public key, those that enter
// its thumbprint (RFC 9679 §4).
func newCOSEKey(key crypto.PublicKey) (coseKey, error) {
	switch k := key.(type) {
	case ed25519.PublicKey:
		return coseKey{Kty: ktyOKP, Crv: crvEd25519, X: k}, nil
	case *ecdsa.PublicKey:
		if k.Curve == elliptic.P256() {
			if point, err := k.Bytes(); err == nil {
				return coseKey{Kty: ktyEC2, Crv: crvP256, X: point[1 : 1+coordinateSize], Y: point[1+coordinateSize:]}, nil
			}
		}
	}
	return coseKey{}, fmt.Errorf("%w: a %T; use P-256 or Ed25519", ErrBadKey, key)
}

// Thumbprint returns the identifier of a key that was given none: the first 8
// bytes of its SHA-256 COSE Key thumbprint (RFC 9679).
func Thumbprint(key crypto.PublicKey) ([]byte, error) {
	k, err := newCOSEKey(key)
	if err != nil {
		return nil, err
	}
	b, err := encMode.Marshal(k)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBadKey, err)
	}
	sum := sha256.Sum256(b)
	return sum[:thumbprintKID], nil
}

// AppendCOSEKey appends the key as a COSE_Key.
func (k PublicKey) AppendCOSEKey(dst []byte) ([]byte, error) {
	c, err := newCOSEKey(k.Key)
	if err != nil {
		return nil, err
	}
	c.KID, c.Alg = k.KID, int64(k.Alg)
	b, err := encMode.Marshal(c)
	return append(dst, b...), err
}

// AppendCOSEKey appends the private key as a COSE_Key. A key that is not held
// in memory cannot be written.
func (s Signer) AppendCOSEKey(dst []byte) ([]byte, error) {
	c, err := newCOSEKey(s.Key.Public())
	if err != nil {
		return nil, err
	}
	c.KID, c.Alg = s.KID, int64(s.Alg)
	switch k := s.Key.(type) {
	case ed25519.PrivateKey:
		c.D = k.Seed()
	case *ecdsa.PrivateKey:
		if c.D, err = k.Bytes(); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrBadKey, err)
		}
	default:
		return nil, fmt.Errorf("%w: a %T does not give its private key away", ErrBadKey, s.Key)
	}
	b, err := encMode.Marshal(c)
	return append(dst, b...), err
}

// ParsePublicKey reads a COSE_Key; the private part of one is not looked at.
func ParsePublicKey(b []byte) (PublicKey, error) {
	c, err := parseCOSEKey(b)
	if err != nil {
		return PublicKey{}, err
	}
	pub, err := c.public()
	if err != nil {
		return PublicKey{}, err
	}
	return NewPublicKey(pub, Algorithm(c.Alg), c.KID)
}

// ParseSigner reads a COSE_Key that holds a private key.
func ParseSigner(b []byte) (Signer, error) {
	c, err := parseCOSEKey(b)
	if err != nil {
		return Signer{}, err
	}
	if len(c.D) != coordinateSize {
		return Signer{}, fmt.Errorf("%w: no private key (label -4) of %d bytes", ErrBadKey, coordinateSize)
	}
	var key crypto.Signer
	if c.Kty == ktyOKP {
		key = ed25519.NewKeyFromSeed(c.D)
	} else if key, err = ecdsa.ParseRawPrivateKey(elliptic.P256(), c.D); err != nil {
		return Signer{}, fmt.Errorf("%w: label -4 is not a P-256 scalar", ErrBadKey)
	}
	if len(c.X) > 0 {
		pub, err := c.public()
		if err != nil {
			return Signer{}, err
		}
		if !pub.(interface{ Equal(crypto.PublicKey) bool }).Equal(key.Public()) {
			return Signer{}, fmt.Errorf("%w: public and private part do not belong together", ErrBadKey)
		}
	}
	return NewSigner(key, Algorithm(c.Alg), c.KID)
}

func parseCOSEKey(b []byte) (coseKey, error) {
	var c coseKey
	if err := decMode.Unmarshal(b, &c); err != nil {
		return c, fmt.Errorf("%w: not a COSE_Key of a signing key: %w", ErrBadKey, err)
	}
	if c.Kty == ktyEC2 && c.Crv == crvP256 || c.Kty == ktyOKP && c.Crv == crvEd25519 {
		return c, nil
	}
	return c, fmt.Errorf("%w: key type %d on curve %d; use P-256 (2, 1) or Ed25519 (1, 6)", ErrBadKey, c.Kty, c.Crv)
}

func (c coseKey) public() (crypto.PublicKey, error) {
	if len(c.X) != coordinateSize {
		return nil, fmt.Errorf("%w: label -2 has %d bytes, not %d", ErrBadKey, len(c.X), coordinateSize)
	}
	if c.Kty == ktyOKP {
		return ed25519.PublicKey(c.X), nil
	}
	if len(c.Y) != coordinateSize {
		return nil, fmt.Errorf("%w: label -3 has %d bytes, not %d", ErrBadKey, len(c.Y), coordinateSize)
	}
	point := append(append([]byte{uncompressed}, c.X...), c.Y...)
	key, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), point)
	if err != nil {
		return nil, fmt.Errorf("%w: not a point of P-256", ErrBadKey)
	}
	return key, nil
}

// coseVerifier and coseSigner give go-cose's primitives the newer, fully
// specified algorithm numbers, which it does not know: the computation is the
// same (RFC 9864 §2).
type coseVerifier struct {
	cose.Verifier
	alg Algorithm
}

func (v coseVerifier) Algorithm() cose.Algorithm { return cose.Algorithm(v.alg) }

type coseSigner struct {
	cose.Signer
	alg Algorithm
}

func (s coseSigner) Algorithm() cose.Algorithm { return cose.Algorithm(s.alg) }

// classic returns the number under which go-cose knows the computation.
func (a Algorithm) classic() cose.Algorithm {
	switch a {
	case ESP256:
		return cose.AlgorithmES256
	case Ed25519:
		return cose.AlgorithmEdDSA
	}
	return cose.Algorithm(a)
}

func (k PublicKey) verifier(alg Algorithm) (cose.Verifier, error) {
	v, err := cose.NewVerifier(alg.classic(), k.Key)
	return coseVerifier{v, alg}, err
}

func (s Signer) signer() (cose.Signer, error) {
	v, err := cose.NewSigner(s.Alg.classic(), s.Key)
	return coseSigner{v, s.Alg}, err
}
