package bolt

import (
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/oscorelay/oscorelay/keys"
	"github.com/oscorelay/oscorelay/oscore"
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

func fleetStore(b *testing.B) (base string, n int) {
	base, n = b.TempDir(), fleetSize(b)
	st := mustOpen(b, base)
	if err := st.Import(ctx, fleet(n), ImportOptions{Fresh: true, Expected: n}); err != nil {
		b.Fatal(err)
	}
	mustClose(b, st)
	return base, n
}

func BenchmarkImport(b *testing.B) {
	n := fleetSize(b)
	for b.Loop() {
		base := b.TempDir()
		st := mustOpen(b, base)
		if err := st.Import(ctx, fleet(n), ImportOptions{Fresh: true, Expected: n}); err != nil {
			b.Fatal(err)
		}
		mustClose(b, st)
		info, err := os.Stat(filepath.Join(base, "store", "store.db"))
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(info.Size())/float64(n), "file-B/entry")
		b.ReportMetric(float64(resident(b, "VmHWM"))/1024, "peak-MB")
	}
	b.ReportMetric(b.Elapsed().Seconds()*1e6/float64(b.N*n), "µs/entry")
}

// BenchmarkFleet opens a store and looks contexts up in it: those in use, those that
// were not heard of yet, and those that are nobody's; and lets every context be
// heard once.
func BenchmarkFleet(b *testing.B) {
	base, n := fleetStore(b)
	open := func(b *testing.B) (*Store, *keys.Keyring) {
		st := mustOpen(b, base)
		ring, err := st.Keyring(ctx)
		if err != nil {
			b.Fatal(err)
		}
		return st, ring
	}
	end := func(b *testing.B, st *Store, ring *keys.Keyring) {
		if err := ring.Close(ctx); err != nil {
			b.Fatal(err)
		}
		mustClose(b, st)
	}
	find := func(b *testing.B, ring *keys.Keyring, i int, want oscore.Match) {
		var room [oscore.MaxCandidates]oscore.Peer
		kid := binary.BigEndian.AppendUint32(nil, uint32(i))
		if _, match := ring.Find(room[:0], kid, nil); match != want {
			b.Fatalf("kid %x: %v", kid, match)
		}
	}
	b.Run("ready", func(b *testing.B) {
		for b.Loop() {
			st, ring := open(b)
			find(b, ring, n/2, oscore.MatchKID)
			b.StopTimer()
			b.ReportMetric(float64(resident(b, "RssAnon"))/1024, "anon-MB")
			b.ReportMetric(float64(resident(b, "RssFile"))/1024, "mapped-MB")
			end(b, st, ring)
			b.StartTimer()
		}
	})
	st, ring := open(b)
	defer func() { end(b, st, ring) }()
	b.Run("find/hot", func(b *testing.B) {
		i := 0
		for b.Loop() {
			i = (i + 7919) % (keys.DefaultHot / 2)
			find(b, ring, i%n, oscore.MatchKID)
		}
	})
	b.Run("find/unknown", func(b *testing.B) {
		i := 0
		for b.Loop() {
			i = (i + 7919) % n
			find(b, ring, n+i, oscore.MatchNone)
		}
	})
	b.Run("find/cold", func(b *testing.B) {
		i := 0
		for b.Loop() {
			i = (i + 7919) % n
			find(b, ring, i, oscore.MatchKID)
		}
	})
	b.Run("all-heard", func(b *testing.B) {
		// Each sends a request and gets a response with a number of its own.
		for b.Loop() {
			b.StopTimer()
			end(b, st, ring)
			st, ring = open(b)
			runtime.GC()
			before, writes := resident(b, "RssAnon"), frames(st)
			var room [oscore.MaxCandidates]oscore.Peer
			b.StartTimer()
			for i := range n {
				e := meter(i)
				far, err := oscore.New(e.Params.Swap())
				if err != nil {
					b.Fatal(err)
				}
				far.Begin()
				var p oscore.Pending
				m, err := far.SealRequest(nil, &p, oscore.Message{Code: 1})
				if err != nil {
					b.Fatal(err)
				}
				peers, _ := ring.Find(room[:0], e.Params.RecipientID, nil)
				var q oscore.Request
				// A later round finds the request received.
				if _, err := peers[0].OpenRequest(nil, &q, m); err == nil {
					if _, err = peers[0].SealResponse(nil, &q, oscore.Message{Code: 0x45}); err != nil {
						b.Fatal(err)
					}
				} else if !errors.Is(err, oscore.ErrReplay) {
					b.Fatal(err)
				}
			}
			b.StopTimer()
			if frames(st) != writes {
				b.Fatal("it took a write")
			}
			runtime.GC()
			runtime.GC()
			b.ReportMetric(float64(resident(b, "RssAnon")-before)*1024/float64(n), "anon-B/context")
			b.ReportMetric(float64(resident(b, "RssAnon"))/1024, "anon-MB")
			b.ReportMetric(float64(resident(b, "RssFile"))/1024, "mapped-MB")
			b.StartTimer()
		}
		b.ReportMetric(b.Elapsed().Seconds()*1e6/float64(b.N*n), "µs/context")
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
	const n = 64
	if err := st.Import(ctx, fleet(n), ImportOptions{Fresh: true}); err != nil {
		b.Fatal(err)
	}
	var next atomic.Int32
	b.SetParallelism(64 / runtime.GOMAXPROCS(0))
	b.RunParallel(func(pb *testing.PB) {
		e := meter(int(next.Add(1)) % n)
		id, _, err := keys.Identities(&e.Params)
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
