package edhoc

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/fxamacker/cbor/v2"
	"github.com/veraison/go-cose"
)

// CredentialType is a kind of authentication credential; the numbers are those
// of the registry in RFC 9668 §8.3.
type CredentialType int

// The kinds of credentials supported. C509 certificates are not.
const (
	TypeCWT         CredentialType = 0
	TypeCCS         CredentialType = 1
	TypeCertificate CredentialType = 2
)

// String returns "CWT", "CCS" or "X.509".
func (t CredentialType) String() string {
	switch t {
	case TypeCWT:
		return "CWT"
	case TypeCCS:
		return "CCS"
	case TypeCertificate:
		return "X.509"
	}
	return fmt.Sprintf("credential type %d", int(t))
}

// Credential is an authentication credential CRED_x (RFC 9528 §3.5.2): a
// public key with the identity it belongs to, in the one encoding that both
// sides put into their MACs. It is public and immutable.
type Credential struct {
	typ     CredentialType
	item    []byte // CRED_x, a CBOR item
	key     publicKey
	subject string
	kid     []byte
	from    time.Time // zero: no bound
	until   time.Time // zero: no bound

	cert *x509.Certificate          // of a TypeCertificate
	cwt  *cose.UntaggedSign1Message // of a TypeCWT
	iss  string

	firstUse bool // came by value and is not known yet: for Store
}

// decMode is strict about everything that fxamacker/cbor can be strict about;
// shortest heads and depth are checked by cursor.item before it is used.
var decMode = func() cbor.DecMode {
	mode, err := cbor.DecOptions{
		DupMapKey:        cbor.DupMapKeyEnforcedAPF,
		MaxNestedLevels:  maxDepth,
		MaxArrayElements: 64,
		MaxMapPairs:      64,
		IndefLength:      cbor.IndefLengthForbidden,
		IntDec:           cbor.IntDecConvertSignedOrFail,
	}.DecMode()
	if err != nil {
		panic(err) // constant options that the library accepts
	}
	return mode
}()

// decode decodes one deterministic CBOR item into v.
func decode(item []byte, v any) error {
	c := cursor{item}
	if _, err := c.item(); err != nil {
		return err
	}
	if !c.empty() {
		return fmt.Errorf("%w: bytes after the item", ErrMalformed)
	}
	if err := decMode.Unmarshal(item, v); err != nil {
		return fmt.Errorf("%w: %v", ErrMalformed, err)
	}
	return nil
}

// claims are those of a CWT Claims Set that matter here (RFC 8392 §3, RFC 8747).
type claims struct {
	Issuer  string `cbor:"1,keyasint"`
	Subject string `cbor:"2,keyasint"`
	Exp     any    `cbor:"4,keyasint"`
	Nbf     any    `cbor:"5,keyasint"`
	Cnf     struct {
		Key cbor.RawMessage `cbor:"1,keyasint"`
	} `cbor:"8,keyasint"`
}

// ParseCCS parses an untagged CWT Claims Set with a COSE_Key in its 'cnf'
// claim. The bytes are kept as they are, so its maps need not be sorted.
func ParseCCS(ccs []byte) (*Credential, error) {
	if err := checkSize("CCS", ccs); err != nil {
		return nil, err
	}
	c := &Credential{typ: TypeCCS, item: bytes.Clone(ccs)}
	if err := c.setClaims(ccs); err != nil {
		return nil, fmt.Errorf("CCS: %w", err)
	}
	return c, nil
}

// ParseCWT parses an untagged CWT that is a COSE_Sign1 (RFC 8392, RFC 9052
// §4.2) with a COSE_Key in its 'cnf' claim. Its signature is not checked here:
// that takes its issuer's key, see [Store].
func ParseCWT(cwt []byte) (*Credential, error) {
	if err := checkSize("CWT", cwt); err != nil {
		return nil, err
	}
	c := &Credential{typ: TypeCWT, item: bytes.Clone(cwt), cwt: new(cose.UntaggedSign1Message)}
	cur := cursor{cwt}
	if _, err := cur.item(); err != nil {
		return nil, fmt.Errorf("CWT: %w", err)
	}
	if !cur.empty() || cwt[0] != majorArray<<5|4 {
		return nil, fmt.Errorf("CWT: %w: not an untagged COSE_Sign1", ErrMalformed)
	}
	if err := c.cwt.UnmarshalCBOR(cwt); err != nil {
		return nil, fmt.Errorf("CWT: %w: %v", ErrMalformed, err)
	}
	if err := c.setClaims(c.cwt.Payload); err != nil {
		return nil, fmt.Errorf("CWT: %w", err)
	}
	return c, nil
}

// ParseCertificate parses a DER certificate (RFC 5280). CRED_x is the DER in a
// CBOR byte string. Neither its signature nor its time is checked here: see
// [Store].
func ParseCertificate(der []byte) (*Credential, error) {
	if err := checkSize("certificate", der); err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("certificate: %w: %v", ErrMalformed, err)
	}
	pub := any(cert.PublicKey)
	if pub == nil { // crypto/x509 leaves X25519 out there, but parses it here
		if pub, err = x509.ParsePKIXPublicKey(cert.RawSubjectPublicKeyInfo); err != nil {
			return nil, fmt.Errorf("certificate: %w: %v", ErrCredentialType, err)
		}
	}
	key, err := newPublicKey(pub)
	if err != nil {
		return nil, fmt.Errorf("certificate: %w", err)
	}
	if cert.KeyUsage != 0 {
		key.noSignature = cert.KeyUsage&x509.KeyUsageDigitalSignature == 0
		key.noExchange = cert.KeyUsage&x509.KeyUsageKeyAgreement == 0
	}
	return &Credential{
		typ: TypeCertificate, item: appendBytes(nil, cert.Raw), key: key, subject: cert.Subject.CommonName,
		from: cert.NotBefore, until: cert.NotAfter, cert: cert,
	}, nil
}

