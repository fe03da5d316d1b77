package edhoc

import (
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"fmt"
	"slices"

	"github.com/fxamacker/cbor/v2"
)

// COSE key types, parameters and operations (RFC 9052 §7, RFC 9053 §7).
const (
	ktyOKP = 1
	ktyEC2 = 2

	keyOpVerify = 2

	algES256   = -7
	algEdDSA   = -8
	algES384   = -35
	algESP256  = -9  // RFC 9864: fully specified
	algESP384  = -51 //
	algEd25519 = -19 //
)

// publicKey is an authentication key. A point on P-256 or P-384 can serve
// signatures and key exchange both; what the credential says against one of
// the two is heeded.
type publicKey struct {
	crv  int
	x, y []byte // y only of P-256 and P-384

	ecdh  *ecdh.PublicKey
	ecdsa *ecdsa.PublicKey
	ed    ed25519.PublicKey

	noSignature, noExchange bool
}

// coseKey is a COSE_Key (RFC 9052 §7).
type coseKey struct {
	Kty any             `cbor:"1,keyasint"`
	KID []byte          `cbor:"2,keyasint"`
	Alg any             `cbor:"3,keyasint"`
	Ops []any           `cbor:"4,keyasint"`
	Crv any             `cbor:"-1,keyasint"`
	X   []byte          `cbor:"-2,keyasint"`
	Y   cbor.RawMessage `cbor:"-3,keyasint"`
	D   cbor.RawMessage `cbor:"-4,keyasint"`
}

// parseCOSEKey parses a public COSE_Key.
func parseCOSEKey(item []byte) (key publicKey, kid []byte, err error) {
	var k coseKey
	if err := decode(item, &k); err != nil {
		return key, nil, fmt.Errorf("COSE_Key: %w", err)
	}
	if k.D != nil {
		return key, nil, fmt.Errorf("COSE_Key: %w: holds a private key", ErrMalformed)
	}
	switch {
	case k.Kty == int64(ktyOKP) && k.Crv == int64(crvX25519):
		key, err = newOKP(crvX25519, k.X)
	case k.Kty == int64(ktyOKP) && k.Crv == int64(crvEd25519):
		key, err = newOKP(crvEd25519, k.X)
	case k.Kty == int64(ktyEC2) && k.Crv == int64(crvP256):
		key, err = newEC2(curveP256, k.X, k.Y)
	case k.Kty == int64(ktyEC2) && k.Crv == int64(crvP384):
		key, err = newEC2(curveP384, k.X, k.Y)
	default:
		err = fmt.Errorf("%w: key type %v, curve %v", ErrCredentialType, k.Kty, k.Crv)
	}
	if err != nil {
		return key, nil, fmt.Errorf("COSE_Key: %w", err)
	}
	if k.Alg != nil {
		signs := k.Alg == int64(algES256) || k.Alg == int64(algEdDSA) || k.Alg == int64(algES384) ||
			k.Alg == int64(algESP256) || k.Alg == int64(algESP384) || k.Alg == int64(algEd25519)
		key.noSignature, key.noExchange = !signs, signs
	}
	if k.Ops != nil {
		// A public key for key agreement has no operations (RFC 9053 §6.3.1).
		key.noSignature = key.noSignature || !slices.Contains(k.Ops, any(int64(keyOpVerify)))
		key.noExchange = key.noExchange || len(k.Ops) > 0
	}
	return key, k.KID, nil
}

func newOKP(crv int, x []byte) (publicKey, error) {
	k := publicKey{crv: crv, x: slices.Clone(x)}
	if len(x) != 32 {
		return k, fmt.Errorf("%w: x of %d bytes, want 32", ErrFieldLength, len(x))
	}
	if crv == crvEd25519 {
		k.ed = ed25519.PublicKey(k.x)
		return k, nil
	}
	var err error
	k.ecdh, err = curveX25519.point(x)
	return k, err
}

