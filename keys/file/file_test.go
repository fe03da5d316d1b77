package file

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/oscorelay/oscorelay/keys"
	"github.com/oscorelay/oscorelay/keys/internal/anchor"
	"github.com/oscorelay/oscorelay/keys/internal/disk"
	"github.com/oscorelay/oscorelay/keys/internal/disk/disktest"
	"github.com/oscorelay/oscorelay/oscore"
)

var ctx = context.Background()

const dir = "/store"

var opts = Options{AnchorDir: "/anchors"}

// demo returns an entry whose secret depends on its name alone.
func demo(name string) keys.Entry {
	return keys.Entry{Name: name, Params: oscore.Params{
		MasterSecret: bytes.Repeat([]byte(name+"."), 16)[:16], SenderID: []byte(name[:1]), RecipientID: []byte{0xff},
		IDContext: []byte(name),
	}}
}

func mustOpen(t testing.TB, fsys disk.FS) *Store {
	t.Helper()
	st, err := open(fsys, dir, opts)
	if err != nil {
		t.Fatal(err)
	}
	return st
}

func mustPut(t testing.TB, st *Store, fresh bool, names ...string) {
	t.Helper()
	for _, n := range names {
		if err := st.Put(ctx, fresh, demo(n)); err != nil {
			t.Fatal(err)
		}
	}
}

func mustClose(t testing.TB, st *Store) {
	t.Helper()
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
}

