package terminate

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/oscorelay/oscorelay/internal/coap"
	"github.com/oscorelay/oscorelay/internal/coap/message"
	"github.com/oscorelay/oscorelay/internal/endpoint"
	"github.com/oscorelay/oscorelay/oscore"
)

// uplink is a request of a device, and afterwards the observation that it began.
type uplink struct {
	wait
	dev   *device
	in    *frontIn           // waits for its answer; nil: none does
	req   *endpoint.Incoming // nil for a device without OSCORE
	token token              // toward the backend
	out   *backOut
	what  registration
	path  string // of the registration that it updates or ends

	whole    *arrival // that it is part of; nil: none, or something else may look at it later
	observes bool     // asked for
	asks     string   // the device's token, while it observes
	relation *endpoint.Observation
	plainly  bool // an observation of a device without OSCORE
	to       hop
}

func (u *uplink) deadline() *wait { return &u.wait }

// arrival is a protected request, in one piece. One that was answered, and that
// nothing refers to any more, is used again.
type arrival struct {
	uplink
	request endpoint.Incoming
}

// maxSpares bounds those kept for use again.
const maxSpares = 1024

// spare takes as many as a worker has to open, as far as there are.
func (g *Gateway) spare(w *work, n int) {
	for len(w.spares) < n && len(g.spares) > 0 {
		last := len(g.spares) - 1
		w.spares = append(w.spares, g.spares[last])
		g.spares[last] = nil
		g.spares = g.spares[:last]
	}
}

// recycle takes one back that was answered. It is out of all tables: its token is
// forgotten, it does not wait, neither layer has a message that names it.
func (g *Gateway) recycle(u *uplink) {
	a := u.whole
	if a == nil || len(g.spares) >= maxSpares {
		return
	}
	*a = arrival{}
	g.spares = append(g.spares, a)
}

// opened is a request of a device and what became of it.
type opened struct {
	ev  frontEvent
	res endpoint.Result
	in  *arrival
	dev *device
	err error
}

// open verifies a request. It does not hold the lock.
func (g *Gateway) open(now time.Time, w *work, o *opened) {
	m := &o.ev.Message
	if len(w.spares) == 0 {
		w.spares = append(w.spares, new(arrival))
	}
	last := len(w.spares) - 1
	o.in = w.spares[last]
	o.res = g.e.Receive(now, endpoint.Inbound{
		Addr: o.ev.Peer.remote, Into: &o.in.request, Token: m.Token, Message: oscore.Message{Code: byte(m.Code), Body: m.Body},
	})
	if o.res.Verdict != endpoint.NotProtected {
		w.spares[last] = nil
		w.spares = w.spares[:last]
	}
	switch {
	case o.res.Verdict == endpoint.NotProtected && g.policy() != PlainRefuse:
		g.loadPlain(o)
	case o.res.Verdict == endpoint.Deliver:
		if o.dev, _ = o.res.Incoming.User.(*device); o.dev == nil {
			o.dev, o.err = g.load(o.res.Peer)
		}
	case o.res.Reason == endpoint.ReasonTainted:
		// It is genuine, so its device is there for the operator to see: after
		// the start that found the store's past unknown, no other is in memory.
		_, _ = g.load(o.res.Peer) // else only counters tell of it
	}
}

// deviceRequest goes on with a request of a device.
func (g *Gateway) deviceRequest(now time.Time, o *opened) {
	res := &o.res
	if o.res.Peer != "" && res.Verdict != endpoint.Deliver {
		g.troubled(now, o)
	}
	switch res.Verdict {
	case endpoint.NotProtected:
		g.plainRequest(now, o)
	case endpoint.Drop:
		if res.Verified { // No-Response
			if in, err := g.down.AcceptRequest(now, o.ev); err == nil {
				g.down.Release(in)
			}
		}
	case endpoint.Reply:
		if !res.Verified {
			g.down.Refuse(o.ev, coap.Code(res.Message.Code), res.Message.Body)
			return
		}
		if in, err := g.down.AcceptRequest(now, o.ev); err == nil {
			_, _ = g.down.Respond(now, in, coap.NonConfirmable, coap.Code(res.Message.Code), res.Message.Body, nil) // full: the device asks again
		}
	case endpoint.Deliver:
		in, err := g.down.AcceptRequest(now, o.ev)
		if err != nil {
			g.c.shed.Add(1)
			return // the device asks again, under a new number
		}
		u := &o.in.uplink
		u.dev, u.in, u.req, u.to, u.whole = o.dev, in, res.Incoming, o.ev.Peer, o.in
		if o.err != nil {
			g.cfg.Logger.Error("a device cannot be served", "route", g.cfg.Name, "context", res.Peer, "error", o.err)
			g.answerDevice(now, u, coap.ServiceUnavailable, refusal(o.err.Error()))
			return
		}
		g.heard(now, o.dev, o.ev.Peer, false)
		g.uplink(now, u, res.Incoming.Message)
	}
}