// newEC2 takes y as coordinate or as sign (RFC 9053 §7.1.1).
func newEC2(curve *curveParams, x []byte, y cbor.RawMessage) (publicKey, error) {
	k := publicKey{crv: curve.cose}
	if len(x) != curve.size {
		return k, fmt.Errorf("%w: x of %d bytes on %s, want %d", ErrFieldLength, len(x), curve.name, curve.size)
	}
	var err error
	switch {
	case len(y) == 1 && y[0]&0xfe == 0xf4: // false, true
		k.ecdh, err = curve.decompress(2|y[0]&1, x)
	default:
		c := cursor{y}
		coordinate, yerr := c.bytes()
		if yerr != nil {
			return k, fmt.Errorf("%w: y is neither a coordinate nor a sign", ErrMalformed)
		}
		if len(coordinate) != curve.size {
			return k, fmt.Errorf("%w: y of %d bytes on %s, want %d", ErrFieldLength, len(coordinate), curve.name, curve.size)
		}
		k.ecdh, err = curve.point(slices.Concat([]byte{4}, x, coordinate))
	}
	if err != nil {
		return k, err
	}
	err = k.setPoint(curve)
	return k, err
}

// setPoint fills in what follows from ecdh on P-256 and P-384.
func (k *publicKey) setPoint(curve *curveParams) error {
	point := k.ecdh.Bytes()
	k.x, k.y = point[1:1+curve.size], point[1+curve.size:]
	var err error
	if k.ecdsa, err = ecdsa.ParseUncompressedPublicKey(curve.weierstrass, point); err != nil {
		return fmt.Errorf("%w: not on %s", ErrPublicKey, curve.name)
	}
	return nil
}

// newPublicKey takes a key of Go's crypto packages.
func newPublicKey(pub crypto.PublicKey) (publicKey, error) {
	switch p := pub.(type) {
	case ed25519.PublicKey:
		return newOKP(crvEd25519, p)
	case *ecdsa.PublicKey:
		if p == nil {
			break
		}
		e, err := p.ECDH()
		if err != nil {
			return publicKey{}, fmt.Errorf("%w: %v", ErrPublicKey, err)
		}
		return newPublicKey(e)
	case *ecdh.PublicKey:
		if p == nil {
			break
		}
		for _, curve := range []*curveParams{curveX25519, curveP256, curveP384} {
			if p.Curve() != curve.ecdh {
				continue
			}
			if curve.weierstrass == nil {
				return newOKP(crvX25519, p.Bytes())
			}
			k := publicKey{crv: curve.cose, ecdh: p}
			err := k.setPoint(curve)
			return k, err
		}
	}
	return publicKey{}, fmt.Errorf("%w: key of type %T", ErrCredentialType, pub)
}

// appendCOSE appends the key as a COSE_Key, deterministically encoded.
func (k *publicKey) appendCOSE(dst, kid []byte) []byte {
	kty, n := ktyOKP, 3
	if k.y != nil {
		kty, n = ktyEC2, 4
	}
	if kid != nil {
		n++
	}
	dst = appendInt(appendInt(appendHead(dst, majorMap, uint64(n)), 1), kty)
	if kid != nil {
		dst = appendBytes(appendInt(dst, 2), kid)
	}
	dst = appendInt(appendInt(dst, -1), k.crv)
	dst = appendBytes(appendInt(dst, -2), k.x)
	if k.y != nil {
		dst = appendBytes(appendInt(dst, -3), k.y)
	}
	return dst
}

// fits refuses a key that cannot serve in the suite, as static Diffie-Hellman
// key or as signature key (RFC 9528 §3.5.1).
func (k *publicKey) fits(s *suiteParams, static bool) error {
	switch {
	case static && (k.ecdh == nil || k.crv != s.curve.cose):
		return fmt.Errorf("%w: suite %d takes a static key on %s", ErrCredentialKey, s.suite, s.curve.name)
	case static && k.noExchange:
		return fmt.Errorf("%w: key not meant for key exchange", ErrCredentialKey)
	case !static && k.crv != s.signatureCurve():
		return fmt.Errorf("%w: suite %d takes %s keys", ErrCredentialKey, s.suite, s.signature)
	case !static && k.noSignature:
		return fmt.Errorf("%w: key not meant for signatures", ErrCredentialKey)
	}
	return nil
}

// verifier returns the key in the form that go-cose takes.
func (k *publicKey) verifier() crypto.PublicKey {
	if k.crv == crvEd25519 {
		return k.ed
	}
	return k.ecdsa
}
