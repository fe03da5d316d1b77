package endpoint

import (
	"time"

	"github.com/oscorelay/oscorelay/internal/coap"
	"github.com/oscorelay/oscorelay/oscore"
)

// Observation is the server's side of an observation (RFC 7641, RFC 8613
// §4.1.3.5): what its notifications are sealed with. It lives until the client
// cancels it, a notification ends it, or the caller does.
type Observation struct {
	e     *Endpoint
	in    *Incoming
	id    string
	ended bool   // e.mu
	seq   uint32 // of the last notification's outer Observe option; the first response counts
}

// withObserve sets the Observe option, whose value goes outside (RFC 8613
// §4.1.3.5.2). This side's client orders by the Partial IV, but proxies and
// some clients by that value, so that one counter gives it to the first response
// and to all notifications, whatever value the application had in mind.
func withObserve(opts coap.Options, seq uint32) coap.Options {
	return opts.Without(coap.Observe).AddUint(coap.Observe, seq&0xffffff)
}

// observationID identifies an observation of one peer by its token and its
// options: a cancellation must repeat them all but Observe and ETag (RFC 7641
// §3.6, compared after decryption), and another request with the same token
// leaves it alone (RFC 8613 §4.1.3.5).
func (r *Incoming) observationID() string {
	key := payloadKey(cacheKey(r.inner.code, r.inner.opts, coap.ETag, coap.RequestTag), r.inner.payload)
	return string(r.Token) + "\x00" + key
}

// register begins an observation, in place of an earlier one of the same
// token and options.
func (e *Endpoint) register(r *Incoming) (*Observation, error) {
	id := r.observationID()
	e.mu.Lock()
	defer e.mu.Unlock()
	s := e.state(r.Peer.Name())
	o := &Observation{e: e, in: r, id: id}
	if old := s.observations[id]; old != nil {
		old.ended = true
		o.seq = old.seq + 1 // the client still orders by what it saw (RFC 7641 §3.4)
	} else if len(s.observations) >= e.cfg.MaxObservations {
		return nil, ErrTooLarge
	}
	if s.observations == nil {
		s.observations = map[string]*Observation{}
	}
	s.observations[id] = o
	return o, nil
}

// cancel ends the observation that the request names, if there is one.
func (e *Endpoint) cancel(r *Incoming) {
	id := r.observationID()
	e.mu.Lock()
	defer e.mu.Unlock()
	if s := e.peers[r.Peer.Name()]; s != nil {
		if o := s.observations[id]; o != nil {
			o.ended = true
			delete(s.observations, id)
		}
	}
}

// observing reports whether the peer has an observation with that token.
func (e *Endpoint) observing(peer string, token []byte) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if s := e.peers[peer]; s != nil {
		for _, o := range s.observations {
			if string(o.in.Token) == string(token) {
				return true
			}
		}
	}
	return false
}

// Peer returns the observing peer's name.
func (o *Observation) Peer() string { return o.in.Peer.Name() }

// Token returns the token that notifications carry.
func (o *Observation) Token() []byte { return o.in.Token }

// Ended reports whether the observation is over.
func (o *Observation) Ended() bool {
	o.e.mu.Lock()
	defer o.e.mu.Unlock()
	return o.ended
}

// End ends the observation: the client reset a notification, its connection is
// gone, or the resource is. Nothing is sent.
func (o *Observation) End() {
	o.e.mu.Lock()
	defer o.e.mu.Unlock()
	o.ended = true
	if s := o.e.peers[o.in.Peer.Name()]; s != nil && s.observations[o.id] == o {
		delete(s.observations, o.id)
	}
}

// Notify protects a notification under a Partial IV of its own (RFC 8613
// §8.3.1). The message needs no Observe option; a response of class 4 or 5
// ends the observation (RFC 7641 §4.2). A payload larger than a block goes out
// as its first block, the others are served on request. Notifications of one
// observation must be sent in the order in which they were sealed.
//
// Errors: ErrEnded, and those of [oscore.Context.SealResponse]; among them
// ErrContextChanged, when the peer derived its context anew, ends it too.
func (o *Observation) Notify(now time.Time, m oscore.Message) (oscore.Message, error) {
	opts, payload, err := coap.Split(m.Body)
	if err != nil {
		return oscore.Message{}, err
	}
	final := !coap.Code(m.Code).IsSuccess()
	o.e.mu.Lock()
	if o.ended {
		o.e.mu.Unlock()
		return oscore.Message{}, ErrEnded
	}
	o.seq++
	seq := o.seq
	o.e.mu.Unlock()
	resp := request{m.Code, opts, payload}
	if final {
		resp.opts = opts.Without(coap.Observe)
		o.End()
	} else {
		resp.opts = withObserve(resp.opts, seq)
	}
	resp = o.e.slice(now, o.in, resp)
	out, err := o.in.Peer.SealResponse(nil, &o.in.req, resp.message(resp.payload))
	if err != nil {
		o.End()
	}
	return out, err
}
