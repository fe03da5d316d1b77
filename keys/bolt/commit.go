package bolt

import (
	"errors"
	"fmt"
	"syscall"

	bbolt "go.etcd.io/bbolt"

	"github.com/oscorelay/oscorelay/keys"
	"github.com/oscorelay/oscorelay/keys/internal/disk"
)

// A batch is changes that become durable together, in one transaction. While one
// is written the next takes in what comes, so that many callers share a flush.
type batch struct {
	changes []*change
	ids     map[keys.Identity]bool // which get numbers in it
	block   uint64                 // the most numbers for one
	done    chan struct{}
}

// change is a caller's part of a batch.
type change struct {
	do    func(tx *bbolt.Tx) error // may run more than once; an error undoes this change alone
	after func()                   // once it is durable, under st.mu
	err   error                    // valid when the batch is done
}

// join waits until the batch that takes in changes gives no numbers to id: one
// transaction gives them to an identity once at most, which bounds what a lost
// one can cost (anchor.Anchor.Block). The caller holds st.mu, and looks at the
// state only after join.
func (st *Store) join(id *keys.Identity) error {
	for id != nil && st.waiting != nil && st.waiting.ids[*id] {
		b := st.waiting
		st.mu.Unlock()
		<-b.done
		st.mu.Lock()
	}
	return st.usable()
}

// usable returns why the store can be used no more. The caller holds st.mu.
func (st *Store) usable() error {
	if st.closing {
		return keys.ErrClosed
	}
	return st.err
}

// commit waits until a change is durable. The caller holds st.mu after join, and
// gives it up meanwhile.
func (st *Store) commit(id *keys.Identity, block uint64, do func(*bbolt.Tx) error, after func()) error {
	if st.waiting == nil {
		st.waiting = &batch{ids: map[keys.Identity]bool{}, done: make(chan struct{})}
	}
	b, c := st.waiting, &change{do: do, after: after}
	b.changes = append(b.changes, c)
	b.block = max(b.block, block)
	if id != nil {
		b.ids[*id] = true
	}
	st.mu.Unlock()
	st.poke()
	<-b.done
	st.mu.Lock()
	return c.err
}

func (st *Store) poke() {
	select {
	case st.wake <- struct{}{}:
	default:
	}
}

// writer writes batches, one after the other, until the store is closed.
func (st *Store) writer() {
	defer close(st.stopped)
	for range st.wake {
		st.mu.Lock()
		for st.waiting != nil {
			b := st.waiting
			st.waiting = nil
			st.write(b)
			close(b.done)
		}
		closing := st.closing
		st.mu.Unlock()
		if closing {
			return
		}
	}
}

// write makes a batch durable.
//
//  1. the anchor allows for it
//  2. the changes and the head are committed; a change that fails is left out
//
// A failed flush ends the store: the kernel may have thrown the data away and
// say nothing the next time. So does every failure after which the file is not
// known to be as before. The caller holds st.mu, which is given up meanwhile.
func (st *Store) write(b *batch) {
	if st.err != nil {
		b.fail(st.err)
		return
	}
	h := st.h
	h.at.Frames++
	st.mu.Unlock()
	err, stop := st.a.Allow(st.fsys, st.anchorName(), h.at.Frames, b.block), false
	if err != nil {
		stop = errors.Is(err, disk.ErrFlush)
	} else {
		err, stop = st.update(b, &h)
	}
	st.mu.Lock()
	switch {
	case err == nil:
		st.h = h
		for _, c := range b.changes {
			if c.err == nil && c.after != nil {
				c.after()
			}
		}
	case stop:
		st.err = fmt.Errorf("keys/bolt: the store %s has stopped, because what the disk holds is not known: %w; mend the disk and start again", st.dir, err)
		b.fail(fmt.Errorf("%w: %w", ErrUnknown, st.err))
	default:
		b.fail(fmt.Errorf("keys/bolt: %w", err))
	}
}

// fail gives an error to the changes that have none of their own.
func (b *batch) fail(err error) {
	for _, c := range b.changes {
		if c.err == nil {
			c.err = err
		}
	}
}

// update runs the transaction of a batch.
func (st *Store) update(b *batch, h *head) (err error, stop bool) {
	for {
		var failed *change
		err := st.safely(func(tx *bbolt.Tx) error {
			some := false
			for _, c := range b.changes {
				if c.err != nil {
					continue
				}
				if err := c.do(tx); err != nil {
					failed = c
					return err
				}
				some = true
			}
			if !some {
				return errNothing
			}
			return tx.Bucket(bucketMeta).Put(keyHead, h.encode())
		})
		switch {
		case err == nil:
			return nil, false
		case err == errNothing:
			h.at.Frames-- // there was no transaction
			return nil, false
		case errors.Is(err, errPages):
			return err, true
		case failed != nil:
			failed.err = err // and again without it
		default:
			return err, !outOfSpace(err) || !st.holds(h.at.Frames-1)
		}
	}
}

var errNothing = errors.New("nothing to write")

func (st *Store) safely(do func(*bbolt.Tx) error) error {
	return guarded(func() error { return st.db.Update(do) })
}

func outOfSpace(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.EFBIG)
}

// holds reports whether the store's last transaction is the given one.
func (st *Store) holds(frame uint64) bool {
	var h head
	err := st.look(func(tx *bbolt.Tx) (err error) {
		h, err = decodeHead(tx.Bucket(bucketMeta).Get(keyHead))
		return err
	})
	return err == nil && h.at.Frames == frame
}

// look runs a reading transaction. Transactions of one goroutine must not nest:
// a writer that waits between two would stop both.
func (st *Store) look(do func(tx *bbolt.Tx) error) error {
	return guarded(func() error { return st.db.View(do) })
}
