package fragment_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"io"

	"github.com/oscorelay/oscorelay/fragment"
)

// store is a device's flash or journal.
type store struct{ b []byte }

func (s *store) WriteAt(b []byte, off int64) (int, error) { return copy(s.b[off:], b), nil }
func (s *store) Sync() error                              { return nil }
func (s *store) ReadAt(b []byte, off int64) (int, error) {
	n := copy(b, s.b[off:])
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

// The whole way: an author signs, anyone cuts, a device verifies.
func Example() {
	image := bytes.Repeat([]byte("firmware "), 1000)

	// The author, once a release.
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		panic(err)
	}
	author, err := fragment.NewSigner(private, fragment.Ed25519, nil)
	if err != nil {
		panic(err)
	}
	manifest, err := fragment.Describe(bytes.NewReader(image), uint32(len(image)), 8, 2, nil)
	if err != nil {
		panic(err)
	}
	manifest.Sequence = 7
	manifest.Vendor, manifest.Class = [16]byte{1}, [16]byte{2}
	sign1, err := fragment.Sign(rand.Reader, manifest, author)
	if err != nil {
		panic(err)
	}

	// Anyone, for some network. No key.
	envelope, err := fragment.Parse(sign1)
	if err != nil {
		panic(err)
	}
	layout := fragment.Layout{Unit: 10, Page: 10}
	var file bytes.Buffer
	if err := fragment.Cut(&file, bytes.NewReader(image), envelope, fragment.CutConfig{Layout: layout}); err != nil {
		panic(err)
	}

	// The device. It was given the name over a sealed path.
	name := envelope.Name(layout)
	signed, err := fragment.Open(sign1, author.Public())
	if err != nil {
		panic(err)
	}
	policy := fragment.Policy{Vendor: [16]byte{1}, Class: [16]byte{2}, Installed: 6, Flash: 1 << 20}
	if err := policy.Check(signed); err != nil {
		panic(err)
	}
	flash, journal := &store{make([]byte, len(image))}, &store{make([]byte, 4096)}
	download, err := fragment.OpenImage(signed, fragment.ImageConfig{Flash: flash, Journal: journal})
	if err != nil {
		panic(err)
	}
	geometry, err := signed.Pinned(name)
	if err != nil {
		panic(err)
	}
	verifier, err := fragment.NewVerifier(download, geometry, fragment.VerifierConfig{})
	if err != nil {
		panic(err)
	}
	for {
		wanted := verifier.Wanted(make([]fragment.Item, 0, 1), nil)
		if len(wanted) == 0 {
			break
		}
		item := wanted[0]
		block := make([]byte, geometry.Len(item)) // from wherever it comes
		if _, err := bytes.NewReader(file.Bytes()).ReadAt(block, geometry.Offset(item)); err != nil && err != io.EOF {
			panic(err)
		}
		if err := verifier.Offer(item, block); err != nil {
			panic(err)
		}
	}
	fmt.Println(download.Finish(), bytes.Equal(flash.b, image), verifier.Memory())
	// Output: <nil> true 1024
}
