package fragment

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
)

var errCut = errors.New("power cut")

// disk is a device with a volatile cache: what was written since the last Sync
// may be lost in a power cut, each write for itself and the last one torn.
type disk struct {
	power  *power
	stable []byte
	recent []write
}

type write struct {
	at int64
	b  []byte
}

// power counts writes and syncs and goes off at the given one.
type power struct {
	left int
	off  bool
}

func (p *power) use() error {
	if p.off || p.left == 0 {
		p.off = true
		return errCut
	}
	p.left--
	return nil
}

func apply(b []byte, w write) []byte {
	if end := int(w.at) + len(w.b); end > len(b) {
		b = append(b, make([]byte, end-len(b))...)
	}
	copy(b[w.at:], w.b)
	return b
}

func (d *disk) WriteAt(b []byte, off int64) (int, error) {
	d.recent = append(d.recent, write{off, bytes.Clone(b)})
	if err := d.power.use(); err != nil {
		return 0, err
	}
	return len(b), nil
}

func (d *disk) view() []byte {
	b := bytes.Clone(d.stable)
	for _, w := range d.recent {
		b = apply(b, w)
	}
	return b
}

func (d *disk) ReadAt(b []byte, off int64) (int, error) {
	if d.power.off {
		return 0, errCut
	}
	return (&memory{B: d.view()}).ReadAt(b, off)
}

func (d *disk) Sync() error {
	if err := d.power.use(); err != nil {
		return err
	}
	d.stable, d.recent = d.view(), nil
	return nil
}

// fail loses a random part of what was not synced, and tears one write.
func (d *disk) fail(rng *rand.Rand) {
	for _, w := range d.recent {
		switch rng.IntN(3) {
		case 0: // lost
		case 1: // torn
			w.b = w.b[:rng.IntN(len(w.b)+1)]
			d.stable = apply(d.stable, w)
		default:
			d.stable = apply(d.stable, w)
		}
	}
	d.recent = nil
}

// download runs until the image is complete or the power goes.
func download(s *Signed, g Geometry, file []byte, flash, journal Store) (offers int, err error) {
	c := ImageConfig{Flash: flash, Every: 3}
	if journal != nil {
		c.Journal = journal
	}
	im, err := OpenImage(s, c)
	if err != nil {
		return 0, err
	}
	v, err := NewVerifier(im, g, VerifierConfig{})
	if err != nil {
		return 0, err
	}
	for {
		want := v.Wanted(make([]Item, 0, 2), nil)
		if len(want) == 0 {
			return offers, im.Finish()
		}
		for _, it := range want {
			offers++
			if err := v.Offer(it, piece(file, nil, g, it)); err != nil {
				return offers, err
			}
		}
	}
}

// The power is cut at every single write and sync in turn, with all that a
// volatile cache may lose or tear; the download resumes and ends with the
// signed image, and never takes an unverified leaf for a verified one.
func TestPowerCutAtEveryWrite(t *testing.T) {
	image := noise(20_000)
	for _, c := range []struct {
		name   string
		leaf   uint8
		layout Layout
	}{
		{"many records", 6, Layout{Unit: 8, Page: 8}},
		{"one unit", 12, Layout{Unit: 12, Page: 12}},
	} {
		t.Run(c.name, func(t *testing.T) {
			image := image
			if c.leaf == 12 {
				image = image[:3000]
			}
			s := signed(t, image, c.leaf)
			file, g := cut(t, image, s, c.layout)
			total := 1 << 20
			for at := 0; at < total; at++ {
				rng := rand.New(rand.NewPCG(uint64(at), 9))
				p := &power{left: at}
				// The flash starts with something else in it.
				flash, journal := &disk{power: p, stable: noise(25_000)}, &disk{power: p}
				_, err := download(s, g, file, flash, journal)
				if err == nil {
					total = at // the whole download takes fewer writes
					break
				}
				if !errors.Is(err, errCut) {
					t.Fatalf("cut at write %d: %v", at, err)
				}
				flash.fail(rng)
				journal.fail(rng)
				p.left, p.off = 1<<30, false
				if _, err := download(s, g, file, flash, journal); err != nil {
					t.Fatalf("cut at write %d, resumed: %v", at, err)
				}
				if !bytes.Equal(flash.view()[:len(image)], image) {
					t.Fatalf("cut at write %d: the image differs", at)
				}
			}
			t.Logf("%d cuts", total)
		})
	}
}