// uplink passes a request on to the backend.
func (g *Gateway) uplink(now time.Time, u *uplink, m oscore.Message) {
	d := u.dev
	m, bad := g.register(u, m)
	switch {
	case bad != 0:
		g.c.registration.Add(1)
		g.answerDevice(now, u, bad, nil)
		return
	case g.draining || d.up >= g.cfg.DeviceExchanges:
		g.c.shed.Add(1)
		g.answerDevice(now, u, coap.ServiceUnavailable, overloaded())
		return
	}
	u.token = g.newToken()
	if observe, has := observeOf(m.Body); has {
		if old := d.observing[string(u.in.Token())]; old != nil {
			// RFC 7641 §3.3.1, §3.6: the same token renews or ends it, and so must
			// the token toward the backend.
			u.token = old.token
			g.endUplink(now, old)
		}
		u.observes = observe == 0
	}
	typ := coap.NonConfirmable
	if u.in.Confirmable() {
		typ = coap.Confirmable
	}
	out, err := g.up.Send(now, d.index, coap.Datagram{Type: typ, Code: coap.Code(m.Code), Token: u.token[:], Body: m.Body}, u)
	if err != nil || !g.await(now, u) {
		g.up.Forget(now, out)
		g.c.shed.Add(1)
		g.answerDevice(now, u, coap.ServiceUnavailable, overloaded())
		return
	}
	u.out = out
	d.up++
	g.uplinks[backToken{d.index, u.token}] = u
	g.c.uplinks.Add(1)
}

// backendResponse passes a response on to the device that asked.
func (g *Gateway) backendResponse(now time.Time, ev backEvent) {
	u := g.uplinks[backToken{ev.Peer, tokenOf(ev.Message.Token)}]
	piggybacked := ev.Message.Type == coap.Acknowledgement
	if u == nil || u.token != tokenOf(ev.Message.Token) || piggybacked && ev.Sent != u.out {
		g.c.unmatched.Add(1)
		g.up.Reject(ev) // RFC 7641 §3.6: nobody observes that any more
		return
	}
	if err := g.up.AcceptResponse(now, ev); err != nil {
		return
	}
	if !piggybacked { // else that has ended it
		g.up.Forget(now, u.out)
	}
	u.out = nil
	code, body := ev.Message.Code, ev.Message.Body
	if u.in == nil {
		g.notifyDevice(now, u, ev.Message)
		return
	}
	if !g.registered(u, code, body) {
		g.answerDevice(now, u, code, body)
		return
	}
	// The device is told of its registration when it will be known after a
	// crash too: an Update that is refused makes it register anew, and the
	// backend drop its observations.
	body, u.whole = bytes.Clone(body), nil
	g.db.after(func() {
		var out sending
		g.locked(&out, func() {
			if u.in != nil {
				g.answerDevice(time.Now(), u, code, body)
			}
		})
	})
}

