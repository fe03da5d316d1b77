package bolt

import (
	"context"
	"encoding/binary"
	"fmt"

	bbolt "go.etcd.io/bbolt"

	"github.com/oscorelay/oscorelay/keys"
	"github.com/oscorelay/oscorelay/keys/internal/record"
)

// lease is what this start may give out of an identity's numbers.
// Numbers below next were given out, those below limit are durably reserved: K of
// them more at most. It is 8 bytes because there may be one for each context.
type lease uint64

func newLease(next, limit uint64) lease { return lease(next<<8 | min(limit-next, K)) }

func (l lease) next() uint64  { return uint64(l >> 8) }
func (l lease) limit() uint64 { return l.next() + uint64(l&0xff) }

// known reads what the store knows of an identity, with an error that is
// keys.ErrTainted if that is not all.
func known(tx *bbolt.Tx, h *head, id keys.Identity) (numbers, error) {
	b := tx.Bucket(bucketNumbers).Get(id[:])
	if b == nil {
		return numbers{}, keys.NeverSeen()
	}
	n, err := decodeNumbers(id, b)
	if err != nil || n.offset > h.offset || n.line > h.line {
		return n, fmt.Errorf("keys/bolt: the record of %s: %w", id, errDamaged)
	}
	if n.line < h.line {
		reason := tx.Bucket(bucketReasons).Get(binary.BigEndian.AppendUint32(nil, n.line))
		return n, &keys.TaintError{Reason: string(reason)}
	}
	return n, nil
}

// setNumbers makes known that nobody uses a number from base on.
func setNumbers(tx *bbolt.Tx, h *head, id keys.Identity, base uint64) error {
	n := numbers{base, h.offset, h.line}
	return tx.Bucket(bucketNumbers).Put(id[:], n.encode(id))
}

// lease returns what this start has of an identity. The caller holds st.mu.
func (st *Store) lease(id keys.Identity) (l lease, err error) {
	l, ok := st.live[id]
	if ok {
		return l, nil
	}
	// Under st.mu, so that nothing forgotten meanwhile comes back to life.
	err = st.look(func(tx *bbolt.Tx) error {
		n, err := known(tx, &st.h, id)
		if err != nil {
			return err
		}
		next := n.start(st.h.offset)
		l = newLease(next, blockEnd(next))
		return nil
	})
	return l, err
}

// blockEnd returns the end of the block of K numbers at lo.
func blockEnd(lo uint64) uint64 {
	hi, err := keys.RangeEnd(lo, K)
	if err != nil {
		return lo // it is exhausted
	}
	return hi
}

// Reserve implements [keys.SSNStore]. Numbers of the block that the context owns
// since the start cost no write. It gives keys.MaxBlock numbers at most.
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
	if err := st.join(&id); err != nil {
		return 0, 0, err
	}
	l, err := st.lease(id)
	if err != nil {
		return 0, 0, err
	}
	lo = l.next()
	if hi, err = keys.RangeEnd(lo, min(n, keys.MaxBlock)); err != nil {
		return 0, 0, err
	}
	// From here on the range is spent, whatever becomes of the write.
	if hi <= l.limit() {
		st.live[id] = newLease(hi, l.limit())
		return lo, hi, nil
	}
	st.live[id] = newLease(hi, hi)
	h := st.h
	err = st.commit(&id, hi-lo, func(tx *bbolt.Tx) error {
		now, err := known(tx, &h, id)
		if err != nil {
			return err // forgotten meanwhile
		}
		// This start's block ends at hi then, and the next one's begins there.
		return setNumbers(tx, &h, id, max(hi-K, now.start(h.offset)))
	}, nil)
	if err != nil {
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
	if err := st.usable(); err != nil {
		return err
	}
	return st.look(func(tx *bbolt.Tx) error {
		_, err := known(tx, &st.h, id)
		return err
	})
}

// Declare implements [keys.History].
func (st *Store) Declare(_ context.Context, b []byte, next uint64) (created bool, err error) {
	id, err := record.Identity(b)
	if err != nil {
		return false, err
	}
	if _, err := keys.RangeEnd(next, 1); err != nil {
		return false, err
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	if err := st.join(&id); err != nil {
		return false, err
	}
	h := st.h
	err = st.commit(&id, 0, func(tx *bbolt.Tx) error {
		created = false
		if tx.Bucket(bucketNumbers).Get(id[:]) != nil {
			_, err := known(tx, &h, id)
			return err
		}
		created = true
		return setNumbers(tx, &h, id, next)
	}, func() {
		if created {
			delete(st.live, id)
		}
	})
	return created && err == nil, err
}

// Forget implements [keys.History].
func (st *Store) Forget(_ context.Context, b []byte) error {
	id, err := record.Identity(b)
	if err != nil {
		return err
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	if err := st.join(&id); err != nil {
		return err
	}
	return st.commit(&id, 0, func(tx *bbolt.Tx) error {
		if err := st.indexDerived(tx, id, nil); err != nil {
			return err
		}
		for _, of := range [][]byte{bucketNumbers, bucketUsed, bucketDerived} {
			if err := tx.Bucket(of).Delete(id[:]); err != nil {
				return err
			}
		}
		return nil
	}, func() { delete(st.live, id) })
}
