package bolt

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestIndex: an index stays with its name over restarts, crashes and what is put
// in its place, and is never given again.
func TestIndex(t *testing.T) {
	base := t.TempDir()
	st := mustOpen(t, base)
	index := func(name string) uint32 {
		t.Helper()
		i, ok, err := st.Index(ctx, name)
		if err != nil || !ok {
			t.Fatalf("Index(%s) = %v, %v", name, ok, err)
		}
		if back, ok, err := st.ByIndex(ctx, i); back != name || !ok || err != nil {
			t.Fatalf("ByIndex(%d) = %q, %v, %v, want %q", i, back, ok, err, name)
		}
		return i
	}
	mustPut(t, st, true, "b", "a", "c")
	for i, name := range []string{"b", "a", "c"} {
		if got := index(name); got != uint32(i) {
			t.Errorf("%s has %d, want %d", name, got, i)
		}
	}
	other := demo("a")
	other.Params.MasterSecret = []byte("quite another one")
	if err := st.Put(ctx, true, other); err != nil {
		t.Fatal(err)
	}
	if err := st.Remove(ctx, "c"); err != nil {
		t.Fatal(err)
	}
	for _, clean := range []bool{true, false} {
		if clean {
			mustClose(t, st)
		} else {
			st.die()
		}
		st = mustOpen(t, base)
		if index("b") != 0 || index("a") != 1 {
			t.Error("an index moved")
		}
	}
	if _, ok, err := st.ByIndex(ctx, 2); ok || err != nil {
		t.Errorf("of an entry removed: %v, %v", ok, err)
	}
	if _, ok, err := st.Index(ctx, "c"); ok || err != nil {
		t.Errorf("of an entry removed: %v, %v", ok, err)
	}
	mustPut(t, st, false, "c")
	if got := index("c"); got != 3 {
		t.Errorf("put again: %d, want 3", got)
	}
	mustClose(t, st)
}

func TestFacts(t *testing.T) {
	base := t.TempDir()
	st := mustOpen(t, base)
	mustPut(t, st, true, "dev", "dev2")
	put := func(peer, key, data string) {
		t.Helper()
		if err := st.Update(ctx, func(tx *Tx) error { return tx.PutFact(peer, key, []byte(data)) }); err != nil {
			t.Fatal(err)
		}
	}
	list := func(peer string) string {
		t.Helper()
		var out []string
		err := st.View(ctx, func(tx *Tx) error {
			return tx.Facts(peer, func(peer, key string, data []byte) error {
				out = append(out, peer+" "+key+" "+string(data))
				return nil
			})
		})
		if err != nil {
			t.Fatal(err)
		}
		return strings.Join(out, ", ")
	}
	put("dev", "address", "192.0.2.1:5683 is secret")
	put("dev", "location", "/rd/1")
	put("dev", "location", "/rd/2")
	put("dev2", "location", "/rd/3")
	st.die()
	raw, err := os.ReadFile(filepath.Join(base, "store", "store.db"))
	if err != nil || bytes.Contains(raw, []byte("is secret")) {
		t.Error("a fact stands in the clear", err)
	}
	st = mustOpen(t, base)
	if got := list("dev"); got != "dev address 192.0.2.1:5683 is secret, dev location /rd/2" {
		t.Error(got)
	}
	if got := list(""); strings.Count(got, ", ") != 2 {
		t.Error(got)
	}
	err = st.View(ctx, func(tx *Tx) error {
		if v, ok, err := tx.Fact("dev", "location"); string(v) != "/rd/2" || !ok || err != nil {
			t.Errorf("%q, %v, %v", v, ok, err)
		}
		if v, ok, err := tx.Fact("dev", "nothing"); ok || err != nil {
			t.Errorf("%q, %v, %v", v, ok, err)
		}
		if err := tx.PutFact("dev", "x", nil); !errors.Is(err, ErrReadOnly) {
			t.Errorf("PutFact in View: %v", err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	err = st.Update(ctx, func(tx *Tx) error {
		for _, bad := range [][2]string{{"", "x"}, {"dev", ""}, {"dev", strings.Repeat("x", MaxFactKey+1)}, {"de\x00v", "x"}, {strings.Repeat("x", 129), "x"}} {
			if err := tx.PutFact(bad[0], bad[1], nil); !errors.Is(err, ErrTooLong) {
				t.Errorf("%q: %v", bad, err)
			}
		}
		return tx.DeleteFact("dev", "address")
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := list("dev"); got != "dev location /rd/2" {
		t.Error(got)
	}
	if err := st.Remove(ctx, "dev"); err != nil {
		t.Fatal(err)
	}
	if got := list(""); got != "dev2 location /rd/3" {
		t.Error(got)
	}
	mustClose(t, st)
}

func TestForgetExchange(t *testing.T) {
	st := mustOpen(t, t.TempDir())
	now := time.Unix(1_700_000_000, 0)
	x, y := Exchange{"server", 1, []byte{1}}, Exchange{"server", 2, []byte{1}}
	for range 2 {
		for _, e := range []Exchange{x, y} {
			if _, repeated, err := st.Begin(ctx, e, nil, now); repeated || err != nil {
				t.Fatal(repeated, err)
			}
		}
		if err := st.Finish(ctx, y, []byte("done")); err != nil {
			t.Fatal(err)
		}
		err := st.Update(ctx, func(tx *Tx) error {
			for _, e := range []Exchange{x, y, x} {
				if err := tx.Forget(e); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		err = st.Update(ctx, func(tx *Tx) error {
			n, err := tx.Expire(now.Add(time.Hour))
			if n != 0 {
				t.Errorf("%d left behind", n)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := st.Finish(ctx, x, nil); !errors.Is(err, ErrNotBegun) {
		t.Error(err)
	}
	mustClose(t, st)
}
