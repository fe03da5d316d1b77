package keys

import (
	"bytes"
	"context"
	"fmt"
	"slices"

	"github.com/oscorelay/oscorelay/oscore"
)

// Derive implements [oscore.Peer]. The ID Context must not be one that the peer
// has or had: its keys would meet their own nonces again.
func (p *Peer) Derive(idContext, kidContext []byte) (*oscore.Context, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, ErrClosed
	}
	if len(idContext) == 0 || bytes.Equal(idContext, p.entry.Params.IDContext) || bytes.Equal(idContext, p.derived) {
		return nil, fmt.Errorf("%w: ID context %x is not new", ErrDerived, idContext)
	}
	params := p.entry.Params
	params.IDContext = idContext
	c, err := oscore.New(params)
	if err != nil {
		return nil, err
	}
	if err := c.SetKIDContext(kidContext); err != nil {
		return nil, err
	}
	return c, nil
}

// Adopt implements [oscore.Peer].
//
//  1. c is stopped: what it spent so far is known
//  2. its ID Context, and its numbers from there on, become durable
//  3. numbers are reserved for it, as for any other context
//  4. it takes the earlier context's place, and the taint ends
//
// The caller gives c away. After an error the peer has its earlier context, and
// c is of no use any more.
func (p *Peer) Adopt(c *oscore.Context) error {
	if err := p.lock(); err != nil {
		return err
	}
	defer p.mu.Unlock()
	if c == p.ctx {
		return nil
	}
	params := p.entry.Params
	if !bytes.Equal(c.SenderID(), params.SenderID) || !bytes.Equal(c.RecipientID(), params.RecipientID) ||
		len(c.IDContext()) == 0 || bytes.Equal(c.IDContext(), params.IDContext) || bytes.Equal(c.IDContext(), p.derived) {
		return ErrDerived
	}
	params.IDContext = slices.Clone(c.IDContext())
	id, recipient, err := Identities(&params)
	if err != nil {
		return err
	}
	if err := c.SetKIDContext(p.kidContext(params.IDContext)); err != nil {
		return err
	}
	early := uint64(0)
	if s, ok := p.ring.store.(ContextStore); ok {
		c.EndLease()
		ctx, cancel := context.WithTimeout(p.ring.ctx, reserveTimeout)
		defer cancel()
		if err := s.PutDerived(ctx, p.base[:], Derived{params.IDContext, id, c.NextSequence()}); err != nil {
			return fmt.Errorf("keys: peer %q: %w", p.entry.Name, err)
		}
		lo, hi, err := p.ring.store.Reserve(ctx, id[:], firstBlock)
		if err == nil {
			err = c.Extend(lo, hi)
		}
		if err != nil {
			return fmt.Errorf("keys: peer %q: %w", p.entry.Name, err)
		}
		early = (hi - lo) / 2
	}
	// Without a ContextStore the context ends with the process, and so do its
	// numbers: the lease it was begun with may stay.
	if err := p.ring.reindex(p, params.IDContext, id, recipient); err != nil {
		return err
	}
	p.ctx, p.taint = c, nil
	p.block, p.early = firstBlock, early
	p.encrypted, p.noted, p.failedBefore = c.NextSequence(), 0, 0
	return nil
}

// kidContext returns what requests under a derived context carry as kid
// context: its ID Context where the configured one's travels, else nothing.
// It is not wrapped in a CBOR byte string any more: that is the mark of the
// run's own messages (Appendix B.2, steps 1 and 3), upon which a peer would
// begin another run.
func (p *Peer) kidContext(idContext []byte) []byte {
	if p.bare() {
		return nil
	}
	return idContext
}

// reindex gives p its derived ID Context. The caller holds p.mu.
func (r *Keyring) reindex(p *Peer, idContext []byte, id, recipient Identity) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.names[p.entry.Name] != p {
		return ErrClosed
	}
	kid := string(p.entry.Params.RecipientID)
	for _, k := range []pair{{kid, string(idContext)}, {kid, string(oscore.WrapBstr(idContext))}} {
		if q, ok := r.pairs[k]; ok && q != p {
			return fmt.Errorf("%w: peers %q and %q would have one ID context", ErrDuplicate, q.entry.Name, p.entry.Name)
		}
	}
	for _, k := range p.pairKeys() {
		delete(r.pairs, k)
	}
	if p.id != p.base {
		delete(r.senders, p.id)
	}
	delete(r.readers, p.recipient)
	p.derived, p.id, p.recipient = idContext, id, recipient
	for _, k := range p.pairKeys() {
		r.pairs[k] = p
	}
	r.senders[id], r.readers[recipient] = p, p
	return nil
}
