package edhoc

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
)

// COSE header parameters that identify credentials (RFC 9052 §3.1, RFC 9360
// §2, RFC 9528 §10.6).
const (
	headerKID     = 4
	headerKCWT    = 13
	headerKCCS    = 14
	headerX5Chain = 33
	headerX5T     = 34
)

// maxChain bounds the certificates of an x5chain.
const maxChain = 8

// CredentialID is ID_CRED_x: how a party names its credential, or carries it
// (RFC 9528 §3.5.3). Header parameters that are not known here are kept, since
// the map is authenticated whole, but serve nothing. The zero value names
// nothing.
type CredentialID struct {
	item []byte // the COSE header map

	KID     []byte   // nil: absent
	KCWT    []byte   // a CWT by value
	KCCS    []byte   // a CCS by value
	X5Chain [][]byte // certificates by value, the party's own first
	X5T     CertHash // a certificate by hash
}

// CertHash is a COSE_CertHash (RFC 9360 §2). Algorithm 0: absent.
type CertHash struct {
	Algorithm int // -15 SHA-256/64, -16 SHA-256, -43 SHA-384, -44 SHA-512
	Hash      []byte
}

const (
	algSHA256_64 = -15
	algSHA512    = -44
)

// HashCertificate makes the x5t of a DER certificate.
func HashCertificate(der []byte, algorithm int) (CertHash, error) {
	h := CertHash{Algorithm: algorithm}
	switch algorithm {
	case algSHA256_64:
		s := sha256.Sum256(der)
		h.Hash = s[:8]
	case algSHA256:
		s := sha256.Sum256(der)
		h.Hash = s[:]
	case algSHA384:
		s := sha512.Sum384(der)
		h.Hash = s[:]
	case algSHA512:
		s := sha512.Sum512(der)
		h.Hash = s[:]
	default:
		return h, fmt.Errorf("%w: x5t with hash algorithm %d", ErrCredentialType, algorithm)
	}
	return h, nil
}

func (h CertHash) matches(der []byte) bool {
	want, err := HashCertificate(der, h.Algorithm)
	return err == nil && subtle.ConstantTimeCompare(want.Hash, h.Hash) == 1
}

// ByKID names a credential by a key identifier, the shortest of all. One byte
// 0x00-0x17 or 0x20-0x37 travels as one byte.
func ByKID(kid []byte) CredentialID {
	return CredentialID{
		item: appendBytes(appendInt(appendHead(nil, majorMap, 1), headerKID), kid),
		KID:  append([]byte{}, kid...),
	}
}

// ByHash names a certificate by its hash with SHA-256/64, as RFC 9528 §9.3
// recommends.
func ByHash(c *Credential) (CredentialID, error) {
	if c == nil || c.cert == nil {
		return CredentialID{}, fmt.Errorf("%w: x5t names a certificate", ErrConfig)
	}
	h, err := HashCertificate(c.cert.Raw, algSHA256_64)
	if err != nil {
		return CredentialID{}, err
	}
	item := appendInt(appendHead(nil, majorMap, 1), headerX5T)
	item = appendBytes(appendInt(appendHead(item, majorArray, 2), h.Algorithm), h.Hash)
	return CredentialID{item: item, X5T: h}, nil
}

// ByValue carries the credential itself; a certificate with the intermediates
// that lead to a root, in order.
func ByValue(c *Credential, intermediates ...*Credential) (CredentialID, error) {
	var id CredentialID
	if c == nil || len(intermediates) > 0 && c.cert == nil || len(intermediates) >= maxChain {
		return id, fmt.Errorf("%w: chain of %d intermediates", ErrConfig, len(intermediates))
	}
	id.item = appendHead(nil, majorMap, 1)
	switch c.typ {
	case TypeCCS:
		id.item = append(appendInt(id.item, headerKCCS), c.item...)
		id.KCCS = c.item
	case TypeCWT:
		id.item = append(appendInt(id.item, headerKCWT), c.item...)
		id.KCWT = c.item
	case TypeCertificate:
		id.item = appendInt(id.item, headerX5Chain)
		if len(intermediates) > 0 {
			id.item = appendHead(id.item, majorArray, uint64(1+len(intermediates)))
		}
		for _, cert := range append([]*Credential{c}, intermediates...) {
			if cert == nil || cert.cert == nil {
				return CredentialID{}, fmt.Errorf("%w: an intermediate is no certificate", ErrConfig)
			}
			id.item = append(id.item, cert.item...)
			id.X5Chain = append(id.X5Chain, cert.cert.Raw)
		}
	}
	return id, nil
}

// Bytes returns the COSE header map.
func (id CredentialID) Bytes() []byte { return bytes.Clone(id.item) }

