package fragment

import (
	"bytes"
	"crypto/sha256"
	"testing"

	"github.com/transparency-dev/merkle/compact"
	"github.com/transparency-dev/merkle/rfc6962"
	"golang.org/x/mod/sumdb/tlog"
	"pgregory.net/rapid"
)

// oracleMerkle is the root after transparency-dev/merkle.
func oracleMerkle(t *rapid.T, image []byte, l uint8) Hash {
	f := compact.RangeFactory{Hash: rfc6962.DefaultHasher.HashChildren}
	r := f.NewEmptyRange(0)
	for len(image) > 0 {
		n := min(len(image), 1<<l)
		if err := r.Append(rfc6962.DefaultHasher.HashLeaf(image[:n]), nil); err != nil {
			t.Fatal(err)
		}
		image = image[n:]
	}
	root, err := r.GetRootHash(nil)
	if err != nil {
		t.Fatal(err)
	}
	return Hash(root)
}

// oracleTlog is the root after golang.org/x/mod/sumdb/tlog.
func oracleTlog(t *rapid.T, image []byte, l uint8) Hash {
	var stored []tlog.Hash
	reader := tlog.HashReaderFunc(func(index []int64) ([]tlog.Hash, error) {
		out := make([]tlog.Hash, len(index))
		for i, x := range index {
			out[i] = stored[x]
		}
		return out, nil
	})
	n := int64(0)
	for len(image) > 0 {
		size := min(len(image), 1<<l)
		hashes, err := tlog.StoredHashes(n, image[:size], reader)
		if err != nil {
			t.Fatal(err)
		}
		stored = append(stored, hashes...)
		image = image[size:]
		n++
	}
	root, err := tlog.TreeHash(n, reader)
	if err != nil {
		t.Fatal(err)
	}
	return Hash(root)
}

func TestRootEqualsOracles(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := rapid.Uint8Range(MinExponent, MaxExponent).Draw(t, "l")
		u := rapid.Uint8Range(l, MaxExponent).Draw(t, "u")
		p := rapid.Uint8Range(MinExponent, MaxExponent).Draw(t, "p")
		size := rapid.IntRange(1, 200<<l>>2).Draw(t, "S")
		image := noise(size)
		want := oracleMerkle(t, image, l)
		if other := oracleTlog(t, image, l); other != want {
			t.Fatalf("the oracles differ: %x %x", want, other)
		}
		m, err := Describe(bytes.NewReader(image), uint32(size), l, 2, nil)
		if err != nil {
			t.Fatal(err)
		}
		if m.Root != want {
			t.Fatalf("root %x, want %x", m.Root, want)
		}
		g, err := NewGeometry(Layout{Unit: u, Page: p}, uint32(size), l, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := buildPages(bytes.NewReader(image), g, want, 2, nil); err != nil {
			t.Fatalf("pages of U=%d P=%d: %v", 1<<u, 1<<p, err)
		}
		if sum := sha256.Sum256(image); !bytes.Equal(m.Digest.Value, sum[:]) {
			t.Fatal("digest differs")
		}
	})
}

func TestHasherEqualsSHA256(t *testing.T) {
	fast, plain := newHasher(), newHasher()
	plain.plain = sha256.New()
	for n := range 4097 {
		data := noise(n)
		want := Hash(sha256.Sum256(append([]byte{0}, data...)))
		if got := fast.leaf(data); got != want {
			t.Fatalf("leaf of %d bytes: %x, want %x", n, got, want)
		}
		if got := plain.leaf(data); got != want {
			t.Fatalf("leaf of %d bytes, plain path: %x, want %x", n, got, want)
		}
	}
	if fast.plain != nil {
		t.Log("this processor has no SHA instructions: one message at a time")
	}
	for n := 1; n <= 4096; n += 3 {
		a, b := noise(n), noise(n + 4097)[:n]
		for _, h := range []*hasher{fast, plain} {
			var got [2]Hash
			if h.leaves(got[:], a, b); got[0] != plain.leaf(a) || got[1] != plain.leaf(b) {
				t.Fatalf("two leaves of %d bytes: %x", n, got)
			}
		}
	}
	l, r := fast.leaf([]byte("l")), fast.leaf([]byte("r"))
	want := Hash(sha256.Sum256(bytes.Join([][]byte{{1}, l[:], r[:]}, nil)))
	if fast.node(&l, &r) != want || plain.node(&l, &r) != want {
		t.Fatal("node differs from SHA-256")
	}
	for _, h := range []*hasher{fast, plain} {
		row := []Hash{l, r, r, l}
		h.nodes(row, row)
		if row[0] != want || row[1] != plain.node(&r, &l) {
			t.Fatal("two nodes differ from SHA-256")
		}
	}
}
