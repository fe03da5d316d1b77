package edhoc

import (
	"crypto/ecdh"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/subtle"
	"fmt"
)

// COSE curves (RFC 9053 §7.1).
const (
	crvP256    = 1
	crvP384    = 2
	crvX25519  = 4
	crvEd25519 = 6
)

// curveParams is a curve for key exchange.
type curveParams struct {
	cose        int
	name        string
	size        int // of a coordinate in bytes
	ecdh        ecdh.Curve
	weierstrass elliptic.Curve // nil for X25519
}

var (
	curveX25519 = &curveParams{crvX25519, "X25519", 32, ecdh.X25519(), nil}
	curveP256   = &curveParams{crvP256, "P-256", 32, ecdh.P256(), elliptic.P256()}
	curveP384   = &curveParams{crvP384, "P-384", 48, ecdh.P384(), elliptic.P384()}
)

// generate makes a fresh ephemeral key and its public x-coordinate.
func (c *curveParams) generate() (*ecdh.PrivateKey, error) { return c.ecdh.GenerateKey(rand.Reader) }

// compact returns the compact representation of a public key: X25519's u, else
// the x-coordinate with its leading zeros (RFC 9528 §3.7, Appendix B).
func (c *curveParams) compact(pub *ecdh.PublicKey) []byte {
	b := pub.Bytes()
	if c.weierstrass == nil {
		return b
	}
	return b[1 : 1+c.size]
}

// expand turns a received G_X or G_Y into a public key, or refuses what is no
// point of the curve (RFC 9528 §9.2, Appendix B). Of the two points with this
// x either serves: their products with a scalar have the same x.
func (c *curveParams) expand(x []byte) (*ecdh.PublicKey, error) {
	if len(x) != c.size {
		return nil, fmt.Errorf("%w: %d bytes of a public key on %s, want %d", ErrFieldLength, len(x), c.name, c.size)
	}
	if c.weierstrass == nil {
		return c.point(x)
	}
	return c.decompress(2, x)
}

// decompress finds the point with coordinate x whose y has the sign that the
// prefix (2: even, 3: odd) says. Nothing here is secret.
func (c *curveParams) decompress(prefix byte, x []byte) (*ecdh.PublicKey, error) {
	px, py := elliptic.UnmarshalCompressed(c.weierstrass, append([]byte{prefix}, x...))
	if px == nil {
		return nil, fmt.Errorf("%w: no point of %s has this x-coordinate", ErrPublicKey, c.name)
	}
	point := make([]byte, 1+2*c.size)
	point[0] = 4
	px.FillBytes(point[1 : 1+c.size])
	py.FillBytes(point[1+c.size:])
	return c.point(point)
}

// point parses an uncompressed point, or X25519's 32 bytes.
func (c *curveParams) point(b []byte) (*ecdh.PublicKey, error) {
	pub, err := c.ecdh.NewPublicKey(b)
	if err != nil {
		return nil, fmt.Errorf("%w: not on %s", ErrPublicKey, c.name)
	}
	return pub, nil
}

// exchange computes an ECDH shared secret, its x-coordinate (RFC 9053 §6.3.1),
// and refuses the all-zero output of a point of low order (RFC 7748 §6).
func (c *curveParams) exchange(priv ecdh.KeyExchanger, pub *ecdh.PublicKey) ([]byte, error) {
	secret, err := priv.ECDH(pub)
	if err != nil {
		return nil, fmt.Errorf("%w: key exchange on %s: %w", ErrPublicKey, c.name, err)
	}
	if len(secret) != c.size {
		wipe(secret)
		return nil, fmt.Errorf("%w: key exchange gave %d bytes on %s, want %d", ErrFieldLength, len(secret), c.name, c.size)
	}
	if subtle.ConstantTimeCompare(secret, make([]byte, c.size)) == 1 {
		return nil, fmt.Errorf("%w: point of low order", ErrPublicKey)
	}
	return secret, nil
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}
