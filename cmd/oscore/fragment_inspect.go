package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/oscorelay/oscorelay/fragment"
)

// manifestView is a manifest for people and scripts.
type manifestView struct {
	File       string      `json:"file"`
	Algorithm  string      `json:"algorithm"`
	KID        string      `json:"kid"`
	Hash       string      `json:"manifest_sha256"`
	Sequence   uint64      `json:"sequence"`
	Size       uint32      `json:"size"`
	Leaf       int         `json:"leaf"`
	Root       string      `json:"root"`
	DigestAlg  string      `json:"digest_algorithm"`
	Digest     string      `json:"digest"`
	Vendor     string      `json:"vendor"`
	Class      string      `json:"class"`
	Devices    []string    `json:"devices,omitempty"`
	PkgName    string      `json:"pkg_name,omitempty"`
	PkgVersion string      `json:"pkg_version,omitempty"`
	Type       uint8       `json:"type"`
	MaxUnit    int         `json:"max_unit,omitempty"`
	Expires    string      `json:"expires,omitempty"`
	Layout     *layoutView `json:"layout,omitempty"`
	Verified   bool        `json:"verified"`
}

// layoutView is a cut file's layout.
type layoutView struct {
	Unit     int      `json:"unit"`
	Page     int      `json:"page"`
	Outboard bool     `json:"outboard"`
	Mirrors  []string `json:"mirrors,omitempty"`
	Header   uint32   `json:"header_bytes"`
	Units    uint32   `json:"units"`
	Depth    uint8    `json:"depth"`
	Bytes    int64    `json:"file_bytes"`
	Memory   int      `json:"device_memory_bytes"`
	Name     string   `json:"pinned_name"`
}

func describe(env *fragment.Envelope) manifestView {
	m := env.Manifest()
	alg, kid := env.Signer()
	hash := env.Hash()
	v := manifestView{
		Algorithm: alg.String(), KID: hex.EncodeToString(kid), Hash: hex.EncodeToString(hash[:]),
		Sequence: m.Sequence, Size: m.Size, Leaf: 1 << m.Leaf, Root: hex.EncodeToString(m.Root[:]),
		DigestAlg: m.Digest.Alg.String(), Digest: hex.EncodeToString(m.Digest.Value),
		Vendor: uuidText(m.Vendor), Class: uuidText(m.Class),
		PkgName: m.PkgName, PkgVersion: m.PkgVersion, Type: uint8(m.Type),
	}
	for _, d := range m.Devices {
		v.Devices = append(v.Devices, "0x"+hex.EncodeToString(d))
	}
	if m.MaxUnit != 0 {
		v.MaxUnit = 1 << m.MaxUnit
	}
	if m.Expiry != 0 {
		v.Expires = time.Unix(int64(m.Expiry), 0).UTC().Format(time.RFC3339)
	}
	return v
}

func (v *manifestView) lay(env *fragment.Envelope, h fragment.Header) error {
	g, err := env.Geometry(h.Layout, h.Base)
	if err != nil {
		return err
	}
	v.Layout = &layoutView{
		Unit: 1 << h.Unit, Page: 1 << h.Page, Outboard: h.Outboard, Mirrors: h.Mirrors, Header: h.Base,
		Units: g.Units(), Depth: g.Depth(), Bytes: g.FileSize(),
		Memory: int(g.Depth())<<h.Page + 1<<h.Unit, Name: env.Name(h.Layout).String(),
	}
	return nil
}

func (v *manifestView) text(w io.Writer) {
	line := func(name string, value any) { fmt.Fprintf(w, "%-10s %v\n", name, value) }
	line("file", v.File)
	state := "not verified (oscore fragment verify does)"
	if v.Verified {
		state = "verified"
	}
	line("signature", fmt.Sprintf("%s, kid %s, %s", v.Algorithm, v.KID, state))
	line("manifest", "SHA-256 "+v.Hash)
	line("sequence", v.Sequence)
	line("image", fmt.Sprintf("%d bytes, %s %s", v.Size, v.DigestAlg, v.Digest))
	line("tree", fmt.Sprintf("leaves of %d bytes, root %s", v.Leaf, v.Root))
	line("vendor", v.Vendor)
	line("class", v.Class)
	if len(v.Devices) > 0 {
		line("devices", strings.Join(v.Devices, " "))
	}
	if v.PkgName != "" || v.PkgVersion != "" {
		line("package", strings.TrimSpace(v.PkgName+" "+v.PkgVersion))
	}
	if v.MaxUnit != 0 {
		line("max unit", v.MaxUnit)
	}
	if v.Expires != "" {
		line("expires", v.Expires)
	}
	if l := v.Layout; l != nil {
		kind := "combined"
		if l.Outboard {
			kind = "outboard"
		}
		line("layout", fmt.Sprintf("%s, %d units of %d bytes, pages of %d bytes in %d levels, header %d bytes (not signed)", kind, l.Units, l.Unit, l.Page, l.Depth, l.Header))
		line("file size", fmt.Sprintf("%d bytes", l.Bytes))
		line("device", fmt.Sprintf("holds %d bytes: a page of each level and a unit", l.Memory))
		line("name", l.Name)
		if len(l.Mirrors) > 0 {
			line("mirrors", strings.Join(l.Mirrors, " ")+" (not signed)")
		}
	}
}

// fragmentInspect shows a manifest or a cut file.
func fragmentInspect(_ context.Context, sio stdio, args []string) error {
	f := newFragmentFlags(sio, "inspect", "FILE")
	rest, err := f.parse(args, 1, 1)
	if err != nil {
		return err
	}
	v, _, err := inspect(rest[0])
	if err != nil {
		return err
	}
	return f.print(v, v.text)
}

