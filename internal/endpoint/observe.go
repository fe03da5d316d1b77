package endpoint

import (
	"errors"
	"sync/atomic"
	"time"

	"github.com/oscorelay/oscorelay/internal/coap"
	"github.com/oscorelay/oscorelay/oscore"
)

// Observation is the server's side of an observation (RFC 7641, RFC 8613
// §4.1.3.5): what its notifications are sealed with. It lives until the client
// cancels it, a notification ends it, the peer's context is derived anew, or
// the caller ends it.
type Observation struct {
	e     *Endpoint
	in    *Incoming
	id    observationID
	ended atomic.Bool
	seq   atomic.Uint64 // of the last notification, for proxies
}

// observationID identifies an observation of one peer by its token and its
// options: a cancellation must repeat them all but Observe and ETag (RFC 7641
// §3.6, compared after decryption), and another request with the same token
// leaves it alone (RFC 8613 §4.1.3.5).
type observationID struct{ token, key string }

func (r *Incoming) observationID() observationID {
	in := r.inner()
	return observationID{string(r.Token), payloadKey(cacheKey(in.code, in.opts, coap.ETag, coap.RequestTag), in.payload)}
}

// register begins an observation, in place of an earlier one of the same
// token and options. It returns nil if the peer has too many.
func (e *Endpoint) register(r *Incoming) *Observation {
	o := &Observation{e: e, in: r, id: r.observationID()}
	if r.downloadKey() == o.id.key {
		r.key = o.id.key // one copy of it
	}
	s := e.state(r.Peer.Name())
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.observations[o.id]; old != nil {
		old.ended.Store(true)
		o.seq.Store(old.seq.Load())
	} else if len(s.observations) >= e.cfg.MaxObservations {
		return nil
	}
	if s.observations == nil {
		s.observations = map[observationID]*Observation{}
	}
	s.observations[o.id] = o
	return o
}

// next returns the number of the next notification.
func (o *Observation) next(now time.Time) uint64 {
	n := coap.NextObserve(o.seq.Load(), now.UnixMilli())
	o.seq.Store(n)
	return n
}

// cancel ends the observation that the request names, if there is one.
func (e *Endpoint) cancel(r *Incoming) {
	s := e.find(r.Peer.Name())
	if s == nil {
		return
	}
	id := r.observationID()
	s.mu.Lock()
	defer s.mu.Unlock()
	if o := s.observations[id]; o != nil {
		o.ended.Store(true)
		delete(s.observations, id)
	}
}

// observing reports whether the peer has an observation with that token.
func (e *Endpoint) observing(peer string, token []byte) bool {
	s := e.find(peer)
	if s == nil {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for id := range s.observations {
		if id.token == string(token) {
			return true
		}
	}
	return false
}

// Peer returns the observing peer's name.
func (o *Observation) Peer() string { return o.in.Peer.Name() }

// Token returns the token that notifications carry.
func (o *Observation) Token() []byte { return o.in.Token }

// Ended reports whether the observation is over.
func (o *Observation) Ended() bool { return o.ended.Load() }

// End ends the observation: the client reset a notification, its connection is
// gone, or the resource is. Nothing is sent.
func (o *Observation) End() {
	o.ended.Store(true)
	s := o.e.find(o.in.Peer.Name())
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.observations[o.id] == o {
		delete(s.observations, o.id)
	}
}

// Notify protects a notification under a Partial IV of its own (RFC 8613
// §8.3.1). The message needs no Observe option; a response of class 4 or 5
// ends the observation (RFC 7641 §4.2). A payload larger than a block goes out
// as its first block, the others are served on request. One goroutine at a
// time may call it, and notifications must be sent in the order in which they
// were sealed.
//
// Errors: ErrEnded, ErrTainted, and those of [oscore.Context.SealResponse];
// among them ErrContextChanged, when the peer derived its context anew, and
// ErrSequenceExhausted end the observation. After any other, such as one of
// the storage, nothing was sent and the observation goes on.
func (o *Observation) Notify(now time.Time, m oscore.Message) (oscore.Message, error) {
	resp, err := parse(m)
	if err != nil {
		return oscore.Message{}, err
	}
	if o.ended.Load() {
		return oscore.Message{}, ErrEnded
	}
	if o.in.Peer.Tainted() {
		return oscore.Message{}, ErrTainted
	}
	resp.opts = resp.opts.Without(coap.Observe, coap.RequestTag)
	final := !coap.Code(m.Code).IsSuccess()
	if !final {
		// The outer value orders notifications for proxies; this side's client
		// goes by the Partial IV.
		resp.opts = resp.opts.AddObserve(o.next(now))
	}
	resp = o.e.slice(now, o.in, resp)
	out, err := o.in.Peer.SealResponse(nil, &o.in.req, resp.message(resp.payload))
	switch {
	case err == nil && final, errors.Is(err, oscore.ErrContextChanged), errors.Is(err, oscore.ErrSequenceExhausted):
		o.End()
	}
	return out, err
}
