package keys_test

import (
	"errors"
	"fmt"
	"strings"
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

// TestReplaceSession: what a session took the place of comes back if the session
// comes to nothing, with numbers that were never used; or it is gone for good.
func TestReplaceSession(t *testing.T) {
	store := keys.NewMemory()
	r := keys.New(store)
	replace := func(kid byte) (*keys.Peer, *keys.Replaced, error) {
		t.Helper()
		e := entry("d", []byte{0x01, kid}, []byte{kid}, nil)
		e.Name = "d"
		if err := r.ReserveID([]byte{kid}); err != nil {
			t.Fatal(err)
		}
		return r.ReplaceSession(t.Context(), e)
	}
	seal := func(p *keys.Peer) (piv uint64, kid string) {
		t.Helper()
		var pending oscore.Pending
		m, err := p.SealRequest(nil, &pending, get)
		if err != nil {
			t.Fatal(err)
		}
		o, _, err := oscore.FindOption(m)
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range o.PartialIV {
			piv = piv<<8 | uint64(b)
		}
		return piv, string(o.KID)
	}
	first, none, err := replace(0x05)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := none.Restore(t.Context()); !errors.Is(err, keys.ErrNotFound) || none.Forget(t.Context()) != nil {
		t.Errorf("nothing was replaced: %v", err)
	}
	var last uint64
	for range 3 {
		last, _ = seal(first)
	}
	second, old, err := replace(0x06)
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprintf("%v %+v %#v %x", old, old, old, old); strings.Contains(got, "Secret") || !strings.Contains(got, "[replaced context]") {
		t.Errorf("it shows %s", got)
	}
	if _, kid := seal(second); kid != "\x01\x06" || old.Name() != "d" {
		t.Errorf("kid %x, %q", kid, old.Name())
	}
	back, err := old.Restore(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if piv, kid := seal(back); piv <= last || kid != "\x01\x05" || back.Taint() != nil {
		t.Errorf("kid %x, number %d after %d, %v", kid, piv, last, back.Taint())
	}
	var pending oscore.Pending
	if _, err := second.SealRequest(nil, &pending, get); !errors.Is(err, keys.ErrClosed) || r.Len() != 1 {
		t.Errorf("the session that came to nothing: %v, %d peers", err, r.Len())
	}
	if _, err := old.Restore(t.Context()); !errors.Is(err, keys.ErrNotFound) {
		t.Errorf("put back twice: %v", err)
	}
	// Its identifier was given away meanwhile.
	third, old, err := replace(0x07)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.ReserveID([]byte{0x05}); err != nil {
		t.Fatal(err)
	}
	if _, err := old.Restore(t.Context()); !errors.Is(err, keys.ErrDuplicate) {
		t.Errorf("another has its identifier: %v", err)
	}
	if got, _ := r.Get("d"); got != third {
		t.Error("the new context was lost")
	}
	// Gone for good.
	fourth, old, err := replace(0x08)
	if err != nil {
		t.Fatal(err)
	}
	e := entry("d", []byte{0x01, 0x07}, []byte{0x07}, nil)
	id, _, err := keys.Identities(&e.Params)
	if err != nil {
		t.Fatal(err)
	}
	if store.Known(t.Context(), id[:]) != nil {
		t.Error("its numbers are forgotten already")
	}
	if err := old.Forget(t.Context()); err != nil || store.Known(t.Context(), id[:]) == nil {
		t.Errorf("%v", err)
	}
	if _, err := old.Restore(t.Context()); !errors.Is(err, keys.ErrNotFound) {
		t.Errorf("after Forget: %v", err)
	}
	seal(fourth)
}
