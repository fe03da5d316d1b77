package fragment

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"testing"

	"github.com/oscorelay/oscorelay/testvectors"
)

var update = flag.Bool("update", false, "write testvectors/fragment.json anew")

// vectors is testvectors/fragment.json; docs/LWF.md says what the fields mean.
type vectors struct {
	Source  string          `json:"source"`
	Image   string          `json:"image_rule"`
	Key     keyVector       `json:"key"`
	Trees   []treeVector    `json:"trees"`
	Layouts []layoutVector  `json:"layouts"`
	Files   []fileVector    `json:"files"`
	Refused []refusedVector `json:"refused"`
	Pinned  []pinnedVector  `json:"names"`
}

type keyVector struct {
	Alg     Algorithm `json:"alg"`
	KID     string    `json:"kid"`
	Private string    `json:"cose_key_private"`
	Public  string    `json:"cose_key_public"`
}

type treeVector struct {
	Size uint32 `json:"size"`
	Leaf int    `json:"leaf"`
	Root string `json:"root"`
}

type layoutVector struct {
	Size     uint32         `json:"size"`
	Leaf     int            `json:"leaf"`
	Unit     int            `json:"unit"`
	Page     int            `json:"page"`
	Outboard bool           `json:"outboard"`
	Base     uint32         `json:"base"`
	Units    uint32         `json:"units"`
	Depth    uint8          `json:"depth"`
	FileSize int64          `json:"file_size"`
	Items    []offsetVector `json:"items"`
}

type offsetVector struct {
	Level  uint8  `json:"level"`
	Index  uint32 `json:"index"`
	Offset int64  `json:"offset"`
	Bytes  int    `json:"bytes"`
}

type fileVector struct {
	Size     uint32 `json:"size"`
	Leaf     int    `json:"leaf"`
	Unit     int    `json:"unit"`
	Page     int    `json:"page"`
	Outboard bool   `json:"outboard"`
	Sign1    string `json:"sign1"`
	File     string `json:"file,omitempty"`
	SHA256   string `json:"file_sha256"`
}

type pinnedVector struct {
	Sign1 string `json:"sign1"`
	Unit  int    `json:"unit"`
	Page  int    `json:"page"`
	Name  string `json:"name"`
}

type refusedVector struct {
	What  string `json:"what"`
	Sign1 string `json:"sign1"`
	Error string `json:"error"`
}

// vectorErrors names the errors in the file.
var vectorErrors = map[string]error{
	"header": ErrHeader, "version": ErrVersion, "algorithm": ErrAlgorithm, "key": ErrKey,
	"signature": ErrSignature, "manifest": ErrManifest,
}

// vectorImage follows image_rule.
func vectorImage(n uint32) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*7 + i/256)
	}
	return b
}