// answerDevice answers a device's request. It goes on as an observation if it
// has become one, and is over otherwise.
func (g *Gateway) answerDevice(now time.Time, u *uplink, code coap.Code, body []byte) {
	in := u.in
	if !u.since.IsZero() {
		g.c.latency(now.Sub(u.since))
	}
	g.settle(u)
	u.in = nil
	if u.out != nil {
		g.up.Forget(now, u.out)
		u.out = nil
	}
	send, out := true, oscore.Message{Code: byte(code), Body: body}
	if u.req != nil {
		var err error
		if out, send, err = u.req.RespondInto(g.sealing, now, out); err != nil {
			g.c.storage.Add(1)
			g.cfg.Logger.Error("a response cannot be sealed", "route", g.cfg.Name, "context", u.dev.name, "error", err)
			g.down.Release(in)
			g.endUplink(now, u)
			return
		}
		u.relation = u.req.Observation()
	} else if !g.mayPlain(u.dev) {
		g.down.Release(in)
		g.endUplink(now, u)
		return
	} else if _, has := observeOf(body); has && u.observes && code.IsSuccess() && len(u.dev.observing) < g.cfg.MaxObservations {
		u.plainly = true
	}
	var tag any
	if u.relation != nil || u.plainly {
		tag = u
		if u.dev.observing == nil {
			u.dev.observing = map[string]*uplink{}
		}
		u.asks = string(in.Token())
		if old := u.dev.observing[u.asks]; old != nil {
			g.endUplink(now, old) // both were under way at a time
		}
		u.dev.observing[u.asks] = u
		g.observed++
		u.dev.up--
	} else {
		g.endUplink(now, u)
	}
	if !send {
		g.down.Release(in)
		return
	}
	typ := coap.NonConfirmable
	if in.Confirmable() {
		typ = coap.Confirmable
	}
	if _, err := g.down.Respond(now, in, typ, coap.Code(out.Code), out.Body, tag); err != nil {
		g.c.shed.Add(1)
	}
	if u.req != nil { // what it was made of stands in front of it, if anything does
		release(g.sealing[:min(2*len(out.Body), cap(g.sealing))])
	}
	if tag == nil {
		g.recycle(u)
	}
}

// notifyDevice passes a notification on to the device that observes.
func (g *Gateway) notifyDevice(now time.Time, u *uplink, m coap.Datagram) {
	out := oscore.Message{Code: byte(m.Code), Body: m.Body}
	if u.relation != nil {
		var err error
		out, err = u.relation.Notify(now, out)
		if err != nil {
			g.endUplink(now, u)
			return
		}
	}
	if _, err := g.down.Send(now, u.to, coap.Datagram{Type: m.Type, Code: coap.Code(out.Code), Token: []byte(u.asks), Body: out.Body}, u); err != nil {
		g.c.shed.Add(1)
	}
	if !m.Code.IsSuccess() {
		g.endUplink(now, u)
	}
}

// backendFailed handles a message of this side that the backend has reset or
// never acknowledged.
func (g *Gateway) backendFailed(now time.Time, ev backEvent) {
	switch tag := ev.Sent.Tag.(type) {
	case *uplink:
		if tag.out != ev.Sent || tag.in == nil {
			return
		}
		tag.out = nil
		g.c.backend.Add(1)
		if ev.Kind == message.Reset {
			g.answerDevice(now, tag, coap.BadGateway, nil)
			return
		}
		g.answerDevice(now, tag, coap.GatewayTimeout, nil)
	case *downlink:
		g.notificationFailed(now, tag, ev)
	}
}

// ended implements exchange.
func (u *uplink) ended(g *Gateway, now time.Time) {
	g.c.backend.Add(1)
	g.answerDevice(now, u, coap.GatewayTimeout, nil)
}

// endUplink forgets a request or an observation of a device. What the backend
// sends for it from now on is reset.
func (g *Gateway) endUplink(now time.Time, u *uplink) {
	g.settle(u)
	g.up.Forget(now, u.out)
	u.out = nil
	if u.in != nil {
		g.down.Release(u.in)
		u.in = nil
	}
	if u.relation != nil {
		u.relation.End()
	}
	key := backToken{u.dev.index, u.token}
	if u.token != (token{}) && g.uplinks[key] == u {
		delete(g.uplinks, key)
		if u.asks == "" {
			u.dev.up--
		}
	}
	if u.asks != "" && u.dev.observing[u.asks] == u {
		delete(u.dev.observing, u.asks)
		g.observed--
	}
}

// overloaded says of a 5.03 when to come again (RFC 7252 §5.9.3.4: a minute, were it
// left out): in a few seconds that are not the same for all, else all came again at
// once.
func overloaded() []byte {
	return coap.AppendBody(nil, coap.Options{{Number: coap.MaxAge, Value: []byte{4 + rand.N[byte](8)}}}, []byte("overloaded"))
}

// refusal is a diagnostic payload (RFC 7252 §5.5.2).
func refusal(text string) []byte { return coap.AppendPayload(nil, []byte(text)) }

// observeOf returns the Observe option.
func observeOf(body []byte) (v uint32, has bool) {
	b, has := coap.Find(body, coap.Observe)
	v, _ = coap.Uint(b)
	return v, has
}

var (
	errNoDevice = errors.New("no such device in the store")
	errNoPlace  = errors.New("the upstream prefix has no address for this device: make it larger")
	errTooMany  = errors.New("too many devices at once: raise max_devices")
)
