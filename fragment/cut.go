package fragment

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
)

// Progress is told how many more bytes have been hashed or written. It may be
// called from several goroutines.
type Progress func(bytes int)

// hashChunk is what one worker hashes at a time. It is a multiple of every
// unit.
const hashChunk = 1 << 18

// unitHashes returns the root of each unit's subtree.
func unitHashes(image io.ReaderAt, size uint32, leaf, unit uint8, workers int, progress Progress) ([]Hash, error) {
	units := (uint64(size) + 1<<unit - 1) >> unit
	hashes := make([]Hash, units)
	chunks := (uint64(size) + hashChunk - 1) / hashChunk
	var (
		next   atomic.Uint64
		wait   sync.WaitGroup
		failed atomic.Pointer[error]
	)
	for range max(1, min(workers, int(chunks))) {
		wait.Go(func() {
			h, buf := newHasher(), make([]byte, hashChunk)
			for failed.Load() == nil {
				chunk := next.Add(1) - 1
				if chunk >= chunks {
					return
				}
				at := chunk * hashChunk
				part := buf[:min(hashChunk, uint64(size)-at)]
				if n, err := image.ReadAt(part, int64(at)); n != len(part) {
					err = fmt.Errorf("fragment: reading %d bytes of the image at %d: %w", len(part), at, short(err))
					failed.Store(&err)
					return
				}
				for i := at >> unit; len(part) > 0; i++ {
					n := min(len(part), 1<<unit)
					hashes[i] = h.unit(part[:n], leaf)
					part = part[n:]
				}
				if progress != nil {
					progress(int(min(hashChunk, uint64(size)-at)))
				}
			}
		})
	}
	wait.Wait()
	if err := failed.Load(); err != nil {
		return nil, *err
	}
	return hashes, nil
}

