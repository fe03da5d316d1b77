package bolt

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"path/filepath"
	"strings"
	"testing"

	"github.com/oscorelay/oscorelay/keys"
	"github.com/oscorelay/oscorelay/oscore"
)

// fleet returns entries as an import of a fleet has them.
func fleet(n int) iter.Seq2[keys.Entry, error] {
	return func(yield func(keys.Entry, error) bool) {
		for i := range n {
			if !yield(meter(i), nil) {
				return
			}
		}
	}
}

// meter is one of a fleet.
func meter(i int) keys.Entry {
	secret := make([]byte, 16)
	binary.BigEndian.PutUint64(secret, uint64(i)+1)
	return keys.Entry{Name: fmt.Sprintf("urn:dev:os:32473-%07d", i), Params: oscore.Params{
		MasterSecret: secret, MasterSalt: secret[:8], SenderID: []byte{1}, RecipientID: binary.BigEndian.AppendUint32(nil, uint32(i)),
	}}
}

// TestImportCutShort: an import that ends in the middle of its transactions leaves
// a store that opens, and is complete when it has been run again.
func TestImportCutShort(t *testing.T) {
	const n = 250
	for step := 0; ; step++ {
		base := t.TempDir()
		st := mustOpen(t, base)
		st.chunk, st.part = 30, 40
		ctx, cancel := context.WithCancel(ctx)
		steps, last := 0, 0
		err := st.Import(ctx, fleet(n), ImportOptions{Fresh: true, Expected: n, Progress: func(done, of int) {
			if done <= last || done > of || of != n*stepsAll {
				t.Errorf("progress %d of %d after %d", done, of, last)
			}
			last = done
			if steps++; steps > step {
				cancel()
			}
		}})
		cancel()
		if err == nil && step > 10 {
			if last != n*stepsAll {
				t.Errorf("progress ends at %d of %d", last, n*stepsAll)
			}
			mustClose(t, st)
			return // it got through
		}
		if !errors.Is(err, context.Canceled) {
			t.Fatalf("step %d: %v", step, err)
		}
		st.die()
		st = mustOpen(t, base)
		if _, err := st.Keyring(context.Background()); err != nil {
			t.Fatalf("step %d: %v", step, err)
		}
		st.chunk, st.part = 30, 40
		if err := st.Import(context.Background(), fleet(n), ImportOptions{Fresh: true}); err != nil {
			t.Fatalf("step %d: %v", step, err)
		}
		whole(t, st, n)
		mustClose(t, st)
	}
}

// whole checks that a fleet is there, found and not tainted.
func whole(t *testing.T, st *Store, n int) {
	t.Helper()
	ring, err := st.Keyring(context.Background())
	if err != nil || ring.Len() != n {
		t.Fatalf("%d peers, %v", ring.Len(), err)
	}
	seen := 0
	for p := range ring.Peers() {
		if p.Tainted() {
			t.Fatalf("%s is tainted: %v", p.Name(), p.Taint())
		}
		seen++
	}
	for i := range n {
		e := meter(i)
		peers, match := ring.Find(nil, e.Params.RecipientID, nil)
		if match != oscore.MatchKID || len(peers) != 1 || peers[0].Name() != e.Name {
			t.Fatalf("%s: %v, %v", e.Name, peers, match)
		}
	}
	if seen != n {
		t.Fatalf("%d of %d peers", seen, n)
	}
	if left, err := filepath.Glob(filepath.Join(st.dir, spillName)); len(left) > 0 || err != nil {
		t.Errorf("left behind: %v, %v", left, err)
	}
	if err := ring.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
}