// CCSParams is what [NewCCS] makes a credential of.
type CCSParams struct {
	Subject string // 'sub': who this is, for instance the LwM2M endpoint name; empty: left out
	KID     []byte // 'kid' of the COSE_Key; nil: left out
	// Public is an ed25519.PublicKey, *ecdsa.PublicKey or *ecdh.PublicKey on
	// one of the curves of the cipher suites.
	Public crypto.PublicKey
}

// NewCCS makes a CWT Claims Set of a raw public key (RFC 9528 §3.5.2).
func NewCCS(p CCSParams) (*Credential, error) {
	key, err := newPublicKey(p.Public)
	if err != nil {
		return nil, err
	}
	var b []byte
	if p.Subject == "" {
		b = appendHead(b, majorMap, 1)
	} else {
		b = appendText(appendInt(appendHead(b, majorMap, 2), 2), p.Subject)
	}
	b = appendInt(b, 8)                        // cnf
	b = appendHead(b, majorMap, 1)             //
	b = key.appendCOSE(appendInt(b, 1), p.KID) // COSE_Key
	return ParseCCS(b)
}

// maxCredential bounds a credential in bytes; a message could not carry more.
const maxCredential = MaxMessage

func checkSize(what string, b []byte) error {
	if len(b) == 0 {
		return fmt.Errorf("%s: %w: empty", what, ErrMalformed)
	}
	if len(b) > maxCredential {
		return fmt.Errorf("%s: %w: %d bytes, at most %d", what, ErrTooLong, len(b), maxCredential)
	}
	return nil
}

func (c *Credential) setClaims(ccs []byte) error {
	if len(ccs) == 0 || ccs[0]>>5 != majorMap {
		return fmt.Errorf("%w: claims set is not a map", ErrMalformed)
	}
	var cl claims
	if err := decode(ccs, &cl); err != nil {
		return err
	}
	if cl.Cnf.Key == nil {
		return fmt.Errorf("%w: no COSE_Key in a cnf claim", ErrMalformed)
	}
	key, kid, err := parseCOSEKey(cl.Cnf.Key)
	if err != nil {
		return err
	}
	if c.from, err = numericDate("nbf", cl.Nbf); err != nil {
		return err
	}
	if c.until, err = numericDate("exp", cl.Exp); err != nil {
		return err
	}
	c.key, c.kid, c.subject, c.iss = key, kid, cl.Subject, cl.Issuer
	return nil
}

// numericDate reads a NumericDate (RFC 8392 §2); nil gives the zero time.
func numericDate(name string, v any) (time.Time, error) {
	switch t := v.(type) {
	case nil:
		return time.Time{}, nil
	case int64:
		if t > 0 && t < 1<<40 {
			return time.Unix(t, 0), nil
		}
	case float64:
		if t > 0 && t < 1<<40 && !math.IsNaN(t) {
			return time.Unix(int64(t), 0), nil
		}
	}
	return time.Time{}, fmt.Errorf("%w: claim %s is no time", ErrMalformed, name)
}

// Type returns the kind of the credential.
func (c *Credential) Type() CredentialType { return c.typ }

// Bytes returns the credential as [ParseCCS], [ParseCWT] or
// [ParseCertificate] takes it.
func (c *Credential) Bytes() []byte {
	if c.typ == TypeCertificate {
		return bytes.Clone(c.cert.Raw)
	}
	return bytes.Clone(c.item)
}

// Subject returns who the credential says it belongs to: the claim 'sub', or
// the certificate's common name. Empty if it says nothing.
func (c *Credential) Subject() string { return c.subject }

// KID returns the 'kid' inside the COSE_Key, nil if there is none.
func (c *Credential) KID() []byte { return bytes.Clone(c.kid) }

// Certificate returns the parsed certificate, nil for other kinds.
func (c *Credential) Certificate() *x509.Certificate { return c.cert }

// Validity returns the times the credential is valid between; zero: no bound.
func (c *Credential) Validity() (from, until time.Time) { return c.from, c.until }

// Fingerprint returns SHA-256 over CRED_x, for people to compare.
func (c *Credential) Fingerprint() [32]byte { return sha256.Sum256(c.item) }

// String names the credential for logs: kind, subject and fingerprint.
func (c *Credential) String() string {
	f := c.Fingerprint()
	return fmt.Sprintf("%s %q %s", c.typ, c.subject, hex.EncodeToString(f[:8]))
}

// Equal says whether both are the same CRED_x.
func (c *Credential) Equal(d *Credential) bool {
	return subtle.ConstantTimeCompare(c.item, d.item) == 1
}

// sameKey says whether both hold the same public key.
func (c *Credential) sameKey(d *Credential) bool {
	return c.key.crv == d.key.crv && slices.Equal(c.key.x, d.key.x)
}

// validAt refuses a credential outside its time.
func (c *Credential) validAt(now time.Time) error {
	switch {
	case !c.from.IsZero() && now.Before(c.from):
		return fmt.Errorf("%w: %s is valid from %s", ErrExpired, c, c.from.UTC().Format(time.RFC3339))
	case !c.until.IsZero() && now.After(c.until):
		return fmt.Errorf("%w: %s was valid until %s", ErrExpired, c, c.until.UTC().Format(time.RFC3339))
	}
	return nil
}
