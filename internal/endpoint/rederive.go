package endpoint

import (
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"time"

	"github.com/oscorelay/oscorelay/internal/coap"
	"github.com/oscorelay/oscorelay/oscore"
)

// Appendix B.2: a new context from the old master secret and fresh randomness
// of both ends.
//
//	client                                         server
//	request #1   ID Context = R1        ─────────► (not acted on)
//	             second context         ◄───────── response #1, 4.01, ID Context = R2 || R1
//	request #2   ID Context = R2 || R3  ─────────► verified, adopted, acted on
//	adopted      third context          ◄───────── response #2
//
// The server remembers nothing of a run but one key: R2 is a random S2 and a
// MAC of it (B.2.1). The key dies with the first run that completes, so that no
// request #2 is accepted twice.

const (
	saltLen = 8 // bytes of R1, S2 and R3
	macLen  = 8
	r2Len   = saltLen + macLen
	// rederiveLifetime is how long a server's run may take.
	rederiveLifetime = 5 * time.Minute
	// rederiveRate bounds the runs of one peer, a second: request #1 may be
	// replayed, and costs a few key derivations.
	rederiveRate = 16
)

// receiveRederive processes request #1 or #2 of Appendix B.2.
func (e *Endpoint) receiveRederive(now time.Time, in Inbound, opt oscore.Option, peers []oscore.Peer) Result {
	id, err := oscore.UnwrapBstr(opt.KIDContext)
	if err != nil || len(id) == 0 || len(id) > oscore.MaxIDContext-r2Len {
		return e.refuse(now, in, opt, "", oscore.ErrNoContext)
	}
	err = oscore.ErrNoContext
	for _, peer := range peers {
		if peer.Settings().Rederive&oscore.RoleServer == 0 {
			continue
		}
		name := peer.Name()
		e.mu.Lock()
		s := e.state(name)
		pass := s.challenges.take(now, rederiveRate)
		second := s.issued(name, id)
		e.mu.Unlock()
		if !pass {
			e.event(Event{Reason: ReasonLimited, Peer: name, Source: in.Source, KID: opt.KID, KIDCtx: opt.KIDContext})
			return Result{Verdict: Drop, Reason: ReasonLimited, Peer: name}
		}
		r := &Incoming{e: e, Peer: peer, Source: in.Source, Token: in.Token, opt: opt}
		ctx, derr := peer.Derive(id, opt.KIDContext)
		if derr != nil {
			err = derr
			continue
		}
		ctx.Begin()
		m, oerr := ctx.OpenRequest(nil, &r.req, in.Message)
		if oerr != nil && !errors.Is(oerr, oscore.ErrPlaintext) {
			err = oerr
			continue
		}
		if !second {
			return e.answerFirst(now, r, id)
		}
		if !e.claim(name) {
			return e.refuse(now, in, opt, name, oscore.ErrReplay)
		}
		if aerr := peer.Adopt(ctx); aerr != nil {
			return e.drop(r, ReasonStorage, aerr)
		}
		r.report(ReasonRederived, nil)
		return e.verified(now, in, r, m, oerr)
	}
	return e.refuse(now, in, opt, "", err)
}

// offerRederive answers a request that is authentic, under a context whose
// history is unknown, with response #1: the run that the server initiates.
func (e *Endpoint) offerRederive(now time.Time, in Inbound, r *Incoming) Result {
	if r.Peer.Settings().Rederive&oscore.RoleServer == 0 {
		return e.drop(r, ReasonTainted, ErrTainted)
	}
	name := r.Peer.Name()
	e.mu.Lock()
	pass := e.state(name).challenges.take(now, rederiveRate)
	e.mu.Unlock()
	if !pass {
		return e.drop(r, ReasonLimited, nil)
	}
	return e.answerFirst(now, r, r.Peer.IDContext())
}

// answerFirst sends response #1: 4.01 under the second context, whose ID
// Context is R2 || ID1, with R2 as kid context (step 2).
func (e *Endpoint) answerFirst(now time.Time, r *Incoming, id1 []byte) Result {
	name := r.Peer.Name()
	r2, err := e.issue(now, name)
	if err != nil {
		return e.drop(r, ReasonChallenge, err)
	}
	second, err := r.Peer.Derive(append(append([]byte{}, r2...), id1...), nil)
	if err != nil {
		return e.drop(r, ReasonStorage, err)
	}
	sealed, err := r.req.SealUnder(nil, second, oscore.WrapBstr(r2), oscore.Message{Code: byte(coap.Unauthorized)})
	if err != nil {
		return e.drop(r, ReasonStorage, err)
	}
	r.report(ReasonChallenge, nil)
	return Result{Verdict: Reply, Message: sealed, Verified: true, Reason: ReasonChallenge, Peer: name}
}

