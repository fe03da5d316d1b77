package keys

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/oscorelay/oscorelay/oscore"
)

// Peer is one security relationship and its current context. It implements
// [oscore.Peer].
type Peer struct {
	ring  *Keyring
	entry Entry
	base  Identity // sender's identity of the context configured

	// Guarded by ring.mu, and changed only with mu held too.
	derived   []byte   // ID Context from Appendix B.2, nil if it has not run
	id        Identity // sender's identity of ctx
	recipient Identity // recipient's identity of ctx
	slot      int      // place among the peers with one kid
	clock     int      // place in cold.clock

	cold  bool   // it is in the Directory
	place uint32 // its index there

	ref atomic.Bool // it verified or sealed a message since the clock's hand passed

	mu      sync.Mutex
	ctx     *oscore.Context
	taint   error
	closed  bool
	evicted bool    // parked; changes with ring.mu held too
	block   uint32  // numbers to reserve next time
	early   uint64  // reserve more when no more than that is left
	flight  *flight // the reservation under way

	encrypted    uint64        // see usage.go
	noted        uint64        // what the store has of it
	noting       bool          // it is being saved
	onNoted      chan struct{} // is closed when it was
	failedBefore uint64        // messages refused before ctx was made
}

var _ oscore.Peer = (*Peer)(nil)

// blank returns a peer with nothing but its entry and identities.
func (r *Keyring) blank(e Entry) (p *Peer, err error) {
	p = &Peer{ring: r, entry: e, block: firstBlock}
	p.base, p.recipient, err = Identities(&e.Params)
	p.id = p.base
	return p, err
}

// newPeer makes a peer with the context that the store remembers.
func (r *Keyring) newPeer(ctx context.Context, e Entry) (*Peer, error) {
	p, err := r.blank(e)
	if err != nil {
		return nil, err
	}
	var derived []byte
	if s, ok := r.store.(ContextStore); ok {
		idContext, ok, err := s.Derived(ctx, p.base[:])
		if err != nil {
			return nil, fmt.Errorf("keys: entry %q: %w", e.Name, err)
		}
		if ok {
			derived = idContext
		}
	}
	if err := p.derive(derived); err != nil {
		return nil, err
	}
	if h, ok := r.store.(History); ok {
		p.taint = h.Known(ctx, p.id[:])
		if p.taint != nil && !isTaint(p.taint) {
			return nil, fmt.Errorf("keys: entry %q: %w", e.Name, p.taint)
		}
	}
	if err := p.recall(ctx); err != nil {
		return nil, fmt.Errorf("keys: entry %q: %w", e.Name, err)
	}
	return p, nil
}

// derive gives a new peer its context: the one configured, or the one with an ID
// Context from Appendix B.2.
func (p *Peer) derive(derived []byte) (err error) {
	params := p.entry.Params
	if derived != nil {
		p.derived, params.IDContext = derived, derived
		if p.id, p.recipient, err = Identities(&params); err != nil {
			return err
		}
	}
	if p.ctx, err = oscore.New(params); err != nil || derived == nil {
		return err
	}
	return p.ctx.SetKIDContext(p.kidContext(derived))
}

// takeWindow restores the window that a clean shutdown left.
func (p *Peer) takeWindow(ctx context.Context) error {
	s, ok := p.ring.store.(WindowStore)
	if !ok {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	state, ok, err := s.TakeWindow(ctx, p.recipient[:])
	if err != nil {
		return fmt.Errorf("keys: entry %q: %w", p.entry.Name, err)
	}
	want := oscore.Fresh(p.entry.Params.WindowSize)
	size, _ := want.State()
	// A tainted context vouches for nothing, and a window of another size than
	// the one configured begins anew, by Echo.
	if ok && p.taint == nil && state.Size == size.Size && !p.closed && !p.ctx.WindowOpen() {
		p.ctx.SetWindow(oscore.Restore(state))
	}
	return nil
}

// close ends the peer: nothing is accepted afterwards. It adds what is worth
// handing over.
func (p *Peer) close(h *handOver) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	p.closed = true
	p.ctx.EndLease()
	clear(p.entry.Params.MasterSecret)
	if p.encrypted != p.noted {
		h.used = append(h.used, Used{p.id, p.encrypted})
	}
	if s, ok := p.ctx.WindowState(); ok && p.taint == nil {
		h.windows = append(h.windows, Window{p.recipient, s})
	}
}

// Name implements [oscore.Peer].
func (p *Peer) Name() string { return p.entry.Name }

// Settings implements [oscore.Peer].
func (p *Peer) Settings() oscore.Settings { return p.entry.Settings }

// Entry returns what is configured, without the master secret.
func (p *Peer) Entry() Entry {
	e := p.entry
	e.Params.MasterSecret = nil
	return e.Clone()
}

