package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// runFragment is the author's, the cutter's and the device's tool for firmware
// whose every block can be verified (docs/LWF.md).
func runFragment(ctx context.Context, io stdio, args []string) error {
	verbs := []struct {
		name, summary string
		run           func(context.Context, stdio, []string) error
	}{
		{"keygen", "make an author's key pair", fragmentKeygen},
		{"sign", "sign an image: writes its manifest", fragmentSign},
		{"cut", "cut a signed image for a network; needs no key", fragmentCut},
		{"inspect", "show a manifest or a cut file", fragmentInspect},
		{"verify", "verify a cut file, every block of it", fragmentVerify},
		{"serve", "serve cut files over plain CoAP", fragmentServe},
		{"fetch", "download from untrusted mirrors, verifying every block", fragmentFetch},
	}
	if len(args) > 0 {
		for _, v := range verbs {
			if v.name == args[0] {
				return v.run(ctx, io, args[1:])
			}
		}
		if args[0] != "-h" && args[0] != "--help" && args[0] != "help" {
			return usagef("unknown verb %q; there are keygen, sign, cut, inspect, verify, serve and fetch", args[0])
		}
	}
	fmt.Fprintln(io.out, "Usage: oscore fragment <verb> [flags] [arguments]")
	fmt.Fprintln(io.out)
	for _, v := range verbs {
		fmt.Fprintf(io.out, "  %-8s %s\n", v.name, v.summary)
	}
	fmt.Fprintln(io.out, "\n'oscore fragment <verb> -h' shows a verb's flags. All take --json.")
	if len(args) == 0 {
		return usagef("a verb is missing")
	}
	return nil
}

// fragmentFlags is a verb's flag set; flags may stand after arguments.
type fragmentFlags struct {
	*flag.FlagSet
	json bool
	io   stdio
}

func newFragmentFlags(io stdio, verb, arguments string) *fragmentFlags {
	f := &fragmentFlags{FlagSet: flag.NewFlagSet(verb, flag.ContinueOnError), io: io}
	f.SetOutput(io.err)
	f.Usage = func() {
		fmt.Fprintf(io.err, "Usage: oscore fragment %s [flags] %s\n\nFlags:\n", verb, arguments)
		f.PrintDefaults()
	}
	f.BoolVar(&f.json, "json", false, "print the result as JSON")
	return f
}

// parse returns the arguments, which must be least to most in number.
func (f *fragmentFlags) parse(args []string, least, most int) ([]string, error) {
	var rest []string
	for len(args) > 0 {
		f.SetOutput(io.Discard)
		if err := f.Parse(args); err != nil {
			if errors.Is(err, flag.ErrHelp) {
				f.SetOutput(f.io.err)
				f.Usage()
				return nil, err
			}
			return nil, usagef("%s: %v", f.Name(), err)
		}
		args = f.Args()
		if len(args) > 0 {
			rest, args = append(rest, args[0]), args[1:]
		}
	}
	switch {
	case len(rest) < least:
		return nil, usagef("%s: an argument is missing", f.Name())
	case len(rest) > most:
		return nil, usagef("%s: %q is one argument too many", f.Name(), rest[most])
	}
	return rest, nil
}

// print writes the result: JSON, or what text writes.
func (f *fragmentFlags) print(v any, text func(w io.Writer)) error {
	if !f.json {
		text(f.io.out)
		return nil
	}
	e := json.NewEncoder(f.io.out)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// exponent parses a size flag: a power of two from 64 to 4096 bytes.
func exponent(flagName, s string) (uint8, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err == nil {
		for e := uint8(6); e <= 12; e++ {
			if n == 1<<e {
				return e, nil
			}
		}
	}
	return 0, usagef("-%s %s: use 64, 128, 256, 512, 1024, 2048 or 4096 bytes", flagName, s)
}

// bar is a progress bar on a terminal, and nothing anywhere else.
type bar struct {
	w     io.Writer // nil: silent
	label string
	total int64
	done  atomic.Int64
	drawn atomic.Int64 // when, in milliseconds of the process
	start time.Time
}

const (
	barWidth = 30
	barEvery = 100 // milliseconds
)

func newBar(w io.Writer, label string, total int64) *bar {
	b := &bar{label: label, total: total, start: time.Now()}
	if f, ok := w.(*os.File); ok {
		if info, err := f.Stat(); err == nil && info.Mode()&os.ModeCharDevice != 0 {
			b.w = w
		}
	}
	return b
}

// add may be called from several goroutines.
func (b *bar) add(n int) { b.set(b.done.Add(int64(n))) }

func (b *bar) set(done int64) {
	if b.w == nil {
		return
	}
	b.done.Store(done)
	now := time.Since(b.start).Milliseconds()
	last := b.drawn.Load()
	if now-last < barEvery || !b.drawn.CompareAndSwap(last, now) {
		return
	}
	b.draw()
}

func (b *bar) draw() {
	done, total := b.done.Load(), max(b.total, 1)
	full := int(min(done, total) * barWidth / total)
	fmt.Fprintf(b.w, "\r%-10s [%s%s] %3d %%  %s/s ", b.label, strings.Repeat("#", full), strings.Repeat(".", barWidth-full),
		min(done, total)*100/total, size(int64(float64(done)/max(time.Since(b.start).Seconds(), 0.001))))
}

// end draws the last state and leaves the line.
func (b *bar) end() {
	if b.w != nil {
		b.draw()
		fmt.Fprintln(b.w)
	}
}

// size prints bytes for people.
func size(n int64) string {
	switch {
	case n >= 10<<20:
		return fmt.Sprintf("%d MiB", n>>20)
	case n >= 10<<10:
		return fmt.Sprintf("%d KiB", n>>10)
	}
	return fmt.Sprintf("%d bytes", n)
}

// imageFile is an input file that is hashed.
type imageFile struct {
	*os.File
	size uint32
}

func openImage(path string) (*imageFile, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	switch {
	case err != nil:
	case !info.Mode().IsRegular():
		err = fmt.Errorf("%s: not a regular file", path)
	case info.Size() == 0:
		err = fmt.Errorf("%s: the file is empty", path)
	case info.Size() > 1<<32-1:
		err = fmt.Errorf("%s: %d bytes; an image has at most 4294967295", path, info.Size())
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return &imageFile{f, uint32(info.Size())}, nil
}

// writeNew writes a file that must not exist yet, unless force.
func writeNew(path string, b []byte, mode os.FileMode, force bool) error {
	flags := os.O_WRONLY | os.O_CREATE | os.O_EXCL
	if force {
		flags = os.O_WRONLY | os.O_CREATE | os.O_TRUNC
	}
	f, err := os.OpenFile(path, flags, mode)
	if errors.Is(err, os.ErrExist) {
		return fmt.Errorf("%s: exists already; choose another -o, or -force to overwrite it", path)
	}
	if err != nil {
		return err
	}
	if force {
		err = f.Chmod(mode)
	}
	if _, werr := f.Write(b); err == nil {
		err = werr
	}
	return errors.Join(err, f.Close())
}
