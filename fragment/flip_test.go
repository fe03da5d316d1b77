package fragment

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"testing"
)

// deliver is a device that is given a pinned name and a file: it returns the
// image, or the first error, with where in the file it arose.
func deliver(t testing.TB, name Name, file, genuine []byte, keys ...PublicKey) (image []byte, at Item, err error) {
	t.Helper()
	header := Item{Level: 0xff}
	h, err := ParseHeader(file)
	if err != nil {
		return nil, header, err
	}
	if !name.Pins(h.Sign1) || h.Layout != name.Layout || len(h.Mirrors) > 0 {
		return nil, header, ErrName
	}
	s, err := Open(h.Sign1, keys...)
	if err != nil {
		return nil, header, err
	}
	g, err := s.Pinned(name)
	if err != nil {
		return nil, header, err
	}
	v, flash := open(t, genuine, s, g, VerifierConfig{})
	for {
		want := v.Wanted(make([]Item, 0, 1), nil)
		if len(want) == 0 {
			return flash.B, Item{}, v.image.Finish()
		}
		off := g.Offset(want[0])
		if err := v.Offer(want[0], file[off:off+int64(g.Len(want[0]))]); err != nil {
			return nil, want[0], err
		}
	}
}

// Every bit of a small file flipped in turn: each is refused, and one in an
// item at that very item. The guarded flash proves that no unverified byte got
// there.
func TestEveryBitFlipIsRejectedAtItsItem(t *testing.T) {
	for _, c := range []struct {
		size   int
		leaf   uint8
		layout Layout
	}{
		{1, 6, Layout{Unit: 6, Page: 6}},
		{64, 6, Layout{Unit: 6, Page: 6}},
		{65, 6, Layout{Unit: 6, Page: 6}},
		{600, 6, Layout{Unit: 6, Page: 6}},
		{1000, 6, Layout{Unit: 8, Page: 7}},
		{1300, 8, Layout{Unit: 8, Page: 6}},
	} {
		t.Run(fmt.Sprintf("S=%d L=%d U=%d P=%d", c.size, 1<<c.leaf, 1<<c.layout.Unit, 1<<c.layout.Page), func(t *testing.T) {
			image := noise(c.size)
			s := signed(t, image, c.leaf)
			file, g := cut(t, image, s, c.layout)
			name, key := s.Name(c.layout), author(t).Public()
			if got, _, err := deliver(t, name, file, image, key); err != nil || !bytes.Equal(got, image) {
				t.Fatalf("the genuine file: %v", err)
			}
			for bit := range len(file) * 8 {
				file[bit/8] ^= 1 << (bit % 8)
				got, at, err := deliver(t, name, file, image, key)
				file[bit/8] ^= 1 << (bit % 8)
				if err == nil {
					t.Fatalf("bit %d flipped: accepted, image %x", bit, got)
				}
				want, _, inItems := g.Find(int64(bit / 8))
				if inItems && (at != want || !isForged(err)) {
					t.Fatalf("bit %d of %v flipped: error %v at %v", bit, want, err, at)
				}
			}
		})
	}
}

func isForged(err error) bool { return err == ErrForged }

// The same for the envelope alone, without the pin: the signature's own work.
func TestEveryBitFlipOfTheEnvelopeIsRejected(t *testing.T) {
	for _, s := range signers(t) {
		t.Run(s.Alg.String(), func(t *testing.T) {
			m := signed(t, noise(100), 6).Manifest()
			b, err := Sign(rand.Reader, m, s)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := Open(b, s.Public()); err != nil {
				t.Fatal(err)
			}
			for bit := range len(b) * 8 {
				b[bit/8] ^= 1 << (bit % 8)
				if _, err := Open(b, s.Public()); err == nil {
					t.Fatalf("bit %d flipped: accepted", bit)
				}
				b[bit/8] ^= 1 << (bit % 8)
			}
		})
	}
}
