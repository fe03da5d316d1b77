package file

import (
	"context"
	"fmt"

	"github.com/oscorelay/oscorelay/keys"
	"github.com/oscorelay/oscorelay/keys/internal/record"
	"github.com/oscorelay/oscorelay/oscore"
)

// Reserve implements [keys.SSNStore]. It gives keys.MaxBlock numbers at most.
func (st *Store) Reserve(ctx context.Context, b []byte, n uint32) (lo, hi uint64, err error) {
	id, err := record.Identity(b)
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return 0, 0, err
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	out, err := st.join(&id)
	if err != nil {
		return 0, 0, err
	}
	if err := st.s.known(id); err != nil {
		return 0, 0, err
	}
	lo = st.s.ids[id].next
	if hi, err = keys.RangeEnd(lo, min(n, keys.MaxBlock)); err != nil {
		return 0, 0, err
	}
	// From here on the range is spent, whatever becomes of the write.
	st.s.ids[id] = history{next: hi}
	out.add(&id, hi-lo, appendNumbers(nil, id, hi), nil)
	if err := st.commit(out); err != nil {
		return 0, 0, err
	}
	return lo, hi, nil
}

// Known implements [keys.History].
func (st *Store) Known(_ context.Context, b []byte) error {
	id, err := record.Identity(b)
	if err != nil {
		return err
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.s.known(id)
}

// Declare implements [keys.History].
func (st *Store) Declare(_ context.Context, b []byte, next uint64) (created bool, err error) {
	id, err := record.Identity(b)
	if err != nil {
		return false, err
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	out, err := st.join(&id)
	if err != nil {
		return false, err
	}
	if h, ok := st.s.ids[id]; ok {
		if h.taint != 0 {
			return false, st.s.known(id)
		}
		return false, nil
	}
	out.add(&id, 0, appendNumbers(nil, id, next), func() { st.s.ids[id] = history{next: next} })
	return true, st.commit(out)
}

// Forget implements [keys.History].
func (st *Store) Forget(_ context.Context, b []byte) error {
	id, err := record.Identity(b)
	if err != nil {
		return err
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	out, err := st.join(&id)
	if err != nil {
		return err
	}
	out.add(&id, 0, appendForget(nil, id), func() {
		delete(st.s.ids, id)
		delete(st.s.derived, id)
		delete(st.s.used, id)
	})
	return st.commit(out)
}

// PutUsed implements [keys.UsageStore].
func (st *Store) PutUsed(_ context.Context, used []keys.Used) error {
	if len(used) == 0 {
		return nil
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	out, err := st.join(nil)
	if err != nil {
		return err
	}
	var records []byte
	for _, u := range used {
		records = appendUsed(records, u)
	}
	out.add(nil, 0, records, func() {
		for _, u := range used {
			st.s.used[u.ID] = max(st.s.used[u.ID], u.Encrypted)
		}
	})
	return st.commit(out)
}

// Used implements [keys.UsageStore].
func (st *Store) Used(_ context.Context, b []byte) (uint64, error) {
	id, err := record.Identity(b)
	if err != nil {
		return 0, err
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.s.used[id], nil
}

// PutWindows implements [keys.WindowStore].
func (st *Store) PutWindows(_ context.Context, windows []keys.Window) error {
	if len(windows) == 0 {
		return nil
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	out, err := st.join(nil)
	if err != nil {
		return err
	}
	var records []byte
	for _, w := range windows {
		records = appendWindow(records, w.ID, w.State)
	}
	out.add(nil, 0, records, func() {
		for _, w := range windows {
			st.s.windows[w.ID], st.saved[w.ID] = w.State, true
		}
	})
	return st.commit(out)
}

// TakeWindow implements [keys.WindowStore]. The beginning of the epoch voided
// what was saved before it; what was saved since is deleted now.
func (st *Store) TakeWindow(_ context.Context, b []byte) (w oscore.WindowState, ok bool, err error) {
	id, err := record.Identity(b)
	if err != nil {
		return w, false, err
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.err != nil {
		return w, false, st.err
	}
	w, ok = st.s.windows[id]
	if !ok {
		return w, false, nil
	}
	delete(st.s.windows, id)
	if !st.saved[id] {
		return w, true, nil
	}
	delete(st.saved, id)
	out, err := st.join(nil)
	if err == nil {
		out.add(nil, 0, appendTaken(nil, id), nil)
		err = st.commit(out)
	}
	if err != nil {
		return oscore.WindowState{}, false, err
	}
	return w, true, nil
}

// PutDerived implements [keys.ContextStore].
func (st *Store) PutDerived(_ context.Context, b []byte, d keys.Derived) error {
	base, err := record.Identity(b)
	if err != nil {
		return err
	}
	if len(d.IDContext) > oscore.MaxIDContext || d.Next > oscore.MaxSequence+1 {
		return fmt.Errorf("keys/file: derived context out of bounds")
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	out, err := st.join(&d.ID)
	if err != nil {
		return err
	}
	next := max(d.Next, st.s.ids[d.ID].next)
	now := derived{d.ID, append([]byte{}, d.IDContext...)}
	var records []byte
	old, had := st.s.derived[base]
	had = had && old.id != d.ID
	if had {
		records = appendForget(records, old.id)
	}
	records = appendNumbers(records, d.ID, next)
	records = appendDerived(records, base, now)
	out.add(&d.ID, 0, records, func() {
		if had {
			delete(st.s.ids, old.id)
			delete(st.s.used, old.id)
		}
		st.s.ids[d.ID] = history{next: max(next, st.s.ids[d.ID].next)}
		st.s.derived[base] = now
	})
	return st.commit(out)
}

// Derived implements [keys.ContextStore].
func (st *Store) Derived(_ context.Context, b []byte) ([]byte, bool, error) {
	base, err := record.Identity(b)
	if err != nil {
		return nil, false, err
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	d, ok := st.s.derived[base]
	if !ok {
		return nil, false, nil
	}
	return append([]byte{}, d.idContext...), true, nil
}
