package bolt

import (
	"errors"
	"testing"

	"github.com/oscorelay/oscorelay/keys"
	"github.com/oscorelay/oscorelay/oscore"
)

// TestPeersBesideEntries: peers that are added to the keyring, such as those of
// EDHOC sessions, stand beside the entries of the store, which are not in memory, and
// neither takes what the other has.
func TestPeersBesideEntries(t *testing.T) {
	base := t.TempDir()
	mustClose(t, mustOpen(t, base))
	o := opts(base)
	o.Hot = 1
	st, err := Open(base+"/store", o)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		if err := st.Put(ctx, true, meter(i)); err != nil {
			t.Fatal(err)
		}
	}
	ring, err := st.Keyring(ctx)
	if err != nil {
		t.Fatal(err)
	}
	find := func(kid []byte) string {
		t.Helper()
		peers, match := ring.Find(nil, kid, nil)
		if len(peers) != 1 {
			return match.String()
		}
		return peers[0].Name()
	}
	dev, kid := meter(0).Name, meter(0).Params.RecipientID

	// Identifiers.
	if err := ring.ReserveID(kid); !errors.Is(err, keys.ErrDuplicate) {
		t.Errorf("an entry's identifier is free: %v", err)
	}
	mine := []byte{9}
	if err := ring.ReserveID(mine); err != nil {
		t.Fatal(err)
	}
	if got := find(mine); got != "session" {
		t.Error(got)
	}
	taken := meter(7)
	taken.Params.RecipientID = mine
	if err := st.Put(ctx, true, taken); !errors.Is(err, keys.ErrDuplicate) {
		t.Errorf("an entry with a session's identifier: %v", err)
	}

	// Material.
	twin := meter(1)
	twin.Name = "twin"
	if _, err := ring.Add(ctx, twin); !errors.Is(err, keys.ErrDuplicate) {
		t.Errorf("the material of an entry: %v", err)
	}
	if _, err := ring.AddNew(ctx, meter(1)); !errors.Is(err, keys.ErrDuplicate) {
		t.Errorf("the name of an entry: %v", err)
	}
	added := meter(8)
	if _, err := ring.AddNew(ctx, added); err != nil {
		t.Fatal(err)
	}
	stolen := added
	stolen.Name = "stolen"
	if err := st.Put(ctx, true, stolen); !errors.Is(err, keys.ErrDuplicate) {
		t.Errorf("an entry with the material of a peer: %v", err)
	}

	// A session takes the place of the entry of its name.
	held, _ := ring.Get(dev)
	session := keys.Entry{Name: dev, Params: oscore.Params{MasterSecret: []byte("of the session"), SenderID: []byte{1}, RecipientID: mine}}
	if _, err := ring.AddSession(ctx, session); err != nil {
		t.Fatal(err)
	}
	if got := find(kid); got != "none" {
		t.Errorf("the entry is found beside its session: %s", got)
	}
	if got := find(mine); got != dev {
		t.Errorf("the session is not found: %s", got)
	}
	if _, err := held.SealRequest(nil, new(oscore.Pending), oscore.Message{Code: 1}); !errors.Is(err, keys.ErrClosed) {
		t.Errorf("the entry's peer: %v", err)
	}
	if ring.Len() != 4 {
		t.Errorf("%d peers", ring.Len())
	}
	var names []string
	for p := range ring.Peers() {
		names = append(names, p.Name())
	}
	if len(names) != 4 || names[0] != dev || names[3] != added.Name {
		t.Errorf("%v", names)
	}
	again := meter(0)
	again.Notes = "written while the session goes on"
	if err := st.Put(ctx, true, again); err != nil {
		t.Fatal(err)
	}
	if got := find(mine); got != dev {
		t.Errorf("the session is gone: %s", got)
	}
	if err := st.Put(ctx, true, added); err != nil { // it is to be there after the next start too
		t.Fatal(err)
	}
	if got := find(added.Params.RecipientID); got != added.Name || ring.Len() != 4 {
		t.Errorf("%s, %d peers", got, ring.Len())
	}
	if err := ring.Forget(ctx, dev); err != nil {
		t.Fatal(err)
	}
	if got := find(mine) + find(kid); got != "nonenone" {
		t.Errorf("after the session: %s", got)
	}
	// Written again the entry is there, with the window it had.
	if err := st.Put(ctx, true, again); err != nil {
		t.Fatal(err)
	}
	p, ok := ring.Get(dev)
	if !ok || find(kid) != dev || !p.Status().WindowOpen || p.Tainted() {
		t.Errorf("the entry written again: %v, %s", ok, find(kid))
	}

	// What is removed from the keyring alone is back with the next one.
	if err := ring.Remove(ctx, meter(2).Name); err != nil {
		t.Fatal(err)
	}
	if err := ring.Remove(ctx, meter(2).Name); !errors.Is(err, keys.ErrNotFound) {
		t.Errorf("removed twice: %v", err)
	}
	if got := find(meter(2).Params.RecipientID); got != "none" || ring.Len() != 3 {
		t.Errorf("%s, %d peers", got, ring.Len())
	}
	if err := ring.Close(ctx); err != nil {
		t.Fatal(err)
	}
	if ring, err = st.Keyring(ctx); err != nil {
		t.Fatal(err)
	}
	if got := find(meter(2).Params.RecipientID); got != meter(2).Name {
		t.Error(got)
	}
	if p, _ := ring.Get(meter(2).Name); !p.Status().WindowOpen {
		t.Error("its window was not saved")
	}
	mustClose(t, st)
}
