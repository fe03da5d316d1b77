package oscore

import (
	"bytes"
	"sync/atomic"
)

// exchange is what a request and its responses have in common (§8): the keys,
// the request's nonce, and the AAD, which holds the request's kid and Partial
// IV and so binds every response to it.
type exchange struct {
	keys   *keyset
	nonce  [maxNonce]byte
	aad    [maxAAD]byte
	aadLen uint8
	piv    uint64
}

func (x *exchange) nonceBytes() []byte { return x.nonce[:x.keys.nonceLen] }
func (x *exchange) aadBytes() []byte   { return x.aad[:x.aadLen] }

// Request is the server's side of a verified request: only it can seal the
// response. [Context.OpenRequest] fills it in; the caller owns its memory and
// may use it again for another request once the exchange is over. It must not
// be copied: a copy refuses to seal.
//
// One goroutine at a time may use a Request, except that [Request.Seal] lets
// at most one of concurrent callers through.
type Request struct {
	_ noCopy
	exchange
	self    *Request
	proven  bool
	observe bool
	signal  bool
	spent   atomic.Bool // the request's nonce has protected a response
}

// PartialIV returns the request's sequence number.
func (r *Request) PartialIV() uint64 { return r.piv }

// Proven reports whether the request passed an initialised replay window. A
// request that is not proven can only be challenged (Appendix B.1.2).
func (r *Request) Proven() bool { return r.proven }

// Observes reports whether the request registers an observation: inner Observe
// with value 0 (§4.1.3.5.1).
func (r *Request) Observes() bool { return r.observe }

// valid reports whether r was filled in by OpenRequest, at this address.
func (r *Request) valid() bool { return r != nil && r.self == r && r.keys != nil }

// reset makes r hold nothing.
func (r *Request) reset() {
	r.exchange.keys = nil
	r.self = nil
	r.proven, r.observe, r.signal = false, false, false
	if r.spent.Load() { // a load is cheap, a store is a locked instruction
		r.spent.Store(false)
	}
}

// Pending is the client's side of a request that was sent: only it can open
// the response. [Context.SealRequest] fills it in; the caller owns its memory.
// It must not be copied, and serves one goroutine at a time.
type Pending struct {
	_ noCopy
	exchange
	self         *Pending
	observe      bool
	signal       bool
	done         bool
	nonceUsed    bool // a response under the request's nonce was accepted
	notified     bool // notification holds a number
	notification uint64
	own          [maxNonce]byte // scratch: the nonce of a response with a Partial IV
}

// PartialIV returns the request's sequence number.
func (p *Pending) PartialIV() uint64 { return p.piv }

// Observes reports whether the request registers an observation.
func (p *Pending) Observes() bool { return p.observe }

// Done reports whether no further response will be accepted.
func (p *Pending) Done() bool { return p.done }

// Notification returns the observation's Notification Number: the largest
// Partial IV of its accepted notifications (§4.1.3.5.2). ok is false before
// one with a Partial IV came.
func (p *Pending) Notification() (number uint64, ok bool) { return p.notification, p.notified }

func (p *Pending) valid() bool { return p != nil && p.self == p && p.keys != nil }

// Resume makes p ready to open the response to a request that was protected
// before, by another process too: sealed is the message as it was sent. For
// whoever keeps a request that may still be answered over a restart, and sends
// the very same bytes again. The request must not have registered an
// observation: what of its notifications was accepted is not known any more.
//
// Errors: ErrDecode, and ErrContextChanged for a request that does not name
// this context as its sender's.
func (c *Context) Resume(p *Pending, sealed Message) error {
	opt, ok, err := FindOption(sealed)
	if err != nil || !ok || opt.PartialIV == nil {
		return ErrDecode
	}
	k := c.keys
	if !bytes.Equal(opt.KID, k.sender.kid()) || opt.KIDContext != nil && !bytes.Equal(opt.KIDContext, c.kidContext) {
		return ErrContextChanged
	}
	k.sender.exchange(&p.exchange, int(k.nonceLen), opt.PartialIV)
	p.keys, p.piv, p.self = k, opt.Sequence(), p
	p.observe, p.signal = false, false
	p.done, p.nonceUsed, p.notified, p.notification = false, false, false, 0
	return nil
}

// noCopy makes go vet report a copy.
type noCopy struct{}

func (*noCopy) Lock()   {}
func (*noCopy) Unlock() {}
