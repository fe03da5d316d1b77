package fragment

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/oscorelay/oscorelay/fragment/internal/flash"
)

// memory is a Store in memory.
type memory = flash.Memory

// guarded is a flash that fails the test when a byte is written that is not
// the genuine image's.
type guarded struct {
	memory
	t     testing.TB
	image []byte
}

func (g *guarded) WriteAt(b []byte, off int64) (int, error) {
	g.t.Helper()
	if int(off)+len(b) > len(g.image) || !bytes.Equal(b, g.image[off:int(off)+len(b)]) {
		g.t.Fatalf("unverified bytes reach flash at %d", off)
	}
	return g.memory.WriteAt(b, off)
}

// author is a deterministic Ed25519 signer.
func author(t testing.TB) Signer {
	t.Helper()
	s, err := NewSigner(ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, 32)), 0, []byte("author"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// noise returns n deterministic bytes.
func noise(n int) []byte {
	b := make([]byte, n)
	rng := rand.NewChaCha8([32]byte{byte(n), byte(n >> 8), byte(n >> 16)})
	_, _ = rng.Read(b)
	return b
}

// signed signs an image with leaves of 2^leaf bytes.
func signed(t testing.TB, image []byte, leaf uint8) *Signed {
	t.Helper()
	m, err := Describe(bytes.NewReader(image), uint32(len(image)), leaf, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	m.Sequence, m.Vendor, m.Class = 5, [16]byte{1}, [16]byte{2}
	s := author(t)
	b, err := Sign(nil, m, s)
	if err != nil {
		t.Fatal(err)
	}
	opened, err := Open(b, s.Public())
	if err != nil {
		t.Fatal(err)
	}
	return opened
}

// cut returns the file of one layout, and its geometry.
func cut(t testing.TB, image []byte, s *Signed, l Layout) ([]byte, Geometry) {
	t.Helper()
	var b bytes.Buffer
	if err := Cut(&b, bytes.NewReader(image), s.Envelope(), CutConfig{Layout: l}); err != nil {
		t.Fatal(err)
	}
	g, err := s.Pinned(s.Name(l))
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes(), g
}

// open prepares a guarded image and a verifier.
func open(t testing.TB, image []byte, s *Signed, g Geometry, c VerifierConfig) (*Verifier, *guarded) {
	t.Helper()
	flash := &guarded{t: t, image: image}
	im, err := OpenImage(s, ImageConfig{Flash: flash})
	if err != nil {
		t.Fatal(err)
	}
	v, err := NewVerifier(im, g, c)
	if err != nil {
		t.Fatal(err)
	}
	return v, flash
}

// piece returns an item's bytes from its file (and the image, in outboard mode).
func piece(file, image []byte, g Geometry, it Item) []byte {
	if g.Outboard && it.Level == 0 {
		file = image
	}
	off := g.Offset(it)
	return file[off : off+int64(g.Len(it))]
}

// drain offers what the verifier wants until the image is complete.
func drain(t testing.TB, v *Verifier, file, image []byte) (offers int) {
	t.Helper()
	for {
		want := v.Wanted(make([]Item, 0, 4), nil)
		if len(want) == 0 {
			break
		}
		for _, it := range want {
			offers++
			if err := v.Offer(it, piece(file, image, v.geo, it)); err != nil {
				t.Fatalf("%v: %v", it, err)
			}
		}
	}
	if !v.image.Complete() {
		t.Fatal("the verifier wants nothing, and the image is not complete")
	}
	if err := v.image.Finish(); err != nil {
		t.Fatal(err)
	}
	return offers
}

func wantErr(t testing.TB, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("error %v, want %v", err, want)
	}
}
