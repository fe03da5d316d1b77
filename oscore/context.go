package oscore

import (
	"slices"
)

// MaxSequence is the largest sender sequence number (§7.2.1).
const MaxSequence = 1<<40 - 1

// Context is a security context (§3): one endpoint's keys, its sender sequence
// numbers and its replay window. Both roles use the same one; the IDs do not
// change places when the roles do (§3.1).
//
// A new context can open messages but has no sequence number to send with and
// a replay window that refuses to vouch for anything, because nothing is known
// of its past: see [Context.Extend], [Context.SetWindow] and [Context.Begin].
//
// A Context is not safe for concurrent use; its owner gives exclusive access
// for the fraction of a microsecond that a call takes. What it put into a
// [Request] or [Pending] stays right when the context is replaced meanwhile.
type Context struct {
	keys       *keyset
	kidContext []byte // as sent in requests; nil: none
	next       uint64 // the next sender sequence number
	limit      uint64 // end of the lease, exclusive
	window     Window
	windowSize int
	nonce      [maxNonce]byte // scratch: the nonce of a response with a Partial IV
}

// New derives a context from its parameters (§3.2).
func New(p Params) (*Context, error) {
	keys, err := newKeyset(&p)
	if err != nil {
		return nil, err
	}
	c := &Context{keys: keys, windowSize: p.WindowSize}
	if !p.OmitKIDContext {
		c.kidContext = keys.idContext
	}
	return c, nil
}

// Begin opens the replay window and leases every sequence number from 0 on. It
// is for a context that was never used by anybody, whose numbers need to
// survive no restart: a key just agreed on, or a test. On any other context it
// repeats nonces; on one that already has a lease or a window it panics.
func (c *Context) Begin() {
	if c.limit != 0 || c.window.open {
		panic("oscore: Begin on a context in use")
	}
	c.window = Fresh(c.windowSize)
	c.next, c.limit = 0, MaxSequence+1
}

// Extend gives the context the sequence numbers lo up to but not including hi,
// which the caller has reserved durably (Appendix B.1.1). lo must not be below
// a number already given; what is left of an earlier lease is given up unless
// it ends at lo. It returns ErrLease otherwise, and for hi above 2^40.
func (c *Context) Extend(lo, hi uint64) error {
	if lo >= hi || hi > MaxSequence+1 || lo < c.limit || lo < c.next {
		return ErrLease
	}
	if lo != c.limit || c.next == c.limit {
		c.next = lo
	}
	c.limit = hi
	return nil
}

// LeaseLeft returns how many sequence numbers are left of the lease; a caller
// that extends early never stalls.
func (c *Context) LeaseLeft() uint64 { return c.limit - c.next }

// NextSequence returns the next sender sequence number, for a hand-over at a
// clean shutdown.
func (c *Context) NextSequence() uint64 { return c.next }

// EndLease gives up what is left of the lease: the context can send no request
// until it is extended.
func (c *Context) EndLease() { c.limit = c.next }

// take spends one sequence number.
func (c *Context) take() (uint64, error) {
	if c.next >= c.limit {
		if c.next > MaxSequence {
			return 0, ErrSequenceExhausted
		}
		return 0, ErrLeaseExhausted
	}
	n := c.next
	c.next++
	return n, nil
}

// SetWindow puts a replay window in place: one from [Restore] after a clean
// shutdown, or [Fresh] for a context that never received a message.
func (c *Context) SetWindow(w Window) {
	w.large = slices.Clone(w.large)
	c.window = w
}

// WindowState returns the replay window's content for a hand-over; ok is false
// if the window is not initialised.
func (c *Context) WindowState() (s WindowState, ok bool) { return c.window.State() }

// WindowOpen reports whether the replay window is initialised.
func (c *Context) WindowOpen() bool { return c.window.open }

// AcceptEcho initialises the replay window from a request that OpenRequest
// reported as unproven and whose Echo option the caller has verified: it was
// made by this process, for this context, after the loss (Appendix B.1.2). The
// request is proven then. If the window was initialised meanwhile and has
// received the request's number, or left it behind, the error is ErrReplay.
func (c *Context) AcceptEcho(r *Request) error {
	if !r.valid() {
		return ErrInvalid
	}
	if r.keys != c.keys {
		return ErrContextChanged
	}
	if r.proven {
		return nil
	}
	if err := c.window.AcceptProven(c.windowSize, r.piv); err != nil {
		return err
	}
	r.proven = true
	return nil
}

// SenderID returns the Sender ID. The caller must not change it.
func (c *Context) SenderID() []byte { return c.keys.sender.kid() }

// RecipientID returns the Recipient ID. The caller must not change it.
func (c *Context) RecipientID() []byte { return c.keys.recipient.kid() }

// IDContext returns the ID Context, nil if it is absent. The caller must not
// change it.
func (c *Context) IDContext() []byte { return c.keys.idContext }

// Algorithm returns the AEAD algorithm.
func (c *Context) Algorithm() AEAD { return AEAD(c.keys.alg) }

// SetKIDContext sets what requests carry as kid context: nil for none. The
// default is the ID Context; Appendix B.2 wraps it in a CBOR byte string, and
// leaves it out once both ends have adopted the context. What is accepted from
// the peer does not depend on it. One that does not fit the option beside
// Partial IV and kid, above [MaxKIDContext], is refused with ErrInvalid.
func (c *Context) SetKIDContext(b []byte) error {
	if len(b) > MaxKIDContext {
		return ErrInvalid
	}
	c.kidContext = slices.Clone(b)
	return nil
}

// Usage tells what was done under a context's keys, for the limits of
// draft-ietf-core-oscore-key-limits.
type Usage struct {
	// Encrypted bounds the messages sealed under the Sender Key: est_q, which
	// needs no counter that would have to survive a restart. It is the next
	// sequence number, plus the number above the highest received Partial IV
	// for the responses that used a request's nonce.
	Encrypted uint64
	Failed    uint64 // messages that the Recipient Key refused since New: count_v
	LimitQ    uint64 // encryptions after which the context should be renewed
	LimitV    uint64 // failed decryptions after which it should be renewed
}

// Near reports whether renewal is due: three quarters of a limit are used.
func (u Usage) Near() bool {
	return u.Encrypted >= u.LimitQ/4*3 || u.Failed >= u.LimitV/4*3
}

// limitQ is the same for all algorithms (key-limits §2.1.1).
const limitQ = 1 << 20

// Usage returns the use that was made of the context's keys.
func (c *Context) Usage() Usage {
	return Usage{c.next + c.window.next, c.keys.failed.Load(), limitQ, aeads[c.Algorithm()].limitV}
}

// Wipe overwrites the keys; those of AES-GCM and ChaCha20/Poly1305 are inside
// the standard library's and x/crypto's ciphers and can only be let go. The context, and every request and response that
// it opened or sealed, must not be used afterwards.
func (c *Context) Wipe() {
	k := c.keys
	k.sender.wipe()
	k.recipient.wipe()
	c.limit, c.next = MaxSequence+1, MaxSequence+1
	c.window = Window{}
}
