package file

import (
	"path/filepath"
	"testing"

	"github.com/oscorelay/oscorelay/oscore"
)

func benchStore(b *testing.B, names ...string) *Store {
	b.Helper()
	base := b.TempDir()
	st, err := Open(filepath.Join(base, "store"), Options{AnchorDir: filepath.Join(base, "anchors")})
	if err != nil {
		b.Fatal(err)
	}
	mustPut(b, st, true, names...)
	b.Cleanup(func() { mustClose(b, st) })
	return st
}

func BenchmarkReserve(b *testing.B) {
	st := benchStore(b, "a")
	for b.Loop() {
		reserve(b, st, "a", 64)
	}
}

// BenchmarkReserveParallel is many contexts at once: they share a flush.
func BenchmarkReserveParallel(b *testing.B) {
	names := []string{"a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o", "p"}
	st := benchStore(b, names...)
	next := make(chan string, len(names))
	for _, n := range names {
		next <- n
	}
	b.SetParallelism(8)
	b.RunParallel(func(pb *testing.PB) {
		name := <-next
		defer func() { next <- name }()
		id := identity(b, name)
		for pb.Next() {
			if _, _, err := st.Reserve(ctx, id[:], 64); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

// BenchmarkMessage is what durability adds to a message in the end: sealing on
// the disk, to be compared with keys.BenchmarkContextSealRequest.
func BenchmarkMessage(b *testing.B) {
	st := benchStore(b, "a")
	ring, err := st.Keyring(ctx)
	if err != nil {
		b.Fatal(err)
	}
	p, _ := ring.Get("a")
	var pending oscore.Pending
	buf := make([]byte, 0, 256)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := p.SealRequest(buf, &pending, oscore.Message{Code: 1}); err != nil {
			b.Fatal(err)
		}
	}
	if err := ring.Close(ctx); err != nil {
		b.Fatal(err)
	}
}

func BenchmarkOpenAndClose(b *testing.B) {
	base := b.TempDir()
	for b.Loop() {
		st, err := Open(filepath.Join(base, "store"), Options{AnchorDir: filepath.Join(base, "anchors")})
		if err != nil {
			b.Fatal(err)
		}
		mustClose(b, st)
	}
}
