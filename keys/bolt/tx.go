package bolt

import (
	"context"
	"errors"

	bbolt "go.etcd.io/bbolt"
)

// Tx is a transaction over what a daemon keeps beside its keys. It is valid
// until the function that got it returns.
type Tx struct {
	tx *bbolt.Tx
	st *Store
}

// Errors of transactions.
var (
	// ErrReadOnly: the transaction came from View.
	ErrReadOnly = errors.New("keys/bolt: read-only transaction")
	// ErrTooLong: a token or name is longer than the protocol allows.
	ErrTooLong = errors.New("keys/bolt: too long")
	// ErrNotBegun: the journal holds no such exchange.
	ErrNotBegun = errors.New("keys/bolt: the exchange was not begun")
)

// Update runs fn in a transaction, and returns nil when what it did is durable,
// all of it; with an error from fn nothing of it happened. After any other error
// the outcome is not known to the caller, who looks when the store is open again.
//
// Calls that come together share one flush. fn may therefore run more than once,
// in another goroutine, and must depend on the transaction alone.
func (st *Store) Update(ctx context.Context, fn func(*Tx) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	if err := st.join(nil); err != nil {
		return err
	}
	return st.commit(nil, 0, func(tx *bbolt.Tx) error { return fn(&Tx{tx, st}) }, nil)
}

// View runs fn in a transaction that sees one state of the store. It must be
// short, since the file cannot grow meanwhile, and must call no method of the
// store.
func (st *Store) View(ctx context.Context, fn func(*Tx) error) error {
	st.mu.Lock()
	err := st.usable()
	st.mu.Unlock()
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return err
	}
	return st.look(func(tx *bbolt.Tx) error { return fn(&Tx{tx, st}) })
}

// bucket returns a bucket to change.
func (tx *Tx) bucket(name []byte) (*bbolt.Bucket, error) {
	if !tx.tx.Writable() {
		return nil, ErrReadOnly
	}
	return tx.tx.Bucket(name), nil
}
