package bolt

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/oscorelay/oscorelay/keys"
	"github.com/oscorelay/oscorelay/keys/internal/child"
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

// residentKB returns the process's memory in kB, of the kind asked for.
func residentKB(kind string) (int, error) {
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, kind+":"); ok {
			return strconv.Atoi(strings.Fields(rest)[0])
		}
	}
	return 0, errors.New("no " + kind)
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
		kB, err := residentKB("VmHWM")
		if err != nil {
			b.Skip("needs /proc:", err)
		}
		b.ReportMetric(float64(kB)/1024, "peak-MB")
	}
	b.ReportMetric(b.Elapsed().Seconds()*1e6/float64(b.N*n), "µs/entry")
}

// BenchmarkFleet is a daemon of a fleet: how soon it is ready, what a look-up costs of
// contexts in use, of others and of nobody's, and what memory holds when every
// context was heard. Mapped memory is pages of the file, which the kernel takes back
// when it needs them; anonymous memory is the process's own.
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
	b.Run("process", func(b *testing.B) {
		// A process of its own, which did not import it.
		for b.Loop() {
			c := child.Command("fleet", base)
			c.Stderr = os.Stderr
			out, err := c.Output()
			if err != nil {
				b.Fatal(err)
			}
			for line := range strings.Lines(string(out)) {
				var value float64
				var unit string
				if _, err := fmt.Sscan(line, &value, &unit); err != nil {
					b.Fatalf("%q: %v", line, err)
				}
				b.ReportMetric(value, unit)
			}
		}
		b.ReportMetric(0, "ns/op")
	})
	st, ring := open(b)
	defer func() { end(b, st, ring) }()
	b.Run("find/hot", func(b *testing.B) {
		const hot = keys.DefaultHot / 2
		for i := range hot {
			find(b, ring, i%n, oscore.MatchKID)
		}
		i := 0
		percentiles(b, func() {
			i = (i + 7919) % hot
			find(b, ring, i%n, oscore.MatchKID)
		})
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
		percentiles(b, func() {
			i = (i + 7919) % n
			find(b, ring, i, oscore.MatchKID)
		})
	})
}

// percentiles runs do and reports the median and the 99th percentile of its time.
func percentiles(b *testing.B, do func()) {
	var took []time.Duration
	for b.Loop() {
		begun := time.Now()
		do()
		took = append(took, time.Since(begun))
	}
	slices.Sort(took)
	for name, at := range map[string]int{"p50-ns": len(took) / 2, "p99-ns": len(took) * 99 / 100} {
		b.ReportMetric(float64(took[at].Nanoseconds()), name)
	}
}

// fleetProcess opens a store of a fleet, and lets every context send a request and
// get a response with a number of its own. It writes out what that took.
func fleetProcess(base string) error {
	say := func(value float64, unit string) { fmt.Println(value, unit) }
	memory := func(when string) error {
		time.Sleep(trimEvery + time.Second) // what is at rest, not in the middle
		runtime.GC()
		runtime.GC() // what the first found dead is given back
		debug.FreeOSMemory()
		for kind, name := range map[string]string{"VmRSS": "resident", "RssAnon": "anonymous", "RssFile": "mapped"} {
			kB, err := residentKB(kind)
			if err != nil {
				return err
			}
			say(float64(kB)/1024, when+"-"+name+"-MB")
		}
		return nil
	}
	begun := time.Now()
	st, err := Open(filepath.Join(base, "store"), opts(base))
	if err != nil {
		return err
	}
	ring, err := st.Keyring(ctx)
	if err != nil {
		return err
	}
	n := st.Len()
	var room [oscore.MaxCandidates]oscore.Peer
	if _, match := ring.Find(room[:0], meter(n/2).Params.RecipientID, nil); match != oscore.MatchKID {
		return fmt.Errorf("%v", match)
	}
	say(float64(time.Since(begun).Microseconds())/1000, "ready-ms")
	if err := memory("ready"); err != nil {
		return err
	}
	writes := frames(st)
	begun = time.Now()
	for i := range n {
		e := meter(i)
		far, err := oscore.New(e.Params.Swap())
		if err != nil {
			return err
		}
		if err := far.Extend(st.Epoch()*100, st.Epoch()*100+1); err != nil {
			return err
		}
		m, err := far.SealRequest(nil, new(oscore.Pending), oscore.Message{Code: 1})
		if err != nil {
			return err
		}
		peers, _ := ring.Find(room[:0], e.Params.RecipientID, nil)
		q := new(oscore.Request)
		if _, err := peers[0].OpenRequest(nil, q, m); err != nil {
			return err
		}
		if _, err = peers[0].SealResponse(nil, q, oscore.Message{Code: 0x45}); err != nil {
			return err
		}
	}
	say(float64(time.Since(begun).Nanoseconds())/1000/float64(n), "heard-µs/context")
	if frames(st) != writes {
		return errors.New("it took a write")
	}
	if err := memory("heard"); err != nil {
		return err
	}
	begun = time.Now()
	if err := ring.Close(ctx); err != nil {
		return err
	}
	if err := st.Close(); err != nil {
		return err
	}
	say(time.Since(begun).Seconds(), "stop-s")
	return nil
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