func short(err error) error {
	if err == nil || errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// Describe hashes an image for its manifest: Size, Leaf, Root and a SHA-256
// Digest are filled in. workers hash leaves in parallel; the digest, which
// cannot be, runs beside them.
func Describe(image io.ReaderAt, size uint32, leaf uint8, workers int, progress Progress) (Manifest, error) {
	if leaf < MinExponent || leaf > MaxExponent {
		return Manifest{}, badManifest(4, "leaf exponent %d is not %d to %d", leaf, MinExponent, MaxExponent)
	}
	if size == 0 {
		return Manifest{}, badManifest(3, "image is empty")
	}
	m := Manifest{Size: size, Leaf: leaf, Digest: Digest{Alg: SHA256}}
	var (
		wait sync.WaitGroup
		derr error
	)
	wait.Go(func() {
		sum := sha256.New()
		var n int64
		n, derr = io.Copy(sum, io.NewSectionReader(image, 0, int64(size)))
		if derr == nil && n != int64(size) {
			derr = io.ErrUnexpectedEOF
		}
		m.Digest.Value = sum.Sum(nil)
	})
	hashes, err := unitHashes(image, size, leaf, MaxExponent, workers, progress)
	wait.Wait()
	if err = errors.Join(err, derr); err != nil {
		return Manifest{}, err
	}
	h := newHasher()
	var s stack
	for _, sum := range hashes {
		s.push(h, sum)
	}
	m.Root = s.root(h)
	return m, nil
}

// Pages are the hashes of an image in one layout.
type Pages struct {
	geo    Geometry
	levels [][]Hash // levels[v][i] is the hash of item (v, i)
}

// BuildPages hashes an image for a layout. It needs no key, and refuses an
// image that is not the signed one.
func BuildPages(image io.ReaderAt, e *Envelope, g Geometry, workers int, progress Progress) (*Pages, error) {
	return buildPages(image, g, e.manifest.Root, workers, progress)
}

// ErrImage means that an image is not the one the manifest speaks of.
var ErrImage = errors.New("fragment: the image is not the one that was signed")

func buildPages(image io.ReaderAt, g Geometry, root Hash, workers int, progress Progress) (*Pages, error) {
	units, err := unitHashes(image, g.size, g.leaf, g.Unit, workers, progress)
	if err != nil {
		return nil, err
	}
	p := &Pages{geo: g, levels: [][]Hash{units}}
	h := newHasher()
	for v := uint8(1); v <= g.depth; v++ {
		below := p.levels[v-1]
		level := make([]Hash, 0, g.Width(v))
		for len(below) > 0 {
			n := copy(h.row[:1<<g.fan()], below)
			level = append(level, h.reduce(n))
			below = below[n:]
		}
		p.levels = append(p.levels, level)
	}
	if p.levels[g.depth][0] != root {
		return nil, ErrImage
	}
	return p, nil
}

// AppendPage appends one page, zero padding included.
func (p *Pages) AppendPage(dst []byte, it Item) []byte {
	first := uint64(it.Index) << p.geo.fan()
	n := p.geo.entries(it)
	for _, sum := range p.levels[it.Level-1][first : first+uint64(n)] {
		dst = append(dst, sum[:]...)
	}
	return append(dst, make([]byte, int(p.geo.pageSize())-n*len(Hash{}))...)
}

// write writes the file: the header, then every item in pre-order, without
// the units in outboard mode.
func (p *Pages) write(w io.Writer, header []byte, image io.ReaderAt, progress Progress) error {
	if _, err := w.Write(header); err != nil {
		return err
	}
	buf := make([]byte, 1<<MaxExponent)
	var err error
	p.geo.Walk(func(it Item) bool {
		b := buf[:0]
		switch {
		case it.Level > 0:
			b = p.AppendPage(b, it)
		case p.geo.Outboard:
			return true
		default:
			b = buf[:p.geo.Len(it)]
			if n, rerr := image.ReadAt(b, int64(it.Index)<<p.geo.Unit); n != len(b) {
				err = fmt.Errorf("fragment: reading the image's %v: %w", it, short(rerr))
				return false
			}
		}
		if _, err = w.Write(b); err != nil {
			return false
		}
		if progress != nil {
			progress(len(b))
		}
		return true
	})
	return err
}

// CutConfig says how to cut.
type CutConfig struct {
	Layout   Layout   // zero: [DefaultLayout]
	Mirrors  []string // written to frag-info; a file with mirrors is not pinned by its name
	Workers  int      // hashing goroutines; 0: 1
	Progress Progress // of hashing, then of writing: twice the image in all
}

// Cut writes a signed image's file in one layout. It needs no key. It refuses an image that is not the signed one before it
// writes anything.
func Cut(w io.Writer, image io.ReaderAt, e *Envelope, c CutConfig) error {
	if c.Layout == (Layout{}) {
		c.Layout = DefaultLayout
	}
	header, err := Header{Layout: c.Layout, Mirrors: c.Mirrors, Sign1: e.sign1}.Append(nil)
	if err != nil {
		return err
	}
	g, err := e.Geometry(c.Layout, uint32(len(header)))
	if err != nil {
		return err
	}
	p, err := BuildPages(image, e, g, c.Workers, c.Progress)
	if err != nil {
		return err
	}
	return p.write(w, header, image, c.Progress)
}

// imageReader gives a combined file's image as if it stood alone.
type imageReader struct {
	file io.ReaderAt
	geo  Geometry
}

// ImageReader returns the image inside a combined file.
func ImageReader(file io.ReaderAt, g Geometry) io.ReaderAt {
	if g.Outboard {
		return file
	}
	return imageReader{file, g}
}

func (r imageReader) ReadAt(b []byte, off int64) (n int, err error) {
	for len(b) > 0 {
		if off >= int64(r.geo.size) {
			return n, io.EOF
		}
		it := Item{0, uint32(off >> r.geo.Unit)}
		within := off - int64(it.Index)<<r.geo.Unit
		part := b[:min(int64(len(b)), int64(r.geo.Len(it))-within)]
		got, err := r.file.ReadAt(part, r.geo.Offset(it)+within)
		n += got
		if got < len(part) {
			return n, err
		}
		b, off = b[got:], off+int64(got)
	}
	return n, nil
}
