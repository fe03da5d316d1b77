package fragment

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"runtime"
	"testing"

	"pgregory.net/rapid"
)

// Any order of arrival gives the same image: items that come before their page
// are refused as early and come again.
func TestAnyArrivalOrderGivesTheSameImage(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		g0 := anyGeometry(rt, 40_000)
		image := noise(int(g0.Size()))
		s := signed(t, image, g0.leaf)
		file, g := cut(t, image, s, g0.Layout)
		v, flash := open(t, image, s, g, VerifierConfig{Pages: rapid.IntRange(0, 3).Draw(rt, "pages")})
		var items []Item
		g.Walk(func(it Item) bool { items = append(items, it); return true })
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(rt, "seed"), 1))
		for round := 0; !v.image.Complete(); round++ {
			// Every round brings everything again in another order; a page that
			// was evicted in between comes again with it.
			if round > 64*len(items) {
				t.Fatal("no progress")
			}
			rng.Shuffle(len(items), func(i, j int) { items[i], items[j] = items[j], items[i] })
			for _, it := range items {
				err := v.Offer(it, piece(file, image, g, it))
				if err != nil && err != ErrEarly {
					t.Fatalf("%v: %v", it, err)
				}
			}
		}
		if err := v.image.Finish(); err != nil || !bytes.Equal(flash.B, image) {
			t.Fatalf("image differs: %v", err)
		}
	})
}

// Combined and outboard files, and files of all layouts, give the same image
// under one signature, and re-cutting needs no key.
func TestEveryLayoutGivesTheSameImage(t *testing.T) {
	image := noise(70_001)
	s := signed(t, image, 6)
	for _, l := range []Layout{
		{Unit: 6, Page: 6},
		{Unit: 6, Page: 10},
		{Unit: 8, Page: 8},
		{Unit: 8, Page: 10},
		{Unit: 10, Page: 10},
		{Unit: 12, Page: 6},
		{Unit: 12, Page: 12},
		{Unit: 6, Page: 6, Outboard: true},
		{Unit: 8, Page: 10, Outboard: true},
		{Unit: 10, Page: 10, Outboard: true},
	} {
		t.Run(fmt.Sprintf("%+v", l), func(t *testing.T) {
			file, g := cut(t, image, s, l)
			if int64(len(file)) != g.FileSize() {
				t.Fatalf("file of %d bytes, want %d", len(file), g.FileSize())
			}
			v, flash := open(t, image, s, g, VerifierConfig{})
			offers := drain(t, v, file, image)
			if !bytes.Equal(flash.B, image) {
				t.Fatal("image differs")
			}
			items := 0
			g.Walk(func(Item) bool { items++; return true })
			if offers != items {
				t.Fatalf("%d items asked for, the file has %d", offers, items)
			}
			// Re-cut from the file alone.
			var again bytes.Buffer
			env, err := Parse(s.Bytes())
			if err != nil {
				t.Fatal(err)
			}
			source := ImageReader(bytes.NewReader(file), g)
			if l.Outboard {
				source = bytes.NewReader(image)
			}
			if err := Cut(&again, source, env, CutConfig{Layout: DefaultLayout}); err != nil {
				t.Fatal(err)
			}
			if want, _ := cut(t, image, s, DefaultLayout); !bytes.Equal(again.Bytes(), want) {
				t.Fatal("the re-cut file differs from one cut from the image")
			}
		})
	}
}

func TestCutRefusesAnotherImage(t *testing.T) {
	image := noise(5000)
	s := signed(t, image, 8)
	other := bytes.Clone(image)
	other[4999] ^= 1
	var out bytes.Buffer
	wantErr(t, Cut(&out, bytes.NewReader(other), s.Envelope(), CutConfig{}), ErrImage)
	if out.Len() != 0 {
		t.Fatal("something was written")
	}
	if err := Cut(&out, bytes.NewReader(image[:4999]), s.Envelope(), CutConfig{}); err == nil {
		t.Fatal("a short image was cut")
	}
}