// SealRequest implements [oscore.Peer].
func (p *Peer) SealRequest(dst []byte, pending *oscore.Pending, m oscore.Message) (oscore.Message, error) {
	for {
		if err := p.lockToSeal(); err != nil {
			return oscore.Message{}, err
		}
		out, err := p.ctx.SealRequest(dst, pending, m)
		if err != oscore.ErrLeaseExhausted {
			p.unlockSealed(err)
			return out, err
		}
		if err := p.unlockAndReserve(); err != nil {
			return oscore.Message{}, err
		}
	}
}

// SealRequestAs implements [oscore.Peer].
func (p *Peer) SealRequestAs(dst []byte, pending *oscore.Pending, inner, outer oscore.Message) (oscore.Message, error) {
	for {
		if err := p.lockToSeal(); err != nil {
			return oscore.Message{}, err
		}
		out, err := p.ctx.SealRequestAs(dst, pending, inner, outer)
		if err != oscore.ErrLeaseExhausted {
			p.unlockSealed(err)
			return out, err
		}
		if err := p.unlockAndReserve(); err != nil {
			return oscore.Message{}, err
		}
	}
}

// Resume implements [oscore.Peer].
func (p *Peer) Resume(pending *oscore.Pending, sealed oscore.Message) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return ErrClosed
	}
	return p.ctx.Resume(pending, sealed)
}

// SealResponse implements [oscore.Peer].
func (p *Peer) SealResponse(dst []byte, r *oscore.Request, m oscore.Message) (oscore.Message, error) {
	for {
		if err := p.lockToSeal(); err != nil {
			return oscore.Message{}, err
		}
		out, err := p.ctx.SealResponse(dst, r, m)
		if err != oscore.ErrLeaseExhausted {
			p.unlockSealed(err)
			return out, err
		}
		if err := p.unlockAndReserve(); err != nil {
			return oscore.Message{}, err
		}
	}
}

// SealChallenge implements [oscore.Peer].
func (p *Peer) SealChallenge(dst []byte, r *oscore.Request, echo []byte) (oscore.Message, error) {
	for {
		if err := p.lockToSeal(); err != nil {
			return oscore.Message{}, err
		}
		out, err := p.ctx.SealChallenge(dst, r, echo)
		if err != oscore.ErrLeaseExhausted {
			p.unlockSealed(err)
			return out, err
		}
		if err := p.unlockAndReserve(); err != nil {
			return oscore.Message{}, err
		}
	}
}

// OpenRequest implements [oscore.Peer].
func (p *Peer) OpenRequest(dst []byte, r *oscore.Request, m oscore.Message) (oscore.Message, error) {
	if err := p.lock(); err != nil {
		return oscore.Message{}, err
	}
	defer p.mu.Unlock()
	out, err := p.ctx.OpenRequest(dst, r, m)
	if r.Proven() {
		p.count() // the response that may use its nonce
	}
	if err == nil || err == oscore.ErrUnproven || err == oscore.ErrLate {
		p.ref.Store(true)
	}
	return out, err
}

// AcceptEcho implements [oscore.Peer].
func (p *Peer) AcceptEcho(r *oscore.Request) error {
	if err := p.lock(); err != nil {
		return err
	}
	defer p.mu.Unlock()
	if p.taint != nil {
		// No challenge can have gone out, so nothing can answer one.
		return p.taint
	}
	was := r.Proven()
	err := p.ctx.AcceptEcho(r)
	if err == nil && !was {
		p.count()
	}
	return err
}

// Usage implements [oscore.Peer]. Encrypted counts what was really encrypted under
// the key, over restarts if the store is a [UsageStore]: numbers that a restart
// skipped do not count, and a crash forgets some hundred encryptions at most.
func (p *Peer) Usage() oscore.Usage {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.usage()
}

func (p *Peer) usage() oscore.Usage {
	u := p.ctx.Usage()
	u.Encrypted, u.Failed = p.encrypted, p.failed()
	return u
}

// IDContext returns the ID Context of the current context, nil if it is absent.
func (p *Peer) IDContext() []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ctx.IDContext()
}

// Tainted implements [oscore.Peer].
func (p *Peer) Tainted() bool { return p.Taint() != nil }

// Taint returns why the peer is tainted, nil if it is not.
func (p *Peer) Taint() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.taint
}

// Status is a peer's state for people.
type Status struct {
	IDContext    []byte // of the current context, nil if absent
	Derived      bool   // the current context comes from Appendix B.2
	WindowOpen   bool   // replays are told from new requests; else an Echo round trip comes first
	NextSequence uint64 // the next sender sequence number of the lease; it is 0 before the first
	LeaseLeft    uint64 // numbers left of it
	Taint        error  // nil if the history is known
	Usage        oscore.Usage
}

// Status returns the peer's state as it is now.
func (p *Peer) Status() Status {
	if p.lock() != nil {
		p.mu.Lock() // it is closed
	}
	defer p.mu.Unlock()
	return Status{
		IDContext: p.ctx.IDContext(), Derived: p.derived != nil, WindowOpen: p.ctx.WindowOpen(),
		NextSequence: p.ctx.NextSequence(), LeaseLeft: p.ctx.LeaseLeft(), Taint: p.taint, Usage: p.usage(),
	}
}
