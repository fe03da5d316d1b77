package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/oscorelay/oscorelay/fragment"
)

// stringList is a repeatable flag.
type stringList []string

func (l *stringList) String() string     { return strings.Join(*l, ",") }
func (l *stringList) Set(s string) error { *l = append(*l, s); return nil }

// fragmentSign signs an image.
func fragmentSign(_ context.Context, sio stdio, args []string) error {
	f := newFragmentFlags(sio, "sign", "IMAGE")
	keyPath := f.String("key", "", "author's private key: COSE_Key or PEM")
	seq := f.Uint64("seq", 0, "sequence number; a device takes only a higher one than it has")
	vendor := f.String("vendor", "", "vendor: a UUID, or a domain name that one is made of")
	class := f.String("class", "", "device class: a UUID, or a name that one is made of")
	name := f.String("name", "", "package name, shown as /5/0/6")
	version := f.String("version", "", "package version, shown as /5/0/7")
	leaf := f.String("leaf", "256", "tree leaf in bytes: the smallest unit anyone may cut; 64 for LPWAN")
	maxUnit := f.String("max-unit", "", "largest unit anyone may cut, in bytes (default: no cap)")
	expires := f.String("expires", "", "last day on which it may be installed, YYYY-MM-DD (default: never expires)")
	out := f.String("o", "", "manifest to write (default IMAGE.cose)")
	force := f.Bool("force", false, "overwrite an existing manifest")
	workers := f.Int("workers", runtime.NumCPU(), "parallel hashing")
	var devices stringList
	f.Var(&devices, "device", "only for this device id (text, or 0x and hex); repeatable")
	rest, err := f.parse(args, 1, 1)
	if err != nil {
		return err
	}
	switch {
	case *keyPath == "":
		return usagef("sign: -key is missing; make one with: oscore fragment keygen")
	case *seq == 0:
		return usagef("sign: -seq is missing: a number above the last release's, at least 1")
	}
	leafExp, err := exponent("leaf", *leaf)
	if err != nil {
		return err
	}
	m := fragment.Manifest{}
	if *maxUnit != "" {
		if m.MaxUnit, err = exponent("max-unit", *maxUnit); err != nil {
			return err
		}
	}
	if m.Vendor, m.Class, err = vendorClass(*vendor, *class); err != nil {
		return err
	}
	if *expires != "" {
		day, err := time.Parse(time.DateOnly, *expires)
		if err != nil {
			return usagef("-expires %s: write a day as 2027-12-31", *expires)
		}
		m.Expiry = uint64(day.Add(24*time.Hour - time.Second).Unix())
	}
	for _, d := range devices {
		id, err := deviceID(d)
		if err != nil {
			return err
		}
		m.Devices = append(m.Devices, id)
	}
	signer, err := readSigner(*keyPath)
	if err != nil {
		return err
	}
	image, err := openImage(rest[0])
	if err != nil {
		return err
	}
	defer image.Close()
	if *out == "" {
		*out = rest[0] + ".cose"
	}
	b := newBar(sio.err, "hashing", int64(image.size))
	d, err := fragment.Describe(image, image.size, leafExp, *workers, b.add)
	b.end()
	if err != nil {
		return fmt.Errorf("%s: %w", rest[0], err)
	}
	m.Sequence, m.Size, m.Leaf, m.Root, m.Digest = *seq, d.Size, d.Leaf, d.Root, d.Digest
	m.PkgName, m.PkgVersion = *name, *version
	sign1, err := fragment.Sign(rand.Reader, m, signer)
	if err != nil {
		return err
	}
	env, err := fragment.Parse(sign1)
	if err != nil {
		return err
	}
	if err := writeNew(*out, sign1, 0o644, *force); err != nil {
		return err
	}
	v := describe(env)
	v.File = *out
	return f.print(v, func(w io.Writer) {
		fmt.Fprintf(w, "%s: manifest of %s, sequence %d, signed by kid %s (%s)\n", *out, rest[0], m.Sequence, v.KID, v.Algorithm)
		fmt.Fprintf(w, "Next: oscore fragment cut -manifest %s %s\n", *out, rest[0])
	})
}

// deviceID reads an id given as text, or as 0x and hex.
func deviceID(s string) ([]byte, error) {
	if hexed, ok := strings.CutPrefix(s, "0x"); ok {
		b, err := hex.DecodeString(hexed)
		if err != nil {
			return nil, usagef("-device %s: not hex after 0x", s)
		}
		return b, nil
	}
	return []byte(s), nil
}

