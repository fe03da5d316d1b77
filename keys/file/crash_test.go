package file

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"github.com/oscorelay/oscorelay/keys"
	"github.com/oscorelay/oscorelay/keys/internal/disk"
	"github.com/oscorelay/oscorelay/keys/internal/disk/disktest"
	"github.com/oscorelay/oscorelay/oscore"
)

// witness remembers what a store acknowledged, and so what must hold whatever
// happens to it.
type witness struct {
	t     *testing.T
	where string
	top   map[string]uint64 // numbers below were given out
	taken map[string]bool   // windows that were taken
}

// life opens a store and uses all of it, until something fails.
func (w *witness) life(fsys disk.FS) error {
	st, err := open(fsys, dir, opts)
	if err != nil {
		return err
	}
	defer st.locks.Release()
	if st.Taint() != "" {
		w.t.Fatalf("%s: tainted without a cause: %s", w.where, st.Taint())
	}
	var failed error
	try := func(err error) {
		if failed == nil {
			failed = err
		}
	}
	have := len(st.Entries())
	if have < 2 {
		for _, name := range []string{"a", "b"} {
			try(st.Put(ctx, true, demo(name)))
		}
	}
	for _, name := range []string{"a", "b"} {
		for range 3 {
			try(w.reserve(st, name))
		}
		try(w.take(st, name))
	}
	base := identity(w.t, "a")
	next := keys.Identity{1: byte(st.s.epoch), 2: 9}
	try(st.PutDerived(ctx, base[:], keys.Derived{IDContext: next[:8], ID: next, Next: 1}))
	if failed != nil {
		return failed
	}
	var windows []keys.Window
	for _, name := range []string{"a", "b"} {
		s := oscore.FromEcho(32, w.top[name])
		state, _ := s.State()
		windows = append(windows, keys.Window{ID: identity(w.t, name), State: state})
	}
	// From here on the windows are to come back, once.
	clear(w.taken)
	if err := st.PutWindows(ctx, windows); err != nil {
		return err
	}
	return st.Close()
}

func (w *witness) reserve(st *Store, name string) error {
	id := identity(w.t, name)
	lo, hi, err := st.Reserve(ctx, id[:], 64)
	if isTaint := errors.Is(err, keys.ErrTainted); isTaint && w.top[name] > 0 {
		w.t.Fatalf("%s: %s is tainted without a cause: %v", w.where, name, err)
	}
	if err != nil {
		return err
	}
	if lo < w.top[name] {
		w.t.Fatalf("%s: %s gets %d, but %d were given before", w.where, name, lo, w.top[name])
	}
	w.top[name] = hi
	return nil
}

func (w *witness) take(st *Store, name string) error {
	id := identity(w.t, name)
	_, ok, err := st.TakeWindow(ctx, id[:])
	if err != nil {
		return err
	}
	if ok && w.taken[name] {
		w.t.Fatalf("%s: the window of %s came back", w.where, name)
	}
	if ok {
		w.taken[name] = true
	}
	return nil
}

func newWitness(t *testing.T) *witness {
	return &witness{t: t, top: map[string]uint64{}, taken: map[string]bool{}}
}

// TestPowerCutAtEveryWrite cuts the power at every operation of a store's three
// lives, and again at every third of the life that recovers, with each thing a
// disk may have kept.
func TestPowerCutAtEveryWrite(t *testing.T) {
	lives := func(w *witness, m *disktest.Mem) error {
		for range 3 {
			if err := w.life(m); err != nil {
				return err
			}
		}
		return nil
	}
	m := disktest.New()
	m.Arm(0, disktest.None)
	if err := lives(newWitness(t), m); err != nil {
		t.Fatal(err)
	}
	steps := m.Steps()
	cuts := 0
	for cut := 1; cut <= steps; cut++ {
		for o := range disktest.Outcomes {
			for again := 0; again <= 30; again += 3 {
				w := newWitness(t)
				w.where = fmt.Sprintf("cut at %d, outcome %d, again at %d", cut, o, again)
				m := disktest.New()
				m.Arm(cut, disktest.Power)
				if err := lives(w, m); !errors.Is(err, disktest.ErrPower) {
					t.Fatalf("%s: %v", w.where, err)
				}
				m = m.Restart(o)
				if again > 0 {
					m.Arm(again, disktest.Power)
					if err := w.life(m); err == nil || !errors.Is(err, disktest.ErrPower) {
						t.Fatalf("%s: %v", w.where, err)
					}
					m = m.Restart(disktest.Outcomes - 1 - o)
				}
				if err := lives(w, m); err != nil {
					t.Fatalf("%s: %v", w.where, err)
				}
				cuts++
			}
		}
	}
	t.Logf("%d operations, %d cuts", steps, cuts)
}

