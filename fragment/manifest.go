package fragment

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"errors"
	"fmt"
	"hash"
	"unicode/utf8"

	"github.com/fxamacker/cbor/v2"
)

// DigestAlgorithm is a hash of the COSE Algorithms registry (RFC 9054).
type DigestAlgorithm int64

// The digests a manifest may name.
const (
	SHA256 DigestAlgorithm = -16
	SHA384 DigestAlgorithm = -43
	SHA512 DigestAlgorithm = -44
)

// New returns the hash, nil for an algorithm that is not in the list.
func (a DigestAlgorithm) New() hash.Hash {
	switch a {
	case SHA256:
		return sha256.New()
	case SHA384:
		return sha512.New384()
	case SHA512:
		return sha512.New()
	}
	return nil
}

func (a DigestAlgorithm) String() string {
	switch a {
	case SHA256:
		return "SHA-256"
	case SHA384:
		return "SHA-384"
	case SHA512:
		return "SHA-512"
	}
	return fmt.Sprintf("algorithm %d", int64(a))
}

// Digest is a hash value with its algorithm.
type Digest struct {
	_     struct{} `cbor:",toarray"`
	Alg   DigestAlgorithm
	Value []byte
}

// Type says what the transferred bytes are.
type Type uint8

// The kinds of payload.
const (
	Raw   Type = 0 // the image itself
	Delta Type = 1 // a difference against Base
	SUIT  Type = 2 // a payload of a SUIT manifest
)

// Encryption says how the transferred bytes are encrypted (key 13).
type Encryption struct {
	_   struct{} `cbor:",toarray"`
	Alg int64    // -65534, A128CTR
	IV  []byte   // 16 bytes
	KID []byte
}

// A128CTR is the only content encryption (RFC 9459).
const A128CTR = -65534

// Manifest is what the author signs: one image, for whom, and the root under
// which each of its blocks can be verified.
type Manifest struct {
	Sequence   uint64      // rises with every release; a device takes only higher ones
	Size       uint32      // S, bytes transferred
	Leaf       uint8       // l: the tree's leaves have 2^l bytes
	Root       Hash        // of the tree
	Digest     Digest      // of the transferred bytes
	Vendor     [16]byte    // UUID
	Class      [16]byte    // UUID
	Devices    [][]byte    // empty: every device of the class
	PkgVersion string      // Object 5, resource 7
	PkgName    string      // Object 5, resource 6
	Type       Type        //
	Base       *Digest     // of the image a delta applies to
	Encryption *Encryption //
	Plaintext  *Digest     // of what is installed, where it is not what is transferred
	MaxUnit    uint8       // the author's cap on u; 0: none
	Expiry     uint64      // seconds since 1970; 0: never
}

// Limits of a manifest's fields.
const (
	MaxDevices  = 8
	MaxDeviceID = 64  // bytes
	MaxText     = 255 // bytes, as in Object 5
	maxKID      = 64
)

// wire is the manifest's CBOR map. An empty list or text and a cap or expiry
// of zero are not written.
type wire struct {
	Version    uint64      `cbor:"1,keyasint"`
	Sequence   uint64      `cbor:"2,keyasint"`
	Size       uint64      `cbor:"3,keyasint"`
	Tree       wireTree    `cbor:"4,keyasint"`
	Digest     *Digest     `cbor:"5,keyasint"`
	Vendor     []byte      `cbor:"6,keyasint"`
	Class      []byte      `cbor:"7,keyasint"`
	Devices    [][]byte    `cbor:"8,keyasint,omitempty"`
	PkgVersion string      `cbor:"9,keyasint,omitempty"`
	PkgName    string      `cbor:"10,keyasint,omitempty"`
	Type       *uint8      `cbor:"11,keyasint,omitempty"`
	Base       *Digest     `cbor:"12,keyasint,omitempty"`
	Encryption *Encryption `cbor:"13,keyasint,omitempty"`
	Plaintext  *Digest     `cbor:"14,keyasint,omitempty"`
	MaxUnit    uint8       `cbor:"15,keyasint,omitempty"`
	Expiry     uint64      `cbor:"16,keyasint,omitempty"`
}

