package terminate

import (
	"time"

	"github.com/oscorelay/oscorelay/internal/coap"
	"github.com/oscorelay/oscorelay/internal/coap/message"
	"github.com/oscorelay/oscorelay/internal/endpoint"
	"github.com/oscorelay/oscorelay/oscore"
)

// policy is the policy for requests without OSCORE, as it is now.
func (g *Gateway) policy() Plain { return Plain(g.plainPolicy.Load()) }

// mayPlain reports whether a device may be served in plain: under PlainAccept one
// that was heard sealed may not, whatever it was heard as since.
func (g *Gateway) mayPlain(d *device) bool {
	p := g.policy()
	return p == PlainObserve || p == PlainAccept && !d.sealed
}

// endPlain ends what is under way in plain with a device that is not served so any
// more: nothing is repeated to it, no answer is believed. Its observations and the
// safe requests of the backend are asked for again, sealed. Whether an unsafe one
// ran is not known, so that the backend is left without an answer.
func (g *Gateway) endPlain(now time.Time, d *device) {
	for _, u := range d.observing {
		if u.plainly {
			g.endUplink(now, u)
		}
	}
	for _, x := range d.asked {
		switch {
		case x.x != nil || x.relation == dormant || x.own == token{}: // is sealed, or not sent
		case x.in == nil && (x.relation == related || x.relation == reviving):
			g.sleep(now, x)
		case unsafe(x.m.Code) || d.plain || x.relation != asked:
			g.endDownlink(now, x)
		default:
			g.drop(now, x)
			g.later(atOnce, x)
		}
	}
}

// atOnce is closed.
var atOnce = func() chan struct{} { c := make(chan struct{}); close(c); return c }()

// loadPlain finds the device that a request without OSCORE is of: by its
// address, or by the endpoint name that it registers, which must be one that a
// context is there for.
func (g *Gateway) loadPlain(o *opened) {
	g.mu.Lock()
	o.dev = g.plain[o.ev.Peer.remote]
	g.mu.Unlock()
	m := &o.ev.Message
	if m.Code != coap.POST || !pathIs(m.Body, registrationPath) {
		return
	}
	o.dev = nil
	ep, has := endpointName(m.Body)
	if !has {
		return
	}
	name := g.cfg.ContextOf(ep)
	if _, known := g.cfg.Keyring.Peer(name); known && g.cfg.Accepts(name) {
		o.dev, o.err = g.load(name)
	}
}

// plainRequest refuses a request without OSCORE, or passes it on where the
// policy allows.
func (g *Gateway) plainRequest(now time.Time, o *opened) {
	d := o.dev
	refused := g.policy() == PlainRefuse || d == nil || o.err != nil
	if !refused {
		refused = !g.mayPlain(d)
		if d.sealed && (refused || !d.plain) {
			g.c.downgrades.Add(1)
			g.trouble(now, d, "it was heard sealed before, and now registers in plain")
		}
	}
	if refused {
		g.c.plainRefused.Add(1)
		if answer, ok := g.e.RefusePlain(now, endpoint.Inbound{Addr: o.ev.Peer.remote}); ok {
			g.down.Refuse(o.ev, coap.Code(answer.Code), answer.Body)
		}
		return
	}
	in, err := g.down.AcceptRequest(now, o.ev)
	if err != nil {
		g.c.shed.Add(1)
		return
	}
	g.c.plainPassed.Add(1)
	g.heard(now, d, o.ev.Peer, true)
	g.uplink(now, &uplink{dev: d, in: in, to: o.ev.Peer}, oscore.Message{Code: byte(o.ev.Message.Code), Body: o.ev.Message.Body})
}

// sendPlain sends a request of the backend to a device that speaks without
// OSCORE: one whose last request that was passed on did.
func (g *Gateway) sendPlain(now time.Time, d *downlink) {
	if !d.dev.plain || !g.mayPlain(d.dev) {
		if d.relation == reviving {
			g.sleep(now, d) // until it is heard sealed
			return
		}
		g.answerBackend(now, d, coap.ServiceUnavailable, refusal("the device has not been heard sealed"))
		return
	}
	g.drop(now, d)
	d.own = g.newToken()
	g.downlinks[d.own] = d
	d.to = d.dev.at
	dg := coap.Datagram{Type: coap.NonConfirmable, Code: coap.Code(d.m.Code), Token: d.own[:], Body: d.m.Body}
	if d.con {
		dg.Type = coap.Confirmable
	}
	out, err := g.down.Send(now, d.to, dg, d)
	g.sent(now, d, out, err)
}

// plainResponse passes the response of such a device on.
func (g *Gateway) plainResponse(now time.Time, d *downlink, ev message.Event[hop]) {
	m := &ev.Message
	if !d.dev.plain || !g.mayPlain(d.dev) || !g.acceptDevice(now, d, ev) {
		return
	}
	g.down.Forget(now, d.out)
	d.out = nil
	d.dev.seen = now
	in := oscore.Message{Code: byte(m.Code), Body: m.Body}
	if _, notifies := observeOf(m.Body); notifies && d.observes && m.Code.IsSuccess() {
		g.notification(now, d, m.Type, in)
		return
	}
	g.response(now, d, m.Type, in)
}
