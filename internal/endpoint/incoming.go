package endpoint

import (
	"bytes"
	"net/netip"
	"slices"
	"time"

	"github.com/oscorelay/oscorelay/internal/coap"
	"github.com/oscorelay/oscorelay/oscore"
)

// Incoming is a verified request: the one thing that can answer it. One
// goroutine at a time may use it.
type Incoming struct {
	Peer  oscore.Peer
	Addr  netip.AddrPort // Inbound.Addr
	Token []byte
	// User is the caller's.
	User any
	// Message is the inner request, blocks assembled, Echo and Request-Tag
	// taken out. A Respond that begins an observation drops it: an observation
	// may live for years.
	Message oscore.Message

	e           *Endpoint
	source      string
	req         oscore.Request
	opt         oscore.Option
	opened      oscore.Message
	taken       request // opened taken apart, by inner
	marks       marks
	uriPath     string // of opened, by Path
	key         string // by downloadKey
	options     string // likewise, without a FETCH's payload
	offerEcho   bool
	proof       [echoLen]byte // the Echo value that proved it fresh; zero: none did
	observation *Observation

	// For a plaintext, and what else is copied, as short as most requests'.
	room [72]byte
	held [32]byte
}

// deliver hands the request over, and keeps of the transport's bytes what its
// answer needs.
func (r *Incoming) deliver() Result {
	held := r.held[:0]
	hold := func(b []byte) []byte {
		if b == nil {
			return nil
		}
		at := len(held)
		held = append(held, b...)
		return held[at:len(held):len(held)]
	}
	r.Token = hold(r.Token)
	r.opt.PartialIV, r.opt.KIDContext, r.opt.KID = hold(r.opt.PartialIV), hold(r.opt.KIDContext), hold(r.opt.KID)
	return Result{Verdict: Deliver, Incoming: r, Verified: true, Peer: r.Peer.Name()}
}

// PartialIV returns the request's sequence number.
func (r *Incoming) PartialIV() uint64 { return r.req.PartialIV() }

// Observes reports whether the request registers an observation.
func (r *Incoming) Observes() bool {
	// A request for a further block observes nothing (RFC 7959 §3.4).
	return r.req.Observes() && (r.marks.has&hasBlock2 == 0 || r.marks.block2.Num == 0)
}

// inner returns the request taken apart, its body assembled.
func (r *Incoming) inner() *request {
	if r.taken.code == 0 {
		r.taken, _ = parse(r.opened) // scan has walked it
	}
	return &r.taken
}

// Path returns the request's path, as [coap.Path].
func (r *Incoming) Path() string {
	if r.uriPath == "" {
		r.uriPath = coap.Path(r.opened.Body)
	}
	return r.uriPath
}

// Respond protects the response (RFC 8613 §8.3). Its payload may be larger
// than a block: the first block goes out and the others are served as the
// client asks for them. send is false where the request's No-Response option
// says so (RFC 7967).
//
// A response with an Observe option to a request that [Incoming.Observes]
// begins an observation: see [Incoming.Observation].
//
// Errors: ErrTainted, format errors of the body, and those of
// [oscore.Request.Seal]. A response that was refused for its form leaves the
// request unanswered, so that another may be tried.
func (r *Incoming) Respond(now time.Time, m oscore.Message) (out oscore.Message, send bool, err error) {
	return r.RespondInto(nil, now, m)
}

// RespondInto is [Incoming.Respond] without allocation where dst's spare
// capacity suffices, which the protected message then stands in. It must not
// overlap m.
func (r *Incoming) RespondInto(dst []byte, now time.Time, m oscore.Message) (out oscore.Message, send bool, err error) {
	k, code := scan(m.Body)
	if code != 0 {
		if err := coap.Check(m.Body); err != nil {
			return out, false, err
		}
	}
	if r.Observes() || k.has&hasObserve != 0 {
		return r.respondObserve(now, m, k)
	}
	if r.suppressed(m.Code) {
		return out, false, nil
	}
	if r.plain(k) {
		out, err = r.seal(dst, m)
		return out, err == nil, err
	}
	if r.e.cfg.Transparent && code == 0 && k.has&(hasEcho|hasTag) == 0 && r.e.echo.ok {
		// It differs by the Echo that it offers alone, which plain ruled out. Both
		// messages go into dst, one behind the other.
		value := r.offer(now)
		n := len(m.Body) + echoLen + 5
		dst = slices.Grow(dst, 2*n+oscore.Overhead)
		m.Body = insert(dst[len(dst):], m.Body, coap.Echo, value[:])
		out, err = r.seal(m.Body[len(m.Body):], m)
		return out, err == nil, err
	}
	resp, err := parse(m)
	if err != nil {
		return out, false, err
	}
	out, err = r.seal(dst, r.finish(now, resp))
	return out, err == nil, err
}

