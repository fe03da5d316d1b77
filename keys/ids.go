package keys

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"

	"github.com/oscorelay/oscorelay/oscore"
)

// ReserveID holds an identifier for an EDHOC session, whose connection
// identifier becomes a Recipient ID when the session has a context (RFC 9528
// §A.1). It returns ErrDuplicate if a peer or another session has it.
func (r *Keyring) ReserveID(id []byte) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.free(id) {
		return fmt.Errorf("%w: identifier %x is in use", ErrDuplicate, id)
	}
	r.held[string(id)] = struct{}{}
	return nil
}

// ReleaseID gives an identifier back, before the session's context is added or
// when there will be none.
func (r *Keyring) ReleaseID(id []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.held, string(id))
}

// AddSession adds the context that an EDHOC session agreed on, whose Recipient
// ID is held since [Keyring.ReserveID] or [Keyring.ReserveFreeID]: nobody else
// can take the identifier in between. A peer of that name makes room, with its
// context; a session that fails leaves it alone. The material must be new, as
// for [Keyring.AddNew].
func (r *Keyring) AddSession(ctx context.Context, e Entry) (*Peer, error) {
	if err := e.Check(); err != nil {
		return nil, err
	}
	fresh, _, err := declare(ctx, r.store, &e.Params)
	if err != nil {
		return nil, fmt.Errorf("keys: entry %q: %w", e.Name, err)
	}
	p, err := r.newPeer(ctx, e.Clone())
	if err != nil {
		return nil, err
	}
	if fresh && p.taint == nil && p.derived == nil {
		p.ctx.SetWindow(oscore.Fresh(e.Params.WindowSize))
	}
	old, err := r.enterSession(p)
	if err != nil {
		return nil, err
	}
	if old != nil {
		old.close() // nobody will speak under it again: its window is not worth saving
	}
	return p, nil
}

// enterSession enters the peer of a session, in place of the one of its name,
// which it returns.
func (r *Keyring) enterSession(p *Peer) (old *Peer, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	kid := string(p.entry.Params.RecipientID)
	if _, ok := r.held[kid]; !ok {
		return nil, fmt.Errorf("%w: entry %q: recipient ID %x is held by no session", ErrDuplicate, p.entry.Name, kid)
	}
	if old = r.names[p.entry.Name]; old != nil {
		r.remove(old)
	}
	delete(r.held, kid)
	if err := r.insert(p); err != nil {
		r.held[kid] = struct{}{}
		if old != nil {
			err = errors.Join(err, r.insert(old)) // fits: it was there
		}
		return nil, err
	}
	return old, nil
}

// Forget lets the store forget the numbers of a peer that is no longer in its
// keyring and whose keys are gone for good: a session's context that another
// took the place of. See [Keyring.Forget].
func (p *Peer) Forget(ctx context.Context) error {
	p.mu.Lock()
	closed := p.closed
	p.mu.Unlock()
	if !closed {
		return fmt.Errorf("%w: %q is in use: its numbers are not to be forgotten", ErrDuplicate, p.entry.Name)
	}
	return p.ring.forget(ctx, p)
}

// ReserveFreeID chooses an identifier that nobody has, holds it and returns it:
// one byte if there is one free, and of those first the ones that EDHOC encodes
// as one byte (RFC 9528 §3.3.2). Those in avoid, such as the peer's choice, are
// passed over: the two must differ (§3.3.3).
func (r *Keyring) ReserveFreeID(avoid ...[]byte) ([]byte, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	usable := func(id []byte) bool {
		return r.free(id) && !slices.ContainsFunc(avoid, func(a []byte) bool { return bytes.Equal(a, id) })
	}
	var seed [1]byte
	_, _ = rand.Read(seed[:]) // never fails (crypto/rand)
	for _, oneByte := range []bool{true, false} {
		var class []byte
		for i := range 256 {
			if encodesAsInt(byte(i)) == oneByte {
				class = append(class, byte(i))
			}
		}
		// From anywhere, so that stores that know nothing of each other choose
		// different ones.
		for i := range class {
			id := []byte{class[(int(seed[0])+i)%len(class)]}
			if usable(id) {
				r.held[string(id)] = struct{}{}
				return id, nil
			}
		}
	}
	for n := 2; n <= oscore.AESCCM16_64_128.MaxIDLen(); n++ {
		id := make([]byte, n)
		// A few draws tell whether the length is crowded.
		for range 16 {
			_, _ = rand.Read(id)
			if usable(id) {
				r.held[string(id)] = struct{}{}
				return id, nil
			}
		}
	}
	return nil, ErrIDs
}

// free reports whether nobody has the identifier. The caller holds r.mu.
func (r *Keyring) free(id []byte) bool {
	_, peer := r.kids[string(id)]
	_, session := r.held[string(id)]
	return !peer && !session
}

// encodesAsInt reports whether the byte is the encoding of a CBOR integer from
// -24 to 23.
func encodesAsInt(b byte) bool { return b < 0x18 || 0x20 <= b && b < 0x38 }
