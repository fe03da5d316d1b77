package bolt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	bbolt "go.etcd.io/bbolt"

	"github.com/oscorelay/oscorelay/internal/proof"
	"github.com/oscorelay/oscorelay/keys"
	"github.com/oscorelay/oscorelay/keys/file"
	"github.com/oscorelay/oscorelay/oscore"
)

var ctx = context.Background()

// demo returns an entry whose secret depends on its name alone.
func demo(name string) keys.Entry {
	return keys.Entry{Name: name, Params: oscore.Params{
		MasterSecret: bytes.Repeat([]byte(name+"."), 16)[:16], SenderID: []byte(name[:1]), RecipientID: []byte{0xff},
		IDContext: []byte(name),
	}}
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

func opts(base string) Options { return Options{AnchorDir: filepath.Join(base, "anchors")} }

func mustOpen(t testing.TB, base string) *Store {
	t.Helper()
	o := opts(base)
	there, err := exists(filepath.Join(base, "store", "store.db"))
	if err != nil {
		t.Fatal(err)
	}
	o.Init = !there
	st, err := Open(filepath.Join(base, "store"), o)
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

func reserve(t testing.TB, st *Store, name string, n uint32) (lo, hi uint64) {
	t.Helper()
	id := identity(t, name)
	lo, hi, err := st.Reserve(ctx, id[:], n)
	if err != nil {
		t.Fatal(err)
	}
	return lo, hi
}

func frames(st *Store) uint64 {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.h.at.Frames
}

func TestMissingAndExisting(t *testing.T) {
	base := t.TempDir()
	dir := filepath.Join(base, "store")
	_, err := Open(dir, opts(base))
	if !errors.Is(err, ErrMissing) || !strings.Contains(err.Error(), dir) || !strings.Contains(err.Error(), "--init") {
		t.Fatalf("a missing store: %v", err)
	}
	if _, err := os.Stat(dir); err == nil {
		t.Error("the refusal made a directory")
	}
	mustClose(t, mustOpen(t, base))
	o := opts(base)
	o.Init = true
	if _, err := Open(dir, o); !errors.Is(err, ErrExists) {
		t.Errorf("an existing store with Init: %v", err)
	}
	if info, err := os.Stat(filepath.Join(dir, "root.key")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("root key: %v, %v", info.Mode(), err)
	}
}

// TestStartNeedsOneWrite: K numbers a context and start cost no commit, and no
// two starts share one.
func TestStartNeedsOneWrite(t *testing.T) {
	proof.Checklist(t, "O-B.1.1-1")
	base := t.TempDir()
	st := mustOpen(t, base)
	names := make([]string, 20)
	for i := range names {
		names[i] = fmt.Sprintf("%c-device", 'a'+i)
	}
	mustPut(t, st, true, names...)
	top := map[string]uint64{}
	for start := range 6 {
		before := frames(st)
		for _, n := range names {
			for range 2 {
				lo, hi := reserve(t, st, n, K/2)
				if lo < top[n] || hi != lo+K/2 {
					t.Fatalf("start %d: %s gets [%d,%d), %d were given", start, n, lo, hi, top[n])
				}
				top[n] = hi
			}
		}
		if now := frames(st); now != before {
			t.Fatalf("start %d: %d commits for the first %d numbers each", start, now-before, K)
		}
		// More of them are one commit.
		lo, hi := reserve(t, st, names[0], 1024)
		if lo < top[names[0]] || hi-lo != 1024 || frames(st) != before+1 {
			t.Fatalf("start %d: [%d,%d), %d commits", start, lo, hi, frames(st)-before)
		}
		top[names[0]] = hi
		if start%2 == 0 {
			st.die()
		} else {
			mustClose(t, st)
		}
		at := frames(st)
		st = mustOpen(t, base)
		if start%2 == 0 && frames(st) != at+1 {
			t.Fatalf("a start makes %d commits", frames(st)-at)
		}
	}
	mustClose(t, st)
}

// TestGroupCommit: what comes together shares commits.
func TestGroupCommit(t *testing.T) {
	st := mustOpen(t, t.TempDir())
	defer mustClose(t, st)
	entries := make([]keys.Entry, 64)
	for i := range entries {
		entries[i] = demo(fmt.Sprintf("%03d", i))
		entries[i].Params.SenderID = []byte{byte(i)}
	}
	if err := st.Put(ctx, true, entries...); err != nil {
		t.Fatal(err)
	}
	before := frames(st)
	const rounds = 10
	var wg sync.WaitGroup
	for i := range entries {
		id, _, err := keys.Identities(&entries[i].Params)
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			for range rounds {
				if _, _, err := st.Reserve(ctx, id[:], 512); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	if n := frames(st) - before; n > rounds*uint64(len(entries))/4 {
		t.Errorf("%d commits for %d reservations", n, rounds*len(entries))
	}
}

func TestEntries(t *testing.T) {
	base := t.TempDir()
	st := mustOpen(t, base)
	want := demo("alpha")
	want.Params.AEAD, want.Params.HKDF, want.Params.WindowSize = oscore.A256GCM, oscore.HKDFSHA512, 64
	want.Settings = oscore.Settings{Rederive: oscore.RoleServer, RederiveOnStart: true, NoEcho: true, MaxUnfragmented: 512}
	want.Notes = "third floor"
	if err := st.Put(ctx, true, want, demo("beta"), demo("gamma")); err != nil {
		t.Fatal(err)
	}
	if err := st.Remove(ctx, "beta"); err != nil {
		t.Fatal(err)
	}
	if err := st.Remove(ctx, "beta"); !errors.Is(err, keys.ErrNotFound) {
		t.Errorf("removed twice: %v", err)
	}
	mustClose(t, st)
	raw, err := os.ReadFile(filepath.Join(base, "store", "store.db"))
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range [][]byte{want.Params.MasterSecret, []byte("third floor")} {
		if bytes.Contains(raw, secret) {
			t.Errorf("%q stands in the clear", secret)
		}
	}
	st = mustOpen(t, base)
	defer mustClose(t, st)
	got, ok, err := st.Entry(ctx, "alpha")
	if err != nil || !ok || fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", want) || !bytes.Equal(got.Params.MasterSecret, want.Params.MasterSecret) {
		t.Errorf("%+v, %v, want %+v", got, err, want)
	}
	ring, err := st.Keyring(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if ring.Len() != 2 {
		t.Errorf("%d peers", ring.Len())
	}
	for p := range ring.Peers() {
		// The window of fresh material was handed over with it.
		if s := p.Status(); s.Taint != nil || !s.WindowOpen {
			t.Errorf("%s: %+v", p.Name(), s)
		}
	}
	if err := ring.Close(ctx); err != nil {
		t.Fatal(err)
	}
}

// TestImportRefusesWhatAKeyringWould: whatever Put takes in, Keyring adds.
func TestImportRefusesWhatAKeyringWould(t *testing.T) {
	bare := func(name string) keys.Entry {
		e := demo(name)
		e.Params.IDContext = nil
		return e
	}
	rederive := func(name string) keys.Entry {
		e := demo(name)
		e.Settings.Rederive = oscore.RoleServer
		return e
	}
	same := demo("a")
	same.Name = "z"
	pair := demo("b")
	pair.Params.IDContext = []byte("a")
	var crowd, answering []keys.Entry
	for i := range oscore.MaxCandidates + 1 {
		crowd = append(crowd, bare(fmt.Sprintf("%c-bare", 'a'+i)))
		answering = append(answering, rederive(fmt.Sprintf("%c-answers", 'a'+i)))
	}
	for _, c := range []struct {
		name    string
		entries []keys.Entry
		want    error
	}{
		{"one key, two names", []keys.Entry{demo("a"), same}, keys.ErrDuplicate},
		{"one kid and kid context", []keys.Entry{demo("a"), pair}, keys.ErrDuplicate},
		{"too many by the kid alone", crowd, keys.ErrDuplicate},
		{"too many that answer", answering, keys.ErrDuplicate},
		{"as many as may be", append(crowd[:oscore.MaxCandidates:oscore.MaxCandidates], answering[:oscore.MaxCandidates]...), nil},
	} {
		for _, together := range []bool{true, false} {
			t.Run(fmt.Sprint(c.name, together), func(t *testing.T) {
				st := mustOpen(t, t.TempDir())
				defer mustClose(t, st)
				trial := keys.New(keys.NewMemory())
				var want error
				for _, e := range c.entries {
					if _, err := trial.Add(ctx, e); err != nil {
						want = err
					}
				}
				if !errors.Is(want, c.want) {
					t.Fatalf("a keyring says %v", want)
				}
				var err error
				if together {
					if err = st.Put(ctx, true, c.entries...); err != nil {
						if _, ok, _ := st.Entry(ctx, c.entries[0].Name); ok {
							t.Error("something was written")
						}
					}
				} else {
					for _, e := range c.entries {
						if err = st.Put(ctx, true, e); err != nil {
							break
						}
					}
				}
				if !errors.Is(err, c.want) {
					t.Errorf("%v, want %v", err, c.want)
				}
				if _, err := st.Keyring(ctx); err != nil {
					t.Error(err)
				}
			})
		}
	}
	t.Run("twice in one call", func(t *testing.T) {
		st := mustOpen(t, t.TempDir())
		defer mustClose(t, st)
		if err := st.Put(ctx, true, demo("a"), demo("a")); !errors.Is(err, keys.ErrDuplicate) {
			t.Error(err)
		}
	})
	t.Run("in the place of another", func(t *testing.T) {
		st := mustOpen(t, t.TempDir())
		defer mustClose(t, st)
		mustPut(t, st, true, "a", "b")
		e := demo("c")
		e.Name = "a"
		if err := st.Put(ctx, true, e); err != nil {
			t.Fatal(err)
		}
		// What it had before is free, and keeps its numbers.
		if err := st.Put(ctx, false, same); err != nil {
			t.Fatal(err)
		}
		if err := st.Put(ctx, false, demo("c")); !errors.Is(err, keys.ErrDuplicate) {
			t.Error(err)
		}
		ring, err := st.Keyring(ctx)
		if err != nil || ring.Len() != 3 {
			t.Errorf("%d, %v", ring.Len(), err)
		}
	})
}

// TestTaint: whatever lets the store's past be another than the anchor says
// taints every context.
func TestTaint(t *testing.T) {
	proof.Requirement(t, "the store of a daemon", "MaU-1")
	proof.Checklist(t, "O-B.1.1-1", "O-B.1.1-2")
	copyTo := func(t *testing.T, from, to string) {
		t.Helper()
		if err := os.RemoveAll(to); err != nil {
			t.Fatal(err)
		}
		if err := os.CopyFS(to, os.DirFS(from)); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(filepath.Join(to, "root.key"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name, reason string
		do           func(t *testing.T, base, old string) (dir string)
	}{
		{"the store of an earlier start", "old state", func(t *testing.T, base, old string) string {
			b, err := os.ReadFile(filepath.Join(old, "store.db"))
			if err == nil {
				err = os.WriteFile(filepath.Join(base, "store", "store.db"), b, 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
			return filepath.Join(base, "store")
		}},
		{"no anchor", "no anchor", func(t *testing.T, base, _ string) string {
			if err := os.RemoveAll(filepath.Join(base, "anchors")); err != nil {
				t.Fatal(err)
			}
			return filepath.Join(base, "store")
		}},
		{"a copy", "is a copy of", func(t *testing.T, base, _ string) string {
			copyTo(t, filepath.Join(base, "store"), filepath.Join(base, "copy"))
			return filepath.Join(base, "copy")
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			base := t.TempDir()
			old := filepath.Join(base, "old")
			st := mustOpen(t, base)
			mustPut(t, st, true, "a", "b")
			mustClose(t, st)
			copyTo(t, filepath.Join(base, "store"), old)
			st = mustOpen(t, base)
			reserve(t, st, "a", 1024)
			mustClose(t, st)
			dir := c.do(t, base, old)
			for start := range 3 { // it stays so
				st, err := Open(dir, opts(base))
				if err != nil {
					t.Fatal(err)
				}
				if start == 0 && !strings.Contains(st.Taint(), c.reason) {
					t.Errorf("taint %q, want %q", st.Taint(), c.reason)
				}
				ring, err := st.Keyring(ctx)
				if err != nil {
					t.Fatal(err)
				}
				for p := range ring.Peers() {
					var pending oscore.Pending
					_, err := p.SealRequest(nil, &pending, oscore.Message{Code: 1})
					if !errors.Is(err, keys.ErrTainted) || !strings.Contains(err.Error(), c.reason) {
						t.Errorf("start %d: %s seals: %v", start, p.Name(), err)
					}
				}
				if err := st.Put(ctx, true, demo("a")); !errors.Is(err, keys.ErrTainted) {
					t.Errorf("declared fresh: %v", err)
				}
				// New material and new contexts are not tainted.
				e := demo(fmt.Sprintf("%c-new-%s", 'p'+start, filepath.Base(dir)))
				if err := st.Put(ctx, true, e); err != nil {
					t.Fatal(err)
				}
				reserve(t, st, e.Name, 64)
				if err := st.Remove(ctx, e.Name); err != nil {
					t.Fatal(err)
				}
				mustClose(t, st)
			}
		})
	}
	t.Run("the original beside its copy", func(t *testing.T) {
		base := t.TempDir()
		st := mustOpen(t, base)
		mustPut(t, st, true, "a")
		mustClose(t, st)
		copyTo(t, filepath.Join(base, "store"), filepath.Join(base, "copy"))
		st, err := Open(filepath.Join(base, "copy"), opts(base))
		if err != nil {
			t.Fatal(err)
		}
		original := mustOpen(t, base)
		if original.Taint() != "" {
			t.Error(original.Taint())
		}
		mustClose(t, original)
		mustClose(t, st)
	})
	t.Run("deleted and made again", func(t *testing.T) {
		base := t.TempDir()
		st := mustOpen(t, base)
		mustPut(t, st, true, "a")
		mustClose(t, st)
		if err := os.RemoveAll(filepath.Join(base, "store")); err != nil {
			t.Fatal(err)
		}
		st = mustOpen(t, base)
		defer mustClose(t, st)
		if err := st.Put(ctx, true, demo("a")); !errors.Is(err, keys.ErrTainted) {
			t.Errorf("fresh a second time: %v", err)
		}
		if err := st.Put(ctx, false, demo("a")); err != nil {
			t.Fatal(err)
		}
		id := identity(t, "a")
		if err := st.Known(ctx, id[:]); !errors.Is(err, keys.ErrTainted) {
			t.Errorf("known: %v", err)
		}
	})
	t.Run("declared in a directory of keys/file", func(t *testing.T) {
		base := t.TempDir()
		f, err := file.Open(filepath.Join(base, "file"), file.Options{AnchorDir: filepath.Join(base, "anchors")})
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Put(ctx, true, demo("a")); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		st := mustOpen(t, base)
		defer mustClose(t, st)
		if err := st.Put(ctx, true, demo("a")); !errors.Is(err, keys.ErrTainted) {
			t.Error(err)
		}
	})
}

// TestRestoredWithinAStart: frames that a crash may have lost are skipped, and
// more than those taint.
func TestRestoredWithinAStart(t *testing.T) {
	for _, lost := range []int{1, 5, 100} {
		base := t.TempDir()
		name := filepath.Join(base, "store", "store.db")
		st := mustOpen(t, base)
		mustPut(t, st, true, "a")
		reserve(t, st, "a", 1024)
		old, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		var top uint64
		for range lost {
			_, top = reserve(t, st, "a", 1024)
		}
		st.die()
		if err := os.WriteFile(name, old, 0o600); err != nil {
			t.Fatal(err)
		}
		st = mustOpen(t, base)
		id := identity(t, "a")
		lo, _, err := st.Reserve(ctx, id[:], 1)
		switch {
		case err == nil && lo < top:
			t.Errorf("%d commits lost: %d, given up to %d", lost, lo, top)
		case lost == 100 && !errors.Is(err, keys.ErrTainted):
			t.Errorf("%d commits lost: %v", lost, err)
		case lost < 5 && err != nil:
			t.Errorf("%d commits lost: %v", lost, err)
		}
		mustClose(t, st)
	}
}

func TestRootKey(t *testing.T) {
	base := t.TempDir()
	mustClose(t, mustOpen(t, base))
	name := filepath.Join(base, "store", "root.key")
	for _, c := range []struct {
		want string
		do   func() error
	}{
		{"chmod 600", func() error { return os.Chmod(name, 0o644) }},
		{"does not open", func() error {
			if err := os.Chmod(name, 0o600); err != nil {
				return err
			}
			return os.WriteFile(name, []byte(strings.Repeat("ab", 32)), 0o600)
		}},
		{"is missing", func() error { return os.Remove(name) }},
	} {
		if err := c.do(); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(filepath.Join(base, "store"), opts(base)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v, want %q", err, c.want)
		}
	}
}

func TestDamage(t *testing.T) {
	base := t.TempDir()
	st := mustOpen(t, base)
	mustPut(t, st, true, "a", "b")
	id := identity(t, "a")
	err := st.safely(func(tx *bbolt.Tx) error {
		b := tx.Bucket(bucketNumbers)
		v := bytes.Clone(b.Get(id[:]))
		v[7] ^= 1
		return b.Put(id[:], v)
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := st.Reserve(ctx, id[:], 1); !errors.Is(err, errDamaged) {
		t.Errorf("a changed record: %v", err)
	}
	reserve(t, st, "b", 64)
	mustClose(t, st)
	name := filepath.Join(base, "store", "store.db")
	whole, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range [][]byte{nil, []byte("not a database"), whole[:5*os.Getpagesize()], bytes.Repeat([]byte{0xee}, 1<<16)} {
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if st, err := Open(filepath.Join(base, "store"), opts(base)); err == nil {
			lo, _, err := st.Reserve(ctx, id[:], 1)
			t.Errorf("%d bytes were taken for a store: %d, %v", len(b), lo, err)
			st.die()
		} else if !strings.Contains(err.Error(), "store.db") {
			t.Errorf("the error does not name the file: %v", err)
		}
	}
}

func TestJournal(t *testing.T) {
	base := t.TempDir()
	st := mustOpen(t, base)
	t0 := time.Unix(1_700_000_000, 0)
	x := Exchange{"server", 0xbeef, []byte{1, 2, 3}}
	if _, repeated, err := st.Begin(ctx, x, []byte("a secret question"), t0); repeated || err != nil {
		t.Fatal(repeated, err)
	}
	st.die() // kill -9 in the middle
	st = mustOpen(t, base)
	o, repeated, err := st.Begin(ctx, x, []byte("a secret question"), t0.Add(time.Second))
	if err != nil || !repeated || o.Done || !o.Begun.Equal(t0) || string(o.Request) != "a secret question" {
		t.Fatalf("%+v, %v, %v", o, repeated, err)
	}
	if err := st.Again(ctx, x, []byte("the question with an Echo")); err != nil {
		t.Fatal(err)
	}
	if o, _, err = st.Begin(ctx, x, nil, t0); err != nil || string(o.Request) != "the question with an Echo" || !o.Begun.Equal(t0) {
		t.Fatalf("%+v, %v", o, err)
	}
	for _, other := range []Exchange{{"server", 0xbeee, x.Token}, {"server", x.MessageID, nil}, {"server2", x.MessageID, x.Token}} {
		if err := st.Finish(ctx, other, nil); !errors.Is(err, ErrNotBegun) {
			t.Errorf("%+v: %v", other, err)
		}
		if _, repeated, err := st.Begin(ctx, other, nil, t0.Add(time.Minute)); repeated || err != nil {
			t.Errorf("%+v: %v, %v", other, repeated, err)
		}
	}
	if err := st.Finish(ctx, x, []byte("a secret answer")); err != nil {
		t.Fatal(err)
	}
	st.die()
	raw, err := os.ReadFile(filepath.Join(base, "store", "store.db"))
	if err != nil || bytes.Contains(raw, []byte("a secret ")) {
		t.Error("the request or the response stands in the clear", err)
	}
	st = mustOpen(t, base)
	if o, repeated, err = st.Begin(ctx, x, []byte("a secret question"), t0); err != nil || !repeated || !o.Done || string(o.Response) != "a secret answer" {
		t.Fatalf("%+v, %v, %v", o, repeated, err)
	}
	n := 0
	err = st.Update(ctx, func(tx *Tx) (err error) {
		n, err = tx.Expire(t0.Add(time.Nanosecond))
		return err
	})
	if err != nil || n != 1 {
		t.Errorf("%d expired, %v", n, err)
	}
	left := 0
	err = st.View(ctx, func(tx *Tx) error {
		return tx.Journal(func(y Exchange, o Outcome) error {
			left++
			if y.Peer == x.Peer && y.MessageID == x.MessageID && bytes.Equal(y.Token, x.Token) || o.Done {
				t.Errorf("still there: %+v", y)
			}
			return nil
		})
	})
	if err != nil || left != 3 {
		t.Errorf("%d left, %v", left, err)
	}
	mustClose(t, st)
}

func TestObservations(t *testing.T) {
	base := t.TempDir()
	st := mustOpen(t, base)
	mustPut(t, st, true, "dev", "dev2")
	list := func(peer string) (out []string) {
		t.Helper()
		err := st.View(ctx, func(tx *Tx) error {
			return tx.Observations(peer, func(o Observation) error {
				out = append(out, fmt.Sprintf("%s %x %s", o.Peer, o.Token, o.Data))
				return nil
			})
		})
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	err := st.Update(ctx, func(tx *Tx) error {
		return errors.Join(
			tx.PutObservation(Observation{"dev", []byte{0, 1}, []byte("GET /3303/0/5700")}),
			tx.PutObservation(Observation{"dev", []byte{2}, []byte("two")}),
			tx.PutObservation(Observation{"dev2", nil, []byte("three")}))
	})
	if err != nil {
		t.Fatal(err)
	}
	// All or nothing, and others are not harmed.
	boom := errors.New("boom")
	err = st.Update(ctx, func(tx *Tx) error {
		return errors.Join(tx.DeleteObservation("dev", []byte{2}), boom)
	})
	if !errors.Is(err, boom) {
		t.Error(err)
	}
	st.die()
	st = mustOpen(t, base)
	if got := list("dev"); fmt.Sprint(got) != "[dev 0001 GET /3303/0/5700 dev 02 two]" {
		t.Errorf("%q", got)
	}
	if got := list(""); len(got) != 3 {
		t.Errorf("%q", got)
	}
	err = st.View(ctx, func(tx *Tx) error { return tx.DeleteObservation("dev", nil) })
	if !errors.Is(err, ErrReadOnly) {
		t.Error(err)
	}
	if err := st.Update(ctx, func(tx *Tx) error { return tx.DeleteObservation("dev", []byte{2}) }); err != nil {
		t.Fatal(err)
	}
	if err := st.Remove(ctx, "dev2"); err != nil {
		t.Fatal(err)
	}
	if got := list(""); len(got) != 1 {
		t.Errorf("%q", got)
	}
	mustClose(t, st)
	raw, err := os.ReadFile(filepath.Join(base, "store", "store.db"))
	if err != nil || bytes.Contains(raw, []byte("/3303/0/5700")) {
		t.Error("the path stands in the clear", err)
	}
}