// TestFaultAtEveryWrite lets every operation fail in each way, goes on using the
// store, and then cuts the power.
func TestFaultAtEveryWrite(t *testing.T) {
	for _, f := range []struct {
		name  string
		fault disktest.Fault
	}{{"error", disktest.IO}, {"disk full", disktest.Full}, {"failed flush", disktest.Flush}} {
		t.Run(f.name, func(t *testing.T) {
			failures := 0
			for step := 1; ; step++ {
				w := newWitness(t)
				w.where = fmt.Sprintf("%s at %d", f.name, step)
				m := disktest.New()
				m.Arm(step, f.fault)
				err := w.life(m)
				if m.Steps() < step {
					break
				}
				if err == nil {
					continue // a flush that fails is a Sync, an empty disk fails what makes
				}
				failures++
				m = m.Restart(disktest.Outcome(step % int(disktest.Outcomes)))
				for range 2 {
					if err := w.life(m); err != nil {
						t.Fatalf("%s, afterwards: %v", w.where, err)
					}
				}
			}
			if failures < 10 {
				t.Errorf("only %d failures", failures)
			}
		})
	}
}

func TestFailedFlushStopsTheStore(t *testing.T) {
	m := disktest.New()
	st := mustOpen(t, m)
	mustPut(t, st, true, "a", "b")
	_, top := reserve(t, st, "a", 64)
	m.Arm(2, disktest.Flush) // the write, then its flush
	id, other := identity(t, "a"), identity(t, "b")
	if _, _, err := st.Reserve(ctx, id[:], 64); err == nil {
		t.Fatal("Reserve succeeded")
	}
	m.Arm(0, disktest.None)
	for _, id := range []keys.Identity{id, other} {
		if _, _, err := st.Reserve(ctx, id[:], 64); err == nil {
			t.Fatal("the store goes on after a failed flush")
		} else {
			t.Log(err)
		}
	}
	if err := st.Put(ctx, true, demo("c")); err == nil {
		t.Error("Put after a failed flush")
	}
	if err := st.Close(); err == nil {
		t.Error("Close says nothing")
	}
	m = m.Restart(disktest.Lost)
	st = mustOpen(t, m)
	if lo, _ := reserve(t, st, "a", 1); lo < top {
		t.Errorf("%d, given up to %d", lo, top)
	}
}

func TestFullDiskSpendsTheRangeOnly(t *testing.T) {
	m := disktest.New()
	st := mustOpen(t, m)
	mustPut(t, st, true, "a")
	_, top := reserve(t, st, "a", 64)
	m.Arm(1, disktest.Full)
	id := identity(t, "a")
	if _, _, err := st.Reserve(ctx, id[:], 64); err == nil {
		t.Fatal("a full disk was not noticed")
	}
	// Somebody makes room.
	lo, _ := reserve(t, st, "a", 64)
	if lo < top+64 {
		t.Errorf("the range whose write failed is given again: %d", lo)
	}
	mustClose(t, st)
	st = mustOpen(t, m.Restart(disktest.Lost))
	if next, _ := reserve(t, st, "a", 1); next < lo+64 {
		t.Errorf("after all: %d", next)
	}
}

