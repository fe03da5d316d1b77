package fragment

import "fmt"

// Verifier checks the items of one layout against a signed root as they
// arrive, in any order that gives a page before what hangs under it, and
// writes verified units to the image. It holds the pages on the way from the
// root to the units in work: D·P bytes, plus one unit of scratch in the image.
//
// A verifier allocates when it is made, and never after.
type Verifier struct {
	geo    Geometry
	root   Hash
	image  *Image
	hasher *hasher
	slots  [][]slot // by level, from level 1
	clock  uint64
	doubts int // the image's, when the pages were taken
}

// slot holds one verified page.
type slot struct {
	index uint32
	valid bool
	used  uint64
	data  []byte
}

// VerifierConfig tunes a verifier; its zero value is for the smallest device.
type VerifierConfig struct {
	// Pages is how many of the lowest pages are held at once; each is 2^p
	// bytes. One is enough; a second lets a download go on into the next page
	// while a unit under the first is still missing. 0: 1.
	Pages int
}

// NewVerifier prepares to verify one layout of the image's manifest.
func NewVerifier(im *Image, g Geometry, c VerifierConfig) (*Verifier, error) {
	m := &im.signed.manifest
	if g.size != m.Size || g.leaf != m.Leaf || g.units == 0 {
		return nil, fmt.Errorf("%w: it is of another image", ErrGeometry)
	}
	v := &Verifier{geo: g, root: m.Root, image: im, hasher: newHasher(), slots: make([][]slot, g.depth), doubts: im.doubts}
	for level := range v.slots {
		n := 1
		if level == 0 {
			n = max(1, min(c.Pages, int(g.Width(1))))
		}
		v.slots[level] = make([]slot, n)
		for i := range v.slots[level] {
			v.slots[level][i].data = make([]byte, g.pageSize())
		}
	}
	im.buffer(int(g.unitSize()))
	if g.depth == 0 && im.suspect {
		if err := im.recheck(v.hasher, 0, int(g.size), v.root); err != nil {
			return nil, err
		}
	}
	return v, nil
}

// Geometry returns the layout.
func (v *Verifier) Geometry() Geometry { return v.geo }

// Image returns the image the verifier writes to.
func (v *Verifier) Image() *Image { return v.image }

// Memory returns the bytes of verified pages that the verifier can hold.
func (v *Verifier) Memory() int {
	n := 0
	for _, level := range v.slots {
		n += len(level) << v.geo.Page
	}
	return n
}

// Offer verifies one item. nil means that it is verified, and a unit written
// and read back. [ErrForged] means: as if it had not been received.
// [ErrEarly] means that its page is not held. [ErrFlash] and [ErrJournal] are
// the device's own trouble. b is not kept.
func (v *Verifier) Offer(it Item, b []byte) error {
	if !v.geo.Has(it) {
		return fmt.Errorf("%w: no %v in this layout", ErrGeometry, it)
	}
	v.renew()
	want, ok := v.expected(it)
	if !ok {
		return ErrEarly
	}
	if len(b) != v.geo.Len(it) {
		return ErrForged
	}
	if it.Level == 0 {
		return v.unit(it, b, want)
	}
	return v.page(it, b, want)
}

func (v *Verifier) unit(it Item, b []byte, want Hash) error {
	if v.hasher.unit(b, v.geo.leaf) != want {
		return ErrForged
	}
	offset := int64(it.Index) << v.geo.Unit
	if v.image.holds(offset, len(b)) {
		return nil
	}
	return v.image.commit(offset, b)
}

func (v *Verifier) page(it Item, b []byte, want Hash) error {
	n := v.geo.entries(it)
	if v.hasher.page(b, n) != want || !zeros(b[n*len(want):]) {
		return ErrForged
	}
	if v.find(it) != nil {
		return nil
	}
	s := v.victim(it.Level)
	s.index, s.valid = it.Index, true
	copy(s.data, b)
	v.touch(s)
	if it.Level == 1 && v.image.suspect {
		return v.recheck(it, s)
	}
	return nil
}

