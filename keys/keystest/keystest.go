// Package keystest checks a store of sequence numbers against what package keys
// promises on top of it. A store that is not durable under a crash repeats
// nonces, so its author runs [Run]:
//
//	func TestStore(t *testing.T) {
//		keystest.Run(t, func(t *testing.T) keystest.Subject { … })
//	}
//
// Abilities beyond keys.SSNStore are tested where the store has them. What Run
// cannot do is cut the power: a store brings a test of its own for that.
//
//	keystest.go   the suite
//	traffic.go    two ends, a hostile network, crashes
package keystest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/oscorelay/oscorelay/keys"
	"github.com/oscorelay/oscorelay/oscore"
)

// Subject is a store that can be stopped and started. What was durable at the
// end of one run is there in the next.
type Subject struct {
	// Open starts the store.
	Open func() (keys.SSNStore, error)
	// Close stops it cleanly.
	Close func() error
	// Crash stops it as the loss of its process does.
	Crash func()
	// Put writes entries of fresh material into a store that is a keys.Directory;
	// it may be nil for others.
	Put func(entries ...keys.Entry) error
}

// Run tests a store; begin returns an empty one.
func Run(t *testing.T, begin func(t *testing.T) Subject) {
	for _, c := range []struct {
		name string
		run  func(*run)
	}{
		{"unknown material is refused", unknownRefused},
		{"ranges are disjoint", rangesDisjoint},
		{"ranges are disjoint under concurrency", rangesConcurrent},
		{"ranges are disjoint over stops and crashes", rangesRestart},
		{"the last number", lastNumber},
		{"declaring changes nothing that is known", declareTwice},
		{"what was forgotten is unknown", forgotten},
		{"a window is handed over once", windowOnce},
		{"a window is not handed over after a crash that took it", windowCrash},
		{"a window nobody took is carried on", windowCarried},
		{"a derived context and its numbers come back together", derivedComesBack},
		{"a derived context supersedes the last", derivedSupersedes},
		{"counts of encryptions come back, and end with their key", counts},
		{"traffic with crashes", traffic},
		{"traffic with crashes and evictions", evictions},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := &run{T: t, s: begin(t)}
			r.open()
			c.run(r)
			if err := r.s.Close(); err != nil {
				t.Errorf("close: %v", err)
			}
		})
	}
}

type run struct {
	*testing.T
	s     Subject
	store keys.SSNStore
}

var ctx = context.Background()

func (r *run) open() {
	r.Helper()
	var err error
	if r.store, err = r.s.Open(); err != nil {
		r.Fatal(err)
	}
}

func (r *run) restart(clean bool) {
	r.Helper()
	if !clean {
		r.s.Crash()
	} else if err := r.s.Close(); err != nil {
		r.Fatal(err)
	}
	r.open()
}

func (r *run) history() keys.History {
	h, ok := r.store.(keys.History)
	if !ok {
		r.Skip("the store has no History")
	}
	return h
}

func (r *run) windows() keys.WindowStore {
	w, ok := r.store.(keys.WindowStore)
	if !ok {
		r.Skip("the store has no WindowStore")
	}
	return w
}

func (r *run) contexts() keys.ContextStore {
	c, ok := r.store.(keys.ContextStore)
	if !ok {
		r.Skip("the store has no ContextStore")
	}
	return c
}

func id(n int) keys.Identity { return keys.Identity{0: byte(n >> 8), 1: byte(n), 15: 1} }

// declare makes an identity known if the store wants that.
func (r *run) declare(n int, next uint64) {
	r.Helper()
	h, ok := r.store.(keys.History)
	if !ok {
		return
	}
	i := id(n)
	if created, err := h.Declare(ctx, i[:], next); err != nil || !created {
		r.Fatalf("Declare = %v, %v", created, err)
	}
}

// ranges holds what was given out and finds what was given twice.
type ranges struct {
	mu  sync.Mutex
	top map[int]uint64
	all map[int]map[uint64]bool
}

func newRanges() *ranges { return &ranges{top: map[int]uint64{}, all: map[int]map[uint64]bool{}} }

func (g *ranges) take(n int, lo, hi uint64, asked uint32) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if lo >= hi || hi-lo > uint64(asked) || hi > oscore.MaxSequence+1 {
		return fmt.Errorf("[%d,%d) for %d numbers", lo, hi, asked)
	}
	if g.all[n] == nil {
		g.all[n] = map[uint64]bool{}
	}
	for v := lo; v < hi; v++ {
		if g.all[n][v] {
			return fmt.Errorf("identity %d: number %d was given twice", n, v)
		}
		g.all[n][v] = true
	}
	return nil
}

