package fragment

import (
	"bytes"
	"fmt"
	"io"
	"math/bits"
)

// Store is where bytes outlive a power cut: the flash that takes the image, or
// the journal. Sync returns when all that was written before will survive; on
// a memory that writes through it does nothing.
type Store interface {
	io.ReaderAt
	io.WriterAt
	Sync() error
}

// Image is the flash that an image is written to, and what of it has been
// verified. Only a verifier writes, and only what it has verified. The bits
// count leaves, so that mirrors of different layouts share one image. One
// goroutine at a time may use an image and its verifiers.
type Image struct {
	signed  *Signed
	flash   Store
	journal *journal // nil: progress is lost with the process
	leaf    uint8
	leaves  uint32
	done    uint32   // leaves verified
	bits    []uint64 // one a leaf
	low     uint32   // leaves below are all verified
	suspect bool     // flash may hold verified bytes that the bits do not know of
	scratch []byte   // read-back, one unit
	every   int      // units between two journal writes
	pending int      // units since the last
	doubts  int      // how often the flash was found changed
}

// ImageConfig says where an image goes. Flash is required.
type ImageConfig struct {
	Flash   Store
	Journal Store // optional: without it nothing can be resumed
	// Every is how many units are verified between two writes of the journal;
	// what a power cut takes from it is found again by hashing the flash. 0: 16.
	Every int
}

const defaultEvery = 16

// OpenImage starts or resumes a download. The journal is resumed only if it is
// of exactly this manifest; anything else in it is overwritten.
func OpenImage(s *Signed, c ImageConfig) (*Image, error) {
	if s == nil || s.manifest.Size == 0 {
		return nil, fmt.Errorf("%w: no manifest that Open has verified", ErrSignature)
	}
	leaves := uint32((uint64(s.manifest.Size) + 1<<s.manifest.Leaf - 1) >> s.manifest.Leaf)
	im := &Image{
		signed: s, flash: c.Flash, leaf: s.manifest.Leaf, leaves: leaves,
		bits:  make([]uint64, (leaves+63)/64),
		every: c.Every,
	}
	if im.every == 0 {
		im.every = defaultEvery
	}
	if c.Journal != nil {
		im.journal = newJournal(c.Journal, s, leaves)
		resumed, err := im.journal.load(im.bits)
		if err != nil {
			return nil, err
		}
		im.suspect = resumed
	}
	for _, w := range im.bits {
		im.done += uint32(bits.OnesCount64(w))
	}
	return im, nil
}

// Complete reports whether every leaf is verified.
func (im *Image) Complete() bool { return im.done == im.leaves }

// Verified returns how many bytes of the image are verified.
func (im *Image) Verified() int64 {
	n := int64(im.done) << im.leaf
	if im.has(im.leaves - 1) { // the last leaf may be short
		n -= int64(im.leaves)<<im.leaf - int64(im.signed.manifest.Size)
	}
	return n
}

// Signed returns the manifest the image belongs to.
func (im *Image) Signed() *Signed { return im.signed }

func (im *Image) has(leaf uint32) bool { return im.bits[leaf/64]>>(leaf%64)&1 == 1 }

// span returns the leaves [first, end) of a byte range.
func (im *Image) span(offset int64, n int) (first, end uint32) {
	return uint32(offset >> im.leaf), uint32((offset + int64(n) + 1<<im.leaf - 1) >> im.leaf)
}

// holds reports whether all leaves of the range are verified.
func (im *Image) holds(offset int64, n int) bool {
	first, end := im.span(offset, n)
	for ; first < end; first++ {
		if !im.has(first) {
			return false
		}
	}
	return true
}

// missing returns the byte offset of the first leaf that is not verified.
func (im *Image) missing() (offset int64, ok bool) {
	for im.low < im.leaves && im.has(im.low) {
		im.low++
	}
	return int64(im.low) << im.leaf, im.low < im.leaves
}