// What was verified before a cut is not asked for again, even if the journal
// never heard of it: the flash is hashed.
func TestResumeAsksOnlyForWhatIsMissing(t *testing.T) {
	image := noise(64 << 10)
	s := signed(t, image, 8)
	file, g := cut(t, image, s, DefaultLayout)
	for name, spoil := range map[string]func(journal *memory){
		"journal whole":       func(*memory) {},
		"bitmap torn":         func(j *memory) { j.B[recordSize+7] ^= 0xff },
		"journal behind":      func(j *memory) { clear(j.B[recordSize : recordSize+recordBody]); reseal(j, 1) },
		"journal cut in half": func(j *memory) { j.B = j.B[:recordSize+10] },
	} {
		t.Run(name, func(t *testing.T) {
			flash, journal := &memory{}, &memory{}
			im, err := OpenImage(s, ImageConfig{Flash: flash, Journal: journal})
			if err != nil {
				t.Fatal(err)
			}
			v, err := NewVerifier(im, g, VerifierConfig{})
			if err != nil {
				t.Fatal(err)
			}
			for im.Verified() < 40<<10 {
				it := v.Wanted(make([]Item, 0, 1), nil)[0]
				if err := v.Offer(it, piece(file, image, g, it)); err != nil {
					t.Fatal(err)
				}
			}
			if err := im.Flush(); err != nil {
				t.Fatal(err)
			}
			spoil(journal)
			offers, err := download(s, g, file, flash, journal)
			if err != nil {
				t.Fatal(err)
			}
			if most := 24 + 3; offers > most { // units missing, and every page
				t.Fatalf("%d items asked for again, at most %d are needed", offers, most)
			}
		})
	}
}

func reseal(m *memory, k int) {
	j := &journal{store: m}
	copy(j.record[:], m.B[k*recordSize:])
	if err := j.put(k); err != nil {
		panic(err)
	}
}

// A journal of another manifest, even of the same image, is not resumed.
func TestResumeOnlyTheSameManifest(t *testing.T) {
	image := noise(10_000)
	s := signed(t, image, 8)
	m := s.Manifest()
	m.Sequence++
	a := author(t)
	b, err := Sign(nil, m, a)
	if err != nil {
		t.Fatal(err)
	}
	next, err := Open(b, a.Public())
	if err != nil {
		t.Fatal(err)
	}
	file, g := cut(t, image, s, DefaultLayout)
	flash, journal := &memory{}, &memory{}
	if _, err := download(s, g, file, flash, journal); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		s    *Signed
		want bool
	}{{s, true}, {next, false}} {
		im, err := OpenImage(c.s, ImageConfig{Flash: flash, Journal: journal})
		if err != nil {
			t.Fatal(err)
		}
		if im.Complete() != c.want {
			t.Fatalf("sequence %d: complete %v", c.s.Manifest().Sequence, im.Complete())
		}
	}
}

// Cells that change after they were verified are found at the end, and only
// they are asked for again.
func TestFinishFindsChangedCells(t *testing.T) {
	image := noise(64 << 10)
	s := signed(t, image, 8)
	file, g := cut(t, image, s, DefaultLayout)
	flash, journal := &memory{}, &memory{}
	im, err := OpenImage(s, ImageConfig{Flash: flash, Journal: journal})
	if err != nil {
		t.Fatal(err)
	}
	v, err := NewVerifier(im, g, VerifierConfig{})
	if err != nil {
		t.Fatal(err)
	}
	wantErr(t, im.Finish(), ErrIncomplete)
	drain(t, v, file, image)
	flash.B[5000] ^= 1
	wantErr(t, im.Finish(), ErrDigest)
	if offers := drain(t, v, file, image); offers > 3+1 {
		t.Fatalf("%d items asked for again; one unit had changed", offers)
	}
	if !bytes.Equal(flash.B, image) {
		t.Fatal("image differs")
	}
}

// faulty is a flash that does not keep what it is given.
type faulty struct {
	memory
	err  error
	lies bool
}

func (f *faulty) WriteAt(b []byte, off int64) (int, error) {
	if f.err != nil {
		return 0, f.err
	}
	n, err := f.memory.WriteAt(b, off)
	if f.lies {
		f.B[off] ^= 1
	}
	return n, err
}

func TestFlashFailures(t *testing.T) {
	image := noise(10_000)
	s := signed(t, image, 8)
	file, g := cut(t, image, s, DefaultLayout)
	for name, flash := range map[string]*faulty{"refuses": {err: errCut}, "lies": {lies: true}} {
		t.Run(name, func(t *testing.T) {
			_, err := download(s, g, file, flash, nil)
			wantErr(t, err, ErrFlash)
		})
	}
	_, err := OpenImage(s, ImageConfig{Flash: &memory{}, Journal: &faulty{err: errCut}})
	wantErr(t, err, ErrJournal)
	_, err = download(s, g, file, &memory{}, &faulty{err: errCut})
	wantErr(t, err, ErrJournal)
	if err := fmt.Errorf("%w", err); !errors.Is(err, errCut) {
		t.Fatal("the cause is lost")
	}
}