func TestTornAndDamagedState(t *testing.T) {
	prepare := func() (*disktest.Mem, []byte, uint64) {
		m := disktest.New()
		st := mustOpen(t, m)
		mustPut(t, st, true, "a")
		var top uint64
		for range 4 {
			_, top = reserve(t, st, "a", 64)
		}
		m = m.Kill()
		b, err := m.ReadFile("/store/state")
		if err != nil {
			t.Fatal(err)
		}
		return m, b, top
	}
	_, whole, _ := prepare()
	frame := frameHead + 25
	t.Run("the last record cut short", func(t *testing.T) {
		for cut := 1; cut < frame; cut++ {
			m, b, top := prepare()
			m.WriteFile("/store/state", b[:len(b)-cut])
			st := mustOpen(t, m)
			if st.Taint() != "" {
				t.Fatalf("cut %d: %s", cut, st.Taint())
			}
			if lo, _ := reserve(t, st, "a", 1); lo < top {
				t.Fatalf("cut %d: %d, given up to %d", cut, lo, top)
			}
		}
	})
	t.Run("every bit of the file flipped", func(t *testing.T) {
		refused, recovered := 0, 0
		for bit := range len(whole) * 8 {
			m, b, top := prepare()
			b = bytes.Clone(b)
			b[bit/8] ^= 1 << (bit % 8)
			m.WriteFile("/store/state", b)
			st, err := open(m, dir, opts)
			var d *damage
			if errors.As(err, &d) {
				refused++
				continue
			}
			if err != nil {
				t.Fatalf("bit %d: %v", bit, err)
			}
			recovered++
			id := identity(t, "a")
			lo, _, err := st.Reserve(ctx, id[:], 1)
			if err == nil && lo < top || err != nil && !errors.Is(err, keys.ErrTainted) {
				t.Fatalf("bit %d: %d, given up to %d (%v)", bit, lo, top, err)
			}
		}
		t.Logf("%d refused, %d taken for a last record cut short", refused, recovered)
		if recovered > frame*8 {
			t.Errorf("%d flips in other than the last record were not noticed", recovered-frame*8)
		}
	})
	t.Run("the message", func(t *testing.T) {
		m, b, _ := prepare()
		b = bytes.Clone(b)
		b[headerLen+30] ^= 1
		m.WriteFile("/store/state", b)
		_, err := open(m, dir, opts)
		if want := fmt.Sprintf("/store/state is damaged at offset %d", headerLen); err == nil || !bytes.Contains([]byte(err.Error()), []byte(want)) {
			t.Errorf("%v, want %q", err, want)
		}
		t.Log(err)
	})
	t.Run("cut to nothing", func(t *testing.T) {
		for _, n := range []int{0, 1, headerLen - 1, headerLen} {
			m, b, _ := prepare()
			m.WriteFile("/store/state", b[:n])
			var d *damage
			if _, err := open(m, dir, opts); !errors.As(err, &d) {
				t.Errorf("%d bytes: %v", n, err)
			}
		}
	})
}

func TestCompaction(t *testing.T) {
	m := disktest.New()
	st := mustOpen(t, m)
	mustPut(t, st, true, "a", "b")
	size, shrunk := 0, 0
	var top uint64
	for range 6000 {
		_, top = reserve(t, st, "a", 2)
		if st.size < size {
			shrunk++
		}
		size = st.size
	}
	if shrunk == 0 || size > 128<<10 {
		t.Fatalf("compacted %d times, %d bytes now", shrunk, size)
	}
	for _, m := range []*disktest.Mem{m.Restart(disktest.Lost), m.Restart(disktest.Kept)} {
		st := mustOpen(t, m)
		if lo, _ := reserve(t, st, "a", 1); lo < top {
			t.Errorf("%d, given up to %d", lo, top)
		}
	}
	// Power cuts around a compaction.
	for cut := 1; cut < 14; cut++ {
		for o := range disktest.Outcomes {
			m := disktest.New()
			st := mustOpen(t, m)
			mustPut(t, st, true, "a")
			m.Arm(cut, disktest.Power)
			var top uint64
			id := identity(t, "a")
			for range 4 {
				if _, hi, err := st.Reserve(ctx, id[:], 64); err == nil {
					top = hi
				}
				if st.err == nil && !m.Dead() {
					st.compact()
				}
			}
			st = mustOpen(t, m.Restart(o))
			if lo, _ := reserve(t, st, "a", 1); lo < top || st.Taint() != "" {
				t.Fatalf("cut %d, outcome %d: %d, given up to %d; %s", cut, o, lo, top, st.Taint())
			}
		}
	}
}
