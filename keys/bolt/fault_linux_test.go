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
	"github.com/oscorelay/oscorelay/oscore"
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
	if _, _, err := st.Reserve(ctx, id[:], 1024); !errors.Is(err, syscall.EINVAL) || !errors.Is(err, ErrUnknown) {
		t.Fatalf("Reserve = %v, want the error of the flush", err)
	}
	undo() // the disk is well again, but what does it hold?
	for _, id := range []keys.Identity{id, other} {
		if _, _, err := st.Reserve(ctx, id[:], 1); err == nil || !strings.Contains(err.Error(), "has stopped") || errors.Is(err, ErrUnknown) {
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

// peers returns a keyring that holds one peer, and a far end of each of some meters.
func peers(t *testing.T, st *Store, n int) (*keys.Keyring, []*oscore.Context) {
	t.Helper()
	ring, err := st.Keyring(ctx)
	if err != nil {
		t.Fatal(err)
	}
	var far []*oscore.Context
	for i := range n {
		e := meter(i)
		c, err := oscore.New(e.Params.Swap())
		if err != nil {
			t.Fatal(err)
		}
		c.Begin()
		far = append(far, c)
	}
	return ring, far
}

// arrive sends a request to a keyring and delivers it twice.
func arrive(t *testing.T, ring *keys.Keyring, far *oscore.Context) (oscore.Peer, *oscore.Request, error) {
	t.Helper()
	m, err := far.SealRequest(nil, new(oscore.Pending), oscore.Message{Code: 1})
	if err != nil {
		t.Fatal(err)
	}
	found, match := ring.Find(nil, far.SenderID(), nil)
	if match != oscore.MatchKID {
		return nil, nil, fmt.Errorf("%v", match)
	}
	q := new(oscore.Request)
	_, err = found[0].OpenRequest(nil, q, m)
	if _, again := found[0].OpenRequest(nil, new(oscore.Request), m); again == nil {
		t.Fatal("a replay was accepted")
	}
	return found[0], q, err
}

// TestFullDiskEvicts: with a full disk peers come and go as ever, and what needs
// the disk fails and comes to life again when there is room.
func TestFullDiskEvicts(t *testing.T) {
	const n = 4
	base := t.TempDir()
	mustClose(t, mustOpen(t, base))
	st, f := openWithFile(t, base)
	st.opts.Hot = 1
	for i := range n {
		if err := st.Put(ctx, true, meter(i)); err != nil {
			t.Fatal(err)
		}
	}
	ring, far := peers(t, st, n)
	undo := deviceFor(t, f, "/dev/full")
	used := map[string]bool{}
	seal := func(p oscore.Peer) error {
		q := new(oscore.Pending)
		_, err := p.SealRequest(nil, q, oscore.Message{Code: 1})
		if id := fmt.Sprint(p.Name(), q.PartialIV()); err == nil && used[id] {
			t.Fatalf("%s is used twice", id)
		} else if err == nil {
			used[id] = true
		}
		return err
	}
	for range 3 {
		for i := range n {
			p, _, err := arrive(t, ring, far[i])
			if err != nil {
				t.Fatalf("device %d: %v", i, err)
			}
			if err := seal(p); err != nil {
				t.Fatalf("device %d: a number that it owns: %v", i, err)
			}
		}
	}
	p, _, err := arrive(t, ring, far[0])
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		err = seal(p)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("more numbers on a full disk: %v", err)
	}
	if _, _, err := arrive(t, ring, far[0]); err != nil {
		t.Errorf("a request when numbers ran out: %v", err)
	}
	if err := st.Remove(ctx, meter(1).Name); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("Remove = %v", err)
	}
	undo() // somebody makes room
	for i := range n {
		p, _, err := arrive(t, ring, far[i])
		if i == 1 && errors.Is(err, oscore.ErrUnproven) {
			continue // its window went with Remove, and could not be saved
		}
		if err != nil {
			t.Fatalf("device %d: %v", i, err)
		}
		if err := seal(p); err != nil {
			t.Errorf("device %d: %v", i, err)
		}
	}
	if err := ring.Close(ctx); err != nil {
		t.Fatal(err)
	}
	mustClose(t, st)
	st = mustOpen(t, base)
	ring, err = st.Keyring(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		if _, _, err := arrive(t, ring, far[i]); err != nil && i != 1 {
			t.Errorf("device %d after a clean stop: %v", i, err)
		}
	}
	mustClose(t, st)
}

// TestFailedFlushFindsNobody: when the store has stopped, peers in memory go on
// until their numbers end, the others are not found and the operator hears why;
// the next start accepts nothing without an Echo.
func TestFailedFlushFindsNobody(t *testing.T) {
	const n = 3
	base := t.TempDir()
	mustClose(t, mustOpen(t, base))
	st, f := openWithFile(t, base)
	st.opts.Hot = 1
	var told []error
	st.opts.OnError = func(err error) { told = append(told, err) }
	for i := range n {
		if err := st.Put(ctx, true, meter(i)); err != nil {
			t.Fatal(err)
		}
	}
	ring, far := peers(t, st, n)
	for i := range n {
		if _, _, err := arrive(t, ring, far[i]); err != nil {
			t.Fatal(err)
		}
	}
	undo := deviceFor(t, f, "/dev/null")
	if err := st.Put(ctx, true, meter(n)); !errors.Is(err, syscall.EINVAL) {
		t.Fatalf("Put = %v, want the error of the flush", err)
	}
	undo()
	if _, _, err := arrive(t, ring, far[n-1]); err != nil {
		t.Errorf("a peer in memory: %v", err)
	}
	if _, _, err := arrive(t, ring, far[0]); err == nil {
		t.Error("a peer was found in a store that has stopped")
	}
	if len(told) == 0 || !strings.Contains(told[0].Error(), "has stopped") {
		t.Errorf("told %v", told)
	}
	if err := ring.Close(ctx); err == nil {
		t.Error("the keyring's Close says nothing")
	}
	if err := st.Close(); err == nil {
		t.Error("Close says nothing")
	}
	st = mustOpen(t, base)
	ring, err := st.Keyring(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		if _, _, err := arrive(t, ring, far[i]); !errors.Is(err, oscore.ErrUnproven) {
			t.Errorf("device %d: %v, want ErrUnproven", i, err)
		}
	}
	mustClose(t, st)
}
