package endpoint

import (
	"errors"
	"net/netip"
	"sync"
	"time"

	"github.com/oscorelay/oscorelay/internal/coap"
	"github.com/oscorelay/oscorelay/oscore"
)

// Inbound is a request as the transport received it, outer blocks assembled.
// Its bytes are the caller's again when Receive returns.
type Inbound struct {
	Source string         // names the sender's address, for rate limits and events
	Addr   netip.AddrPort // or, in place of Source, is it
	// Into is room for the request, which must not have held another; nil: it is
	// made.
	Into     *Incoming
	Token    []byte
	Reliable bool // over a stream: signalling may be protected (RFC 8613 §4.3)
	Message  oscore.Message
}

func (in *Inbound) source() string { return sourceText(in.Source, in.Addr) }

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
	// from memory. A forged message must leave no trace, nor one that may be a
	// replay because the window was lost.
	Verified bool
	Reason   Reason // why it was not delivered
	Peer     string // "" if unknown
	Err      error
}

// candidates are rooms for look-ups, which an interface call would move to the
// heap each time.
var candidates = sync.Pool{New: func() any { return new([oscore.MaxCandidates]oscore.Peer) }}

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
	room := candidates.Get().(*[oscore.MaxCandidates]oscore.Peer)
	defer candidates.Put(room)
	defer clear(room[:])
	peers, match := e.cfg.Keyring.Find(room[:0], opt.KID, opt.KIDContext)
	switch match {
	case oscore.MatchExact, oscore.MatchKID:
		return e.receive(now, in, opt, peers)
	case oscore.MatchRederive:
		return e.receiveRederive(now, in, opt, peers)
	}
	return e.refuse(now, in, opt, "", oscore.ErrNoContext)
}

// incoming begins a request. What it takes over of the transport's bytes it
// copies when it is delivered.
func (e *Endpoint) incoming(in *Inbound, opt oscore.Option) *Incoming {
	r := in.Into
	if r == nil {
		r = new(Incoming)
	}
	r.e, r.source, r.Addr, r.Token, r.opt = e, in.Source, in.Addr, in.Token, opt
	return r
}

// receive tries the peers that a request may be from. Of several refusals a
// replay counts: it alone says that the message was somebody's.
func (e *Endpoint) receive(now time.Time, in Inbound, opt oscore.Option, peers []oscore.Peer) Result {
	r := e.incoming(&in, opt)
	var worst error = oscore.ErrNoContext
	name := ""
	for _, peer := range peers {
		r.Peer = peer
		m, err := peer.OpenRequest(r.room[:0], &r.req, in.Message)
		switch {
		case err == nil, errors.Is(err, oscore.ErrUnproven), errors.Is(err, oscore.ErrPlaintext):
			return e.verified(now, in, r, m, err, false)
		case errors.Is(err, oscore.ErrLate) && e.proves(now, peer.Name(), m):
			return e.verified(now, in, r, m, oscore.ErrUnproven, true)
		case errors.Is(err, oscore.ErrNoContext):
			// the look-up raced with a change of context
		case errors.Is(err, oscore.ErrReplay), worst == oscore.ErrNoContext:
			worst, name = err, peer.Name()
		}
	}
	if errors.Is(worst, oscore.ErrReplay) && e.observing(name, in.Token) {
		// §4.1.3.5.1: a proxy that resends an old registration must not take
		// the refusal for the observation's end.
		e.event(Event{Reason: ReasonReplay, Peer: name, Source: in.source(), KID: opt.KID, KIDCtx: opt.KIDContext, PIV: opt.Sequence(), Err: worst})
		return Result{Verdict: Drop, Reason: ReasonReplay, Peer: name, Err: worst}
	}
	return e.refuse(now, in, opt, name, worst)
}

// verified goes on with a request that some context verified; err is nil,
// ErrUnproven or ErrPlaintext. fresh tells that something proves it fresh
// already.
func (e *Endpoint) verified(now time.Time, in Inbound, r *Incoming, m oscore.Message, err error, fresh bool) Result {
	name := r.Peer.Name()
	if r.Peer.Tainted() {
		return e.offerRederive(now, r) // nothing may be sealed under this context
	}
	var code coap.Code
	r.marks, code = scan(m.Body)
	if !fresh && r.marks.echo != nil && e.echo.fresh(now, name, r.marks.echo, e.cfg.EchoLifetime) {
		fresh, r.proof = true, [echoLen]byte(r.marks.echo)
	}
	if errors.Is(err, oscore.ErrUnproven) {
		settings := r.Peer.Settings()
		switch {
		case fresh:
		case settings.NoEcho && settings.Rederive&oscore.RoleServer != 0:
			return e.offerRederive(now, r)
		default:
			return e.challenge(now, r)
		}
		if err := r.Peer.AcceptEcho(&r.req); errors.Is(err, oscore.ErrReplay) {
			return e.refuse(now, in, r.opt, name, err)
		} else if err != nil {
			return e.drop(r, ReasonStorage, err)
		}
		err = nil
	}
	if err == nil && code != 0 {
		err = coap.ErrFormat
	}
	if err != nil {
		r.report(ReasonPlaintext, err)
		return r.reply(max(code, coap.BadRequest), ReasonPlaintext)
	}
	r.Message, r.opened = m, m
	if coap.Code(m.Code).IsSignal() {
		if !in.Reliable {
			return e.drop(r, ReasonPlaintext, nil) // RFC 8323's codes mean nothing over datagrams
		}
		// No method, no path, no blocks: a signal's options are its own.
		r.marks = marks{}
		return r.deliver()
	}
	if e.cfg.Serve != nil && !e.cfg.Serve(name) || e.cfg.Allow != nil && !e.cfg.Allow(name, coap.Code(m.Code), r.Path()) {
		r.report(ReasonForbidden, nil)
		return r.reply(coap.Forbidden, ReasonForbidden)
	}
	return e.admit(now, r, fresh)
}

