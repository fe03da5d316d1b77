package fragment

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"

	"github.com/fxamacker/cbor/v2"
)

// MaxHeader is the most bytes a header has, padding included.
const MaxHeader = 2048

// Tag is frag-info's CBOR tag, "LWF1" in ASCII. It is not registered.
const Tag = 0x4c574631

// infoSize is the length of a frag-info without mirrors.
const infoSize = 9

var infoTag = [5]byte{0xda, 'L', 'W', 'F', '1'}

// Header is the start of a file: the unsigned layout and the signed manifest.
type Header struct {
	Layout           // UNTRUSTED
	Mirrors []string // UNTRUSTED: where else the file can be had
	Sign1   []byte   // COSE_Sign1_Tagged, for [Open]
	Base    uint32   // UNTRUSTED: where the items start
}

// Header's limits on mirrors.
const (
	maxMirrors   = 4
	maxMirrorURI = 255
)

// info and infoMirrors are the content of frag-info.
type info struct {
	_          struct{} `cbor:",toarray"`
	Unit, Page uint8
	Mode       uint8
}

type infoMirrors struct {
	_          struct{} `cbor:",toarray"`
	Unit, Page uint8
	Mode       uint8
	Mirrors    []string
}

// Append appends the header's bytes: frag-info, COSE_Sign1 and zeros up to a
// multiple of the layout's block. Base is not used.
func (h Header) Append(dst []byte) ([]byte, error) {
	if err := h.check(); err != nil {
		return nil, err
	}
	if len(h.Mirrors) > maxMirrors {
		return nil, fmt.Errorf("%w: %d mirrors; at most %d fit", ErrHeader, len(h.Mirrors), maxMirrors)
	}
	for _, m := range h.Mirrors {
		if m == "" || len(m) > maxMirrorURI {
			return nil, fmt.Errorf("%w: mirror URI of %d bytes", ErrHeader, len(m))
		}
	}
	var content any = info{Unit: h.Unit, Page: h.Page, Mode: h.mode()}
	if len(h.Mirrors) > 0 {
		content = infoMirrors{Unit: h.Unit, Page: h.Page, Mode: h.mode(), Mirrors: h.Mirrors}
	}
	b, err := encMode.Marshal(content)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrHeader, err)
	}
	start := len(dst)
	dst = append(append(append(dst, infoTag[:]...), b...), h.Sign1...)
	for (len(dst)-start)%h.Block() != 0 {
		dst = append(dst, 0)
	}
	if len(dst)-start > MaxHeader {
		return nil, fmt.Errorf("%w: %d bytes; at most %d", ErrHeader, len(dst)-start, MaxHeader)
	}
	return dst, nil
}

func (l Layout) mode() uint8 {
	if l.Outboard {
		return 1
	}
	return 0
}

// HeaderSize returns how many bytes the header has that starts with b: 0 and no
// error while b does not tell yet. It refuses as early as it can, at the
// latest after [MaxHeader] bytes.
func HeaderSize(b []byte) (int, error) {
	infoLen, err := infoLength(b, infoTag[:])
	if err != nil || infoLen == 0 {
		return 0, err
	}
	if len(b) < infoLen {
		return 0, nil
	}
	n := sign1Size(b[infoLen:])
	switch {
	case n < 0:
		return 0, fmt.Errorf("%w: no COSE_Sign1_Tagged after frag-info", ErrHeader)
	case n == 0:
		return 0, nil
	}
	layout, _, err := parseInfo(b[:infoLen])
	if err != nil {
		return 0, err
	}
	size := (infoLen + n + layout.Block() - 1) &^ (layout.Block() - 1)
	if size > MaxHeader {
		return 0, fmt.Errorf("%w: %d bytes; at most %d", ErrHeader, size, MaxHeader)
	}
	return size, nil
}