type wireTree struct {
	_    struct{} `cbor:",toarray"`
	VDS  uint64   // 1: RFC 9162, SHA-256
	Leaf uint8
	Root []byte
}

// vdsRFC9162 is the verifiable data structure of RFC 9162 with SHA-256.
const vdsRFC9162 = 1

// The CBOR modes: deterministic out (RFC 8949 §4.2.1); in, strict and bounded.
var (
	encMode cbor.EncMode
	decMode cbor.DecMode
)

func init() {
	var err error
	if encMode, err = cbor.CoreDetEncOptions().EncMode(); err != nil {
		panic(err) // constant options
	}
	decMode, err = cbor.DecOptions{
		DupMapKey:         cbor.DupMapKeyEnforcedAPF,
		IndefLength:       cbor.IndefLengthForbidden,
		ExtraReturnErrors: cbor.ExtraDecErrorUnknownField,
		MaxNestedLevels:   4,
		MaxArrayElements:  16,
		MaxMapPairs:       16,
		UTF8:              cbor.UTF8RejectInvalid,
		TagsMd:            cbor.TagsForbidden,
	}.DecMode()
	if err != nil {
		panic(err) // constant options
	}
}

// decodeExact decodes b into v, and refuses what is not v's deterministic
// encoding: unknown and duplicate keys, long forms, a wrong order, trailing
// bytes.
func decodeExact(b []byte, v any) error {
	if err := decMode.Unmarshal(b, v); err != nil {
		return err
	}
	again, err := encMode.Marshal(v)
	if err != nil {
		return err
	}
	if !bytes.Equal(again, b) {
		return errNotDeterministic
	}
	return nil
}

var errNotDeterministic = errors.New("not the deterministic encoding (RFC 8949 §4.2)")

// parseManifest decodes and validates the signed payload.
func parseManifest(b []byte) (Manifest, error) {
	var w wire
	// The version comes first: a later one may have other keys.
	if v, ok := peekVersion(b); ok && v != 1 {
		return Manifest{}, fmt.Errorf("%w: it is %d", ErrVersion, v)
	}
	if err := decodeExact(b, &w); err != nil {
		return Manifest{}, fmt.Errorf("%w: %w", ErrManifest, err)
	}
	m := Manifest{
		Sequence: w.Sequence, Size: uint32(w.Size), Leaf: w.Tree.Leaf,
		Devices: w.Devices, PkgVersion: w.PkgVersion, PkgName: w.PkgName,
		Base: w.Base, Encryption: w.Encryption, Plaintext: w.Plaintext,
		MaxUnit: w.MaxUnit, Expiry: w.Expiry,
	}
	if w.Size > 1<<32-1 {
		return Manifest{}, badManifest(3, "size %d is above 4294967295", w.Size)
	}
	if w.Tree.VDS != vdsRFC9162 {
		return Manifest{}, fmt.Errorf("%w: tree type %d in key 4", ErrAlgorithm, w.Tree.VDS)
	}
	if w.Type != nil {
		m.Type = Type(*w.Type)
	}
	if w.Digest == nil {
		return Manifest{}, badManifest(5, "digest is missing")
	}
	m.Digest = *w.Digest
	if copy(m.Root[:], w.Tree.Root); len(w.Tree.Root) != len(m.Root) {
		return Manifest{}, badManifest(4, "root has %d bytes", len(w.Tree.Root))
	}
	if copy(m.Vendor[:], w.Vendor); len(w.Vendor) != len(m.Vendor) {
		return Manifest{}, badManifest(6, "vendor has %d bytes", len(w.Vendor))
	}
	if copy(m.Class[:], w.Class); len(w.Class) != len(m.Class) {
		return Manifest{}, badManifest(7, "class has %d bytes", len(w.Class))
	}
	return m, m.check()
}