// TestImportRefuses: what an import in parts refuses, and that it writes nothing
// then.
func TestImportRefuses(t *testing.T) {
	const n = 100
	old := meter(7)
	old.Name = "old"
	broken := errors.New("line 3 is wrong")
	for _, tc := range []struct {
		name   string
		before []keys.Entry
		change func(i int, e *keys.Entry) error
		want   error
		text   string
	}{
		{"name twice", nil, func(i int, e *keys.Entry) error { e.Name = meter(i % 90).Name; return nil }, keys.ErrDuplicate, "two entries named"},
		{"material twice", nil, func(i int, e *keys.Entry) error { e.Params = meter(i % 90).Params; return nil }, keys.ErrDuplicate, "recipient key"},
		{"material in the store", []keys.Entry{old}, nil, keys.ErrDuplicate, `"old"`},
		{"five with one kid", nil, func(i int, e *keys.Entry) error {
			if i%20 == 0 {
				e.Params.RecipientID = []byte{9}
			}
			return nil
		}, keys.ErrDuplicate, "recipient ID 09 would be shared by 5 entries"},
		{"one kid and context", nil, func(i int, e *keys.Entry) error {
			e.Params.IDContext = []byte("one")
			e.Params.RecipientID = []byte{9, byte(i % 99)}
			return nil
		}, keys.ErrDuplicate, "one ID context"},
		{"a bad entry", nil, func(i int, e *keys.Entry) error {
			if i == 88 {
				e.Params.MasterSecret = nil
			}
			return nil
		}, nil, "master secret is missing"},
		{"a bad source", nil, func(i int, e *keys.Entry) error {
			if i == 88 {
				return broken
			}
			return nil
		}, broken, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			st := mustOpen(t, t.TempDir())
			defer mustClose(t, st)
			st.chunk, st.part = 30, 40
			if err := st.Put(ctx, true, tc.before...); err != nil {
				t.Fatal(err)
			}
			err := st.Import(ctx, func(yield func(keys.Entry, error) bool) {
				for i := range n {
					e := meter(i)
					var err error
					if tc.change != nil {
						err = tc.change(i, &e)
					}
					if !yield(e, err) {
						return
					}
				}
			}, ImportOptions{Fresh: true})
			if err == nil || tc.want != nil && !errors.Is(err, tc.want) || !strings.Contains(err.Error(), tc.text) {
				t.Errorf("%v, want %v with %q", err, tc.want, tc.text)
			}
			if st.Len() != len(tc.before) {
				t.Errorf("%d entries are there", st.Len())
			}
			for i := range n {
				e := meter(i)
				id, _, err := keys.Identities(&e.Params)
				if err != nil {
					t.Fatal(err)
				}
				if err := st.Known(ctx, id[:]); err == nil && (i != 7 || tc.before == nil) {
					t.Errorf("%s became known", e.Name)
				}
			}
		})
	}
}

// TestImportInto: an import into a store in use replaces entries, leaves others,
// and keeps the numbers and windows of known material. Fresh material that another
// store declared is refused by name.
func TestImportInto(t *testing.T) {
	base := t.TempDir()
	st := mustOpen(t, base)
	const n = 100
	if err := st.Put(ctx, true, demo("other")); err != nil {
		t.Fatal(err)
	}
	st.chunk, st.part = 30, 40
	if err := st.Import(ctx, fleet(n), ImportOptions{Fresh: true}); err != nil {
		t.Fatal(err)
	}
	ring, err := st.Keyring(ctx)
	if err != nil {
		t.Fatal(err)
	}
	top := map[string]uint64{}
	seal := func(p *keys.Peer) uint64 {
		t.Helper()
		var q oscore.Pending
		if _, err := p.SealRequest(nil, &q, oscore.Message{Code: 1}); err != nil {
			t.Fatal(err)
		}
		return q.PartialIV()
	}
	held, _ := ring.Get(meter(50).Name)
	same, _ := ring.Get(meter(51).Name)
	for p := range ring.Peers() {
		top[p.Name()] = seal(p)
	}
	err = st.Import(ctx, func(yield func(keys.Entry, error) bool) {
		for e := range fleet(n + 50) {
			if e.Name != meter(51).Name {
				e.Notes = "another time"
			}
			if !yield(e, nil) {
				return
			}
		}
	}, ImportOptions{Fresh: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := held.SealRequest(nil, new(oscore.Pending), oscore.Message{Code: 1}); !errors.Is(err, keys.ErrClosed) {
		t.Errorf("the peer of an entry that was replaced: %v", err)
	}
	seal(same)
	if ring.Len() != n+51 {
		t.Errorf("%d peers", ring.Len())
	}
	for p := range ring.Peers() {
		if s := p.Status(); !s.WindowOpen || s.Taint != nil {
			t.Errorf("%s: %+v", p.Name(), s)
		}
		last, was := top[p.Name()]
		if now := seal(p); was && now <= last {
			t.Errorf("%s: number %d after %d", p.Name(), now, last)
		}
		if i, ok, err := st.Index(ctx, p.Name()); !ok || err != nil || int(i) > n+50 {
			t.Errorf("%s: index %d, %v", p.Name(), i, err)
		}
	}
	if err := ring.Close(ctx); err != nil {
		t.Fatal(err)
	}
	mustClose(t, st)
	o := opts(base)
	o.Init = true
	if st, err = Open(filepath.Join(base, "second"), o); err != nil {
		t.Fatal(err)
	}
	st.chunk, st.part = 30, 40
	err = st.Import(ctx, fleet(n), ImportOptions{Fresh: true})
	if !errors.Is(err, keys.ErrTainted) || !strings.Contains(err.Error(), "urn:dev:os:32473-") {
		t.Errorf("material of another store: %v", err)
	}
	if st.Len() != 0 {
		t.Errorf("%d entries are there", st.Len())
	}
	mustClose(t, st)
}
