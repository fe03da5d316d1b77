package fragment

import (
	"testing"

	"pgregory.net/rapid"
)

// anyGeometry draws a geometry with a size up to the format's limit.
func anyGeometry(t *rapid.T, max uint32) Geometry {
	l := rapid.Uint8Range(MinExponent, MaxExponent).Draw(t, "l")
	layout := Layout{
		Unit:     rapid.Uint8Range(l, MaxExponent).Draw(t, "u"),
		Page:     rapid.Uint8Range(MinExponent, MaxExponent).Draw(t, "p"),
		Outboard: rapid.Bool().Draw(t, "outboard"),
	}
	size := rapid.Uint32Range(1, max).Draw(t, "S")
	base := uint32(layout.Block()) * uint32(rapid.IntRange(0, MaxHeader/layout.Block()).Draw(t, "base"))
	g, err := NewGeometry(layout, size, l, base)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func TestFindInvertsOffset(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		g := anyGeometry(t, 1<<32-1)
		it := Item{Level: rapid.Uint8Range(0, g.Depth()).Draw(t, "level")}
		it.Index = rapid.Uint32Range(0, g.Width(it.Level)-1).Draw(t, "index")
		if g.Outboard && it.Level == 0 {
			if want := int64(it.Index) << g.Unit; g.Offset(it) != want {
				t.Fatalf("outboard unit %d at %d", it.Index, g.Offset(it))
			}
			return
		}
		within := rapid.IntRange(0, g.Len(it)-1).Draw(t, "within")
		got, w, ok := g.Find(g.Offset(it) + int64(within))
		if !ok || got != it || w != within {
			t.Fatalf("Find(Offset(%v)+%d) = %v, %d, %v", it, within, got, w, ok)
		}
		if g.Offset(it)%int64(g.Block()) != 0 {
			t.Fatalf("%v is not aligned to its block", it)
		}
	})
}

// The file is its items one after the other, a parent before its children.
func TestWalkCoversTheFile(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		g := anyGeometry(t, 300_000)
		at, data := int64(g.base), int64(0)
		seen := map[Item]bool{}
		g.Walk(func(it Item) bool {
			if parent, ok := g.Parent(it); ok && !seen[parent] {
				t.Fatalf("%v before its parent %v", it, parent)
			}
			if !g.Has(it) || seen[it] {
				t.Fatalf("%v twice, or not in the layout", it)
			}
			seen[it] = true
			if it.Level == 0 {
				data += int64(g.Len(it))
				if g.Outboard {
					return true
				}
			}
			if g.Offset(it) != at {
				t.Fatalf("%v at %d, want %d", it, g.Offset(it), at)
			}
			at += int64(g.Len(it))
			return true
		})
		if at != g.FileSize() || data != int64(g.Size()) {
			t.Fatalf("items end at %d with %d bytes of data, want %d and %d", at, data, g.FileSize(), g.Size())
		}
	})
}

// The overheads that the design promises, with a header of one block.
func TestOverhead(t *testing.T) {
	for _, c := range []struct {
		size    uint32
		percent float64
		memory  int
	}{{64 << 10, 6.25, 2048}, {512 << 10, 3.52, 2048}, {4 << 20, 3.28, 3072}, {32 << 20, 3.23, 3072}} {
		g, err := NewGeometry(DefaultLayout, c.size, 8, 1024)
		if err != nil {
			t.Fatal(err)
		}
		got := float64(g.FileSize()-int64(c.size)) / float64(c.size) * 100
		if got > c.percent {
			t.Errorf("%d bytes: overhead %.3f %%, at most %.2f %%", c.size, got, c.percent)
		}
		if pages := int(g.Depth()) << g.Page; pages != c.memory {
			t.Errorf("%d bytes: pages held take %d, want %d", c.size, pages, c.memory)
		}
	}
}

func TestGeometryRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		l    Layout
		size uint32
		leaf uint8
		base uint32
	}{
		"unit below leaf":    {Layout{Unit: 7, Page: 10}, 1, 8, 0},
		"unit too small":     {Layout{Unit: 5, Page: 10}, 1, 5, 0},
		"unit too large":     {Layout{Unit: 13, Page: 10}, 1, 8, 0},
		"page too small":     {Layout{Unit: 10, Page: 5}, 1, 8, 0},
		"page too large":     {Layout{Unit: 10, Page: 13}, 1, 8, 0},
		"leaf too large":     {Layout{Unit: 12, Page: 10}, 1, 13, 0},
		"empty":              {Layout{Unit: 10, Page: 10}, 0, 8, 0},
		"base not aligned":   {Layout{Unit: 10, Page: 10}, 1, 8, 512},
		"base behind header": {Layout{Unit: 10, Page: 10}, 1, 8, 4096},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := NewGeometry(c.l, c.size, c.leaf, c.base)
			wantErr(t, err, ErrGeometry)
		})
	}
}