// inspect reads a manifest's file or a cut file.
func inspect(path string) (manifestView, *fragment.Envelope, error) {
	b, err := readStart(path)
	if err != nil {
		return manifestView{}, nil, err
	}
	h, herr := fragment.ParseHeader(b)
	sign1 := h.Sign1
	if herr != nil {
		sign1 = b
	}
	env, err := fragment.Parse(sign1)
	switch {
	case err != nil && herr != nil && bytes.HasPrefix(b, []byte{0xd2}):
		return manifestView{}, nil, fmt.Errorf("%s: %w", path, err)
	case err != nil && herr != nil:
		return manifestView{}, nil, fmt.Errorf("%s: neither a manifest (.cose) nor a cut file (.lwf, .lwo): %w", path, herr)
	case err != nil:
		return manifestView{}, nil, fmt.Errorf("%s: %w", path, err)
	}
	v := describe(env)
	v.File = path
	if herr == nil {
		if err := v.lay(env, h); err != nil {
			return v, nil, fmt.Errorf("%s: %w", path, err)
		}
	}
	return v, env, nil
}

// fragmentVerify verifies a cut file as a device does, and can write the image.
func fragmentVerify(ctx context.Context, sio stdio, args []string) error {
	f := newFragmentFlags(sio, "verify", "FILE.lwf|FILE.lwo")
	var keys keyFiles
	f.Var(&keys, "key", "trusted author's public key: COSE_Key or PEM; repeatable")
	imagePath := f.String("image", "", "the image of a .lwo file (default: the .img beside it)")
	out := f.String("o", "", "write the verified image here")
	rest, err := f.parse(args, 1, 1)
	if err != nil {
		return err
	}
	if len(keys) == 0 {
		return usagef("verify: -key is missing: the author's public key")
	}
	v, _, err := inspect(rest[0])
	if err != nil {
		return err
	}
	if v.Layout == nil {
		return fmt.Errorf("%s: a manifest alone; verify needs a cut file, made by: oscore fragment cut", rest[0])
	}
	file, err := os.Open(rest[0])
	if err != nil {
		return err
	}
	defer file.Close()
	b, err := readStart(rest[0])
	if err != nil {
		return err
	}
	h, err := fragment.ParseHeader(b)
	if err != nil {
		return fmt.Errorf("%s: %w", rest[0], err)
	}
	s, err := fragment.Open(h.Sign1, keys...)
	if err != nil {
		return fmt.Errorf("%s: %w", rest[0], err)
	}
	if name, err := fragment.ParseName(filepath.Base(rest[0])); err == nil && (!name.Pins(h.Sign1) || name.Layout != h.Layout) {
		return fmt.Errorf("%s: %w: the name is another file's", rest[0], fragment.ErrName)
	}
	g, err := s.Geometry(h.Layout, h.Base)
	if err != nil {
		return fmt.Errorf("%s: %w", rest[0], err)
	}
	if info, err := file.Stat(); err == nil && info.Size() != g.FileSize() {
		return fmt.Errorf("%s: %d bytes; the manifest and the layout make it %d", rest[0], info.Size(), g.FileSize())
	}
	data := file
	if h.Outboard {
		if *imagePath == "" {
			*imagePath = filepath.Join(filepath.Dir(rest[0]), s.Name(h.Layout).Image())
		}
		if data, err = os.Open(*imagePath); err != nil {
			return err
		}
		defer data.Close()
	}
	flash, done, err := scratch(*out)
	if err != nil {
		return err
	}
	defer done()
	im, err := fragment.OpenImage(s, fragment.ImageConfig{Flash: flash, Every: 1 << 30})
	if err != nil {
		return err
	}
	verifier, err := fragment.NewVerifier(im, g, fragment.VerifierConfig{})
	if err != nil {
		return err
	}
	progress := newBar(sio.err, "verifying", int64(g.Size()))
	buf := make([]byte, 1<<fragment.MaxExponent)
	for it := range g.Walk {
		if err := ctx.Err(); err != nil {
			return err
		}
		from := file
		if it.Level == 0 {
			from = data
		}
		part, offset := buf[:g.Len(it)], g.Offset(it)
		if n, err := from.ReadAt(part, offset); n != len(part) {
			return fmt.Errorf("%s: cut short: %v should end at byte %d: %w", from.Name(), it, offset+int64(len(part)), err)
		}
		if err := verifier.Offer(it, part); err != nil {
			if errors.Is(err, fragment.ErrForged) {
				return fmt.Errorf("%s: bytes %d to %d (%v): %w", from.Name(), offset, offset+int64(len(part))-1, it, err)
			}
			return err
		}
		if it.Level == 0 {
			progress.add(len(part))
		}
	}
	progress.end()
	if err := im.Finish(); err != nil {
		return fmt.Errorf("%s: %w", rest[0], err)
	}
	if *out != "" {
		if err := os.Rename(flash.Name(), *out); err != nil {
			return err
		}
	}
	v.Verified = true
	return f.print(v, func(w io.Writer) {
		fmt.Fprintf(w, "%s: every block verifies; signed by kid %s, sequence %d\n", rest[0], v.KID, v.Sequence)
		if *out != "" {
			fmt.Fprintf(w, "%s: the image, %d bytes\n", *out, v.Size)
		}
	})
}

// scratch returns a file for the image, beside its place if it is kept.
func scratch(out string) (f *os.File, done func(), err error) {
	dir := ""
	if out != "" {
		dir = filepath.Dir(out)
	}
	if f, err = os.CreateTemp(dir, ".image-*"); err != nil {
		return nil, nil, err
	}
	return f, func() { _ = f.Close(); _ = os.Remove(f.Name()) }, nil
}