// infoLength returns the length of the frag-info at the start of b, 0 if b is too
// short to tell.
func infoLength(b, prefix []byte) (int, error) {
	n := min(len(b), len(prefix))
	if !bytes.Equal(b[:n], prefix[:n]) {
		return 0, fmt.Errorf("%w: it does not start with the tag LWF1", ErrHeader)
	}
	if len(b) < len(prefix)+1 {
		return 0, nil
	}
	switch b[len(prefix)] {
	case 0x83:
		return infoSize, nil
	case 0x84:
	default:
		return 0, fmt.Errorf("%w: frag-info is not an array of 3 or 4", ErrHeader)
	}
	// u, p and mode are one byte each, then the list of mirrors.
	at := len(prefix) + 1 + 3
	if len(b) <= at {
		return 0, nil
	}
	count := int(b[at]) - 0x80
	if count < 1 || count > maxMirrors {
		return 0, fmt.Errorf("%w: mirrors are not a list of 1 to %d", ErrHeader, maxMirrors)
	}
	at++
	for range count {
		size, head := stringHead(b[at:], 3)
		if head < 0 || size > maxMirrorURI {
			return 0, fmt.Errorf("%w: a mirror is not a text of at most %d bytes", ErrHeader, maxMirrorURI)
		}
		if head == 0 || at+head+size > len(b) {
			return 0, nil
		}
		at += head + size
	}
	return at, nil
}

// sign1Size returns the length of the COSE_Sign1_Tagged at the start of b: 0
// if b is too short to tell, -1 if there is none.
func sign1Size(b []byte) int {
	for i, want := range []byte{sign1Tag, 0x84} {
		if len(b) <= i {
			return 0
		}
		if b[i] != want {
			return -1
		}
	}
	at := 2
	for i := range 4 {
		if len(b) <= at {
			return 0
		}
		if i == 1 {
			if b[at] != 0xa0 {
				return -1
			}
			at++
			continue
		}
		size, head := stringHead(b[at:], 2)
		if head < 0 || size > MaxHeader {
			return -1
		}
		if head == 0 {
			return 0
		}
		at += head + size
	}
	return at
}

// stringHead reads the head of a byte (major 2) or text string (major 3): its
// length and the head's own. head is 0 if b is too short, -1 if b holds
// something else.
func stringHead(b []byte, major byte) (size, head int) {
	if len(b) == 0 {
		return 0, 0
	}
	if b[0]>>5 != major {
		return 0, -1
	}
	switch v := b[0] & 0x1f; {
	case v < 24:
		return int(v), 1
	case v == 24 && len(b) >= 2:
		return int(b[1]), 2
	case v == 25 && len(b) >= 3:
		return int(binary.BigEndian.Uint16(b[1:])), 3
	case v == 24, v == 25:
		return 0, 0
	}
	return 0, -1
}

func parseInfo(b []byte) (Layout, []string, error) {
	var (
		c   infoMirrors
		err error
	)
	if b[len(infoTag)] == 0x83 {
		var short info
		err = decodeExact(b[len(infoTag):], &short)
		c.Unit, c.Page, c.Mode = short.Unit, short.Page, short.Mode
	} else {
		err = decodeExact(b[len(infoTag):], &c)
	}
	if err != nil {
		return Layout{}, nil, fmt.Errorf("%w: frag-info: %w", ErrHeader, err)
	}
	if c.Mode > 1 {
		return Layout{}, nil, fmt.Errorf("%w: mode %d", ErrHeader, c.Mode)
	}
	l := Layout{Unit: c.Unit, Page: c.Page, Outboard: c.Mode == 1}
	if err := l.check(); err != nil {
		return Layout{}, nil, fmt.Errorf("%w: %w", ErrHeader, err)
	}
	return l, c.Mirrors, nil
}

// ParseHeader reads the header that b starts with. b holds it whole; what
// follows it is not looked at.
func ParseHeader(b []byte) (Header, error) {
	b = b[:min(len(b), MaxHeader)]
	size, err := HeaderSize(b)
	if err != nil {
		return Header{}, err
	}
	if size == 0 || size > len(b) {
		return Header{}, fmt.Errorf("%w: cut short at %d bytes", ErrHeader, len(b))
	}
	infoLen, err := infoLength(b, infoTag[:])
	if err != nil {
		return Header{}, err
	}
	layout, mirrors, err := parseInfo(b[:infoLen])
	if err != nil {
		return Header{}, err
	}
	end := infoLen + sign1Size(b[infoLen:])
	if !zeros(b[end:size]) {
		return Header{}, fmt.Errorf("%w: padding is not zero", ErrHeader)
	}
	if _, err := decMode.UnmarshalFirst(b[infoLen+1:end], &cbor.RawMessage{}); err != nil {
		return Header{}, fmt.Errorf("%w: COSE_Sign1: %w", ErrHeader, err)
	}
	return Header{Layout: layout, Mirrors: mirrors, Sign1: bytes.Clone(b[infoLen:end]), Base: uint32(size)}, nil
}

