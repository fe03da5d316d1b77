package keys

import "context"

// The use of a key is what was really encrypted under it: each number that sealed
// a message, and for each request that was accepted the one response that may use
// its nonce. Numbers that a restart skips are no use.
//
// The count is durable in steps, in the background, and at a hand-over. Sealing
// waits for a store that is three steps behind, so that a crash loses no more, and
// the answers to what was accepted meanwhile.
const noteEvery = MaxBlock / 2

// count counts an encryption. The caller holds p.mu.
func (p *Peer) count() {
	p.encrypted++
	if p.encrypted-p.noted >= noteEvery && !p.noting {
		p.note()
	}
}

// note begins to save the count. The caller holds p.mu, and p is not closed.
func (p *Peer) note() {
	s, ok := p.ring.store.(UsageStore)
	if !ok {
		p.noted = p.encrypted
		return
	}
	p.noting, p.onNoted = true, make(chan struct{})
	u := Used{p.id, p.encrypted}
	p.ring.inFlight.Go(func() {
		ctx, cancel := context.WithTimeout(p.ring.ctx, reserveTimeout)
		defer cancel()
		err := s.PutUsed(ctx, []Used{u})
		p.mu.Lock()
		defer p.mu.Unlock()
		p.noting = false
		close(p.onNoted)
		switch {
		case p.id != u.ID: // another key meanwhile
		case err == nil:
			p.noted = u.Encrypted
		default:
			p.noted = max(p.noted, u.Encrypted-noteEvery/2) // not with every message
		}
	})
}

// recall takes the count that the store has.
func (p *Peer) recall(ctx context.Context) (err error) {
	if s, ok := p.ring.store.(UsageStore); ok {
		p.encrypted, err = s.Used(ctx, p.id[:])
		p.noted = p.encrypted
	}
	return err
}

// handOver is what peers leave behind.
type handOver struct {
	windows []Window
	used    []Used
}

// save gives the store what peers left behind.
func (r *Keyring) save(ctx context.Context, h *handOver) error {
	if s, ok := r.store.(UsageStore); ok && len(h.used) > 0 {
		if err := s.PutUsed(ctx, h.used); err != nil {
			return err
		}
	}
	if s, ok := r.store.(WindowStore); ok && len(h.windows) > 0 {
		return s.PutWindows(ctx, h.windows)
	}
	return nil
}
