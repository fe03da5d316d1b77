package keys_test

import (
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/oscorelay/oscorelay/keys"
	"github.com/oscorelay/oscorelay/oscore"
)

// bare is a store that can only reserve. It fails and blocks as it is told.
type bare struct {
	mu     sync.Mutex
	next   uint64
	asked  []uint32
	fail   error
	known  bool
	repeat bool
	gate   chan struct{} // if not nil, Reserve waits for it
}

func (b *bare) Reserve(_ context.Context, _ []byte, n uint32) (lo, hi uint64, err error) {
	b.mu.Lock()
	gate := b.gate
	b.mu.Unlock()
	if gate != nil {
		<-gate
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.asked = append(b.asked, n)
	if !b.known {
		return 0, 0, keys.NeverSeen()
	}
	if b.repeat {
		return 0, uint64(n), nil
	}
	lo = b.next
	b.next += uint64(n)
	return lo, b.next, b.fail
}

func (b *bare) set(change func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	change()
}

func seal(p *keys.Peer) (uint64, error) {
	var pending oscore.Pending
	_, err := p.SealRequest(nil, &pending, get)
	return pending.PartialIV(), err
}

func mustSeal(t *testing.T, p *keys.Peer) uint64 {
	t.Helper()
	n, err := seal(p)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestBlocksGrowToTheirLimit(t *testing.T) {
	s := &bare{known: true}
	ring := keys.New(s)
	p := mustAdd(t, ring, entry("d", []byte{1}, []byte{2}, nil))
	for range 20000 {
		mustSeal(t, p)
	}
	if err := ring.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	want := uint32(64)
	for i, n := range s.asked {
		if n != want {
			t.Fatalf("reservation %d asked for %d, want %d (%v)", i, n, want, s.asked)
		}
		want = min(want*2, keys.MaxBlock)
	}
	if len(s.asked) < 20 || len(s.asked) > 26 {
		t.Errorf("%d reservations for 20000 messages", len(s.asked))
	}
}

func TestSealingDoesNotWaitForTheNextBlock(t *testing.T) {
	s := &bare{known: true}
	ring := keys.New(s)
	p := mustAdd(t, ring, entry("d", []byte{1}, []byte{2}, nil))
	mustSeal(t, p)
	gate := make(chan struct{})
	s.set(func() { s.gate = gate })
	for range 63 {
		mustSeal(t, p) // the second half while the store hangs
	}
	done := make(chan uint64)
	go func() {
		n, _ := seal(p)
		done <- n
	}()
	select {
	case n := <-done:
		t.Fatalf("number %d was used before it was reserved", n)
	default:
	}
	close(gate)
	if n := <-done; n != 64 {
		t.Errorf("number %d, want 64", n)
	}
}

func TestUnknownOutcomeBurnsTheRange(t *testing.T) {
	lost := errors.New("no answer")
	s := &bare{known: true, fail: lost}
	p := mustAdd(t, keys.New(s), entry("d", []byte{1}, []byte{2}, nil))
	if _, err := seal(p); !errors.Is(err, lost) {
		t.Fatal(err)
	}
	s.set(func() { s.fail = nil })
	if n := mustSeal(t, p); n != 64 {
		t.Errorf("number %d, want 64", n)
	}
}

func TestARangeGivenTwiceIsRefused(t *testing.T) {
	s := &bare{known: true}
	p := mustAdd(t, keys.New(s), entry("d", []byte{1}, []byte{2}, nil))
	mustSeal(t, p)
	s.set(func() { s.repeat = true })
	for n := uint64(1); n < 64; n++ {
		if got := mustSeal(t, p); got != n {
			t.Fatalf("number %d, want %d", got, n)
		}
	}
	if _, err := seal(p); !errors.Is(err, oscore.ErrLease) {
		t.Errorf("%v, want ErrLease", err)
	}
}

func TestAStoreThatDoesNotKnowTaints(t *testing.T) {
	s := &bare{}
	p := mustAdd(t, keys.New(s), entry("d", []byte{1}, []byte{2}, nil))
	if _, err := seal(p); !errors.Is(err, keys.ErrTainted) || !p.Tainted() {
		t.Fatal(err)
	}
	if _, err := seal(p); !errors.Is(err, keys.ErrTainted) {
		t.Fatal(err)
	}
	if len(s.asked) != 1 {
		t.Errorf("asked %d times", len(s.asked))
	}
	// Without a ContextStore a derived context lives as long as the process.
	if err := p.Adopt(derive(t, p, "fresh randomness")); err != nil {
		t.Fatal(err)
	}
	mustSeal(t, p)
	if p.Tainted() || len(s.asked) != 1 {
		t.Error("the derived context asked the store")
	}
}

func TestAdoptDuringAReservation(t *testing.T) {
	s := &bare{known: true}
	p := mustAdd(t, keys.New(s), entry("d", []byte{1}, []byte{2}, nil))
	gate := make(chan struct{})
	s.set(func() { s.gate = gate })
	sealed := make(chan error)
	go func() {
		_, err := seal(p) // begins under the first context, ends under the second
		sealed <- err
	}()
	c := derive(t, p, "fresh randomness")
	if err := p.Adopt(c); err != nil {
		t.Fatal(err)
	}
	close(gate)
	if err := <-sealed; err != nil {
		t.Error(err)
	}
	if n := mustSeal(t, p); n > 1 {
		t.Errorf("number %d: the old context's range came in", n)
	}
}

func TestRemovedPeerRefuses(t *testing.T) {
	ctx := context.Background()
	ring := keys.New(keys.NewMemory())
	p := mustAddNew(t, ring, entry("d", []byte{1}, []byte{2}, nil))
	mustSeal(t, p)
	c := derive(t, p, "fresh randomness")
	if err := ring.Remove(ctx, "d"); err != nil {
		t.Fatal(err)
	}
	if _, err := seal(p); !errors.Is(err, keys.ErrClosed) {
		t.Errorf("SealRequest: %v", err)
	}
	if err := p.Adopt(c); !errors.Is(err, keys.ErrClosed) {
		t.Errorf("Adopt: %v", err)
	}
	if _, err := p.Derive([]byte("more randomness"), nil); !errors.Is(err, keys.ErrClosed) {
		t.Errorf("Derive: %v", err)
	}
	if err := ring.Remove(ctx, "d"); !errors.Is(err, keys.ErrNotFound) {
		t.Errorf("Remove again: %v", err)
	}
	if _, ok := ring.Peer("d"); ok {
		t.Error("still there")
	}
	if _, m := ring.Find(nil, []byte{2}, nil); m != oscore.MatchNone {
		t.Errorf("Find = %v", m)
	}
}

func TestSealingDoesNotAllocate(t *testing.T) {
	s := &bare{known: true}
	p := mustAdd(t, keys.New(s), entry("d", []byte{1}, []byte{2}, nil))
	var pending oscore.Pending
	buf := make([]byte, 0, 256)
	// Reservations allocate, one in 1024 messages in the end.
	for range 4000 {
		mustSeal(t, p)
	}
	n := testing.AllocsPerRun(1000, func() {
		if _, err := p.SealRequest(buf, &pending, get); err != nil {
			t.Fatal(err)
		}
	})
	if n != 0 {
		t.Errorf("%v allocations a message", n)
	}
}

func TestForgottenMaterialIsTainted(t *testing.T) {
	ctx := context.Background()
	store := keys.NewMemory()
	ring := keys.New(store)
	e := entry("d", []byte{1}, []byte{2}, nil)
	p := mustAddNew(t, ring, e)
	mustSeal(t, p)
	if err := p.Adopt(derive(t, p, "fresh randomness")); err != nil {
		t.Fatal(err)
	}
	if err := ring.Forget(ctx, "d"); err != nil {
		t.Fatal(err)
	}
	if err := ring.Forget(ctx, "d"); !errors.Is(err, keys.ErrNotFound) {
		t.Errorf("Forget again: %v", err)
	}
	if p := mustAdd(t, ring, e); !p.Tainted() || p.Status().Derived {
		t.Errorf("added again: %+v", p.Status())
	}
}

// TestNewOnceOnly: a program that says at each start that its key is new opens
// the window, and begins at 0, the first time only.
func TestNewOnceOnly(t *testing.T) {
	store := keys.NewMemory()
	e := entry("d", []byte{1}, []byte{2}, nil)
	p := mustAddNew(t, keys.New(store), e)
	if !p.Status().WindowOpen || mustSeal(t, p) != 0 {
		t.Error("new material does not begin at 0 with an open window")
	}
	store.Restart()
	p = mustAddNew(t, keys.New(store), e)
	if p.Status().WindowOpen || mustSeal(t, p) < 64 {
		t.Error("material that is new no more was taken for new")
	}
}