// peekVersion reads key 1 of a map in deterministic order, where it is first.
func peekVersion(b []byte) (uint64, bool) {
	if len(b) < 3 || b[0]>>5 != 5 || b[1] != 1 {
		return 0, false
	}
	var v uint64
	_, err := decMode.UnmarshalFirst(b[2:], &v)
	return v, err == nil
}

// check validates what the CDDL says of each field.
func (m *Manifest) check() error {
	switch {
	case m.Size == 0:
		return badManifest(3, "image is empty")
	case m.Leaf < MinExponent || m.Leaf > MaxExponent:
		return badManifest(4, "leaf exponent %d is not %d to %d", m.Leaf, MinExponent, MaxExponent)
	case len(m.Devices) > MaxDevices:
		return badManifest(8, "%d devices; at most %d fit", len(m.Devices), MaxDevices)
	case len(m.PkgVersion) > MaxText || !utf8.ValidString(m.PkgVersion):
		return badManifest(9, "package version is not at most %d bytes of UTF-8", MaxText)
	case len(m.PkgName) > MaxText || !utf8.ValidString(m.PkgName):
		return badManifest(10, "package name is not at most %d bytes of UTF-8", MaxText)
	case m.Type > SUIT:
		return badManifest(11, "payload type %d", m.Type)
	case (m.Type == Delta) != (m.Base != nil):
		return badManifest(12, "a delta, and only a delta, names its base")
	case m.MaxUnit != 0 && (m.MaxUnit < MinExponent || m.MaxUnit > MaxExponent || m.MaxUnit < m.Leaf):
		return badManifest(15, "unit cap %d is not %d to %d, or is below the leaf", m.MaxUnit, MinExponent, MaxExponent)
	}
	for _, id := range m.Devices {
		if len(id) == 0 || len(id) > MaxDeviceID {
			return badManifest(8, "device id of %d bytes", len(id))
		}
	}
	if err := m.Digest.check(5); err != nil {
		return err
	}
	if m.Base != nil {
		if err := m.Base.check(12); err != nil {
			return err
		}
	}
	if m.Plaintext != nil {
		if err := m.Plaintext.check(14); err != nil {
			return err
		}
	}
	if e := m.Encryption; e != nil {
		switch {
		case e.Alg != A128CTR:
			return fmt.Errorf("%w: content encryption %d in key 13", ErrAlgorithm, e.Alg)
		case len(e.IV) != 16 || len(e.KID) == 0 || len(e.KID) > maxKID:
			return badManifest(13, "IV of %d bytes, kid of %d", len(e.IV), len(e.KID))
		}
	}
	return nil
}

func (d *Digest) check(key int) error {
	h := d.Alg.New()
	if h == nil {
		return fmt.Errorf("%w: digest %d in key %d", ErrAlgorithm, int64(d.Alg), key)
	}
	if len(d.Value) != h.Size() {
		return badManifest(key, "%v digest of %d bytes", d.Alg, len(d.Value))
	}
	return nil
}

func badManifest(key int, format string, args ...any) error {
	return fmt.Errorf("%w: key %d: %s", ErrManifest, key, fmt.Sprintf(format, args...))
}

// marshal encodes the manifest.
func (m *Manifest) marshal() ([]byte, error) {
	if err := m.check(); err != nil {
		return nil, err
	}
	w := wire{
		Version: 1, Sequence: m.Sequence, Size: uint64(m.Size),
		Tree:   wireTree{VDS: vdsRFC9162, Leaf: m.Leaf, Root: m.Root[:]},
		Digest: &m.Digest, Vendor: m.Vendor[:], Class: m.Class[:],
		Devices: m.Devices, PkgVersion: m.PkgVersion, PkgName: m.PkgName,
		Base: m.Base, Encryption: m.Encryption, Plaintext: m.Plaintext,
		MaxUnit: m.MaxUnit, Expiry: m.Expiry,
	}
	if m.Type != Raw {
		t := uint8(m.Type)
		w.Type = &t
	}
	return encMode.Marshal(w)
}
