package bolt

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	bbolt "go.etcd.io/bbolt"

	"github.com/oscorelay/oscorelay/keys"
	"github.com/oscorelay/oscorelay/keys/internal/record"
	"github.com/oscorelay/oscorelay/oscore"
)

// Windows carry a generation, and those of one are valid at a time. A crash
// begins another, which voids every window there is: the start after it sees
// that the anchor was not closed. So taking a window needs no write. That it may
// never come back was made durable before it could be taken, by the anchor that
// says the store is open; and a clean stop deletes it before it closes the
// anchor.

func encodeWindow(generation uint64, w oscore.WindowState) []byte {
	return record.AppendWindow(binary.BigEndian.AppendUint64(nil, generation), w)
}

// decodeWindow returns a window, if it is of the generation.
func decodeWindow(b []byte, generation uint64) (w oscore.WindowState, ok bool) {
	f := record.Fields{B: b}
	if b == nil || f.U64() != generation {
		return w, false
	}
	w = f.Window()
	return w, !f.Over && len(f.B) == 0
}

// PutWindows implements [keys.WindowStore].
func (st *Store) PutWindows(_ context.Context, windows []keys.Window) error {
	const most = 100_000 // in one transaction
	for len(windows) > 0 {
		n := min(len(windows), most)
		if err := st.putWindows(windows[:n]); err != nil {
			return err
		}
		windows = windows[n:]
	}
	return nil
}

func (st *Store) putWindows(windows []keys.Window) error {
	st.mu.Lock()
	defer st.mu.Unlock()
	if err := st.join(nil); err != nil {
		return err
	}
	generation := st.h.windows
	return st.commit(nil, 0, func(tx *bbolt.Tx) error {
		b := tx.Bucket(bucketWindows)
		for _, w := range windows {
			v := encodeWindow(generation, w.State)
			if bytes.Equal(b.Get(w.ID[:]), v) {
				continue // its page stays as it is
			}
			if err := b.Put(w.ID[:], v); err != nil {
				return err
			}
		}
		return nil
	}, func() {
		for _, w := range windows {
			delete(st.taken, w.ID)
		}
	})
}

// TakeWindow implements [keys.WindowStore].
func (st *Store) TakeWindow(_ context.Context, b []byte) (w oscore.WindowState, ok bool, err error) {
	id, err := record.Identity(b)
	if err != nil {
		return w, false, err
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	if err := st.usable(); err != nil {
		return w, false, err
	}
	if _, gone := st.taken[id]; gone {
		return w, false, nil
	}
	err = st.look(func(tx *bbolt.Tx) error {
		w, ok = decodeWindow(tx.Bucket(bucketWindows).Get(id[:]), st.h.windows)
		return nil
	})
	if err != nil {
		return oscore.WindowState{}, false, err
	}
	if ok {
		st.taken[id] = struct{}{}
	}
	return w, ok, nil
}

// sweepWindows deletes the windows that were taken, and those of earlier
// generations. The writer has ended, and the caller holds st.mu.
func (st *Store) sweepWindows() error {
	if len(st.taken) == 0 && st.h.windows != st.epoch {
		return nil
	}
	var gone [][]byte
	err := st.look(func(tx *bbolt.Tx) error {
		return tx.Bucket(bucketWindows).ForEach(func(k, v []byte) error {
			_, taken := st.taken[keys.Identity(k)]
			if _, ok := decodeWindow(v, st.h.windows); taken || !ok {
				gone = append(gone, append([]byte(nil), k...))
			}
			return nil
		})
	})
	if err != nil {
		return fmt.Errorf("keys/bolt: %w", err)
	}
	for len(gone) > 0 {
		n := min(len(gone), 100_000)
		b := &batch{changes: []*change{{do: func(tx *bbolt.Tx) error {
			for _, k := range gone[:n] {
				if err := tx.Bucket(bucketWindows).Delete(k); err != nil {
					return err
				}
			}
			return nil
		}}}}
		if st.write(b); b.changes[0].err != nil {
			return b.changes[0].err
		}
		gone = gone[n:]
	}
	return nil
}

// PutDerived implements [keys.ContextStore].
func (st *Store) PutDerived(_ context.Context, b []byte, d keys.Derived) error {
	base, err := record.Identity(b)
	if err != nil {
		return err
	}
	if len(d.IDContext) > oscore.MaxIDContext || d.Next > oscore.MaxSequence+1 {
		return errors.New("keys/bolt: derived context out of bounds")
	}
	value := append(d.ID[:], d.IDContext...)
	st.mu.Lock()
	defer st.mu.Unlock()
	if err := st.join(&d.ID); err != nil {
		return err
	}
	h := st.h
	next, given := d.Next, st.live[d.ID].next()
	var old *keys.Identity
	return st.commit(&d.ID, 0, func(tx *bbolt.Tx) error {
		old = nil
		if v := tx.Bucket(bucketDerived).Get(base[:]); len(v) >= len(base) && keys.Identity(v[:len(base)]) != d.ID {
			id := keys.Identity(v[:len(base)])
			old = &id
			for _, of := range [][]byte{bucketNumbers, bucketUsed} {
				if err := tx.Bucket(of).Delete(id[:]); err != nil {
					return err
				}
			}
		}
		if err := st.indexDerived(tx, base, d.IDContext); err != nil {
			return err
		}
		next = max(d.Next, given)
		if v := tx.Bucket(bucketNumbers).Get(d.ID[:]); v != nil {
			n, err := decodeNumbers(d.ID, v)
			if err != nil {
				return fmt.Errorf("keys/bolt: the record of %s: %w", d.ID, err)
			}
			next = max(next, n.start(h.offset))
		}
		if err := setNumbers(tx, &h, d.ID, next); err != nil {
			return err
		}
		return tx.Bucket(bucketDerived).Put(base[:], value)
	}, func() {
		if old != nil {
			delete(st.live, *old)
		}
		// Numbers may have been given meanwhile; the record allows for a block.
		now := max(next, st.live[d.ID].next())
		st.live[d.ID] = newLease(now, max(blockEnd(next), now))
	})
}

// Derived implements [keys.ContextStore].
func (st *Store) Derived(_ context.Context, b []byte) (idContext []byte, ok bool, err error) {
	base, err := record.Identity(b)
	if err != nil {
		return nil, false, err
	}
	st.mu.Lock()
	err = st.usable()
	st.mu.Unlock()
	if err != nil {
		return nil, false, err
	}
	err = st.look(func(tx *bbolt.Tx) error {
		if v := tx.Bucket(bucketDerived).Get(base[:]); len(v) >= len(base) {
			idContext, ok = append([]byte{}, v[len(base):]...), true
		}
		return nil
	})
	return idContext, ok, err
}