func identity(t testing.TB, name string) keys.Identity {
	t.Helper()
	e := demo(name)
	id, _, err := keys.Identities(&e.Params)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func reserve(t testing.TB, st *Store, name string, n uint32) (lo, hi uint64) {
	t.Helper()
	id := identity(t, name)
	lo, hi, err := st.Reserve(ctx, id[:], n)
	if err != nil {
		t.Fatal(err)
	}
	return lo, hi
}

// wantTaint opens the store and checks that it tainted everything and says why.
func wantTaint(t *testing.T, fsys disk.FS, at string, o Options, reason string) *Store {
	t.Helper()
	st, err := open(fsys, at, o)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(st.Taint(), reason) {
		t.Fatalf("taint %q, want %q", st.Taint(), reason)
	}
	ring, err := st.Keyring(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for p := range ring.Peers() {
		var pending oscore.Pending
		_, err := p.SealRequest(nil, &pending, oscore.Message{Code: 1})
		if !errors.Is(err, keys.ErrTainted) || !strings.Contains(err.Error(), reason) {
			t.Errorf("peer %s seals: %v", p.Name(), err)
		}
	}
	return st
}

func TestEntriesSurvive(t *testing.T) {
	m := disktest.New()
	st := mustOpen(t, m)
	want := demo("alpha")
	want.Params.IDContext = []byte{}
	want.Params.AEAD, want.Params.HKDF, want.Params.WindowSize = oscore.A256GCM, oscore.HKDFSHA512, 64
	want.Settings = oscore.Settings{Rederive: oscore.RoleServer, RederiveOnStart: true, NoEcho: true, MaxUnfragmented: 512}
	want.Notes = "third floor"
	if err := st.Put(ctx, true, want); err != nil {
		t.Fatal(err)
	}
	mustPut(t, st, true, "beta", "gamma")
	if err := st.Remove("beta"); err != nil {
		t.Fatal(err)
	}
	mustClose(t, st)
	b, err := m.ReadFile("/store/keys")
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(b, []byte("alpha")) {
		t.Error("the key file shows a name")
	}
	st = mustOpen(t, m)
	got := st.Entries()
	if len(got) != 2 || got[1].Name != "gamma" {
		t.Fatalf("%d entries", len(got))
	}
	g := got[0]
	if !g.Params.MasterSecret.Equal(want.Params.MasterSecret) || g.Params.IDContext == nil || g.Params.AEAD != want.Params.AEAD ||
		g.Params.HKDF != want.Params.HKDF || g.Params.WindowSize != 64 || g.Settings != want.Settings || g.Notes != want.Notes {
		t.Errorf("entry %+v", g)
	}
	if err := st.Remove("beta"); !errors.Is(err, keys.ErrNotFound) {
		t.Errorf("Remove twice: %v", err)
	}
}

func TestNumbersGoOn(t *testing.T) {
	m := disktest.New()
	st := mustOpen(t, m)
	mustPut(t, st, true, "a")
	if lo, hi := reserve(t, st, "a", 64); lo != 0 || hi != 64 {
		t.Fatalf("[%d,%d)", lo, hi)
	}
	mustClose(t, st)
	st = mustOpen(t, m)
	if lo, _ := reserve(t, st, "a", 64); lo != 64 {
		t.Fatalf("after a clean stop: %d, want 64", lo)
	}
	m = m.Kill()
	st = mustOpen(t, m)
	lo, _ := reserve(t, st, "a", 64)
	if lo < 128 {
		t.Fatalf("after a crash: %d", lo)
	}
	t.Logf("a crash skips %d numbers", lo-128)
	// Removed and put back, as fresh or not: the numbers go on.
	if err := st.Remove("a"); err != nil {
		t.Fatal(err)
	}
	for _, fresh := range []bool{true, false} {
		mustPut(t, st, fresh, "a")
		if next, _ := reserve(t, st, "a", 1); next < lo+64 {
			t.Fatalf("put back: %d", next)
		}
	}
}

func TestImportWithoutFreshIsTainted(t *testing.T) {
	m := disktest.New()
	st := mustOpen(t, m)
	mustPut(t, st, false, "a")
	id := identity(t, "a")
	if _, _, err := st.Reserve(ctx, id[:], 1); !errors.Is(err, keys.ErrTainted) {
		t.Fatal(err)
	}
	// Whoever imported it may say later that it is new: nothing was sealed here.
	mustPut(t, st, true, "a")
	if lo, _ := reserve(t, st, "a", 1); lo != 0 {
		t.Fatal(lo)
	}
}

func TestUnknownHistoryTaints(t *testing.T) {
	prepare := func(t *testing.T) *disktest.Mem {
		m := disktest.New()
		st := mustOpen(t, m)
		mustPut(t, st, true, "a", "b")
		reserve(t, st, "a", 64)
		mustClose(t, st)
		return m
	}
	anchorFile := func(m *disktest.Mem) string {
		for _, n := range m.Names() {
			if strings.HasSuffix(n, ".anchor") {
				return n
			}
		}
		t.Fatal("no anchor")
		return ""
	}
	copyTo := func(m *disktest.Mem, to string, files ...string) {
		for _, f := range files {
			b, err := m.ReadFile(filepath.Join(dir, f))
			if err != nil {
				t.Fatal(err)
			}
			m.WriteFile(filepath.Join(to, f), b)
		}
	}
	run := func(t *testing.T, m disk.FS, uses int) {
		st := mustOpen(t, m)
		for range uses {
			reserve(t, st, "a", 64)
		}
		mustClose(t, st)
	}

	t.Run("state deleted", func(t *testing.T) {
		m := prepare(t)
		m.Delete("/store/state")
		wantTaint(t, m, dir, opts, "without its state file")
	})
	t.Run("key file copied", func(t *testing.T) {
		m := prepare(t)
		copyTo(m, "/copy", "keys", "root.key")
		wantTaint(t, m, "/copy", opts, "without its state file")
		run(t, m, 1) // the original goes on
	})
	t.Run("directory copied", func(t *testing.T) {
		m := prepare(t)
		copyTo(m, "/copy", "keys", "root.key", "state")
		st := wantTaint(t, m, "/copy", opts, "is a copy of /store")
		orig := mustOpen(t, m)
		if orig.Taint() != "" {
			t.Errorf("the original was tainted: %s", orig.Taint())
		}
		if lo, _ := reserve(t, orig, "a", 1); lo != 64 {
			t.Errorf("the original goes on at %d", lo)
		}
		if err := st.Put(ctx, true, demo("a")); !errors.Is(err, keys.ErrTainted) {
			t.Errorf("fresh, said of a copy: %v", err)
		}
		mustPut(t, st, true, "new")
		if lo, _ := reserve(t, st, "new", 1); lo != 0 {
			t.Errorf("new material in a tainted store: %d", lo)
		}
	})
	t.Run("directory copied while in use", func(t *testing.T) {
		m := prepare(t)
		st := mustOpen(t, m)
		reserve(t, st, "a", 64)
		copyTo(m, "/copy", "keys", "root.key", "state")
		if _, err := open(m, "/copy", opts); err == nil || !strings.Contains(err.Error(), "in use") {
			t.Fatalf("open a copy of an open store: %v", err)
		}
		mustClose(t, st)
		wantTaint(t, m, "/copy", opts, "is a copy")
	})
	t.Run("another machine", func(t *testing.T) {
		m := prepare(t)
		wantTaint(t, m, dir, Options{AnchorDir: "/elsewhere"}, "no anchor for the store")
	})
	t.Run("copied with its anchor", func(t *testing.T) {
		m := prepare(t)
		m.WriteFile("/etc/machine-id", []byte("one\n"))
		run(t, m, 1)
		m.WriteFile("/etc/machine-id", []byte("two\n"))
		wantTaint(t, m, dir, opts, "another machine")
	})
	t.Run("anchor deleted", func(t *testing.T) {
		m := prepare(t)
		m.Delete(anchorFile(m))
		wantTaint(t, m, dir, opts, "no anchor for the store")
	})
	t.Run("anchor garbled", func(t *testing.T) {
		m := prepare(t)
		m.WriteFile(anchorFile(m), []byte("{"))
		wantTaint(t, m, dir, opts, "no anchor for the store")
	})
	t.Run("yesterday's state", func(t *testing.T) {
		m := prepare(t)
		old, _ := m.ReadFile("/store/state")
		run(t, m, 1)
		m.WriteFile("/store/state", old)
		st := wantTaint(t, m, dir, opts, "an old state was restored")
		mustClose(t, st)
		// The taint lasts, and its reason too.
		st = mustOpen(t, m)
		if err := st.Known(ctx, func() []byte { id := identity(t, "a"); return id[:] }()); !errors.Is(err, keys.ErrTainted) ||
			!strings.Contains(err.Error(), "an old state was restored") {
			t.Errorf("after a restart: %v", err)
		}
	})
	t.Run("yesterday's anchor", func(t *testing.T) {
		m := prepare(t)
		old, _ := m.ReadFile(anchorFile(m))
		run(t, m, 1)
		m.WriteFile(anchorFile(m), old)
		wantTaint(t, m, dir, opts, "an old anchor was restored")
	})
	t.Run("this run's state, from before its end", func(t *testing.T) {
		m := prepare(t)
		st := mustOpen(t, m)
		reserve(t, st, "a", 64)
		old, _ := m.ReadFile("/store/state")
		reserve(t, st, "a", 64)
		mustClose(t, st)
		m.WriteFile("/store/state", old)
		wantTaint(t, m, dir, opts, "an old state was restored")
	})
	t.Run("this run's state after a crash, long ago", func(t *testing.T) {
		m := prepare(t)
		st := mustOpen(t, m)
		old, _ := m.ReadFile("/store/state")
		for range 2*anchor.Ahead + 1 {
			reserve(t, st, "a", 64)
		}
		m = m.Kill()
		m.WriteFile("/store/state", old)
		wantTaint(t, m, dir, opts, "an old state was restored")
	})
	t.Run("this run's state after a crash, a moment ago", func(t *testing.T) {
		for crash := 1; crash < anchor.Ahead+4; crash++ {
			m := prepare(t)
			st := mustOpen(t, m)
			for range crash {
				reserve(t, st, "b", 7)
			}
			old, _ := m.ReadFile("/store/state")
			var top uint64
			for range anchor.Ahead - 1 {
				_, top = reserve(t, st, "a", keys.MaxBlock)
			}
			m = m.Kill()
			m.WriteFile("/store/state", old)
			st = mustOpen(t, m)
			id := identity(t, "a")
			lo, _, err := st.Reserve(ctx, id[:], 1)
			if err == nil && lo < top || err != nil && !errors.Is(err, keys.ErrTainted) {
				t.Fatalf("after %d: %d, used up to %d (%v)", crash, lo, top, err)
			}
		}
	})
}

func TestNewIsSaidOnce(t *testing.T) {
	m := disktest.New()
	st := mustOpen(t, m)
	mustPut(t, st, true, "a")
	reserve(t, st, "a", 64)
	mustClose(t, st)
	refused := func(t *testing.T, st *Store) {
		t.Helper()
		err := st.Put(ctx, true, demo("b"), demo("a"))
		if !errors.Is(err, keys.ErrTainted) || !strings.Contains(err.Error(), `"a" cannot be fresh`) || !strings.Contains(err.Error(), "in /store") {
			t.Fatalf("Put = %v", err)
		}
		if len(st.Entries()) != 0 {
			t.Error("something was put all the same")
		}
	}
	t.Run("in a second directory", func(t *testing.T) {
		st, err := open(m, "/second", opts)
		if err != nil {
			t.Fatal(err)
		}
		refused(t, st)
		mustPut(t, st, true, "c")
		mustClose(t, st)
	})
	t.Run("after the directory was deleted", func(t *testing.T) {
		for _, f := range []string{"keys", "state", "root.key"} {
			m.Delete(filepath.Join(dir, f))
		}
		st := mustOpen(t, m)
		refused(t, st)
		// Without the claim it is taken in, tainted.
		mustPut(t, st, false, "a")
		id := identity(t, "a")
		if _, _, err := st.Reserve(ctx, id[:], 1); !errors.Is(err, keys.ErrTainted) {
			t.Error(err)
		}
		mustClose(t, st)
	})
	t.Run("a ledger cut short", func(t *testing.T) {
		name := filepath.Join(opts.AnchorDir, anchor.LedgerName)
		b, err := m.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		m.WriteFile(name, b[:len(b)-10])
		st, err := open(m, "/third", opts)
		if err != nil {
			t.Fatal(err)
		}
		mustPut(t, st, true, "d")
		refused2 := st.Put(ctx, true, demo("a"))
		if !errors.Is(refused2, keys.ErrTainted) {
			t.Error(refused2)
		}
		mustClose(t, st)
		st, err = open(m, "/fourth", opts)
		if err != nil {
			t.Fatal(err)
		}
		if err := st.Put(ctx, true, demo("d")); !errors.Is(err, keys.ErrTainted) {
			t.Errorf("after a line cut short: %v", err)
		}
	})
}

func TestMovedDirectoryGoesOn(t *testing.T) {
	base := t.TempDir()
	o := Options{AnchorDir: filepath.Join(base, "anchors")}
	st, err := Open(filepath.Join(base, "one"), o)
	if err != nil {
		t.Fatal(err)
	}
	mustPut(t, st, true, "a")
	reserve(t, st, "a", 10)
	mustClose(t, st)
	if err := os.Rename(filepath.Join(base, "one"), filepath.Join(base, "two")); err != nil {
		t.Fatal(err)
	}
	st, err = Open(filepath.Join(base, "two"), o)
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	if st.Taint() != "" {
		t.Fatal(st.Taint())
	}
	if lo, _ := reserve(t, st, "a", 10); lo != 10 {
		t.Fatal(lo)
	}
}