func exp(t *testing.T, n int) uint8 {
	t.Helper()
	e, ok := map[int]uint8{64: 6, 128: 7, 256: 8, 512: 9, 1024: 10, 2048: 11, 4096: 12}[n]
	if !ok {
		t.Fatalf("%d is no size", n)
	}
	return e
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// writeVectors computes the file. Signatures are Ed25519's, so it does so the
// same way every time.
func writeVectors(t *testing.T) {
	t.Helper()
	s := author(t)
	priv, err := s.AppendCOSEKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	pub, err := s.Public().AppendCOSEKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	v := vectors{
		Source: "computed by this project for docs/LWF.md; roots also agree with transparency-dev/merkle and golang.org/x/mod/sumdb/tlog",
		Image:  "byte i of an image is (7*i + floor(i/256)) mod 256",
		Key:    keyVector{s.Alg, hex.EncodeToString(s.KID), hex.EncodeToString(priv), hex.EncodeToString(pub)},
	}
	for _, size := range []uint32{1, 63, 64, 65, 128, 129, 192, 193, 448, 449, 1000, 4096, 65536, 70001} {
		for _, leaf := range []int{64, 256, 4096} {
			m, err := Describe(bytes.NewReader(vectorImage(size)), size, exp(t, leaf), 1, nil)
			if err != nil {
				t.Fatal(err)
			}
			v.Trees = append(v.Trees, treeVector{size, leaf, hex.EncodeToString(m.Root[:])})
		}
	}
	for _, c := range []struct {
		size             uint32
		leaf, unit, page int
		outboard         bool
		base             uint32
	}{
		{1, 64, 64, 64, false, 256},
		{1000, 64, 64, 64, false, 256},
		{1000, 64, 256, 128, false, 384},
		{65536, 256, 1024, 1024, false, 1024},
		{4 << 20, 256, 1024, 1024, false, 1024},
		{4 << 20, 64, 256, 1024, true, 512},
		{1<<32 - 1, 64, 64, 4096, false, 320},
		{1<<32 - 1, 4096, 4096, 64, false, 320},
	} {
		g, err := NewGeometry(Layout{exp(t, c.unit), exp(t, c.page), c.outboard}, c.size, exp(t, c.leaf), c.base)
		if err != nil {
			t.Fatal(err)
		}
		l := layoutVector{Size: c.size, Leaf: c.leaf, Unit: c.unit, Page: c.page, Outboard: c.outboard, Base: c.base, Units: g.Units(), Depth: g.Depth(), FileSize: g.FileSize()}
		for level := uint8(0); level <= g.Depth(); level++ {
			w := g.Width(level)
			for i, index := range []uint32{0, 1, w / 2, w - 1} {
				if index >= w || i > 0 && index <= []uint32{0, 0, 1, w / 2}[i] {
					continue
				}
				it := Item{level, index}
				l.Items = append(l.Items, offsetVector{level, index, g.Offset(it), g.Len(it)})
			}
		}
		v.Layouts = append(v.Layouts, l)
	}
	for _, c := range []struct {
		size             uint32
		leaf, unit, page int
		outboard         bool
	}{
		{200, 64, 64, 64, false},
		{1000, 64, 256, 64, false},
		{1000, 64, 64, 64, true},
		{70001, 256, 1024, 1024, false},
		{70001, 256, 256, 1024, false},
	} {
		image := vectorImage(c.size)
		m, err := Describe(bytes.NewReader(image), c.size, exp(t, c.leaf), 1, nil)
		if err != nil {
			t.Fatal(err)
		}
		m.Sequence, m.PkgName, m.PkgVersion = 7, "pump", "1.4.0"
		m.Vendor, m.Class = [16]byte(vectorImage(16)), [16]byte(vectorImage(32)[16:])
		sign1, err := Sign(nil, m, s)
		if err != nil {
			t.Fatal(err)
		}
		opened, err := Open(sign1, s.Public())
		if err != nil {
			t.Fatal(err)
		}
		l := Layout{exp(t, c.unit), exp(t, c.page), c.outboard}
		file, _ := cut(t, image, opened, l)
		sum := sha256.Sum256(file)
		f := fileVector{c.size, c.leaf, c.unit, c.page, c.outboard, hex.EncodeToString(sign1), "", hex.EncodeToString(sum[:])}
		if c.size <= 1000 {
			f.File = hex.EncodeToString(file)
		}
		v.Files = append(v.Files, f)
		v.Pinned = append(v.Pinned, pinnedVector{f.Sign1, c.unit, c.page, opened.Name(l).String()})
	}
	good := unhex(t, v.Files[0].Sign1)
	bad := func(what, name string, b []byte) {
		v.Refused = append(v.Refused, refusedVector{what, hex.EncodeToString(b), name})
	}
	flip := func(at int, x byte) []byte {
		b := bytes.Clone(good)
		b[at] ^= x
		return b
	}
	bad("the signature's last bit flipped", "signature", flip(len(good)-1, 1))
	bad("a payload bit flipped", "signature", flip(70, 1))
	bad("untagged", "header", good[1:])
	bad("a byte too many", "header", append(bytes.Clone(good), 0))
	bad("cut short", "header", good[:len(good)-1])
	resign := func(what, name string, key int, value any) {
		var e sign1
		if err := decMode.Unmarshal(good[1:], &e); err != nil {
			t.Fatal(err)
		}
		var p map[int]any
		if err := decMode.Unmarshal(e.Payload, &p); err != nil {
			t.Fatal(err)
		}
		p[key] = value
		payload, err := encMode.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		bad(what, name, signRaw(t, s, payload))
	}
	resign("version 2", "version", 1, 2)
	resign("unknown key 17", "manifest", 17, 0)
	resign("size 2^32", "manifest", 3, uint64(1)<<32)
	resign("size 0", "manifest", 3, 0)
	resign("leaf exponent 5", "manifest", 4, []any{1, 5, make([]byte, 32)})
	resign("tree type 2", "algorithm", 4, []any{2, 6, make([]byte, 32)})
	resign("digest algorithm -15", "algorithm", 5, []any{-15, make([]byte, 8)})
	resign("an empty package version", "manifest", 9, "")
	out, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile("../testvectors/fragment.json", append(out, '\n'), 0o644); err != nil {
		t.Fatal(err)
	}
}

// signRaw signs a payload that Sign would not.
func signRaw(t *testing.T, s Signer, payload []byte) []byte {
	t.Helper()
	protected, err := encMode.Marshal(protectedHeader{Alg: s.Alg, KID: s.KID, Typ: ContentType})
	if err != nil {
		t.Fatal(err)
	}
	tbs, err := encMode.Marshal([]any{"Signature1", protected, []byte{}, payload})
	if err != nil {
		t.Fatal(err)
	}
	signer, err := s.signer()
	if err != nil {
		t.Fatal(err)
	}
	signature, err := signer.Sign(nil, tbs)
	if err != nil {
		t.Fatal(err)
	}
	b, err := encMode.Marshal(sign1{Protected: protected, Payload: payload, Signature: signature})
	if err != nil {
		t.Fatal(err)
	}
	return append([]byte{sign1Tag}, b...)
}

func TestVectors(t *testing.T) {
	if *update {
		writeVectors(t)
		t.Skip("written anew; run again without -update")
	}
	raw, err := testvectors.FS.ReadFile("fragment.json")
	if err != nil {
		t.Fatal(err)
	}
	var v vectors
	if err := json.Unmarshal(raw, &v); err != nil {
		t.Fatal(err)
	}
	key, err := ParsePublicKey(unhex(t, v.Key.Public))
	if err != nil || key.Alg != v.Key.Alg || hex.EncodeToString(key.KID) != v.Key.KID {
		t.Fatalf("public key: %v", err)
	}
	signer, err := ParseSigner(unhex(t, v.Key.Private))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range v.Trees {
		m, err := Describe(bytes.NewReader(vectorImage(c.Size)), c.Size, exp(t, c.Leaf), 2, nil)
		if err != nil || hex.EncodeToString(m.Root[:]) != c.Root {
			t.Errorf("root of %d bytes in leaves of %d: %x, %v", c.Size, c.Leaf, m.Root, err)
		}
	}
	for _, c := range v.Layouts {
		g, err := NewGeometry(Layout{exp(t, c.Unit), exp(t, c.Page), c.Outboard}, c.Size, exp(t, c.Leaf), c.Base)
		if err != nil {
			t.Fatal(err)
		}
		if g.Units() != c.Units || g.Depth() != c.Depth || g.FileSize() != c.FileSize {
			t.Errorf("%+v: N %d, D %d, %d bytes", c, g.Units(), g.Depth(), g.FileSize())
		}
		for _, i := range c.Items {
			it := Item{i.Level, i.Index}
			if g.Offset(it) != i.Offset || g.Len(it) != i.Bytes {
				t.Errorf("%v of %d/%d: at %d, %d bytes", it, c.Unit, c.Page, g.Offset(it), g.Len(it))
			}
		}
	}
	for i, c := range v.Files {
		sign1 := unhex(t, c.Sign1)
		s, err := Open(sign1, key)
		if err != nil {
			t.Fatal(err)
		}
		again, err := Sign(nil, s.Manifest(), signer)
		if err != nil || !bytes.Equal(again, sign1) {
			t.Errorf("signing the manifest again gives other bytes: %v", err)
		}
		l := Layout{exp(t, c.Unit), exp(t, c.Page), c.Outboard}
		image := vectorImage(c.Size)
		file, g := cut(t, image, s, l)
		sum := sha256.Sum256(file)
		if hex.EncodeToString(sum[:]) != c.SHA256 || c.File != "" && c.File != hex.EncodeToString(file) {
			t.Errorf("file %d differs", i)
		}
		vf, flash := open(t, image, s, g, VerifierConfig{})
		drain(t, vf, file, image)
		if !bytes.Equal(flash.B, image) {
			t.Errorf("file %d gives another image", i)
		}
		if p := v.Pinned[i]; s.Name(l).String() != p.Name {
			t.Errorf("name %s, want %s", s.Name(l), p.Name)
		}
	}
	for _, c := range v.Refused {
		want, known := vectorErrors[c.Error]
		if _, err := Open(unhex(t, c.Sign1), key); !known || !errors.Is(err, want) {
			t.Errorf("%s: %v, want %s", c.What, err, c.Error)
		}
	}
	if len(v.Trees) < 40 || len(v.Layouts) < 8 || len(v.Files) < 5 || len(v.Refused) < 13 {
		t.Error("the file has lost vectors")
	}
}
