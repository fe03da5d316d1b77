package fragment

import "fmt"

// Limits of the format: leaves, units and pages are 64 to 4096 bytes.
const (
	MinExponent = 6
	MaxExponent = 12
)

// Item is one piece of a layout: a unit of data (Level 0) or a page of hashes
// (Level 1 and above, the root's page on top).
type Item struct {
	Level uint8
	Index uint32
}

func (it Item) String() string {
	if it.Level == 0 {
		return fmt.Sprintf("unit %d", it.Index)
	}
	return fmt.Sprintf("page %d of level %d", it.Index, it.Level)
}

// Geometry is how one file lays out a signed image: in units and pages of
// which sizes, and where each stands. The zero value is not valid: see
// [NewGeometry].
type Geometry struct {
	Layout
	size  uint32 // S
	leaf  uint8  // l
	base  uint32 // offset of the first item
	units uint32 // N
	depth uint8  // D
}

// Layout is the fragmenter's choice, which no signature covers.
type Layout struct {
	Unit     uint8 // u: a unit has 2^u bytes
	Page     uint8 // p: a page has 2^p bytes
	Outboard bool  // pages in a file of their own, beside the unchanged image
}

// DefaultLayout is for links that carry 1024-byte blocks.
var DefaultLayout = Layout{Unit: 10, Page: 10}

// Block returns the alignment of every item and of the header in bytes,
// min(U, P, 1024): the largest Block2 size (RFC 7959 §2.2) that is not shared
// by two items.
func (l Layout) Block() int { return 1 << min(l.Unit, l.Page, maxBlock) }

// maxBlock is log2 of the largest block of RFC 7959.
const maxBlock = 10

// check refuses exponents out of range.
func (l Layout) check() error {
	if l.Unit < MinExponent || l.Unit > MaxExponent || l.Page < MinExponent || l.Page > MaxExponent {
		return fmt.Errorf("%w: unit 2^%d and page 2^%d; both exponents must be %d to %d", ErrGeometry, l.Unit, l.Page, MinExponent, MaxExponent)
	}
	return nil
}

// NewGeometry lays out an image of size bytes in leaves of 2^leaf bytes, with
// the header's base bytes in front of the items.
func NewGeometry(l Layout, size uint32, leaf uint8, base uint32) (Geometry, error) {
	if err := l.check(); err != nil {
		return Geometry{}, err
	}
	switch {
	case leaf < MinExponent || leaf > MaxExponent:
		return Geometry{}, fmt.Errorf("%w: leaf 2^%d; the exponent must be %d to %d", ErrGeometry, leaf, MinExponent, MaxExponent)
	case l.Unit < leaf:
		return Geometry{}, fmt.Errorf("%w: units of 2^%d bytes are below the signed leaf of 2^%d", ErrGeometry, l.Unit, leaf)
	case size == 0:
		return Geometry{}, fmt.Errorf("%w: the image is empty", ErrGeometry)
	case base > MaxHeader || int(base)%l.Block() != 0:
		return Geometry{}, fmt.Errorf("%w: items start at %d", ErrGeometry, base)
	}
	g := Geometry{Layout: l, size: size, leaf: leaf, base: base}
	g.units = uint32((uint64(size) + g.unitSize() - 1) >> l.Unit)
	for uint64(g.units) > 1<<(uint(g.depth)*g.fan()) {
		g.depth++
	}
	return g, nil
}

func (g Geometry) unitSize() uint64 { return 1 << g.Unit }
func (g Geometry) pageSize() uint64 { return 1 << g.Page }

// fan returns log2 of F, the hashes a page holds.
func (g Geometry) fan() uint { return uint(g.Page) - 5 }

// Size returns S, the image's bytes.
func (g Geometry) Size() uint32 { return g.size }

// Units returns N.
func (g Geometry) Units() uint32 { return g.units }

// Depth returns D, the levels of pages. It is 0 for an image of one unit.
func (g Geometry) Depth() uint8 { return g.depth }

