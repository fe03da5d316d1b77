package keys

import (
	"bytes"
	"context"
	"slices"
	"sync"

	"github.com/oscorelay/oscorelay/oscore"
)

// Memory is a store for tests and demonstrations: it has every ability of a
// store but survives no process. [Memory.Restart] makes it behave as a durable
// one does after a crash.
type Memory struct {
	mu      sync.Mutex
	next    map[Identity]uint64
	windows map[Identity]oscore.WindowState
	derived map[Identity]Derived
	used    map[Identity]uint64
}

var (
	_ SSNStore     = (*Memory)(nil)
	_ History      = (*Memory)(nil)
	_ WindowStore  = (*Memory)(nil)
	_ ContextStore = (*Memory)(nil)
	_ UsageStore   = (*Memory)(nil)
)

// NewMemory returns an empty store.
func NewMemory() *Memory {
	return &Memory{next: map[Identity]uint64{}, windows: map[Identity]oscore.WindowState{}, derived: map[Identity]Derived{}, used: map[Identity]uint64{}}
}

// Restart forgets what a process that crashed would have left: nothing but the
// numbers and the derived contexts.
func (m *Memory) Restart() {
	m.mu.Lock()
	defer m.mu.Unlock()
	clear(m.windows)
}

// errUnknown is the taint of material that a store never heard of.
var errUnknown = &TaintError{"this store never saw the key material, which may have been used elsewhere"}

// NeverSeen returns the TaintError for material that a store has no record of.
func NeverSeen() *TaintError { return errUnknown }

// Reserve implements [SSNStore].
func (m *Memory) Reserve(_ context.Context, id []byte, n uint32) (lo, hi uint64, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	lo, ok := m.next[Identity(id)]
	if !ok {
		return 0, 0, errUnknown
	}
	if hi, err = RangeEnd(lo, n); err != nil {
		return 0, 0, err
	}
	m.next[Identity(id)] = hi
	return lo, hi, nil
}

// RangeEnd returns where a range of n numbers from lo on ends, for stores: at
// 2^40 at the latest, with oscore.ErrSequenceExhausted when lo is there.
func RangeEnd(lo uint64, n uint32) (hi uint64, err error) {
	if lo > oscore.MaxSequence {
		return 0, oscore.ErrSequenceExhausted
	}
	return min(lo+uint64(max(n, 1)), oscore.MaxSequence+1), nil
}

// Known implements [History].
func (m *Memory) Known(_ context.Context, id []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.next[Identity(id)]; !ok {
		return errUnknown
	}
	return nil
}

// Declare implements [History].
func (m *Memory) Declare(_ context.Context, id []byte, next uint64) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.next[Identity(id)]; ok {
		return false, nil
	}
	m.next[Identity(id)] = next
	return true, nil
}

// Forget implements [History].
func (m *Memory) Forget(_ context.Context, id []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.next, Identity(id))
	delete(m.derived, Identity(id))
	delete(m.used, Identity(id))
	return nil
}

// PutWindows implements [WindowStore].
func (m *Memory) PutWindows(_ context.Context, windows []Window) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, w := range windows {
		m.windows[w.ID] = w.State
	}
	return nil
}

// TakeWindow implements [WindowStore].
func (m *Memory) TakeWindow(_ context.Context, id []byte) (oscore.WindowState, bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s, ok := m.windows[Identity(id)]
	delete(m.windows, Identity(id))
	return s, ok, nil
}

// PutDerived implements [ContextStore].
func (m *Memory) PutDerived(_ context.Context, base []byte, d Derived) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if old, ok := m.derived[Identity(base)]; ok && old.ID != d.ID {
		delete(m.next, old.ID)
		delete(m.used, old.ID)
	}
	d.IDContext = slices.Clone(d.IDContext)
	m.derived[Identity(base)] = d
	m.next[d.ID] = max(m.next[d.ID], d.Next)
	return nil
}

// Derived implements [ContextStore].
func (m *Memory) Derived(_ context.Context, base []byte) ([]byte, bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	d, ok := m.derived[Identity(base)]
	return bytes.Clone(d.IDContext), ok, nil
}

// PutUsed implements [UsageStore].
func (m *Memory) PutUsed(_ context.Context, used []Used) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, u := range used {
		m.used[u.ID] = max(m.used[u.ID], u.Encrypted)
	}
	return nil
}

// Used implements [UsageStore].
func (m *Memory) Used(_ context.Context, id []byte) (uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.used[Identity(id)], nil
}
