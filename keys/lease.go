package keys

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/oscorelay/oscorelay/oscore"
)

// Numbers are reserved in blocks that double with each one a peer uses up in
// this process, so that a rare sender wastes few of them at a restart and a
// busy one pays little for each. The next block is asked for when half of this
// one is spent, in the background: sealing waits only when the store is slower
// than the messages.
const (
	firstBlock = 64
	// MaxBlock is the largest n that a Keyring asks a store for.
	MaxBlock = 1024
)

// reserveTimeout bounds one wait for the store.
const reserveTimeout = 10 * time.Second

// errHangs is what a caller gets when the store does not heed its context.
var errHangs = fmt.Errorf("keys: the store does not answer: %w", context.DeadlineExceeded)

// flight is one reservation under way.
type flight struct {
	done chan struct{}
	err  error // valid when done is closed
}

func isTaint(err error) bool { return errors.Is(err, ErrTainted) }

// lockToSeal locks p for an operation that spends a number.
func (p *Peer) lockToSeal() error {
	if err := p.lock(); err != nil {
		return err
	}
	for p.noting && p.encrypted-p.noted >= 3*noteEvery {
		noted := p.onNoted
		p.mu.Unlock()
		<-noted // for reserveTimeout at most
		if err := p.lock(); err != nil {
			return err
		}
	}
	if p.taint != nil {
		defer p.mu.Unlock()
		return p.taint
	}
	return nil
}

// unlockSealed ends what lockToSeal began and, after a success, reserves ahead.
func (p *Peer) unlockSealed(err error) {
	if err == nil {
		p.ref.Store(true)
		p.count()
		if p.flight == nil && p.ctx.LeaseLeft() <= p.early {
			p.reserve()
		}
	}
	p.mu.Unlock()
}

// unlockAndReserve waits, unlocked, until more numbers were reserved. It
// returns nil if the operation is to be tried again.
func (p *Peer) unlockAndReserve() error {
	f := p.flight
	if f == nil {
		f = p.reserve()
	}
	p.mu.Unlock()
	late := time.NewTimer(reserveTimeout)
	defer late.Stop()
	select {
	case <-f.done:
		return f.err
	case <-late.C:
		return errHangs
	}
}

// reserve starts a reservation. The caller holds p.mu.
func (p *Peer) reserve() *flight {
	f := &flight{done: make(chan struct{})}
	p.flight = f
	id, n := p.id, p.block
	// Not after Close, which waits: it closes each peer under p.mu first.
	p.ring.inFlight.Go(func() {
		ctx, cancel := context.WithTimeout(p.ring.ctx, reserveTimeout)
		defer cancel()
		lo, hi, err := p.ring.store.Reserve(ctx, id[:], n)
		p.mu.Lock()
		p.flight = nil
		f.err = p.extend(id, lo, hi, err)
		p.mu.Unlock()
		close(f.done)
	})
	return f
}

// extend takes in what Reserve returned for id. The caller holds p.mu.
func (p *Peer) extend(id Identity, lo, hi uint64, err error) error {
	if id != p.id {
		return nil // the context was replaced meanwhile: the range stays unused
	}
	if err == nil && !p.closed {
		err = p.ctx.Extend(lo, hi)
	}
	if err != nil {
		if isTaint(err) {
			p.taint = err
			p.ctx.EndLease()
			p.ctx.SetWindow(oscore.Window{})
		}
		// Ask again, but not with every message.
		p.early = p.ctx.LeaseLeft() / 2
		return err
	}
	p.early = (hi - lo) / 2
	p.block = min(p.block*2, MaxBlock)
	return nil
}