// respondObserve answers where either side speaks of an observation.
func (r *Incoming) respondObserve(now time.Time, m oscore.Message, k marks) (out oscore.Message, send bool, err error) {
	resp, err := parse(m)
	if err != nil {
		return out, false, err
	}
	notifies := k.has&hasObserve != 0 && r.Observes() && coap.Code(m.Code).IsSuccess()
	var o *Observation
	if notifies {
		o = r.e.register(r) // nil: too many (RFC 7641 §4.1: answered as a plain GET)
	} else if r.Observes() {
		r.e.cancel(r) // a registration anew that failed ends the earlier one
	}
	resp.opts = resp.opts.Without(coap.Observe)
	if o != nil {
		resp.opts = resp.opts.AddObserve(o.next(now))
	}
	if r.suppressed(m.Code) {
		r.begin(o)
		return out, false, nil
	}
	if out, err = r.seal(nil, r.finish(now, resp)); err != nil {
		if o != nil {
			o.End()
		}
		return out, false, err
	}
	r.begin(o)
	return out, true, nil
}

// begin hands the observation over, and keeps of the request what its
// notifications need.
func (r *Incoming) begin(o *Observation) {
	if o == nil {
		return
	}
	r.observation = o
	r.Token = bytes.Clone(r.Token)
	r.Message, r.opened, r.taken, r.opt, r.uriPath = oscore.Message{}, oscore.Message{}, request{}, oscore.Option{}, ""
	r.marks.echo = nil
	r.User = nil
}

// plain reports whether the response goes out as the application made it.
func (r *Incoming) plain(k marks) bool {
	if !r.e.cfg.Transparent && r.marks.has&(hasBlock1|hasBlock2) != 0 || r.offerEcho || k.has&hasTag != 0 {
		return false
	}
	if r.e.cfg.Transparent {
		return true
	}
	fits, _ := r.e.limits(r.Peer, k.options)
	return k.has&hasBlock2 != 0 || k.payload <= fits
}

// finish cuts the response and adds what this package has to say.
func (r *Incoming) finish(now time.Time, resp request) oscore.Message {
	resp.opts = resp.opts.Without(coap.RequestTag) // RFC 9175 §3.4
	resp = r.e.slice(now, r, resp)
	if r.marks.has&hasBlock1 != 0 && !r.e.cfg.Transparent {
		resp.opts = resp.opts.Add(coap.Block1, r.marks.block1.Append(nil))
	}
	if r.offerEcho {
		resp.opts = resp.opts.Add(coap.Echo, r.e.echo.value(now, r.Peer.Name()))
	}
	return resp.message(resp.payload)
}

// seal protects the first response under the request's nonce, unless the
// endpoint numbers all of them. A context that was tainted since the request
// came seals nothing.
func (r *Incoming) seal(dst []byte, m oscore.Message) (oscore.Message, error) {
	if r.Peer.Tainted() {
		return oscore.Message{}, ErrTainted
	}
	if r.e.cfg.ResponsePIV {
		return r.Peer.SealResponse(dst, &r.req, m)
	}
	return r.req.Seal(dst, m)
}

// suppressed reports whether the inner No-Response option rules the code out
// (RFC 7967 §2.1: a bit a class).
func (r *Incoming) suppressed(code byte) bool {
	class := coap.Code(code).Class()
	return class >= 2 && r.marks.noResponse&(1<<(class-1)) != 0
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
	// 2.31 and a challenge are no responses to the request: it goes on.
	if coap.Code(m.Code) != coap.Continue && reason != ReasonChallenge && r.suppressed(m.Code) {
		return Result{Verdict: Drop, Verified: true, Peer: name, Reason: reason}
	}
	sealed, err := r.seal(nil, m)
	if err != nil {
		r.report(ReasonStorage, err)
		return Result{Verdict: Drop, Verified: true, Peer: name, Reason: ReasonStorage, Err: err}
	}
	return Result{Verdict: Reply, Message: sealed, Verified: true, Peer: name, Reason: reason}
}

func (r *Incoming) report(reason Reason, err error) {
	r.e.event(Event{Reason: reason, Peer: r.Peer.Name(), Source: sourceText(r.source, r.Addr), KID: r.opt.KID, KIDCtx: r.opt.KIDContext, PIV: r.opt.Sequence(), Err: err})
}