func TestVerifierRefuses(t *testing.T) {
	image := noise(5000)
	s := signed(t, image, 6)
	l := Layout{Unit: 6, Page: 7}
	file, g := cut(t, image, s, l)
	v, _ := open(t, image, s, g, VerifierConfig{})
	top := Item{g.Depth(), 0}
	wantErr(t, v.Offer(Item{0, 0}, piece(file, image, g, Item{0, 0})), ErrEarly)
	wantErr(t, v.Offer(Item{g.Depth() - 1, 0}, piece(file, image, g, Item{g.Depth() - 1, 0})), ErrEarly)
	wantErr(t, v.Offer(Item{0, g.Units()}, nil), ErrGeometry)
	wantErr(t, v.Offer(Item{g.Depth() + 1, 0}, nil), ErrGeometry)
	wantErr(t, v.Offer(top, piece(file, image, g, top)[:127]), ErrForged)
	wantErr(t, v.Offer(top, nil), ErrForged)
	// A genuine item in another's place.
	if err := v.Offer(top, piece(file, image, g, top)); err != nil {
		t.Fatal(err)
	}
	wantErr(t, v.Offer(Item{g.Depth() - 1, 1}, piece(file, image, g, Item{g.Depth() - 1, 0})), ErrForged)
	// Padding is part of a page.
	padded := bytes.Clone(piece(file, image, g, top))
	if n := g.entries(top) * 32; n < len(padded) {
		padded[n] = 1
		fresh, _ := open(t, image, s, g, VerifierConfig{})
		wantErr(t, fresh.Offer(top, padded), ErrForged)
	} else {
		t.Fatal("the case needs a page that is not full")
	}
	// A geometry of another image.
	other, err := NewGeometry(l, 4999, 6, g.base)
	if err != nil {
		t.Fatal(err)
	}
	_, err = NewVerifier(v.image, other, VerifierConfig{})
	wantErr(t, err, ErrGeometry)
}

func TestUnitCapIsObeyed(t *testing.T) {
	m := signed(t, noise(5000), 6).Manifest()
	m.MaxUnit = 8
	a := author(t)
	b, err := Sign(nil, m, a)
	if err != nil {
		t.Fatal(err)
	}
	s, err := Open(b, a.Public())
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.Pinned(s.Name(Layout{Unit: 9, Page: 9}))
	wantErr(t, err, ErrGeometry)
	if _, err = s.Pinned(s.Name(Layout{Unit: 8, Page: 9})); err != nil {
		t.Fatal(err)
	}
}

// No child is asked for before its parent has been verified, whatever the
// window and however many pages are held, and nothing is asked for twice.
func TestWantedNeverNamesAChildBeforeItsParent(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		g0 := anyGeometry(rt, 30_000)
		image := noise(int(g0.Size()))
		s := signed(t, image, g0.leaf)
		file, g := cut(t, image, s, g0.Layout)
		v, _ := open(t, image, s, g, VerifierConfig{Pages: rapid.IntRange(1, 4).Draw(rt, "pages")})
		window := rapid.IntRange(1, 4).Draw(rt, "window")
		var flight []Item
		for steps := 0; !v.image.Complete(); steps++ {
			free := window - len(flight)
			for _, it := range v.Wanted(make([]Item, 0, free), flight) {
				if parent, ok := g.Parent(it); ok && v.find(parent) == nil {
					rt.Fatalf("%v wanted before its parent", it)
				}
				if v.Holds(it) {
					rt.Fatalf("%v wanted and held", it)
				}
				flight = append(flight, it)
			}
			if len(flight) == 0 {
				rt.Fatal("nothing wanted, nothing in flight, not complete")
			}
			i := rapid.IntRange(0, len(flight)-1).Draw(rt, "arrives")
			it := flight[i]
			flight = append(flight[:i], flight[i+1:]...)
			if err := v.Offer(it, piece(file, image, g, it)); err != nil && err != ErrEarly {
				rt.Fatal(err)
			}
		}
	})
}

