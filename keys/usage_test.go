package keys_test

import (
	"testing"

	"github.com/oscorelay/oscorelay/keys"
	"github.com/oscorelay/oscorelay/oscore"
)

// TestUsageCountsRealEncryptions: restarts eat numbers, not the limit of a key.
func TestUsageCountsRealEncryptions(t *testing.T) {
	store := keys.NewMemory()
	e := entry("a", []byte{1}, []byte{2}, nil)
	far := mustAddNew(t, keys.New(keys.NewMemory()), e.Peer())
	if err := keys.DeclareNew(t.Context(), store, &e.Params); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name         string
		starts, each int
		crash        bool
		least, most  uint64 // of what is counted afterwards, over what was
	}{
		{"clean stops", 50, 3, false, 50 * 3 * 2, 50 * 3 * 2},
		{"crashes", 50, 3, true, 0, 50 * 3 * 2},
		{"one crash of a busy one", 1, 5000, true, 10_000 - 2*keys.MaxBlock, 10_000},
	} {
		t.Run(tc.name, func(t *testing.T) {
			before := uint64(0)
			for start := range tc.starts {
				ring := keys.New(store)
				near := mustAdd(t, ring, e)
				if start == 0 {
					before = near.Usage().Encrypted
				}
				had := near.Usage().Encrypted
				for range tc.each {
					send(t, near, far)
					_, q, err := send(t, far, near)
					if err == oscore.ErrUnproven {
						err = near.AcceptEcho(q) // as if it had answered a challenge
					}
					if err != nil {
						t.Fatal(err)
					}
				}
				// A number for each request, and a response that may use the nonce
				// of each that came.
				if got := near.Usage().Encrypted - had; got != uint64(2*tc.each) {
					t.Fatalf("%d encryptions counted, want %d", got, 2*tc.each)
				}
				if tc.crash {
					// What is on its way to the store may arrive or not.
					store.Restart()
				} else if err := ring.Close(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			ring := keys.New(store)
			got := mustAdd(t, ring, e).Usage().Encrypted - before
			if got < tc.least || got > tc.most {
				t.Errorf("%d encryptions counted, want %d to %d", got, tc.least, tc.most)
			}
		})
	}
}

// TestUsageEndsWithItsKey: a context derived anew begins with what it was used for.
func TestUsageEndsWithItsKey(t *testing.T) {
	p := mustAddNew(t, keys.New(keys.NewMemory()), entry("a", []byte{1}, []byte{2}, nil))
	for range 100 {
		if _, err := p.SealRequest(nil, new(oscore.Pending), get); err != nil {
			t.Fatal(err)
		}
	}
	c, err := p.Derive([]byte("fresh and random"), nil)
	if err != nil {
		t.Fatal(err)
	}
	c.Begin()
	for range 2 {
		if _, err := c.SealRequest(nil, new(oscore.Pending), get); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Adopt(c); err != nil {
		t.Fatal(err)
	}
	if n := p.Usage().Encrypted; n != 2 {
		t.Errorf("%d encryptions, want the 2 of the run", n)
	}
}
