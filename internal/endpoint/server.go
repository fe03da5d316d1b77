package endpoint

import (
	"errors"
	"time"

	"github.com/oscorelay/oscorelay/internal/coap"
	"github.com/oscorelay/oscorelay/oscore"
)

// Inbound is a request as the transport received it, outer blocks assembled.
type Inbound struct {
	Source   string // names the sender's address, for rate limits and events
	Token    []byte
	Reliable bool // over a stream: signalling may be protected (RFC 8613 §4.3)
	Message  oscore.Message
}

// Verdict says what is to be done with a message.
type Verdict int

// The verdicts.
const (
	// Drop: nothing is sent.
	Drop Verdict = iota
	// Reply: Result.Message is the answer, under the request's token.
	Reply
	// Deliver: Result.Incoming holds a verified request for the application.
	Deliver
	// NotProtected: the message has no OSCORE option; whether plain requests
	// are served is the caller's decision.
	NotProtected
)

// Result is what became of a request.
type Result struct {
	Verdict  Verdict
	Message  oscore.Message
	Incoming *Incoming
	// Verified tells that the message was authentic and no replay: only then
	// may the transport remember the exchange and answer its retransmission
	// from memory. A forged message must leave no trace.
	Verified bool
	Reason   Reason // why it was not delivered
	Peer     string // "" if unknown
	Err      error
}

// Receive processes a request (RFC 8613 §8.2).
//
//  1. decode the OSCORE option, look up kid and kid context
//  2. verify, move the replay window; after its loss only Echo opens it
//  3. refuse what the peer may not do, challenge what is not fresh enough
//  4. assemble inner blocks, serve further blocks of an earlier response
//  5. deliver
func (e *Endpoint) Receive(now time.Time, in Inbound) Result {
	opt, protected, err := oscore.FindOption(in.Message)
	if !protected && err == nil {
		return Result{Verdict: NotProtected}
	}
	if err != nil || opt.KID == nil || opt.PartialIV == nil {
		return e.refuse(now, in, opt, "", oscore.ErrDecode)
	}
	if e.cfg.Keyring == nil {
		return e.refuse(now, in, opt, "", oscore.ErrNoContext)
	}
	var room [oscore.MaxCandidates]oscore.Peer
	peers, match := e.cfg.Keyring.Find(room[:0], opt.KID, opt.KIDContext)
	switch match {
	case oscore.MatchExact, oscore.MatchKID:
	case oscore.MatchRederive:
		return e.receiveRederive(now, in, opt, peers)
	default:
		return e.refuse(now, in, opt, "", oscore.ErrNoContext)
	}
	var worst error = oscore.ErrNoContext
	name := ""
	for _, peer := range peers {
		r := &Incoming{e: e, Peer: peer, Source: in.Source, Token: in.Token, opt: opt}
		m, err := peer.OpenRequest(nil, &r.req, in.Message)
		switch {
		case err == nil, errors.Is(err, oscore.ErrUnproven), errors.Is(err, oscore.ErrPlaintext):
			return e.verified(now, in, r, m, err)
		case errors.Is(err, oscore.ErrNoContext):
			// the look-up raced with a change of context
		case errors.Is(err, oscore.ErrReplay), worst == oscore.ErrNoContext:
			worst, name = err, peer.Name()
		}
	}
	if errors.Is(worst, oscore.ErrReplay) && e.observing(name, in.Token) {
		// §4.1.3.5.1: a proxy that resends an old registration must not take
		// the refusal for the observation's end.
		e.event(Event{Reason: ReasonReplay, Peer: name, Source: in.Source, KID: opt.KID, KIDCtx: opt.KIDContext, PIV: opt.Sequence(), Err: worst})
		return Result{Verdict: Drop, Reason: ReasonReplay, Peer: name, Err: worst}
	}
	return e.refuse(now, in, opt, name, worst)
}

// verified goes on with a request that some context verified; err is nil,
// ErrUnproven or ErrPlaintext.
func (e *Endpoint) verified(now time.Time, in Inbound, r *Incoming, m oscore.Message, err error) Result {
	name := r.Peer.Name()
	echo := echoOf(m)
	freshEcho := echo != nil && e.echo.fresh(now, name, echo, e.cfg.EchoLifetime)
	if errors.Is(err, oscore.ErrUnproven) {
		if r.Peer.Tainted() {
			return e.offerRederive(now, in, r)
		}
		if !freshEcho {
			return e.challenge(now, r)
		}
		if err := r.Peer.AcceptEcho(&r.req); err != nil {
			return e.refuse(now, in, r.opt, name, oscore.ErrReplay)
		}
		err = nil
		if m.Code == 0 { // ErrUnproven hid a malformed plaintext
			err = oscore.ErrPlaintext
		}
	}
	if err != nil {
		r.report(ReasonPlaintext, err)
		return r.reply(coap.BadRequest, ReasonPlaintext)
	}
	if coap.Code(m.Code).IsSignal() && !in.Reliable {
		return e.drop(r, ReasonPlaintext, nil) // RFC 8323's codes mean nothing over datagrams
	}
	inner, err := parse(m)
	if err != nil {
		return r.reply(coap.BadRequest, ReasonPlaintext)
	}
	r.inner = inner
	if e.cfg.Allow != nil && !e.cfg.Allow(name, coap.Code(inner.code), inner.path()) {
		r.report(ReasonForbidden, nil)
		return r.reply(coap.Forbidden, ReasonForbidden)
	}
	return e.admit(now, r, freshEcho)
}