// Two mirrors of different layouts fill one image.
func TestTwoLayoutsShareOneImage(t *testing.T) {
	image := noise(50_000)
	s := signed(t, image, 6)
	fileA, a := cut(t, image, s, Layout{Unit: 6, Page: 8})
	fileB, b := cut(t, image, s, Layout{Unit: 10, Page: 10})
	va, flash := open(t, image, s, a, VerifierConfig{})
	vb, err := NewVerifier(va.image, b, VerifierConfig{})
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; ; i++ {
		v, file := va, fileA
		if i%3 == 2 {
			v, file = vb, fileB
		}
		want := v.Wanted(make([]Item, 0, 1), nil)
		if len(want) == 0 {
			break
		}
		if err := v.Offer(want[0], piece(file, image, v.geo, want[0])); err != nil {
			t.Fatal(err)
		}
	}
	if err := va.image.Finish(); err != nil || !bytes.Equal(flash.B, image) {
		t.Fatalf("image differs: %v", err)
	}
}

// A verifier allocates nothing for a page or a unit, genuine or forged.
func TestNoAllocationAPage(t *testing.T) {
	image := noise(300_000)
	s := signed(t, image, 8)
	file, g := cut(t, image, s, Layout{Unit: 10, Page: 10})
	im, err := OpenImage(s, ImageConfig{Flash: &memory{B: make([]byte, len(image))}, Journal: &memory{B: make([]byte, 1<<14)}})
	if err != nil {
		t.Fatal(err)
	}
	v, err := NewVerifier(im, g, VerifierConfig{})
	if err != nil {
		t.Fatal(err)
	}
	forged := noise(1024)
	dst := make([]Item, 0, 4)
	if n := testing.AllocsPerRun(1, func() {
		im.forget()
		for {
			want := v.Wanted(dst, nil)
			if len(want) == 0 {
				break
			}
			for _, it := range want {
				if err := v.Offer(it, forged[:g.Len(it)]); err != ErrForged {
					t.Fatal(err)
				}
				if err := v.Offer(it, piece(file, image, g, it)); err != nil {
					t.Fatal(err)
				}
			}
		}
	}); n != 0 {
		t.Fatalf("%v allocations for a whole image", n)
	}
}

// Headers and manifests that lie about sizes cost nothing before they are
// refused, and a genuine manifest of the largest image costs nothing until an
// image is opened.
func TestBombsAreRefusedBeforeAllocation(t *testing.T) {
	a := author(t)
	m := signed(t, noise(10), 6).Manifest()
	m.Size = 1<<32 - 1
	b, err := Sign(nil, m, a)
	if err != nil {
		t.Fatal(err)
	}
	s, err := Open(b, a.Public())
	if err != nil {
		t.Fatal(err)
	}
	wantErr(t, Policy{Vendor: m.Vendor, Class: m.Class, Flash: 1 << 20}.Check(s), ErrTooLarge)
	huge := append(infoTag[:], make([]byte, 64<<10)...)
	copy(huge[5:], []byte{0x83, 10, 10, 0, 0xd2, 0x84, 0x59, 0x07, 0xff})
	for name, run := range map[string]func() error{
		"64 KiB header": func() error { _, err := ParseHeader(huge); return err },
		"announced 64 KiB": func() error {
			_, err := ParseHeader(append(infoTag[:], 0x83, 10, 10, 0, 0xd2, 0x84, 0x59, 0xff, 0xff))
			return err
		},
		"announced 4 GiB": func() error {
			_, err := ParseHeader(append(infoTag[:], 0x83, 10, 10, 0, 0xd2, 0x84, 0x5a, 0xff, 0xff, 0xff, 0xff))
			return err
		},
		"deep nesting":         func() error { _, err := Open(append([]byte{0xd2}, bytes.Repeat([]byte{0x84}, 2000)...)); return err },
		"unit below leaf":      func() error { _, err := s.Geometry(Layout{Unit: 5, Page: 10}, 0); return err },
		"largest, small units": func() error { _, err := s.Geometry(Layout{Unit: 6, Page: 6}, 0); return nilIs(err, ErrGeometry) },
	} {
		t.Run(name, func(t *testing.T) {
			var got error
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			for range 100 {
				got = run()
			}
			runtime.ReadMemStats(&after)
			if got == nil {
				t.Fatal("accepted")
			}
			if each := (after.TotalAlloc - before.TotalAlloc) / 100; each > 8<<10 {
				t.Fatalf("%d bytes allocated to refuse it", each)
			}
		})
	}
}

// nilIs turns success into the given error: the case only counts allocations.
func nilIs(err, want error) error {
	if err == nil {
		return want
	}
	return err
}