// fragmentCut cuts a signed image, or cuts a file anew.
func fragmentCut(_ context.Context, sio stdio, args []string) error {
	f := newFragmentFlags(sio, "cut", "IMAGE|FILE.lwf")
	manifest := f.String("manifest", "", "the image's manifest; not needed to cut a .lwf file anew")
	unit := f.String("unit", "1024", "unit in bytes: what a device verifies at once; 64 or 256 for LPWAN")
	page := f.String("page", "", "hash page in bytes (default: the unit, at least 256)")
	outboard := f.Bool("outboard", false, "pages in a file of their own (.lwo), beside the unchanged image (.img)")
	dir := f.String("o", ".", "directory to write to; the file's name pins manifest and layout")
	workers := f.Int("workers", runtime.NumCPU(), "parallel hashing")
	rest, err := f.parse(args, 1, 1)
	if err != nil {
		return err
	}
	var l fragment.Layout
	if l.Unit, err = exponent("unit", *unit); err != nil {
		return err
	}
	if *page == "" {
		*page = strconv.Itoa(1 << max(l.Unit, 8))
	}
	if l.Page, err = exponent("page", *page); err != nil {
		return err
	}
	l.Outboard = *outboard
	image, err := openImage(rest[0])
	if err != nil {
		return err
	}
	defer image.Close()
	source := io.ReaderAt(image)
	var env *fragment.Envelope
	if *manifest != "" {
		if env, err = readManifest(*manifest); err != nil {
			return err
		}
	} else {
		var g fragment.Geometry
		if env, g, err = readCut(rest[0], image.File); err != nil {
			return fmt.Errorf("%w (an image needs -manifest; make one with: oscore fragment sign)", err)
		}
		source = fragment.ImageReader(image, g)
	}
	name := env.Name(l)
	path := filepath.Join(*dir, name.String())
	if strings.HasPrefix(path, "-") {
		path = "./" + path // a name may begin like a flag
	}
	b := newBar(sio.err, "cutting", 2*int64(env.Manifest().Size))
	err = writeWhole(path, func(w io.Writer) error {
		return fragment.Cut(w, source, env, fragment.CutConfig{Layout: l, Workers: *workers, Progress: b.add})
	})
	b.end()
	if err != nil {
		if errors.Is(err, fragment.ErrImage) {
			return fmt.Errorf("%s: %w by %s", rest[0], err, *manifest)
		}
		return err
	}
	v := struct {
		File  string `json:"file"`
		Image string `json:"image,omitempty"`
		Name  string `json:"name"`
		Bytes int64  `json:"bytes"`
	}{File: path, Name: name.String()}
	if l.Outboard {
		v.Image = filepath.Join(*dir, name.Image())
		if err := writeWhole(v.Image, func(w io.Writer) error {
			_, err := io.Copy(w, io.NewSectionReader(source, 0, int64(env.Manifest().Size)))
			return err
		}); err != nil {
			return err
		}
	}
	if info, err := os.Stat(path); err == nil {
		v.Bytes = info.Size()
	}
	return f.print(v, func(w io.Writer) {
		fmt.Fprintln(w, path)
		if v.Image != "" {
			fmt.Fprintln(w, v.Image)
		}
	})
}

// writeWhole writes a file beside its place and puts it there when it is whole.
func writeWhole(path string, write func(io.Writer) error) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), ".cut-*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	if err := errors.Join(write(tmp), tmp.Chmod(0o644), tmp.Sync(), tmp.Close()); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), path)
}

func readManifest(path string) (*fragment.Envelope, error) {
	b, err := readStart(path)
	if err != nil {
		return nil, err
	}
	env, err := fragment.Parse(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return env, nil
}

// readStart reads as much of a file as a header can have, and one byte more.
func readStart(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, fragment.MaxHeader+1))
}

// readCut reads a cut file's header.
func readCut(path string, file io.ReaderAt) (*fragment.Envelope, fragment.Geometry, error) {
	b, err := io.ReadAll(io.NewSectionReader(file, 0, fragment.MaxHeader))
	if err != nil {
		return nil, fragment.Geometry{}, err
	}
	h, err := fragment.ParseHeader(b)
	if err != nil {
		return nil, fragment.Geometry{}, fmt.Errorf("%s: %w", path, err)
	}
	env, err := fragment.Parse(h.Sign1)
	if err != nil {
		return nil, fragment.Geometry{}, fmt.Errorf("%s: %w", path, err)
	}
	g, err := env.Geometry(h.Layout, h.Base)
	if err != nil {
		return nil, fragment.Geometry{}, fmt.Errorf("%s: %w", path, err)
	}
	return env, g, nil
}
