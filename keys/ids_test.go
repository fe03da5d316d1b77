package keys_test

import (
	"errors"
	"testing"

	"github.com/oscorelay/oscorelay/keys"
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