func (r *run) reserve(g *ranges, n int, asked uint32) {
	r.Helper()
	i := id(n)
	lo, hi, err := r.store.Reserve(ctx, i[:], asked)
	if err == nil {
		err = g.take(n, lo, hi, asked)
	}
	if err != nil {
		r.Fatal(err)
	}
}

func unknownRefused(r *run) {
	i := id(1)
	if _, _, err := r.store.Reserve(ctx, i[:], 1); !errors.Is(err, keys.ErrTainted) {
		r.Errorf("Reserve = %v, want ErrTainted", err)
	}
	if err := r.history().Known(ctx, i[:]); !errors.Is(err, keys.ErrTainted) {
		r.Errorf("Known = %v, want ErrTainted", err)
	}
	r.restart(false)
	if _, _, err := r.store.Reserve(ctx, i[:], 1); !errors.Is(err, keys.ErrTainted) {
		r.Errorf("having asked made it known: %v", err)
	}
}

func rangesDisjoint(r *run) {
	g := newRanges()
	for n := range 3 {
		r.declare(n, 0)
	}
	for k := range 60 {
		r.reserve(g, k%3, uint32(1+k*7%200))
	}
}

func rangesConcurrent(r *run) {
	g := newRanges()
	for n := range 3 {
		r.declare(n, 0)
	}
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for k := range 30 {
				n := (w + k) % 3
				i := id(n)
				lo, hi, err := r.store.Reserve(ctx, i[:], 16)
				if err == nil {
					err = g.take(n, lo, hi, 16)
				}
				if err != nil {
					r.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}

func rangesRestart(r *run) {
	g := newRanges()
	r.declare(0, 0)
	r.declare(1, 5)
	for k := range 12 {
		for range k % 4 {
			r.reserve(g, 0, 64)
		}
		r.reserve(g, 1, 1024)
		r.restart(k%3 == 0)
	}
	for v := range uint64(5) {
		if g.all[1][v] {
			r.Errorf("number %d lies below the first that was declared unused", v)
		}
	}
}

func lastNumber(r *run) {
	r.history()
	r.declare(0, oscore.MaxSequence-9)
	g := newRanges()
	i := id(0)
	given := 0
	for range 20 {
		lo, hi, err := r.store.Reserve(ctx, i[:], 4)
		if errors.Is(err, oscore.ErrSequenceExhausted) {
			break
		}
		if err == nil {
			err = g.take(0, lo, hi, 4)
		}
		if err != nil {
			r.Fatal(err)
		}
		given += int(hi - lo)
	}
	if given != 10 || !g.all[0][oscore.MaxSequence] {
		r.Errorf("%d numbers up to the last, want 10", given)
	}
	r.restart(false)
	if _, _, err := r.store.Reserve(ctx, i[:], 4); !errors.Is(err, oscore.ErrSequenceExhausted) {
		r.Errorf("after a crash: %v", err)
	}
}

func declareTwice(r *run) {
	h := r.history()
	g := newRanges()
	r.declare(0, 0)
	r.reserve(g, 0, 64)
	i := id(0)
	for _, next := range []uint64{0, 1 << 30} {
		if created, err := h.Declare(ctx, i[:], next); created || err != nil {
			r.Errorf("Declare again = %v, %v", created, err)
		}
		r.reserve(g, 0, 64)
	}
	if g.all[0][1<<30] {
		r.Error("declaring again moved the numbers")
	}
}

func forgotten(r *run) {
	h := r.history()
	g := newRanges()
	r.declare(0, 0)
	r.declare(1, 0)
	r.reserve(g, 0, 8)
	i := id(0)
	if err := h.Forget(ctx, i[:]); err != nil {
		r.Fatal(err)
	}
	for range 2 {
		if _, _, err := r.store.Reserve(ctx, i[:], 1); !errors.Is(err, keys.ErrTainted) {
			r.Errorf("Reserve = %v, want ErrTainted", err)
		}
		r.reserve(g, 1, 8)
		r.restart(false)
	}
}

func window(piv uint64) oscore.WindowState {
	w := oscore.FromEcho(64, piv)
	s, _ := w.State()
	return s
}

func (r *run) put(n int, piv uint64) {
	r.Helper()
	if err := r.windows().PutWindows(ctx, []keys.Window{{ID: id(n), State: window(piv)}}); err != nil {
		r.Fatal(err)
	}
}

// taken returns whether there was a window, and checks its content.
func (r *run) taken(n int, piv uint64) bool {
	r.Helper()
	i := id(n)
	s, ok, err := r.windows().TakeWindow(ctx, i[:])
	if err != nil {
		r.Fatal(err)
	}
	if want := window(piv); ok && (s.Size != want.Size || s.Floor != want.Floor || s.Next != want.Next || len(s.Bits) != len(want.Bits)) {
		r.Errorf("window %+v, want %+v", s, want)
	}
	return ok
}

func windowOnce(r *run) {
	if r.taken(0, 0) {
		r.Error("an empty store has a window")
	}
	r.put(0, 7)
	r.put(1, 9)
	r.restart(true)
	if !r.taken(0, 7) || !r.taken(1, 9) {
		r.Error("no window after a clean stop")
	}
	if r.taken(0, 7) {
		r.Error("a window was taken twice")
	}
	r.restart(true)
	if r.taken(0, 7) {
		r.Error("a window came back after a clean stop")
	}
	// Put and taken in one run.
	r.put(0, 8)
	if !r.taken(0, 8) || r.taken(0, 8) {
		r.Error("put and taken in one run")
	}
	r.restart(true)
	if r.taken(0, 8) {
		r.Error("a window came back that was taken in the run that put it")
	}
}

func windowCrash(r *run) {
	r.put(0, 7)
	r.restart(true)
	if !r.taken(0, 7) {
		r.Error("no window after a clean stop")
	}
	r.restart(false)
	if r.taken(0, 7) {
		r.Error("a crash brought a window back")
	}
	r.put(0, 8)
	if !r.taken(0, 8) {
		r.Error("no window in the run that put it")
	}
	r.restart(false)
	if r.taken(0, 8) {
		r.Error("a crash brought a window back that was taken in the run that put it")
	}
}

func windowCarried(r *run) {
	r.put(0, 7)
	r.restart(true)
	r.restart(true)
	if !r.taken(0, 7) {
		r.Error("a window that nobody took is gone after two clean stops")
	}
}

func (r *run) putDerived(base int, idContext string, of int, next uint64) {
	r.Helper()
	b := id(base)
	if err := r.contexts().PutDerived(ctx, b[:], keys.Derived{IDContext: []byte(idContext), ID: id(of), Next: next}); err != nil {
		r.Fatal(err)
	}
}

func (r *run) derived(base int) (string, bool) {
	r.Helper()
	b := id(base)
	c, ok, err := r.contexts().Derived(ctx, b[:])
	if err != nil {
		r.Fatal(err)
	}
	return string(c), ok
}

func derivedComesBack(r *run) {
	if c, ok := r.derived(0); ok {
		r.Errorf("an empty store has %q", c)
	}
	for _, clean := range []bool{false, true} {
		r.putDerived(0, "random", 10, 3)
		r.restart(clean)
		if c, ok := r.derived(0); !ok || c != "random" {
			r.Errorf("after a restart: %q, %v", c, ok)
		}
		i := id(10)
		lo, _, err := r.store.Reserve(ctx, i[:], 4)
		if err != nil || lo < 3 {
			r.Errorf("its numbers: %d, %v", lo, err)
		}
	}
}

func derivedSupersedes(r *run) {
	g := newRanges()
	r.putDerived(0, "first", 10, 0)
	r.reserve(g, 10, 8)
	r.putDerived(0, "second", 11, 1)
	r.reserve(g, 11, 8)
	if g.all[11][0] {
		r.Error("a number was given that the context had spent")
	}
	for range 2 {
		if c, _ := r.derived(0); c != "second" {
			r.Errorf("%q", c)
		}
		i := id(10)
		if lo, _, err := r.store.Reserve(ctx, i[:], 1); err == nil && lo < 8 {
			r.Errorf("the context superseded begins again at %d", lo)
		}
		r.restart(false)
	}
	// The same one again, with fewer numbers spent, takes nothing back.
	r.putDerived(0, "second", 11, 0)
	r.reserve(g, 11, 8)
}

func counts(r *run) {
	usage := func() keys.UsageStore {
		u, ok := r.store.(keys.UsageStore)
		if !ok {
			r.Skip("the store has no UsageStore")
		}
		return u
	}
	want := func(n int, count uint64) {
		r.Helper()
		i := id(n)
		if got, err := usage().Used(ctx, i[:]); got != count || err != nil {
			r.Errorf("count %d, %v, want %d", got, err, count)
		}
	}
	put := func(used ...keys.Used) {
		r.Helper()
		if err := usage().PutUsed(ctx, used); err != nil {
			r.Fatal(err)
		}
	}
	want(0, 0)
	r.declare(0, 0)
	r.declare(1, 0)
	put(keys.Used{ID: id(0), Encrypted: 7}, keys.Used{ID: id(1), Encrypted: 1 << 40})
	put(keys.Used{ID: id(0), Encrypted: 9})
	put(keys.Used{ID: id(0), Encrypted: 8}) // late
	for _, clean := range []bool{false, true, true, false} {
		want(0, 9)
		want(1, 1<<40)
		r.restart(clean)
	}
	i := id(0)
	if err := r.history().Forget(ctx, i[:]); err != nil {
		r.Fatal(err)
	}
	want(0, 0)
	r.restart(false)
	want(0, 0)
	want(1, 1<<40)
}
