package bolt

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/oscorelay/oscorelay/keys"
)

// fleetSize is BOLT_FLEET, 100000 by default: one million takes a minute.
func fleetSize(b *testing.B) int {
	s := os.Getenv("BOLT_FLEET")
	if s == "" {
		return 100_000
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		b.Fatal(err)
	}
	return n
}

// resident returns the process's memory in kB, of the kind asked for.
func resident(b *testing.B, kind string) int {
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		b.Skip("needs /proc:", err)
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, kind+":"); ok {
			n, err := strconv.Atoi(strings.Fields(rest)[0])
			if err != nil {
				b.Fatal(err)
			}
			return n
		}
	}
	b.Fatal("no " + kind)
	return 0
}

func fleetStore(b *testing.B) (base string, entries []keys.Entry, ids []keys.Identity) {
	base = b.TempDir()
	st := mustOpen(b, base)
	entries = fleet(fleetSize(b))
	if err := st.Import(ctx, true, entries, nil); err != nil {
		b.Fatal(err)
	}
	mustClose(b, st)
	for i := range entries {
		id, _, err := keys.Identities(&entries[i].Params)
		if err != nil {
			b.Fatal(err)
		}
		ids = append(ids, id)
	}
	return base, entries, ids
}

func BenchmarkImport(b *testing.B) {
	entries := fleet(fleetSize(b))
	for b.Loop() {
		base := b.TempDir()
		st := mustOpen(b, base)
		if err := st.Import(ctx, true, entries, nil); err != nil {
			b.Fatal(err)
		}
		mustClose(b, st)
		info, err := os.Stat(filepath.Join(base, "store", "store.db"))
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(info.Size())/float64(len(entries)), "file-B/entry")
	}
	b.ReportMetric(b.Elapsed().Seconds()*1e6/float64(b.N*len(entries)), "µs/entry")
}

// BenchmarkFleet opens a store, reads from it at random, and lets every context
// come back at once.
func BenchmarkFleet(b *testing.B) {
	base, entries, ids := fleetStore(b)
	names := make([]string, len(entries))
	for i := range entries {
		names[i] = entries[i].Name
	}
	entries = nil
	b.Run("open", func(b *testing.B) {
		for b.Loop() {
			mustClose(b, mustOpen(b, base))
		}
	})
	b.Run("entry", func(b *testing.B) {
		st := mustOpen(b, base)
		defer mustClose(b, st)
		i := 0
		for b.Loop() {
			i = (i + 7919) % len(names)
			if _, ok, err := st.Entry(ctx, names[i]); !ok || err != nil {
				b.Fatal(ok, err)
			}
		}
	})
	b.Run("all-back", func(b *testing.B) {
		st := mustOpen(b, base)
		defer func() { mustClose(b, st) }()
		for b.Loop() {
			runtime.GC()
			before, writes := resident(b, "RssAnon"), frames(st)
			for i := range ids {
				if _, _, err := st.Reserve(ctx, ids[i][:], K); err != nil {
					b.Fatal(err)
				}
			}
			if frames(st) != writes {
				b.Fatal("it took a write")
			}
			runtime.GC()
			b.ReportMetric(float64(resident(b, "RssAnon")-before)*1024/float64(len(ids)), "memory-B/context")
			b.ReportMetric(float64(resident(b, "RssFile"))/1024, "mapped-MB")
			mustClose(b, st)
			st = mustOpen(b, base)
		}
		b.ReportMetric(b.Elapsed().Seconds()*1e6/float64(b.N*len(ids)), "µs/context")
	})
}

func BenchmarkReserve(b *testing.B) {
	st := mustOpen(b, b.TempDir())
	defer mustClose(b, st)
	mustPut(b, st, true, "a")
	for b.Loop() {
		reserve(b, st, "a", 1024)
	}
}

// BenchmarkReserveParallel is 64 busy contexts at once: they share commits.
func BenchmarkReserveParallel(b *testing.B) {
	st := mustOpen(b, b.TempDir())
	defer mustClose(b, st)
	entries := fleet(64)
	if err := st.Import(ctx, true, entries, nil); err != nil {
		b.Fatal(err)
	}
	var next atomic.Int32
	b.SetParallelism(64 / runtime.GOMAXPROCS(0))
	b.RunParallel(func(pb *testing.PB) {
		id, _, err := keys.Identities(&entries[int(next.Add(1))%len(entries)].Params)
		if err != nil {
			b.Error(err)
			return
		}
		for pb.Next() {
			if _, _, err := st.Reserve(ctx, id[:], 1024); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

func BenchmarkJournal(b *testing.B) {
	st := mustOpen(b, b.TempDir())
	defer mustClose(b, st)
	var n atomic.Int64
	b.SetParallelism(64 / runtime.GOMAXPROCS(0))
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			i := n.Add(1)
			x := Exchange{"server", uint16(i), binary.BigEndian.AppendUint64(nil, uint64(i))}
			if _, _, err := st.Begin(ctx, x, nil, time.Unix(0, i)); err != nil {
				b.Error(err)
				return
			}
		}
	})
}
