package endpoint

import (
	"time"

	"github.com/oscorelay/oscorelay/internal/coap"
	"github.com/oscorelay/oscorelay/oscore"
)

// Incoming is a verified request: the one thing that can answer it.
type Incoming struct {
	Peer    oscore.Peer
	Source  string
	Token   []byte
	Message oscore.Message // the inner request, blocks assembled, Echo and Request-Tag taken out

	e         *Endpoint
	req       oscore.Request
	opt       oscore.Option
	inner     request
	key       string // cache key of the request
	offerEcho bool
	block1    coap.Block // of the request's last block
	hasBlock1 bool
	block2    coap.Block // wish of the request
	// wantsBlock2 tells that the request held a Block2 option.
	wantsBlock2 bool
	observation *Observation
}

// PartialIV returns the request's sequence number.
func (r *Incoming) PartialIV() uint64 { return r.req.PartialIV() }

// Observes reports whether the request registers an observation.
func (r *Incoming) Observes() bool { return r.req.Observes() }

// Respond protects the response (RFC 8613 §8.3). Its payload may be larger
// than a block: the first block goes out and the others are served as the
// client asks for them. send is false where the request's No-Response option
// says so (RFC 7967).
//
// A response with an Observe option to a request that [Incoming.Observes]
// begins an observation: see [Incoming.Observation].
func (r *Incoming) Respond(now time.Time, m oscore.Message) (out oscore.Message, send bool, err error) {
	opts, payload, err := coap.Split(m.Body)
	if err != nil {
		return out, false, err
	}
	resp := request{m.Code, opts, payload}
	_, notifies := opts.Get(coap.Observe)
	if notifies && (!r.Observes() || !coap.Code(m.Code).IsSuccess()) {
		resp.opts, notifies = resp.opts.Without(coap.Observe), false
	}
	if notifies {
		if r.observation, err = r.e.register(r); err != nil {
			resp.opts, notifies = resp.opts.Without(coap.Observe), false // RFC 7641 §4.1: answered as a plain GET
		} else {
			resp.opts = withObserve(opts, r.observation.seq)
		}
	} else if r.Observes() {
		r.e.cancel(r) // a registration anew that failed ends the earlier one
	}
	if r.suppressed(m.Code) {
		return out, false, nil
	}
	resp = r.e.slice(now, r, resp)
	if r.hasBlock1 {
		resp.opts = resp.opts.Add(coap.Block1, r.block1.Append(nil))
	}
	if r.offerEcho {
		resp.opts = resp.opts.Add(coap.Echo, r.e.echo.value(now, r.Peer.Name()))
	}
	out, err = r.seal(resp.message(resp.payload))
	return out, err == nil, err
}

// seal protects the first response under the request's nonce, unless the
// endpoint numbers all of them.
func (r *Incoming) seal(m oscore.Message) (oscore.Message, error) {
	if r.e.cfg.ResponsePIV {
		return r.Peer.SealResponse(nil, &r.req, m)
	}
	return r.req.Seal(nil, m)
}

// suppressed reports whether the inner No-Response option rules the code out
// (RFC 7967 §2.1: a bit a class).
func (r *Incoming) suppressed(code byte) bool {
	v, ok := r.inner.opts.Uint(coap.NoResponse)
	if !ok {
		return false
	}
	class := coap.Code(code).Class()
	return class >= 2 && v&(1<<(class-1)) != 0
}

// Observation returns the observation that Respond began, nil if none.
func (r *Incoming) Observation() *Observation { return r.observation }

// reply makes a Result of a protected answer without payload.
func (r *Incoming) reply(code coap.Code, reason Reason) Result {
	return r.sendWith(oscore.Message{Code: byte(code)}, reason)
}

// sendWith makes a Result of a protected answer that the endpoint gives by itself.
func (r *Incoming) sendWith(m oscore.Message, reason Reason) Result {
	name := r.Peer.Name()
	if r.suppressed(m.Code) {
		return Result{Verdict: Drop, Verified: true, Peer: name, Reason: reason}
	}
	sealed, err := r.seal(m)
	if err != nil {
		r.report(ReasonStorage, err)
		return Result{Verdict: Drop, Verified: true, Peer: name, Reason: ReasonStorage, Err: err}
	}
	return Result{Verdict: Reply, Message: sealed, Verified: true, Peer: name, Reason: reason}
}

func (r *Incoming) report(reason Reason, err error) {
	r.e.event(Event{Reason: reason, Peer: r.Peer.Name(), Source: r.Source, KID: r.opt.KID, KIDCtx: r.opt.KIDContext, PIV: r.opt.Sequence(), Err: err})
}
