package fragment

import (
	"bytes"
	"strings"
	"testing"
)

func TestHeaderRoundTrip(t *testing.T) {
	s := signed(t, noise(5000), 6)
	for _, h := range []Header{
		{Layout: Layout{Unit: 6, Page: 6}},
		{Layout: Layout{Unit: 12, Page: 12}},
		{Layout: Layout{Unit: 8, Page: 10, Outboard: true}},
		{Layout: DefaultLayout, Mirrors: []string{"coap://a/x.lwf"}},
		{Layout: DefaultLayout, Mirrors: []string{strings.Repeat("a", 255), strings.Repeat("b", 255), strings.Repeat("c", 255), strings.Repeat("d", 23)}},
	} {
		h.Sign1 = s.Bytes()
		b, err := h.Append(nil)
		if err != nil {
			t.Fatal(err)
		}
		h.Base = uint32(len(b))
		if len(b)%h.Block() != 0 {
			t.Fatalf("%d bytes are no multiple of %d", len(b), h.Block())
		}
		got, err := ParseHeader(append(bytes.Clone(b), "items follow"...))
		if err != nil {
			t.Fatal(err)
		}
		if got.Layout != h.Layout || !bytes.Equal(got.Sign1, h.Sign1) || got.Base != h.Base || strings.Join(got.Mirrors, " ") != strings.Join(h.Mirrors, " ") {
			t.Fatalf("%+v, want %+v", got, h)
		}
		if h.Mirrors == nil && s.Name(h.Layout).headerSize(s.Bytes()) != h.Base {
			t.Fatal("a pinned header's size does not follow from its name")
		}
		// Cut anywhere it is refused, and never sooner than it must be.
		for n := range len(b) {
			if size, err := HeaderSize(b[:n]); err != nil || size != 0 && size != len(b) {
				t.Fatalf("the first %d bytes: size %d, error %v", n, size, err)
			}
			if _, err := ParseHeader(b[:n]); err == nil {
				t.Fatalf("accepted when cut at %d of %d", n, len(b))
			}
		}
	}
}

func TestHeaderRefuses(t *testing.T) {
	s := signed(t, noise(5000), 6)
	good, err := Header{Layout: DefaultLayout, Sign1: s.Bytes()}.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	change := func(at int, b ...byte) []byte {
		c := bytes.Clone(good)
		copy(c[at:], b)
		return c
	}
	for name, b := range map[string][]byte{
		"empty":              nil,
		"other tag":          change(4, '2'),
		"array of 2":         change(5, 0x82),
		"unit 5":             change(6, 5),
		"unit 13":            change(6, 13),
		"page 5":             change(7, 5),
		"mode 2":             change(8, 2),
		"unit as text":       change(6, 0x60),
		"long integer":       change(5, 0x83, 0x18, 10, 10, 0),
		"no COSE_Sign1":      change(9, 0xd3),
		"no array":           change(10, 0x83),
		"protected no bytes": change(11, 0x60),
		"padding not zero":   change(len(good)-1, 1),
		"five mirrors":       change(5, 0x84, 10, 10, 0, 0x85),
		"no mirrors":         change(5, 0x84, 10, 10, 0, 0x80),
		"mirror no text":     change(5, 0x84, 10, 10, 0, 0x81, 0x41, 'x'),
		"indefinite":         change(5, 0x9f),
		"indefinite bytes":   change(11, 0x5f),
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ParseHeader(b)
			wantErr(t, err, ErrHeader)
		})
	}
	_, err = Header{Layout: DefaultLayout, Sign1: make([]byte, MaxHeader)}.Append(nil)
	wantErr(t, err, ErrHeader)
	_, err = Header{Layout: DefaultLayout, Sign1: s.Bytes(), Mirrors: make([]string, 5)}.Append(nil)
	wantErr(t, err, ErrHeader)
}

func TestName(t *testing.T) {
	s := signed(t, noise(5000), 6)
	for _, l := range []Layout{DefaultLayout, {Unit: 6, Page: 12}, {Unit: 12, Page: 6, Outboard: true}} {
		n := s.Name(l)
		got, err := ParseName(n.String())
		if err != nil || got != n {
			t.Fatalf("%v: %+v, %v", n, got, err)
		}
		if !n.Pins(s.Bytes()) || n.Pins(s.Bytes()[1:]) {
			t.Fatal("the name pins the wrong manifest")
		}
	}
	hash := strings.Split(s.Name(DefaultLayout).String(), ".")[0]
	for name, segment := range map[string]string{
		"empty":        "",
		"plain":        "firmware.bin",
		"no layout":    hash + ".lwf",
		"unit 5":       hash + ".5.10.lwf",
		"page 13":      hash + ".10.13.lwf",
		"leading zero": hash + ".010.10.lwf",
		"plus":         hash + ".+10.10.lwf",
		"short hash":   hash[1:] + ".10.10.lwf",
		"padded":       hash + "=.10.10.lwf",
		"loose bits":   hash[:42] + string(hash[42]+1) + ".10.10.lwf",
		"other ending": hash + ".10.10.bin",
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ParseName(segment)
			wantErr(t, err, ErrName)
		})
	}
	other := signed(t, noise(5001), 6)
	_, err := other.Pinned(s.Name(DefaultLayout))
	wantErr(t, err, ErrName)
}