// issue returns a new R2 for a run with the peer.
func (e *Endpoint) issue(now time.Time, peer string) ([]byte, error) {
	r2 := make([]byte, saltLen, r2Len)
	if err := e.random(r2); err != nil {
		return nil, err // B.2: not without good randomness
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	s := e.state(peer)
	if s.rederiveKey == nil || now.Sub(s.rederiveAt) > rederiveLifetime {
		key := make([]byte, 32)
		if err := e.random(key); err != nil {
			return nil, err
		}
		s.rederiveKey, s.rederiveAt = key, now
	}
	return append(r2, s.mac(peer, r2)...), nil
}

// issued reports whether an ID Context begins with an R2 of a run under way.
func (s *peerState) issued(peer string, id []byte) bool {
	return s.rederiveKey != nil && len(id) >= r2Len+saltLen && hmac.Equal(s.mac(peer, id[:saltLen]), id[saltLen:r2Len])
}

func (s *peerState) mac(peer string, s2 []byte) []byte {
	h := hmac.New(sha256.New, s.rederiveKey)
	h.Write(s2)
	h.Write([]byte(peer))
	return h.Sum(nil)[:macLen]
}

// claim ends the peer's runs; of several that reach request #2 one wins.
func (e *Endpoint) claim(peer string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := e.state(peer)
	ok := s.rederiveKey != nil
	clear(s.rederiveKey)
	s.rederiveKey = nil
	return ok
}

// derivation is a client's run of Appendix B.2, between request #1 and
// response #1.
type derivation struct {
	id1     []byte
	pending oscore.Pending
}

// startDerivation returns request #1. It asks for nothing: the server does not
// act on it.
func (x *Exchange) startDerivation() (oscore.Message, error) {
	d := &derivation{id1: make([]byte, saltLen)}
	if err := x.e.random(d.id1); err != nil {
		return oscore.Message{}, err
	}
	first, err := x.peer.Derive(d.id1, oscore.WrapBstr(d.id1))
	if err != nil {
		return oscore.Message{}, err
	}
	first.Begin()
	m, err := first.SealRequest(nil, &d.pending, oscore.Message{Code: byte(coap.GET)})
	x.derivation = d
	return m, err
}

// receiveFirst processes response #1 to a request whose ID Context is id1, and
// goes on with request #2, which is the application's own (step 3).
func (x *Exchange) receiveFirst(now time.Time, p *oscore.Pending, id1 []byte, opt oscore.Option, m oscore.Message) Step {
	r2, err := oscore.UnwrapBstr(opt.KIDContext)
	if err != nil || len(r2) == 0 || len(r2)+max(len(id1), saltLen) > oscore.MaxIDContext {
		return x.wait(oscore.ErrDecode)
	}
	second, err := x.peer.Derive(append(append([]byte{}, r2...), id1...), nil)
	if err != nil {
		return x.wait(err)
	}
	inner, err := p.OpenUnder(nil, second, m)
	if err != nil {
		return x.wait(err)
	}
	if coap.Code(inner.Code) != coap.Unauthorized {
		return x.fail(ErrRederive)
	}
	id3 := make([]byte, len(r2)+saltLen)
	copy(id3, r2)
	if err := x.e.random(id3[len(r2):]); err != nil {
		return x.fail(err)
	}
	third, err := x.peer.Derive(id3, oscore.WrapBstr(id3))
	if err != nil {
		return x.fail(err)
	}
	third.Begin()
	x.derivation, x.third = nil, third
	return x.resend(now)
}

// adopt makes the third context the peer's own once response #2 has verified
// (step 5).
func (x *Exchange) adopt() error {
	if x.third == nil {
		return nil
	}
	third := x.third
	x.third = nil
	x.e.mu.Lock()
	s := x.e.state(x.peer.Name())
	s.started, s.failures = true, 0
	x.e.mu.Unlock()
	x.stopDeriving()
	x.e.event(Event{Reason: ReasonRederived, Peer: x.peer.Name()})
	return x.peer.Adopt(third)
}