// recheck finds the units under a page that flash already holds.
func (v *Verifier) recheck(page Item, s *slot) error {
	first := page.Index << v.geo.fan()
	for i := range v.geo.entries(page) {
		u := Item{0, first + uint32(i)}
		err := v.image.recheck(v.hasher, int64(u.Index)<<v.geo.Unit, v.geo.Len(u), s.entry(i))
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *slot) entry(i int) Hash { return Hash(s.data[i*len(Hash{}):]) }

// expected returns the verified hash of an item; ok is false if the page that
// holds it is not here.
func (v *Verifier) expected(it Item) (Hash, bool) {
	parent, ok := v.geo.Parent(it)
	if !ok {
		return v.root, true
	}
	s := v.find(parent)
	if s == nil {
		return Hash{}, false
	}
	v.touch(s)
	return s.entry(int(it.Index & (1<<v.geo.fan() - 1))), true
}

// Holds reports whether the item is verified: a unit in flash, or a page here.
func (v *Verifier) Holds(it Item) bool {
	if it.Level == 0 {
		return v.image.holds(int64(it.Index)<<v.geo.Unit, v.geo.Len(it))
	}
	return v.find(it) != nil
}

// renew lets go of every page after the flash was found changed: as each comes
// again, the units under it are hashed.
func (v *Verifier) renew() {
	if v.doubts == v.image.doubts {
		return
	}
	v.doubts = v.image.doubts
	for _, level := range v.slots {
		for i := range level {
			level[i].valid = false
		}
	}
}

func (v *Verifier) find(page Item) *slot {
	level := v.slots[page.Level-1]
	for i := range level {
		if level[i].valid && level[i].index == page.Index {
			return &level[i]
		}
	}
	return nil
}

func (v *Verifier) touch(s *slot) {
	v.clock++
	s.used = v.clock
}

// victim returns the slot a new page of that level goes to: an empty one, one
// whose units are all verified, or the one longest unused.
func (v *Verifier) victim(level uint8) *slot {
	slots := v.slots[level-1]
	oldest := &slots[0]
	for i := range slots {
		s := &slots[i]
		if !s.valid || level == 1 && v.pageDone(s.index) {
			return s
		}
		if s.used < oldest.used {
			oldest = s
		}
	}
	return oldest
}

// pageDone reports whether all units under a lowest page are verified.
func (v *Verifier) pageDone(index uint32) bool {
	span := v.geo.unitSize() << v.geo.fan()
	offset := uint64(index) * span
	return v.image.holds(int64(offset), int(min(span, uint64(v.geo.size)-offset)))
}

// Wanted appends the items to ask for next, in the order of the file, until
// dst is full: items that are missing, whose page is held, and that are not in
// flight already. It never names a child whose parent has not been verified.
func (v *Verifier) Wanted(dst, flight []Item) []Item {
	v.renew()
	offset, ok := v.image.missing()
	if !ok {
		return dst
	}
	unit := uint32(offset >> v.geo.Unit)
	if v.geo.depth == 0 {
		return v.want(dst, flight, Item{0, 0})
	}
	// Units under as many lowest pages as there is room for, from the first
	// that is not complete.
	open := 0
	for page := unit >> v.geo.fan(); page < v.geo.Width(1) && open < len(v.slots[0]) && len(dst) < cap(dst); page++ {
		if v.pageDone(page) {
			continue
		}
		open++
		it := Item{1, page}
		if v.find(it) == nil {
			dst = v.want(dst, flight, v.climb(it))
			if page<<v.geo.fan() <= unit {
				// The page under the first missing unit is not here yet: one
				// page at a time until it is.
				return dst
			}
			continue
		}
		first := page << v.geo.fan()
		for i := range uint32(v.geo.entries(it)) {
			if len(dst) == cap(dst) {
				break
			}
			if u := (Item{0, first + i}); !v.Holds(u) {
				dst = v.want(dst, flight, u)
			}
		}
	}
	return dst
}

// climb returns the highest missing page on the way to a page.
func (v *Verifier) climb(page Item) Item {
	for {
		parent, ok := v.geo.Parent(page)
		if !ok || v.find(parent) != nil {
			return page
		}
		page = parent
	}
}

func (v *Verifier) want(dst, flight []Item, it Item) []Item {
	if len(dst) == cap(dst) {
		return dst
	}
	for _, f := range flight {
		if f == it {
			return dst
		}
	}
	for _, d := range dst {
		if d == it {
			return dst
		}
	}
	return append(dst, it)
}