func TestReceiver(t *testing.T) {
	image := noise(30_000)
	s := signed(t, image, 6)
	file, g := cut(t, image, s, Layout{Unit: 8, Page: 8})
	var flash *guarded
	receiver := func() *Receiver {
		return NewReceiver(func(h Header) (*Verifier, error) {
			opened, err := Open(h.Sign1, author(t).Public())
			if err != nil {
				return nil, err
			}
			geo, err := opened.Geometry(h.Layout, h.Base)
			if err != nil {
				return nil, err
			}
			var v *Verifier
			v, flash = open(t, image, opened, geo, VerifierConfig{})
			return v, nil
		})
	}
	for _, step := range []int{1, 16, 64, 100, 256, 1024, len(file)} {
		r := receiver()
		for !r.Complete() {
			at := int(r.Offset())
			part := file[at:min(at+step, len(file))]
			if step <= 256 && at >= int(g.base) {
				// A forged piece first. Where it completes an item the receiver
				// stands before that item again; elsewhere the item is begun
				// with it, and fails when it is whole.
				bad := bytes.Clone(part)
				bad[0] ^= 1
				if n, err := r.Write(bad); err != nil {
					wantErr(t, err, ErrForged)
					if it, within, _ := g.Find(r.Offset()); within != 0 || r.Offset() > int64(at) || n > len(bad) {
						t.Fatalf("after a forged piece at %d it stands at %d, in %v", at, r.Offset(), it)
					}
				}
				for r.Offset()%256 != 0 {
					next := r.Offset()
					if _, err := r.Write(file[next : next+1]); err != nil {
						wantErr(t, err, ErrForged)
						break
					}
				}
				at = int(r.Offset())
				it, within, ok := g.Find(int64(at))
				if !ok {
					continue
				}
				if within != 0 {
					t.Fatalf("it stands inside %v", it)
				}
				part = file[at : at+g.Len(it)]
			}
			if _, err := r.Write(part); err != nil {
				t.Fatalf("at %d: %v", at, err)
			}
		}
		if !bytes.Equal(flash.B, image) {
			t.Fatalf("steps of %d: the image differs", step)
		}
		if err := r.Verifier().Image().Finish(); err != nil {
			t.Fatal(err)
		}
		if _, err := r.Write([]byte{0}); err == nil {
			t.Fatal("a byte after the end was taken")
		}
	}
	// No header within the limit.
	r := NewReceiver(nil)
	_, err := r.Write(append(append([]byte{}, infoTag[:]...), append([]byte{0x83, 10, 10, 0, 0xd2, 0x84, 0x59, 0x07, 0xf0}, make([]byte, 4000)...)...))
	wantErr(t, err, ErrHeader)
	outboard, _ := cut(t, image, s, Layout{Unit: 8, Page: 8, Outboard: true})
	_, err = NewReceiver(nil).Write(outboard)
	wantErr(t, err, ErrHeader)
}

func FuzzParseHeader(f *testing.F) {
	s := signed(f, noise(500), 6)
	for _, h := range []Header{
		{Layout: DefaultLayout, Sign1: s.Bytes()},
		{Layout: Layout{Unit: 6, Page: 7, Outboard: true}, Sign1: s.Bytes(), Mirrors: []string{"coap://a/b", "coap://c"}},
	} {
		b, err := h.Append(nil)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := ParseHeader(b)
		if err != nil {
			return
		}
		again, err := h.Append(nil)
		if err != nil {
			t.Fatalf("a parsed header does not encode: %v", err)
		}
		if !bytes.Equal(again, b[:h.Base]) {
			t.Fatalf("%x encodes to %x", b[:h.Base], again)
		}
	})
}

func FuzzParse(f *testing.F) {
	s := signed(f, noise(500), 6)
	f.Add(s.Bytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := Parse(b)
		if err != nil {
			return
		}
		m := e.Manifest()
		payload, err := m.marshal()
		if err != nil {
			t.Fatalf("a parsed manifest does not encode: %v", err)
		}
		again, err := parseManifest(payload)
		if err != nil {
			t.Fatal(err)
		}
		if again.Size != m.Size || again.Root != m.Root {
			t.Fatal("the manifest changes on its way")
		}
	})
}

func FuzzParsePublicKey(f *testing.F) {
	b, err := author(f).Public().AppendCOSEKey(nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		k, err := ParsePublicKey(b)
		if err != nil {
			return
		}
		again, err := k.AppendCOSEKey(nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ParsePublicKey(again); err != nil {
			t.Fatal(err)
		}
	})
}

func FuzzName(f *testing.F) {
	f.Add(signed(f, noise(500), 6).Name(DefaultLayout).String())
	f.Fuzz(func(t *testing.T, s string) {
		if n, err := ParseName(s); err == nil && n.String() != s {
			t.Fatalf("%q parses as %q", s, n)
		}
	})
}
