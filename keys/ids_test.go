package keys_test

import (
	"errors"
	"testing"

	"github.com/oscorelay/oscorelay/keys"
	"github.com/oscorelay/oscorelay/oscore"
)

func TestFreeIDs(t *testing.T) {
	r := keys.New(keys.NewMemory())
	mustAdd(t, r, entry("d", []byte{0x01}, []byte{0x05}, nil))
	if err := r.ReserveID([]byte{0x05}); !errors.Is(err, keys.ErrDuplicate) {
		t.Errorf("a peer's ID: %v", err)
	}
	avoid := []byte{0x06}
	seen := map[string]bool{"\x05": true, "\x06": true}
	for i := range 254 + 20 {
		id, err := r.ReserveFreeID(avoid)
		if err != nil {
			t.Fatal(err)
		}
		if seen[string(id)] {
			t.Fatalf("%x was given twice", id)
		}
		seen[string(id)] = true
		one := id[0] < 0x18 || id[0] >= 0x20 && id[0] < 0x38
		switch {
		case i < 46 && (len(id) != 1 || !one):
			t.Fatalf("%x as the %d-th: those that EDHOC encodes in one byte come first", id, i+1)
		case i >= 46 && i < 254 && (len(id) != 1 || one):
			t.Fatalf("%x as the %d-th: one byte is free", id, i+1)
		case i >= 254 && len(id) != 2:
			t.Fatalf("%x as the %d-th", id, i+1)
		}
		if err := r.ReserveID(id); !errors.Is(err, keys.ErrDuplicate) {
			t.Errorf("reserved again: %v", err)
		}
	}
	// A held identifier is refused to a peer until it is released.
	e := entry("e", []byte{0xff, 1}, []byte{0x07}, nil)
	if _, err := r.Add(t.Context(), e); !errors.Is(err, keys.ErrDuplicate) {
		t.Errorf("Add on a held identifier: %v", err)
	}
	r.ReleaseID([]byte{0x07})
	mustAdd(t, r, e)
}

// TestAddSession: a session's context takes the place of the peer's earlier
// one, under the identifier that was held for it and under no other.
func TestAddSession(t *testing.T) {
	r := keys.New(keys.NewMemory())
	first := entry("d", []byte{0x01}, []byte{0x05}, nil)
	if _, err := r.AddSession(t.Context(), first); !errors.Is(err, keys.ErrDuplicate) {
		t.Errorf("an identifier that nobody held: %v", err)
	}
	if err := r.ReserveID([]byte{0x05}); err != nil {
		t.Fatal(err)
	}
	old, err := r.AddSession(t.Context(), first)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.ReserveID([]byte{0x05}); !errors.Is(err, keys.ErrDuplicate) {
		t.Errorf("the context's identifier is free: %v", err)
	}
	second := entry("e", []byte{0x01}, []byte{0x06}, nil)
	second.Name = "d"
	if err := r.ReserveID([]byte{0x06}); err != nil {
		t.Fatal(err)
	}
	now, err := r.AddSession(t.Context(), second)
	if err != nil {
		t.Fatal(err)
	}
	if got, _ := r.Get("d"); got != now || r.Len() != 1 {
		t.Errorf("%d peers, the old one: %v", r.Len(), got == old)
	}
	if err := r.ReserveID([]byte{0x05}); err != nil {
		t.Errorf("the old identifier: %v", err)
	}
	var pending oscore.Pending
	if _, err := old.SealRequest(nil, &pending, get); !errors.Is(err, keys.ErrClosed) {
		t.Errorf("the old context seals: %v", err)
	}
	if _, err := now.SealRequest(nil, &pending, get); err != nil {
		t.Errorf("the new one does not: %v", err)
	}
	// One that stands in another's way changes nothing.
	third := entry("d", []byte{0x01}, []byte{0x05}, nil)
	third.Name, third.Params.MasterSecret = "d", nil
	if _, err := r.AddSession(t.Context(), third); err == nil {
		t.Error("a context without a secret was added")
	}
	if got, _ := r.Get("d"); got != now {
		t.Error("a session that failed took the context away")
	}
}

// TestPeerForget: the numbers of a session's context that was replaced are
// forgotten, those of one in use are not.
func TestPeerForget(t *testing.T) {
	store := keys.NewMemory()
	r := keys.New(store)
	e := entry("d", []byte{0x01}, []byte{0x05}, nil)
	if err := r.ReserveID([]byte{0x05}); err != nil {
		t.Fatal(err)
	}
	p, err := r.AddSession(t.Context(), e)
	if err != nil {
		t.Fatal(err)
	}
	id, _, err := keys.Identities(&e.Params)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Forget(t.Context()); err == nil || store.Known(t.Context(), id[:]) != nil {
		t.Errorf("in use: %v", err)
	}
	if err := r.Remove(t.Context(), "d"); err != nil {
		t.Fatal(err)
	}
	if err := p.Forget(t.Context()); err != nil || store.Known(t.Context(), id[:]) == nil {
		t.Errorf("removed: %v", err)
	}
}