// admit applies the freshness policy, then the block-wise layer.
func (e *Endpoint) admit(now time.Time, r *Incoming, fresh bool) Result {
	k := &r.marks
	must, offer := e.mustProve(r)
	if k.has&hasBlock1 != 0 && k.block1.Num > 0 && k.block1.More {
		// Of an upload the first block is challenged, to spare the others, and
		// the last, which applies it.
		must = false
	}
	if e.cfg.Moved != nil && e.cfg.Moved(r) && !r.Peer.Settings().NoEcho {
		must = true
	}
	if fresh {
		e.proved(r.Peer.Name())
	} else if must {
		return e.askFresh(now, r)
	}
	r.offerEcho = offer
	if k.has&stripped != 0 {
		return e.transfer(now, r)
	}
	if k.has&hasObserve != 0 && k.observe == 1 {
		e.cancel(r)
	}
	return r.deliver()
}

// transfer delivers a request that holds a block, or an option that the
// application has no use for, unless the endpoint answers it by itself.
func (e *Endpoint) transfer(now time.Time, r *Incoming) Result {
	k := &r.marks
	if e.cfg.Transparent {
		return e.pass(r)
	}
	if k.has&hasBlock1 != 0 {
		whole, res := e.receiveBlock1(now, r, k.block1)
		if !whole {
			return res
		}
	}
	if k.has&hasBlock2 != 0 && k.block2.Num > 0 {
		if m, ok := e.nextBlock(now, r, k.block2); ok {
			return r.sendWith(m, "")
		}
		if unsafe(r.opened.Code) || coap.Code(r.opened.Code) == coap.FETCH && len(r.inner().payload) == 0 {
			// The handler must not run again for a further block, nor without
			// the body that an earlier request brought.
			return r.reply(coap.RequestEntityIncomplete, ReasonStale)
		}
	}
	if k.has&hasObserve != 0 && k.observe == 1 {
		e.cancel(r)
	}
	in := *r.inner() // which goes on holding all options, for keys
	in.opts = in.opts.Without(coap.Block1, coap.Block2, coap.Echo, coap.RequestTag)
	r.Message = in.message(in.payload)
	return r.deliver()
}

// pass delivers a request with its blocks, for a Transparent endpoint. Nothing
// looks at its Echo any more, which is part of no key either.
func (e *Endpoint) pass(r *Incoming) Result {
	if r.marks.has&hasEcho != 0 {
		r.marks.echo, r.taken = nil, request{}
		r.opened.Body = strip(r.opened.Body, coap.Echo)
		r.Message = r.opened
	}
	if r.marks.has&hasObserve != 0 && r.marks.observe == 1 {
		e.cancel(r)
	}
	return r.deliver()
}

// refuse answers with one of §8.2's plain errors, or not at all.
func (e *Endpoint) refuse(now time.Time, in Inbound, opt oscore.Option, peer string, err error) Result {
	for _, r := range refusals {
		if !errors.Is(err, r.err) {
			continue
		}
		e.event(Event{Reason: r.reason, Peer: peer, Source: in.source(), KID: opt.KID, KIDCtx: opt.KIDContext, PIV: opt.Sequence(), Err: err})
		res := Result{Verdict: Reply, Message: r.message(), Reason: r.reason, Peer: peer, Err: err}
		if e.cfg.Silent || !e.plain.take(now, &in, e.cfg.ErrorRate, e.cfg.ErrorRateTotal) {
			res.Verdict, res.Message = Drop, oscore.Message{}
		}
		return res
	}
	e.event(Event{Reason: ReasonStorage, Peer: peer, Source: in.source(), Err: err})
	return Result{Verdict: Drop, Reason: ReasonStorage, Peer: peer, Err: err}
}

// RefusePlain returns the answer to a request without an OSCORE option that the
// caller does not serve: a plain 4.01. ok is false where Config.Silent or the
// rate limits of plain answers rule it out.
func (e *Endpoint) RefusePlain(now time.Time, in Inbound) (answer oscore.Message, ok bool) {
	e.event(Event{Reason: ReasonUnprotected, Source: in.source()})
	if e.cfg.Silent || !e.plain.take(now, &in, e.cfg.ErrorRate, e.cfg.ErrorRateTotal) {
		return oscore.Message{}, false
	}
	return oscore.Message{Code: byte(coap.Unauthorized)}, true
}

// drop ends a verified request without an answer.
func (e *Endpoint) drop(r *Incoming, reason Reason, err error) Result {
	r.report(reason, err)
	return Result{Verdict: Drop, Reason: reason, Peer: r.Peer.Name(), Err: err}
}
