package bolt

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/oscorelay/oscorelay/keys"
	"github.com/oscorelay/oscorelay/keys/internal/disk"
)

// device puts a device in the place of the file that a store has open. What is
// written to /dev/null is gone and its flush fails, as of a disk that lost it;
// nothing fits on /dev/full.
func device(t *testing.T, f *os.File, name string) {
	t.Helper()
	d, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Skip("needs the device:", err)
	}
	if err := unix.Dup3(int(d.Fd()), int(f.Fd()), unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	_ = d.Close()
}

// deviceFor is device until the function returned puts the file back.
func deviceFor(t *testing.T, f *os.File, name string) (undo func()) {
	t.Helper()
	kept, err := unix.Dup(int(f.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	device(t, f, name)
	return func() {
		if err := unix.Dup3(kept, int(f.Fd()), unix.O_CLOEXEC); err != nil {
			t.Fatal(err)
		}
		_ = unix.Close(kept)
	}
}

// openWithFile opens a store and returns the file it has open too.
func openWithFile(t *testing.T, base string) (*Store, *os.File) {
	t.Helper()
	mustClose(t, mustOpen(t, base))
	var f *os.File
	o := opts(base)
	o.openFile = func(name string, flag int, mode os.FileMode) (_ *os.File, err error) {
		f, err = os.OpenFile(name, flag, mode)
		return f, err
	}
	st, err := Open(filepath.Join(base, "store"), o)
	if err != nil {
		t.Fatal(err)
	}
	return st, f
}

func TestFailedFlushStopsTheStore(t *testing.T) {
	base := t.TempDir()
	st, f := openWithFile(t, base)
	mustPut(t, st, true, "a", "b")
	_, top := reserve(t, st, "a", 1024)
	undo := deviceFor(t, f, "/dev/null")
	id, other := identity(t, "a"), identity(t, "b")
	if _, _, err := st.Reserve(ctx, id[:], 1024); !errors.Is(err, syscall.EINVAL) {
		t.Fatalf("Reserve = %v, want the error of the flush", err)
	}
	undo() // the disk is well again, but what does it hold?
	for _, id := range []keys.Identity{id, other} {
		if _, _, err := st.Reserve(ctx, id[:], 1); err == nil || !strings.Contains(err.Error(), "has stopped") {
			t.Fatalf("the store goes on after a failed flush: %v", err)
		}
	}
	if err := st.Put(ctx, true, demo("c")); err == nil {
		t.Error("Put after a failed flush")
	}
	if _, _, err := st.TakeWindow(ctx, id[:]); err == nil {
		t.Error("TakeWindow after a failed flush")
	}
	if err := st.Close(); err == nil {
		t.Error("Close says nothing")
	}
	st = mustOpen(t, base)
	if lo, _ := reserve(t, st, "a", 1); lo < top {
		t.Errorf("%d, given up to %d", lo, top)
	}
	if _, ok, _ := st.TakeWindow(ctx, id[:]); ok {
		t.Error("a window after an unclean end")
	}
	mustClose(t, st)
}

func TestFullDiskSpendsTheRangeOnly(t *testing.T) {
	base := t.TempDir()
	st, f := openWithFile(t, base)
	mustPut(t, st, true, "a")
	_, top := reserve(t, st, "a", 1024)
	undo := deviceFor(t, f, "/dev/full")
	id := identity(t, "a")
	for range 3 {
		if _, _, err := st.Reserve(ctx, id[:], 64); !errors.Is(err, syscall.ENOSPC) {
			t.Fatalf("a full disk: %v", err)
		}
	}
	undo() // somebody makes room
	lo, hi := reserve(t, st, "a", 64)
	if lo < top+3*64 {
		t.Errorf("a range whose write failed is given again: %d", lo)
	}
	st.die()
	st = mustOpen(t, base)
	if next, _ := reserve(t, st, "a", 1); next < hi {
		t.Errorf("%d, given up to %d", next, hi)
	}
	mustClose(t, st)
}

// cut is a file system that fails from its n-th change on, as the power does.
type cut struct {
	disk.OS
	n    int
	gone func() // called when it fails
}

var errCut = errors.New("power cut")

func (c *cut) step() error {
	if c.n--; c.n <= 0 {
		if c.gone != nil {
			c.gone()
		}
		return errCut
	}
	return nil
}

func (c *cut) Create(name string) (disk.File, error) {
	if err := c.step(); err != nil {
		return nil, err
	}
	f, err := c.OS.Create(name)
	return cutFile{f, c}, err
}

func (c *cut) Rename(from, to string) error {
	if err := c.step(); err != nil {
		return err
	}
	return c.OS.Rename(from, to)
}

func (c *cut) SyncDir(dir string) error {
	if err := c.step(); err != nil {
		return err
	}
	return c.OS.SyncDir(dir)
}

type cutFile struct {
	disk.File
	c *cut
}

func (f cutFile) Write(b []byte) (int, error) {
	if err := f.c.step(); err != nil {
		n, _ := f.File.Write(b[:len(b)/2])
		return n, err
	}
	return f.File.Write(b)
}

func (f cutFile) Sync() error {
	if err := f.c.step(); err != nil {
		return err
	}
	return f.File.Sync()
}

// TestCutAtEveryAnchorWrite ends a store's life at each operation on its anchor,
// with nothing reaching its file either from then on: it opens again untainted,
// and gives no number twice.
func TestCutAtEveryAnchorWrite(t *testing.T) {
	cuts := 0
	for at := 1; ; at++ {
		base := t.TempDir()
		st := mustOpen(t, base)
		mustPut(t, st, true, "a")
		mustClose(t, st)
		top := uint64(0)
		fsys := &cut{n: at}
		o := opts(base)
		o.anchors = fsys
		o.openFile = func(name string, flag int, mode os.FileMode) (*os.File, error) {
			f, err := os.OpenFile(name, flag, mode)
			if err == nil {
				fsys.gone = func() { device(t, f, "/dev/full") }
			}
			return f, err
		}
		id := identity(t, "a")
		st, err := Open(filepath.Join(base, "store"), o)
		if err == nil {
			for range 40 {
				_, hi, e := st.Reserve(ctx, id[:], 1024)
				if e != nil {
					err = e
					break
				}
				top = hi
			}
			if e := st.Close(); err == nil {
				err = e
			}
		}
		if err == nil {
			break // it got through
		}
		cuts++
		if !errors.Is(err, errCut) {
			t.Fatalf("cut at %d: %v", at, err)
		}
		for start := range 2 {
			st = mustOpen(t, base)
			if st.Taint() != "" {
				t.Fatalf("cut at %d: tainted without a cause: %s", at, st.Taint())
			}
			lo, hi := reserve(t, st, "a", 100)
			if lo < top {
				t.Fatalf("cut at %d, start %d: %d, given up to %d", at, start, lo, top)
			}
			top = hi
			mustClose(t, st)
		}
	}
	if cuts < 20 {
		t.Errorf("only %d cuts", cuts)
	}
}

// TestInitIsCutShort ends the making of a store at each operation: afterwards it
// is there, or it is missing and can be made.
func TestInitIsCutShort(t *testing.T) {
	for at := 1; ; at++ {
		base := t.TempDir()
		o := opts(base)
		o.Init, o.anchors = true, &cut{n: at}
		st, err := Open(filepath.Join(base, "store"), o)
		if err == nil {
			st.die()
			if at < 5 {
				t.Error("nothing was cut")
			}
			return
		}
		o.anchors, o.Init = nil, false
		if st, err = Open(filepath.Join(base, "store"), o); errors.Is(err, ErrMissing) {
			o.Init = true
			st, err = Open(filepath.Join(base, "store"), o)
		}
		if err != nil || st.Taint() != "" {
			t.Fatal(fmt.Sprintf("cut at %d:", at), err)
		}
		mustPut(t, st, true, "a")
		mustClose(t, st)
	}
}