// admit applies the freshness policy, then the block-wise layer.
func (e *Endpoint) admit(now time.Time, r *Incoming, freshEcho bool) Result {
	name, inner := r.Peer.Name(), r.inner
	policy := e.policy(name, inner)
	b1, isB1, err := inner.block(coap.Block1)
	if err != nil {
		return r.reply(coap.BadRequest, ReasonPlaintext)
	}
	e.mu.Lock()
	s := e.state(name)
	needed := policy == FreshAlways || policy == FreshUnsafe && unsafe(inner.code) || policy == FreshFirst && !s.used
	// Of an upload the first block is challenged, to spare the others, and the
	// last, which applies it.
	if isB1 && b1.Num > 0 && b1.More {
		needed = false
	}
	if !needed || freshEcho {
		s.used = true
	}
	e.mu.Unlock()
	if needed && !freshEcho {
		return e.askFresh(now, r)
	}
	r.offerEcho = policy >= FreshUnsafe
	if isB1 {
		whole, res := e.receiveBlock1(now, r, b1)
		if !whole {
			return res
		}
	}
	r.key = payloadKey(cacheKey(r.inner.code, r.inner.opts), r.inner.payload)
	b2, isB2, err := r.inner.block(coap.Block2)
	if err != nil {
		return r.reply(coap.BadRequest, ReasonPlaintext)
	}
	if isB2 {
		r.block2, r.wantsBlock2 = b2, true
		if b2.Num > 0 {
			if m, ok := e.nextBlock(now, r, b2); ok {
				if r.offerEcho {
					m = e.withEcho(now, name, m)
				}
				return r.sendWith(m, "")
			}
			if unsafe(r.inner.code) {
				// The handler must not run again for a further block.
				return r.reply(coap.RequestEntityIncomplete, ReasonStale)
			}
		}
		r.inner.opts = r.inner.opts.Without(coap.Block2)
	}
	if v, ok := r.inner.opts.Uint(coap.Observe); ok && v == 1 {
		e.cancel(r)
	}
	r.Message = oscore.Message{Code: r.inner.code, Body: coap.AppendBody(nil, r.inner.opts.Without(coap.Echo, coap.RequestTag), r.inner.payload)}
	return Result{Verdict: Deliver, Incoming: r, Verified: true, Peer: name}
}

// refuse answers with one of §8.2's plain errors, or not at all.
func (e *Endpoint) refuse(now time.Time, in Inbound, opt oscore.Option, peer string, err error) Result {
	for _, r := range refusals {
		if !errors.Is(err, r.err) {
			continue
		}
		e.event(Event{Reason: r.reason, Peer: peer, Source: in.Source, KID: opt.KID, KIDCtx: opt.KIDContext, PIV: opt.Sequence(), Err: err})
		res := Result{Verdict: Reply, Message: r.message(), Reason: r.reason, Peer: peer, Err: err}
		if e.cfg.Silent || !e.plain.take(now, in.Source, e.cfg.ErrorRate, e.cfg.ErrorRateTotal) {
			res.Verdict, res.Message = Drop, oscore.Message{}
		}
		return res
	}
	e.event(Event{Reason: ReasonStorage, Peer: peer, Source: in.Source, Err: err})
	return Result{Verdict: Drop, Reason: ReasonStorage, Peer: peer, Err: err}
}

// RefusePlain returns the answer to a request without an OSCORE option that the
// caller does not serve: a plain 4.01. ok is false where Config.Silent or the
// rate limits of plain answers rule it out.
func (e *Endpoint) RefusePlain(now time.Time, source string) (answer oscore.Message, ok bool) {
	e.event(Event{Reason: ReasonUnprotected, Source: source})
	if e.cfg.Silent || !e.plain.take(now, source, e.cfg.ErrorRate, e.cfg.ErrorRateTotal) {
		return oscore.Message{}, false
	}
	return oscore.Message{Code: byte(coap.Unauthorized)}, true
}

// drop ends a verified request without an answer.
func (e *Endpoint) drop(r *Incoming, reason Reason, err error) Result {
	r.report(reason, err)
	return Result{Verdict: Drop, Reason: reason, Peer: r.Peer.Name(), Err: err}
}
