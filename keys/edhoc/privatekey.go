package edhoc

import (
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"slices"
)

// Curve is a curve of authentication keys, by its COSE number.
type Curve int

// The curves of the cipher suites. X25519 keys serve static Diffie-Hellman,
// Ed25519 keys signatures, the others either: but one key only one of the two.
const (
	P256    Curve = crvP256
	P384    Curve = crvP384
	X25519  Curve = crvX25519
	Ed25519 Curve = crvEd25519
)

var curveNames = map[Curve]string{P256: "P-256", P384: "P-384", X25519: "X25519", Ed25519: "Ed25519"}

// String returns the curve's name.
func (c Curve) String() string {
	if name, ok := curveNames[c]; ok {
		return name
	}
	return fmt.Sprintf("curve %d", int(c))
}

// ParseCurve finds a curve by its name, as String writes it.
func ParseCurve(name string) (Curve, error) {
	for c, n := range curveNames {
		if n == name {
			return c, nil
		}
	}
	return 0, fmt.Errorf("%w: curve %q: write P-256, P-384, X25519 or Ed25519", ErrConfig, name)
}

func (c Curve) params() *curveParams {
	switch c {
	case P256:
		return curveP256
	case P384:
		return curveP384
	case X25519:
		return curveX25519
	}
	return nil
}

// PrivateKey is an authentication key held in memory, as a COSE_Key that can
// be stored. Keys in a token need none: see [Identity].
type PrivateKey struct {
	opaque
	curve Curve
	ecdh  *ecdh.PrivateKey
	ed    ed25519.PrivateKey
}

// GenerateKey makes a new key.
func GenerateKey(c Curve) (*PrivateKey, error) {
	k := &PrivateKey{curve: c}
	var err error
	switch params := c.params(); {
	case params != nil:
		k.ecdh, err = params.generate()
	case c == Ed25519:
		_, k.ed, err = ed25519.GenerateKey(rand.Reader)
	default:
		err = fmt.Errorf("%w: %s", ErrConfig, c)
	}
	if err != nil {
		return nil, err
	}
	return k, nil
}

// ParsePrivateKey parses a COSE_Key with a private key (RFC 9053 §7): what
// [PrivateKey.Append] and aiocoap-keygen write. A public key inside must be
// the private key's.
func ParsePrivateKey(coseKeyItem []byte) (*PrivateKey, error) {
	var k coseKey
	if err := decode(coseKeyItem, &k); err != nil {
		return nil, fmt.Errorf("private key: %w", err)
	}
	defer wipe(k.D)
	d := cursor{k.D}
	scalar, err := d.bytes()
	if err != nil {
		return nil, fmt.Errorf("private key: %w: no private part (label -4)", ErrMalformed)
	}
	for c := range curveNames {
		kty := int64(ktyEC2)
		if c == X25519 || c == Ed25519 {
			kty = ktyOKP
		}
		if k.Kty != kty || k.Crv != int64(c) {
			continue
		}
		key, err := newPrivateKey(c, scalar)
		if err != nil {
			return nil, err
		}
		return key, key.checkPublic(&k)
	}
	return nil, fmt.Errorf("private key: %w: key type %v, curve %v", ErrCredentialType, k.Kty, k.Crv)
}

func newPrivateKey(c Curve, scalar []byte) (*PrivateKey, error) {
	k := &PrivateKey{curve: c}
	if c == Ed25519 {
		if len(scalar) != ed25519.SeedSize {
			return nil, fmt.Errorf("private key: %w: %d bytes, want %d", ErrFieldLength, len(scalar), ed25519.SeedSize)
		}
		k.ed = ed25519.NewKeyFromSeed(scalar)
		return k, nil
	}
	var err error
	if k.ecdh, err = c.params().ecdh.NewPrivateKey(scalar); err != nil {
		return nil, fmt.Errorf("private key: %w: not a scalar of %s", ErrFieldLength, c)
	}
	return k, nil
}

func (k *PrivateKey) checkPublic(stored *coseKey) error {
	if stored.X == nil {
		return nil
	}
	own, err := newPublicKey(k.Public())
	if err != nil {
		return err
	}
	if !slices.Equal(own.x, stored.X) {
		return fmt.Errorf("private key: %w: its public part belongs to another key", ErrPublicKey)
	}
	return nil
}

// NewPrivateKey takes a key of Go's crypto packages, such as
// x509.ParsePKCS8PrivateKey returns.
func NewPrivateKey(key crypto.PrivateKey) (*PrivateKey, error) {
	switch p := key.(type) {
	case ed25519.PrivateKey:
		return &PrivateKey{curve: Ed25519, ed: slices.Clone(p)}, nil
	case *ecdsa.PrivateKey:
		e, err := p.ECDH()
		if err != nil {
			return nil, fmt.Errorf("private key: %w: %v", ErrPublicKey, err)
		}
		return NewPrivateKey(e)
	case *ecdh.PrivateKey:
		for c := range curveNames {
			if params := c.params(); params != nil && params.ecdh == p.Curve() {
				return &PrivateKey{curve: c, ecdh: p}, nil
			}
		}
	}
	return nil, fmt.Errorf("private key: %w: %T", ErrCredentialType, key)
}

// Append appends the key as a COSE_Key. It is a secret.
func (k *PrivateKey) Append(dst []byte) []byte {
	kty, d := ktyEC2, []byte(nil)
	if k.ed != nil {
		d = k.ed.Seed()
	} else {
		d = k.ecdh.Bytes()
	}
	defer wipe(d)
	if k.curve == X25519 || k.curve == Ed25519 {
		kty = ktyOKP
	}
	dst = appendInt(appendInt(appendHead(dst, majorMap, 3), 1), kty)
	dst = appendInt(appendInt(dst, -1), int(k.curve))
	return appendBytes(appendInt(dst, -4), d)
}

// Curve returns the key's curve.
func (k *PrivateKey) Curve() Curve { return k.curve }

// Public returns the public key, as [NewCCS] takes it.
func (k *PrivateKey) Public() crypto.PublicKey {
	if k.ed != nil {
		return k.ed.Public()
	}
	return k.ecdh.PublicKey()
}

// Signer returns the key for an [Identity] that signs.
func (k *PrivateKey) Signer() (crypto.Signer, error) {
	switch {
	case k.ed != nil:
		return k.ed, nil
	case k.curve == X25519:
		return nil, fmt.Errorf("%w: an X25519 key cannot sign", ErrConfig)
	}
	d := k.ecdh.Bytes()
	defer wipe(d)
	signer, err := ecdsa.ParseRawPrivateKey(k.curve.params().weierstrass, d)
	if err != nil {
		return nil, fmt.Errorf("private key: %w: %v", ErrPublicKey, err)
	}
	return signer, nil
}

// Exchanger returns the key for an [Identity] with a static Diffie-Hellman key.
func (k *PrivateKey) Exchanger() (ecdh.KeyExchanger, error) {
	if k.ecdh == nil {
		return nil, fmt.Errorf("%w: an Ed25519 key has no key exchange", ErrConfig)
	}
	return k.ecdh, nil
}