// Name is the last path segment of a pinned file: it fixes the manifest by its
// hash and the layout, before any signature is checked, so that neither is the
// first mirror's word. A pinned file's header carries no mirrors, therefore
// the manifest's bytes and the name together fix every byte of it.
type Name struct {
	Layout
	Manifest Hash // SHA-256 of the COSE_Sign1's bytes
}

// The endings of pinned names.
const (
	combinedSuffix = "lwf" // everything in one file
	outboardSuffix = "lwo" // pages; the image stands beside it
	imageSuffix    = "img" // the unchanged image
)

// String returns base64url(hash).u.p.lwf, or .lwo in outboard mode.
func (n Name) String() string {
	suffix := combinedSuffix
	if n.Outboard {
		suffix = outboardSuffix
	}
	return fmt.Sprintf("%s.%d.%d.%s", base64.RawURLEncoding.EncodeToString(n.Manifest[:]), n.Unit, n.Page, suffix)
}

// Image returns the name under which the image stands beside an outboard file.
func (n Name) Image() string {
	return base64.RawURLEncoding.EncodeToString(n.Manifest[:]) + "." + imageSuffix
}

// ParseName reads a path's last segment.
func ParseName(segment string) (Name, error) {
	bad := func(why string) (Name, error) {
		return Name{}, fmt.Errorf("%w: %q %s; expected <hash>.<u>.<p>.lwf", ErrName, segment, why)
	}
	part := strings.Split(segment, ".")
	if len(part) != 4 {
		return bad("does not have four parts")
	}
	var n Name
	hash, err := base64.RawURLEncoding.Strict().DecodeString(part[0])
	if err != nil || len(hash) != len(n.Manifest) {
		return bad("does not start with a SHA-256 in base64url")
	}
	n.Manifest = Hash(hash)
	for i, e := range []*uint8{&n.Unit, &n.Page} {
		v, err := strconv.ParseUint(part[1+i], 10, 8)
		if err != nil || strconv.FormatUint(v, 10) != part[1+i] {
			return bad("has an exponent that is not a number")
		}
		*e = uint8(v)
	}
	switch part[3] {
	case combinedSuffix:
	case outboardSuffix:
		n.Outboard = true
	default:
		return bad("has another ending")
	}
	if err := n.check(); err != nil {
		return Name{}, fmt.Errorf("%w: %w", ErrName, err)
	}
	return n, nil
}

// Pins reports whether the name pins that COSE_Sign1.
func (n Name) Pins(sign1 []byte) bool { return sha256.Sum256(sign1) == n.Manifest }

// headerSize returns the bytes of a pinned file's header, given its manifest's.
func (n Name) headerSize(sign1 []byte) uint32 {
	return uint32((infoSize + len(sign1) + n.Block() - 1) &^ (n.Block() - 1))
}

// Name returns the name that pins this manifest and a layout.
func (e *Envelope) Name(l Layout) Name { return Name{Layout: l, Manifest: e.hash} }

// Pinned returns the geometry of the file of that name, which must pin this
// manifest.
func (e *Envelope) Pinned(n Name) (Geometry, error) {
	if e.hash != n.Manifest {
		return Geometry{}, fmt.Errorf("%w: the manifest's hash is not the name's", ErrName)
	}
	return e.Geometry(n.Layout, n.headerSize(e.sign1))
}

// Geometry lays the image out, with the author's cap on units obeyed. base is
// the size of the header.
func (e *Envelope) Geometry(l Layout, base uint32) (Geometry, error) {
	if most := e.manifest.MaxUnit; most != 0 && l.Unit > most {
		return Geometry{}, fmt.Errorf("%w: units of 2^%d bytes; the author allows 2^%d", ErrGeometry, l.Unit, most)
	}
	return NewGeometry(l, e.manifest.Size, e.manifest.Leaf, base)
}
