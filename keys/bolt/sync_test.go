package bolt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	bbolt "go.etcd.io/bbolt"

	"github.com/oscorelay/oscorelay/keys"
	"github.com/oscorelay/oscorelay/oscore"
)

// from are the meters of some numbers, as a source has them.
func from(source string, numbers ...int) iter.Seq2[Sourced, error] {
	return func(yield func(Sourced, error) bool) {
		for _, i := range numbers {
			if !yield(Sourced{meter(i), source}, nil) {
				return
			}
		}
	}
}

func upTo(lo, hi int) (out []int) {
	for i := lo; i < hi; i++ {
		out = append(out, i)
	}
	return out
}

func mark(s string) func() []byte { return func() []byte { return []byte(s) } }

// markOf returns the mark, "-" if there is none.
func markOf(t *testing.T, st *Store) string {
	t.Helper()
	m, ok, err := st.Mark(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if !ok {
		return "-"
	}
	return string(m)
}

func nameOf(t *testing.T, st *Store) (names []string) {
	t.Helper()
	err := st.Entries(ctx, func(e keys.Entry) error {
		names = append(names, strings.TrimPrefix(e.Name, "urn:dev:os:32473-00000"))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// TestSync: what sources have comes, stays or changes, and what left them goes, in
// one transaction and in many; what came otherwise is left alone.
func TestSync(t *testing.T) {
	for _, chunk := range []int{1000, 7} {
		t.Run(fmt.Sprint(chunk), func(t *testing.T) {
			base := t.TempDir()
			st := mustOpen(t, base)
			st.chunk, st.part = chunk, 2*chunk
			if err := st.Put(ctx, true, meter(50)); err != nil {
				t.Fatal(err)
			}
			sync := func(source iter.Seq2[Sourced, error], m string, added int, changed, removed []string) {
				t.Helper()
				res, err := st.Sync(ctx, source, mark(m), ImportOptions{Fresh: true})
				slices.Sort(res.Removed)
				if err != nil || res.Added != added || !slices.Equal(res.Changed, changed) || !slices.Equal(res.Removed, removed) {
					t.Fatalf("%+v, %v, want %d %v %v", res, err, added, changed, removed)
				}
				if got := markOf(t, st); got != m {
					t.Fatalf("mark %q, want %q", got, m)
				}
			}
			if got := markOf(t, st); got != "-" {
				t.Errorf("a store that never synced has the mark %q", got)
			}
			sync(from("a", upTo(0, 20)...), "1", 20, nil, nil)
			ring, err := st.Keyring(ctx)
			if err != nil {
				t.Fatal(err)
			}
			held, _ := ring.Get(meter(3).Name)
			gone, _ := ring.Get(meter(19).Name)
			writes := frames(st)
			sync(from("a", upTo(0, 20)...), "1", 0, nil, nil)
			if chunk > 20 && frames(st) != writes {
				t.Error("what is there as it comes was written")
			}
			sync(from("b", upTo(0, 20)...), "2", 0, nil, nil) // moved to another file
			if s, err := st.Source(ctx, meter(4).Name); s != "b" || err != nil {
				t.Errorf("%q, %v", s, err)
			}
			if err := st.Update(ctx, func(tx *Tx) error { return tx.PutFact(meter(19).Name, "k", []byte("v")) }); err != nil {
				t.Fatal(err)
			}
			// One goes, one comes that has the keys of the one that goes, one changes.
			sync(func(yield func(Sourced, error) bool) {
				for e := range from("b", upTo(0, 20)...) {
					switch e.Name {
					case meter(19).Name:
						e.Name = "heir"
					case meter(5).Name:
						e.Notes = "changed"
					}
					if !yield(e, nil) {
						return
					}
				}
			}, "3", 1, []string{meter(5).Name}, []string{meter(19).Name})
			if _, err := gone.SealRequest(nil, new(oscore.Pending), oscore.Message{Code: 1}); !errors.Is(err, keys.ErrClosed) {
				t.Errorf("the peer of an entry that is gone: %v", err)
			}
			if _, err := held.SealRequest(nil, new(oscore.Pending), oscore.Message{Code: 1}); err != nil {
				t.Errorf("the peer of an entry that stayed: %v", err)
			}
			if p, _ := ring.Find(nil, meter(19).Params.RecipientID, nil); len(p) != 1 || p[0].Name() != "heir" {
				t.Errorf("%v", p)
			}
			err = st.View(ctx, func(tx *Tx) error {
				if _, ok, err := tx.Fact(meter(19).Name, "k"); ok || err != nil {
					t.Errorf("a fact outlived its entry: %v", err)
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			if s, err := st.Source(ctx, meter(50).Name); s != "" || err != nil {
				t.Errorf("what was put has the source %q, %v", s, err)
			}
			// Taken over with the same keys, and then removed from the file.
			sync(from("b", append(upTo(0, 5), 50)...), "4", 0, nil, append([]string{"heir"}, func() (out []string) {
				for i := 5; i < 19; i++ {
					out = append(out, meter(i).Name)
				}
				return out
			}()...))
			sync(from("b", upTo(0, 2)...), "5", 0, nil, []string{meter(2).Name, meter(3).Name, meter(4).Name, meter(50).Name})
			if err := ring.Close(ctx); err != nil {
				t.Fatal(err)
			}
			mustClose(t, st)
			st = mustOpen(t, base)
			if got := nameOf(t, st); !slices.Equal(got, []string{"00", "01"}) || markOf(t, st) != "5" || st.Len() != 2 {
				t.Errorf("%v, %q", got, markOf(t, st))
			}
			sync(from("b", upTo(0, 20)...), "6", 18, nil, nil)
			for i := range 20 {
				e := meter(i)
				id, _, _ := keys.Identities(&e.Params)
				if err := st.Known(ctx, id[:]); err != nil {
					t.Errorf("%d came back: %v", i, err)
				}
			}
			mustClose(t, st)
		})
	}
}

// TestSyncRefuses: what is wrong changes nothing, the mark neither.
func TestSyncRefuses(t *testing.T) {
	broken := errors.New("line 3 is wrong")
	for _, chunk := range []int{1000, 7} {
		st := mustOpen(t, t.TempDir())
		st.chunk, st.part = chunk, 2*chunk
		if err := st.Put(ctx, true, meter(50)); err != nil {
			t.Fatal(err)
		}
		if _, err := st.Sync(ctx, from("a", upTo(0, 20)...), mark("1"), ImportOptions{Fresh: true}); err != nil {
			t.Fatal(err)
		}
		writes := frames(st)
		change := func(n int, fn func(e *keys.Entry) error) iter.Seq2[Sourced, error] {
			return func(yield func(Sourced, error) bool) {
				for _, i := range append(upTo(0, 15), 51) {
					e := Sourced{meter(i), "a"}
					var err error
					if i == n {
						err = fn(&e.Entry)
					}
					if !yield(e, err) {
						return
					}
				}
			}
		}
		for _, c := range []struct {
			source iter.Seq2[Sourced, error]
			want   error
		}{
			{change(14, func(*keys.Entry) error { return broken }), broken},
			{change(14, func(e *keys.Entry) error { e.Name = meter(50).Name; return nil }), ErrForeign},
			{change(14, func(e *keys.Entry) error { e.Name = meter(13).Name; return nil }), keys.ErrDuplicate},
			{change(51, func(e *keys.Entry) error { e.Params = meter(50).Params; return nil }), keys.ErrDuplicate},
			{change(51, func(e *keys.Entry) error { e.Params = meter(2).Params; return nil }), keys.ErrDuplicate},
		} {
			if _, err := st.Sync(ctx, c.source, mark("2"), ImportOptions{Fresh: true}); !errors.Is(err, c.want) {
				t.Errorf("%v, want %v", err, c.want)
			}
			if frames(st) != writes || markOf(t, st) != "1" || st.Len() != 21 {
				t.Errorf("after %v: %d writes, mark %q, %d entries", c.want, frames(st)-writes, markOf(t, st), st.Len())
			}
		}
		mustClose(t, st)
	}
}

// TestSyncCutShort: a sync that a crash ends leaves no mark of what it did not do,
// and the next one makes the store whole, also with what was there before.
func TestSyncCutShort(t *testing.T) {
	const n = 120
	for _, back := range []bool{false, true} {
		for step := 0; ; step++ {
			base := t.TempDir()
			st := mustOpen(t, base)
			st.chunk, st.part = 30, 40
			if _, err := st.Sync(ctx, from("a", upTo(0, n)...), mark("old"), ImportOptions{Fresh: true}); err != nil {
				t.Fatal(err)
			}
			next := func(yield func(Sourced, error) bool) {
				for i := range n {
					e := Sourced{meter(i), "a"}
					switch {
					case i%5 == 0:
						continue
					case i%3 == 0:
						e.Params = meter(1000 + i).Params
					}
					if !yield(e, nil) {
						return
					}
				}
			}
			c, cancel := context.WithCancel(ctx)
			steps := 0
			_, err := st.Sync(c, next, mark("new"), ImportOptions{Fresh: true, Expected: n, Progress: func(int, int) {
				if steps++; steps > step {
					cancel()
				}
			}})
			cancel()
			if err == nil {
				mustClose(t, st)
				break
			}
			if !errors.Is(err, context.Canceled) {
				t.Fatalf("step %d: %v", step, err)
			}
			st.die()
			st = mustOpen(t, base)
			st.chunk, st.part = 30, 40
			if m := markOf(t, st); m == "new" {
				t.Fatalf("step %d: the mark is %q", step, m)
			}
			again, want := iter.Seq2[Sourced, error](next), n-n/5
			if back {
				again, want = from("a", upTo(0, n)...), n
			}
			if _, err := st.Sync(ctx, again, mark("end"), ImportOptions{Fresh: true}); err != nil {
				t.Fatalf("step %d: %v", step, err)
			}
			ring, err := st.Keyring(ctx)
			if err != nil || ring.Len() != want || markOf(t, st) != "end" {
				t.Fatalf("step %d: %d peers, %q, %v", step, ring.Len(), markOf(t, st), err)
			}
			for e := range again {
				peers, _ := ring.Find(nil, e.Params.RecipientID, nil)
				if len(peers) != 1 || peers[0].Name() != e.Name || peers[0].Tainted() {
					t.Fatalf("step %d: %s is not found", step, e.Name)
				}
			}
			if err := ring.Close(ctx); err != nil {
				t.Fatal(err)
			}
			mustClose(t, st)
		}
	}
}

// TestOtherForm: a store of another form is refused by its number, and unchanged.
func TestOtherForm(t *testing.T) {
	base := t.TempDir()
	st := mustOpen(t, base)
	mustClose(t, st)
	db, err := bbolt.Open(st.name(), 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		head := bytes.Clone(tx.Bucket(bucketMeta).Get(keyHead))
		copy(head, "oscore bolt 2\r\n")
		return tx.Bucket(bucketMeta).Put(keyHead, head)
	})
	if err = errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	_, err = Open(filepath.Join(base, "store"), opts(base))
	if !errors.Is(err, errForm) || !strings.Contains(err.Error(), "its form is 2, and this program has 3") {
		t.Error(err)
	}
}