// String shows references as they are and values by their length.
func (id CredentialID) String() string {
	var parts []string
	if id.KID != nil {
		parts = append(parts, "kid "+hex.EncodeToString(id.KID))
	}
	if id.KCWT != nil {
		parts = append(parts, fmt.Sprintf("kcwt of %d bytes", len(id.KCWT)))
	}
	if id.KCCS != nil {
		parts = append(parts, fmt.Sprintf("kccs of %d bytes", len(id.KCCS)))
	}
	if id.X5Chain != nil {
		parts = append(parts, fmt.Sprintf("x5chain of %d", len(id.X5Chain)))
	}
	if id.X5T.Algorithm != 0 {
		parts = append(parts, fmt.Sprintf("x5t %d:%x", id.X5T.Algorithm, id.X5T.Hash))
	}
	if parts == nil {
		return "no identifier known here"
	}
	return strings.Join(parts, ", ")
}

func (id CredentialID) empty() bool { return id.item == nil }

// appendCompact appends ID_CRED_x as it stands in a plaintext: a lone kid as
// identifier, everything else as map (RFC 9528 §3.5.3.2).
func (id CredentialID) appendCompact(dst []byte) []byte {
	if loneKID(id.item) {
		return AppendConnectionID(dst, id.KID)
	}
	return append(dst, id.item...)
}

// loneKID says whether the map is { 4 : bstr }.
func loneKID(item []byte) bool {
	return len(item) > 2 && item[0] == majorMap<<5|1 && item[1] == headerKID && item[2]>>5 == majorBytes
}

// credentialID consumes ID_CRED_x in its compact form.
func (c *cursor) credentialID() (CredentialID, error) {
	if major, ok := c.major(); !ok || major != majorMap {
		kid, err := c.identifier()
		if err != nil {
			return CredentialID{}, fmt.Errorf("ID_CRED: %w", err)
		}
		return ByKID(kid), nil
	}
	item, err := c.item()
	if err != nil {
		return CredentialID{}, fmt.Errorf("ID_CRED: %w", err)
	}
	if loneKID(item) {
		return CredentialID{}, fmt.Errorf("ID_CRED: %w: a lone kid must travel without its map", ErrEncoding)
	}
	id, err := parseCredentialID(item)
	if err != nil {
		return CredentialID{}, fmt.Errorf("ID_CRED: %w", err)
	}
	return id, nil
}

// parseCredentialID parses a COSE header map that cursor.item found sound.
func parseCredentialID(item []byte) (CredentialID, error) {
	id := CredentialID{item: bytes.Clone(item)}
	c := cursor{id.item}
	_, n, err := c.head()
	if err != nil {
		return id, err
	}
	if n == 0 || n > 16 {
		return id, fmt.Errorf("%w: %d header parameters", ErrMalformed, n)
	}
	var labels [][]byte
	for range n {
		label, err := c.item()
		if err != nil {
			return id, err
		}
		if m := label[0] >> 5; m != majorUint && m != majorNint && m != majorText {
			return id, fmt.Errorf("%w: label is neither integer nor text", ErrMalformed)
		}
		if slices.ContainsFunc(labels, func(l []byte) bool { return bytes.Equal(l, label) }) {
			return id, fmt.Errorf("%w: header parameter twice", ErrMalformed)
		}
		labels = append(labels, label)
		if err := id.parameter(label, &c); err != nil {
			return id, err
		}
	}
	return id, nil
}

// parameter consumes the value of the header parameter.
func (id *CredentialID) parameter(label []byte, c *cursor) (err error) {
	if label[0]>>5 == majorText {
		_, err = c.item()
		return err
	}
	l := cursor{label}
	n, err := l.int()
	if err != nil {
		return err
	}
	switch n {
	case headerKID:
		id.KID, err = c.bytes()
	case headerKCWT:
		id.KCWT, err = c.item()
	case headerKCCS:
		id.KCCS, err = c.item()
	case headerX5Chain:
		err = id.chain(c)
	case headerX5T:
		err = id.certHash(c)
	default:
		_, err = c.item()
	}
	return err
}

// chain consumes COSE_X509 = bstr / [ 2*certs: bstr ].
func (id *CredentialID) chain(c *cursor) error {
	n := uint64(1)
	if major, ok := c.major(); ok && major == majorArray {
		var err error
		if _, n, err = c.head(); err != nil {
			return err
		}
		if n < 2 || n > maxChain {
			return fmt.Errorf("%w: x5chain of %d certificates in an array", ErrMalformed, n)
		}
	}
	for range n {
		cert, err := c.bytes()
		if err != nil {
			return err
		}
		id.X5Chain = append(id.X5Chain, cert)
	}
	return nil
}

// certHash consumes COSE_CertHash = [ hashAlg: (int / tstr), hashValue: bstr ].
func (id *CredentialID) certHash(c *cursor) error {
	major, n, err := c.head()
	if err != nil {
		return err
	}
	if major != majorArray || n != 2 {
		return fmt.Errorf("%w: x5t is no pair", ErrMalformed)
	}
	if m, ok := c.major(); ok && m == majorText {
		return fmt.Errorf("%w: x5t with a named hash algorithm", ErrCredentialType)
	}
	if id.X5T.Algorithm, err = c.int(); err != nil {
		return err
	}
	id.X5T.Hash, err = c.bytes()
	return err
}
