package fragment

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"testing"
	"time"
)

// BenchmarkPlainSHA256 is the yardstick: streaming over the same image.
func BenchmarkPlainSHA256(b *testing.B) {
	image := noise(1 << 20)
	b.SetBytes(int64(len(image)))
	for b.Loop() {
		plain(image)
	}
}

var (
	yardstick = sha256.New()
	yardSum   [sha256.Size]byte
)

func plain(image []byte) {
	h := yardstick
	h.Reset()
	for at := 0; at < len(image); at += 1024 {
		h.Write(image[at:min(at+1024, len(image))])
	}
	h.Sum(yardSum[:0])
}

// BenchmarkVerify checks every item of a 1 MiB file, without the flash. The
// metric share is of plain streaming SHA-256, measured in the same run.
func BenchmarkVerify(b *testing.B) {
	image := noise(1 << 20)
	for _, c := range []struct {
		leaf, unit uint8
	}{{10, 10}, {8, 10}, {6, 8}} {
		b.Run(fmt.Sprintf("L=%d/U=%d", 1<<c.leaf, 1<<c.unit), func(b *testing.B) {
			s := signed(b, image, c.leaf)
			file, g := cut(b, image, s, Layout{Unit: c.unit, Page: 10})
			im, err := OpenImage(s, ImageConfig{Flash: &memory{B: make([]byte, len(image))}})
			if err != nil {
				b.Fatal(err)
			}
			v, err := NewVerifier(im, g, VerifierConfig{})
			if err != nil {
				b.Fatal(err)
			}
			drain(b, v, file, image) // from here on a unit is hashed and not written
			var items []Item
			var parts [][]byte
			g.Walk(func(it Item) bool {
				items, parts = append(items, it), append(parts, piece(file, image, g, it))
				return true
			})
			b.ReportAllocs()
			// The yardstick runs in turns with the verifier, and the fastest pass
			// of each counts, so that a busy machine does not decide.
			yard, own := time.Hour, time.Hour
			for b.Loop() {
				start := time.Now()
				plain(image)
				middle := time.Now()
				for i, it := range items {
					if err := v.Offer(it, parts[i]); err != nil {
						b.Fatal(err)
					}
				}
				yard, own = min(yard, middle.Sub(start)), min(own, time.Since(middle))
			}
			b.ReportMetric(float64(yard)/float64(own)*100, "%plain")
			b.ReportMetric(float64(len(image))/own.Seconds()/1e6, "best-MB/s")
		})
	}
}

// BenchmarkDescribe is the author's tool: digest and tree, by workers.
func BenchmarkDescribe(b *testing.B) {
	image := noise(16 << 20)
	for _, workers := range []int{1, 2, 4} {
		b.Run(fmt.Sprintf("workers=%d", workers), func(b *testing.B) {
			best := time.Hour
			for b.Loop() {
				start := time.Now()
				if _, err := Describe(bytes.NewReader(image), uint32(len(image)), 8, workers, nil); err != nil {
					b.Fatal(err)
				}
				best = min(best, time.Since(start))
			}
			b.ReportMetric(float64(len(image))/best.Seconds()/1e6, "best-MB/s")
		})
	}
}

func BenchmarkLeaf(b *testing.B) {
	data := noise(1024)
	h := newHasher()
	b.SetBytes(1024)
	for b.Loop() {
		h.leaf(data)
	}
}

func BenchmarkPage(b *testing.B) {
	data := noise(1024)
	h := newHasher()
	for b.Loop() {
		h.page(data, 32)
	}
}