// Width returns how many items level v has.
func (g Geometry) Width(v uint8) uint32 {
	shift := uint(v) * g.fan()
	return uint32((uint64(g.units) + 1<<shift - 1) >> shift)
}

// Has reports whether the layout has that item.
func (g Geometry) Has(it Item) bool {
	return it.Level <= g.depth && it.Index < g.Width(it.Level)
}

// Parent returns the page that holds the item's hash; ok is false for the root.
func (g Geometry) Parent(it Item) (page Item, ok bool) {
	if it.Level == g.depth {
		return Item{}, false
	}
	return Item{it.Level + 1, it.Index >> g.fan()}, true
}

// Len returns the item's bytes: a page's are always 2^p, the last unit may be
// short.
func (g Geometry) Len(it Item) int {
	if it.Level > 0 {
		return int(g.pageSize())
	}
	return int(min(g.unitSize(), uint64(g.size)-uint64(it.Index)<<g.Unit))
}

// entries returns how many hashes the page holds.
func (g Geometry) entries(page Item) int {
	first := uint64(page.Index) << g.fan()
	return int(min(1<<g.fan(), uint64(g.Width(page.Level-1))-first))
}

// Offset returns where the item starts: in the combined file, or with
// Outboard in the image (units) and in the pages' file (pages).
//
//	data(j)   = Base + jU + P·Σ_{v=1..D}(⌊j/F^v⌋+1)
//	page(v,i) = Base + jU + P·Σ_{w=1..D}(⌊j/F^w⌋ + [w>v]),  j = i·F^v
func (g Geometry) Offset(it Item) int64 {
	j := uint64(it.Index) << (uint(it.Level) * g.fan())
	if g.Outboard && it.Level == 0 {
		return int64(j << g.Unit)
	}
	off := uint64(g.base)
	if !g.Outboard {
		off += j << g.Unit
	}
	for w := uint8(1); w <= g.depth; w++ {
		before := j >> (uint(w) * g.fan())
		if w > it.Level {
			before++
		}
		off += before << g.Page
	}
	return int64(off)
}

// Find returns the item that covers a byte of the combined file, or with
// Outboard of the pages' file, and the byte's position in it. ok is false for
// the header and beyond the end.
func (g Geometry) Find(offset int64) (it Item, within int, ok bool) {
	if offset < int64(g.base) || offset >= g.FileSize() {
		return Item{}, 0, false
	}
	rel := uint64(offset) - uint64(g.base)
	index := uint64(0)
	for v := g.depth; v > 0; v-- {
		if rel < g.pageSize() {
			return Item{v, uint32(index)}, int(rel), true
		}
		rel -= g.pageSize()
		child := g.subtree(v - 1)
		index = index<<g.fan() + rel/child
		rel %= child
	}
	return Item{0, uint32(index)}, int(rel), true
}

// subtree returns the bytes that a full item of level v and all below it take
// in the file.
func (g Geometry) subtree(v uint8) uint64 {
	n := g.unitSize()
	if g.Outboard {
		n = 0
	}
	for range v {
		n = n<<g.fan() + g.pageSize()
	}
	return n
}

// PageBytes returns what all pages take.
func (g Geometry) PageBytes() int64 {
	var n int64
	for v := uint8(1); v <= g.depth; v++ {
		n += int64(g.Width(v)) << g.Page
	}
	return n
}

// FileSize returns the bytes of the combined file, or with Outboard of the
// pages' file.
func (g Geometry) FileSize() int64 {
	n := int64(g.base) + g.PageBytes()
	if !g.Outboard {
		n += int64(g.size)
	}
	return n
}

// Walk yields every item in pre-order, the order of the file.
func (g Geometry) Walk(yield func(Item) bool) {
	g.walk(Item{g.depth, 0}, yield)
}

func (g Geometry) walk(it Item, yield func(Item) bool) bool {
	if !yield(it) {
		return false
	}
	if it.Level == 0 {
		return true
	}
	first := it.Index << g.fan()
	for i := range uint32(g.entries(it)) {
		if !g.walk(Item{it.Level - 1, first + i}, yield) {
			return false
		}
	}
	return true
}