// commit writes verified bytes, reads them back, and only then marks them.
func (im *Image) commit(offset int64, data []byte) error {
	if _, err := im.flash.WriteAt(data, offset); err != nil {
		return fmt.Errorf("%w: writing %d bytes at %d: %w", ErrFlash, len(data), offset, err)
	}
	back := im.buffer(len(data))
	if n, err := im.flash.ReadAt(back, offset); n != len(back) {
		return fmt.Errorf("%w: reading back %d bytes at %d: %w", ErrFlash, len(back), offset, err)
	}
	// data has just been hashed, so equal bytes are equal hashes.
	if !bytes.Equal(back, data) {
		return fmt.Errorf("%w: %d bytes at %d do not read back as written", ErrFlash, len(data), offset)
	}
	return im.mark(offset, len(data))
}

// mark sets the bits of a range and writes the journal when it is due.
func (im *Image) mark(offset int64, n int) error {
	first, end := im.span(offset, n)
	for ; first < end; first++ {
		if im.has(first) {
			continue
		}
		im.bits[first/64] |= 1 << (first % 64)
		im.done++
		if im.journal != nil {
			im.journal.touch(first)
		}
	}
	if im.pending++; im.pending >= im.every || im.Complete() {
		return im.Flush()
	}
	return nil
}

// Flush makes the progress so far survive a power cut: first the flash, then
// the journal that speaks of it.
func (im *Image) Flush() error {
	if im.pending == 0 {
		return nil
	}
	if err := im.flash.Sync(); err != nil {
		return fmt.Errorf("%w: %w", ErrFlash, err)
	}
	if im.journal != nil {
		if err := im.journal.write(im.bits); err != nil {
			return err
		}
	}
	im.pending = 0
	return nil
}

// Finish reads the whole image back from flash and compares its digest with
// the manifest's. On [ErrDigest] it forgets which leaves it held: the verifiers
// then find the good ones by hashing the flash, and ask for the rest again.
func (im *Image) Finish() error {
	if !im.Complete() {
		return fmt.Errorf("%w: %d of %d bytes verified", ErrIncomplete, im.Verified(), im.signed.manifest.Size)
	}
	if err := im.Flush(); err != nil {
		return err
	}
	want := im.signed.manifest.Digest
	sum := want.Alg.New()
	buf := im.buffer(1 << MaxExponent)
	for at, size := int64(0), int64(im.signed.manifest.Size); at < size; {
		part := buf[:min(int64(len(buf)), size-at)]
		if n, err := im.flash.ReadAt(part, at); n != len(part) {
			return fmt.Errorf("%w: reading %d bytes at %d: %w", ErrFlash, len(part), at, err)
		}
		sum.Write(part)
		at += int64(len(part))
	}
	if bytes.Equal(sum.Sum(nil), want.Value) {
		return nil
	}
	im.forget()
	return ErrDigest
}

// forget clears every bit and leaves the flash to be hashed again.
func (im *Image) forget() {
	clear(im.bits)
	im.done, im.low, im.suspect = 0, 0, true
	im.doubts++
	if im.journal != nil {
		im.journal.touchAll()
		im.pending++
	}
}

// recheck looks whether flash holds a unit that the bits do not know of.
func (im *Image) recheck(h *hasher, offset int64, n int, want Hash) error {
	if im.holds(offset, n) {
		return nil
	}
	buf := im.buffer(n)
	if got, err := im.flash.ReadAt(buf, offset); got != n {
		_ = err // beyond what was ever written: the unit is simply not there
		return nil
	}
	if h.unit(buf, im.leaf) != want {
		return nil
	}
	return im.mark(offset, n)
}

// buffer returns the scratch space, which grows once to a unit's size.
func (im *Image) buffer(n int) []byte {
	if cap(im.scratch) < n {
		im.scratch = make([]byte, n)
	}
	return im.scratch[:n]
}
