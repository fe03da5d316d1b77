package keys

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/oscorelay/oscorelay/oscore"
)

// ReserveID holds an identifier for an EDHOC session, whose connection
// identifier becomes a Recipient ID when the session has a context (RFC 9528
// §A.1). It returns ErrDuplicate if a peer or another session has it.
func (r *Keyring) ReserveID(id []byte) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	free, err := r.free(id)
	if err != nil {
		return err
	}
	if !free {
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
	h, err := r.enterSession(ctx, p)
	if err != nil {
		return nil, err
	}
	_ = r.save(ctx, h) // without its window the old one begins by Echo, should it ever come back
	return p, nil
}

// enterSession enters the peer of a session in place of the one of its name, and
// returns what that one leaves behind.
func (r *Keyring) enterSession(ctx context.Context, p *Peer) (h *handOver, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	name, kid := p.entry.Name, string(p.entry.Params.RecipientID)
	if r.cold != nil {
		if err := r.enter(ctx, name); err != nil {
			return nil, err
		}
		defer r.leave(name)
		if err := r.cold.dir.Clash(ctx, &p.entry); err != nil {
			return nil, err
		}
	}
	if _, ok := r.held[kid]; !ok {
		return nil, fmt.Errorf("%w: entry %q: recipient ID %x is held by no session", ErrDuplicate, name, kid)
	}
	delete(r.held, kid)
	defer func() {
		if err != nil {
			r.held[kid] = struct{}{}
		}
	}()
	if r.closed {
		return nil, ErrClosed
	}
	if err := r.clash(p, func(q *Peer) bool { return q.entry.Name != name }); err != nil {
		return nil, err
	}
	h = &handOver{}
	old, ok := r.names[name]
	if r.cold != nil && (!ok || old.cold) {
		if err := r.takeOut(ctx, name, h); err != nil {
			return nil, err
		}
		r.cold.hidden[name] = struct{}{}
		r.cold.changes++
	} else if ok {
		r.remove(old)
		r.mu.Unlock()
		old.close(&handOver{}) // nobody will speak under it again: its window is not worth saving
		r.mu.Lock()
	}
	return h, r.insert(p)
}

// Replaced is the context that a session's took the place of, kept until it is
// known whether the session came to its end. A nil Replaced is none.
type Replaced struct {
	ring  *Keyring
	peer  *Peer
	entry Entry // with the master secret
}

// ReplaceSession is [Keyring.AddSession] for a session that may yet come to
// nothing: what made room for it can come back.
func (r *Keyring) ReplaceSession(ctx context.Context, e Entry) (*Peer, *Replaced, error) {
	old := r.keep(e.Name)
	p, err := r.AddSession(ctx, e)
	if err != nil {
		old.wipe()
		return nil, nil, err
	}
	return p, old, nil
}

// keep returns what is to be kept of the peer of a name.
func (r *Keyring) keep(name string) *Replaced {
	p, ok := r.Get(name)
	if !ok {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return &Replaced{r, p, p.entry.Clone()}
}

func (x *Replaced) wipe() {
	if x != nil {
		clear(x.entry.Params.MasterSecret)
		x.entry.Params.MasterSecret = nil
	}
}

// Restore puts the context back, in place of whatever has its name now. Its
// sequence numbers go on behind those that were reserved; what it received
// before is forgotten, so that it answers nobody before an Echo round trip. It
// returns ErrDuplicate if its Recipient ID was given away, ErrNotFound if there
// is nothing to put back.
func (x *Replaced) Restore(ctx context.Context) (*Peer, error) {
	if x == nil || len(x.entry.Params.MasterSecret) == 0 {
		return nil, fmt.Errorf("%w: no context was replaced", ErrNotFound)
	}
	defer x.wipe()
	kid := x.entry.Params.RecipientID
	if err := x.ring.ReserveID(kid); err != nil {
		return nil, err
	}
	p, err := x.ring.AddSession(ctx, x.entry)
	if err != nil {
		x.ring.ReleaseID(kid)
	}
	return p, err
}

// Forget wipes the context, and lets the store forget its numbers: it will not
// come back.
func (x *Replaced) Forget(ctx context.Context) error {
	if x == nil {
		return nil
	}
	x.wipe()
	return x.peer.Forget(ctx)
}

// Name returns the peer's name.
func (x *Replaced) Name() string { return x.entry.Name }

// Format implements fmt.Formatter: fmt shows unexported fields without asking
// their types, and one of them is a secret.
func (*Replaced) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "[replaced context]") }

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
	var failed error
	usable := func(id []byte) bool {
		free, err := r.free(id)
		failed = errors.Join(failed, err)
		return free && !slices.ContainsFunc(avoid, func(a []byte) bool { return bytes.Equal(a, id) })
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
	return nil, errors.Join(ErrIDs, failed)
}

// free reports whether nobody has the identifier. The caller holds r.mu.
func (r *Keyring) free(id []byte) (bool, error) {
	_, peer := r.kids[string(id)]
	_, session := r.held[string(id)]
	if peer || session || r.cold == nil {
		return !peer && !session, nil
	}
	has, err := r.cold.dir.HasKID(r.ctx, id)
	return !has && err == nil, err
}

// encodesAsInt reports whether the byte is the encoding of a CBOR integer from
// -24 to 23.
func encodesAsInt(b byte) bool { return b < 0x18 || 0x20 <= b && b < 0x38 }
