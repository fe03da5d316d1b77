package oscore

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"github.com/oscorelay/oscorelay/internal/proof"
)

var windowSizes = []int{1, 2, 31, 32, 33, 63, 64, 65, 128, 129, 200, 512, 1023, 1024}

// windowModel is a replay window that remembers everything.
type windowModel struct {
	size  uint64
	floor uint64
	next  uint64
	seen  map[uint64]bool
}

func (m *windowModel) check(n uint64) error {
	switch {
	case n < m.next && (m.next-n > m.size || m.seen[n]):
		return ErrReplay
	case n < m.floor:
		return ErrLate
	}
	return nil
}

func (m *windowModel) accept(n uint64) {
	m.seen[n] = true
	m.next = max(m.next, n+1)
}

func TestWindowAgainstModel(t *testing.T) {
	proof.Checklist(t, "O-7.4-1", "O-7.4-3")
	for _, size := range windowSizes {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				m := windowModel{size: uint64(size), seen: map[uint64]bool{}}
				w := Fresh(size)
				if rapid.Bool().Draw(t, "after a loss") {
					piv := rapid.Uint64Range(0, MaxSequence-5000).Draw(t, "echo")
					w = FromEcho(size, piv)
					m.floor = piv + 1
					m.accept(piv)
				}
				steps := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) int64 {
					near := rapid.Int64Range(-3, 3)
					return rapid.OneOf(near, rapid.Int64Range(-int64(size)-3, 3), rapid.Map(near, func(d int64) int64 { return d + int64(size) }),
						rapid.Map(near, func(d int64) int64 { return d + int64(size)*2 }), rapid.Int64Range(0, 3000)).Draw(t, "step")
				}), 1, 200).Draw(t, "steps")
				for _, step := range steps {
					n := int64(m.next) + step
					if n < 0 || n > MaxSequence {
						continue
					}
					piv := uint64(n)
					before, _ := w.State()
					if got, wanted := w.Check(piv), m.check(piv); got != wanted {
						t.Fatalf("Check(%d) %v, want %v; next %d floor %d", piv, got, wanted, m.next, m.floor)
					}
					if after, _ := w.State(); fmt.Sprint(after) != fmt.Sprint(before) {
						t.Fatalf("Check changed the window: %v, was %v", after, before)
					}
					if rapid.IntRange(0, 3).Draw(t, "only asked") == 0 {
						continue
					}
					wanted, accept := m.check(piv), w.Accept
					if rapid.Bool().Draw(t, "with an Echo") {
						accept = func(n uint64) error { return w.AcceptProven(size, n) }
						if wanted == ErrLate {
							wanted = nil
						}
					}
					if err := accept(piv); err != wanted {
						t.Fatalf("Accept(%d): %v, want %v", piv, err, wanted)
					} else if err == nil {
						m.accept(piv)
					}
					if rapid.IntRange(0, 20).Draw(t, "hand-over") == 0 {
						s, ok := w.State()
						if !ok {
							t.Fatal("an open window has no state")
						}
						w = Restore(s)
						clear(s.Bits) // the window must have its own copy
					}
				}
			})
		})
	}
}

func TestWindowSlides(t *testing.T) {
	for _, size := range windowSizes {
		for _, jump := range []int{1, size - 1, size, size + 1, 2 * size, 5000} {
			w := Fresh(size)
			for n := range uint64(size) {
				want(t, w.Accept(n), nil)
			}
			high := uint64(size-1) + uint64(jump)
			if jump == 0 {
				want(t, w.Accept(high), ErrReplay)
				continue
			}
			want(t, w.Accept(high), nil)
			for n := range high + 1 {
				wanted := error(nil)
				if n+uint64(size) <= high || n < uint64(size) || n == high {
					wanted = ErrReplay
				}
				if err := w.Check(n); err != wanted {
					t.Fatalf("size %d, jump %d: Check(%d) = %v, want %v", size, jump, n, err, wanted)
				}
			}
		}
	}
}

func TestWindowAtTheLastNumber(t *testing.T) {
	for _, size := range windowSizes {
		w := Fresh(size)
		want(t, w.Accept(0), nil)
		want(t, w.Accept(MaxSequence), nil)
		want(t, w.Accept(MaxSequence), ErrReplay)
		want(t, w.Accept(0), ErrReplay)
		s, _ := w.State()
		r := Restore(s)
		want(t, r.Accept(MaxSequence), ErrReplay)
		e := FromEcho(size, MaxSequence)
		want(t, e.Accept(MaxSequence), ErrReplay)
	}
}

func TestWindowRefusesAStateThatDoesNotHoldTogether(t *testing.T) {
	proof.Checklist(t, "O-7.5-1")
	for name, s := range map[string]WindowState{
		"zero":            {},
		"no bits":         {Size: 32},
		"negative size":   {Size: -1, Bits: []uint64{0}},
		"size too large":  {Size: 1025, Bits: make([]uint64, 32)},
		"too many bits":   {Size: 64, Bits: make([]uint64, 2)},
		"too few bits":    {Size: 65, Bits: make([]uint64, 1)},
		"ring of three":   {Size: 129, Bits: make([]uint64, 3)},
		"floor above":     {Size: 32, Floor: 2, Next: 1, Bits: []uint64{0}},
		"next above 2^40": {Size: 32, Next: 1<<40 + 1, Bits: []uint64{0}},
	} {
		w := Restore(s)
		if w.Open() || w.Check(5) == nil {
			t.Errorf("%s: restored to an open window", name)
		}
		if _, ok := w.State(); ok {
			t.Errorf("%s: a closed window has a state", name)
		}
	}
	for size, wanted := range map[int]int{0: 32, -5: 1, 1: 1, 5000: 1024} {
		w := Fresh(size)
		if s, _ := w.State(); s.Size != wanted {
			t.Errorf("Fresh(%d) has size %d, want %d", size, s.Size, wanted)
		}
	}
}
