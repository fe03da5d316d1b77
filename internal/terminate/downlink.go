package terminate

import (
	"container/list"
	"errors"
	"slices"
	"time"

	"github.com/oscorelay/oscorelay/internal/coap"
	"github.com/oscorelay/oscorelay/internal/coap/message"
	"github.com/oscorelay/oscorelay/internal/endpoint"
	"github.com/oscorelay/oscorelay/oscore"
)

// downlink is a request of the backend to a device, and afterwards the
// observation that it began.
//
//	device ── own token ──┃ x: sealed │ in, token: plain ┃── backend
type downlink struct {
	wait
	index uint32
	dev   *device
	in    *backIn // waits for its answer; nil: none does
	token []byte  // the backend's
	mid   uint16
	con   bool
	m     oscore.Message // as the backend sent it

	x   *endpoint.Exchange // nil for a device without OSCORE, and while it is dormant
	own token              // token toward the device
	out *frontOut
	to  hop

	journal  journalState
	ahead    bool // others wait for it, see holdBack
	observes bool
	relation relation
	queued   *list.Element  // among those to be taken up
	first    oscore.Message // notification, while the store is written
	seq      uint64         // of the last notification to the backend

	room [64]byte // for a token and a body as short as most requests'
}

// asking is a request of the backend on its way to be sealed.
type asking struct {
	d       *downlink
	err     error           // there is no such device
	sealed  bool            // of what follows
	settled <-chan struct{} // wait for it first
	x       *endpoint.Exchange
	m       oscore.Message
	failure error
}

// relation is where an observation of the backend stands.
type relation uint8

const (
	asked      relation = iota // no notification yet
	related                    // notifications come
	dormant                    // to be asked for again, see wake
	reviving                   // is being asked for again
	cancelling                 // the backend wants no more
)

func (d *downlink) deadline() *wait { return &d.wait }

// ended implements exchange: the device has not answered. The backend, which is
// not told, has given up by itself: what it takes for an answer would count as a
// sign of life.
func (d *downlink) ended(g *Gateway, now time.Time) {
	if d.x != nil {
		d.x.Abandon()
	}
	if d.relation == reviving {
		g.sleep(now, d)
		return
	}
	g.endDownlink(now, d)
}

// backendRequest accepts a request of the backend. What is returned is to be
// begun, without the lock.
func (g *Gateway) backendRequest(now time.Time, ev backEvent) *downlink {
	if g.draining {
		return nil // the backend asks again
	}
	in, err := g.up.AcceptRequest(now, ev)
	if err != nil {
		g.c.shed.Add(1)
		return nil
	}
	m := &ev.Message
	d := &downlink{index: ev.Peer, in: in, mid: m.MessageID, con: in.Confirmable(), m: oscore.Message{Code: byte(m.Code)}}
	own := append(append(d.room[:0], in.Token()...), m.Body...)
	n := len(in.Token())
	d.token, d.m.Body = own[:n:n], own[n:]
	return d
}

// begin seals requests of the backend and sends them. It takes the lock twice,
// and seals without it.
func (g *Gateway) begin(now time.Time, w *work) {
	for i := range w.asked {
		a := &w.asked[i]
		a.d.dev, a.err = g.loadIndex(a.d.index)
	}
	seal := false
	g.locked(&w.out, func() {
		for i := range w.asked {
			a := &w.asked[i]
			d := a.d
			if a.err != nil {
				g.c.noDevice.Add(1)
				g.answerBackend(now, d, coap.NotFound, refusal(a.err.Error()))
				continue
			}
			if !g.admit(now, d) {
				continue
			}
			if d.dev.plain {
				g.sendPlain(now, d)
				continue
			}
			a.sealed, a.settled = true, d.dev.settled
			seal = true
		}
	})
	if seal {
		g.seal(now, w)
	}
	release(w.sealed)
	clear(w.asked)
}

// seal is the part of begin for devices with OSCORE.
func (g *Gateway) seal(now time.Time, w *work) {
	w.sealed = w.sealed[:0]
	for i := range w.asked {
		a := &w.asked[i]
		switch {
		case !a.sealed:
		case a.settled != nil:
			a.sealed = false
			g.later(a.settled, a.d)
		default:
			w.sealed = slices.Grow(w.sealed, len(a.d.m.Body)+2*oscore.Overhead)
			dst := w.sealed[len(w.sealed):]
			a.x, a.m, a.failure = g.e.Begin(now, a.d.dev.name, a.d.m, endpoint.RequestOptions{Dst: dst})
			if n := len(a.m.Body); n <= cap(dst) {
				w.sealed = w.sealed[:len(w.sealed)+n]
			}
		}
	}
	g.locked(&w.out, func() {
		for i := range w.asked {
			if a := &w.asked[i]; a.sealed {
				g.begun(now, a.d, a.x, a.m, a.failure)
			}
		}
	})
}

// admit reports whether a request of the backend is to be sealed and sent.
func (g *Gateway) admit(now time.Time, d *downlink) bool {
	dev := d.dev
	if g.repeated(now, d) {
		return false
	}
	observe, has := observeOf(d.m.Body)
	d.observes = has && observe == 0
	if old := dev.asked[string(d.token)]; old != nil {
		if has && observe == 1 && old.relation == related && old.x != nil {
			g.cancelObservation(now, old, d.in)
			return false
		}
		g.endDownlink(now, old) // the token is used for something else
	}
	switch {
	case !dev.at.remote.IsValid():
		g.c.noAddress.Add(1)
		g.answerBackend(now, d, coap.ServiceUnavailable, refusal("the device was never heard"))
		return false
	case dev.down >= g.cfg.DeviceExchanges || d.observes && dev.observations >= g.cfg.MaxObservations || !g.await(now, d):
		g.c.shed.Add(1)
		g.answerBackend(now, d, coap.ServiceUnavailable, overloaded())
		return false
	}
	g.enterDownlink(d)
	g.c.downlinks.Add(1)
	return true
}

// enterDownlink puts a request into its device's table.
func (g *Gateway) enterDownlink(d *downlink) {
	dev := d.dev
	if dev.asked == nil {
		dev.asked = map[string]*downlink{}
	}
	dev.asked[string(d.token)] = d
	dev.down++
	if d.observes {
		dev.observations++
		g.observed++
	}
}

// begun sends what was sealed.
func (g *Gateway) begun(now time.Time, d *downlink, x *endpoint.Exchange, sealed oscore.Message, err error) {
	if d.dev.asked[string(d.token)] != d || d.relation == dormant { // it ended meanwhile
		if x != nil {
			x.Close()
		}
		return
	}
	var busy *endpoint.BusyError
	switch {
	case errors.As(err, &busy):
		g.later(busy.Done, d)
		return
	case err != nil:
		g.notSealed(now, d, err)
		return
	}
	d.x = x
	g.send(now, d, sealed)
}

// later begins a request when a context has been derived, or when those that were
// taken up from the journal are settled.
func (g *Gateway) later(done <-chan struct{}, d *downlink) {
	go func() {
		select {
		case <-done:
		case <-g.ctx.Done():
			return
		}
		now := time.Now()
		x, sealed, err := g.e.Begin(now, d.dev.name, d.m, endpoint.RequestOptions{})
		var out sending
		g.locked(&out, func() { g.begun(now, d, x, sealed, err) })
	}()
}

// notSealed answers for a device whose context may not seal. In plain nothing is
// ever sent.
func (g *Gateway) notSealed(now time.Time, d *downlink, err error) {
	g.c.notSealed.Add(1)
	g.trouble(now, d.dev, "requests to it cannot be sealed: "+err.Error())
	if d.relation == reviving {
		g.sleep(now, d)
		return
	}
	g.answerBackend(now, d, coap.ServiceUnavailable, refusal("the request cannot be sealed"))
}

// send sends a sealed request under a new token. An unsafe one goes out when the
// journal holds it.
func (g *Gateway) send(now time.Time, d *downlink, m oscore.Message) {
	g.drop(now, d)
	d.own = g.newToken()
	g.downlinks[d.own] = d
	d.to = d.dev.at
	dg := coap.Datagram{Type: coap.NonConfirmable, Code: coap.Code(m.Code), Token: d.own[:], Body: m.Body}
	if d.con {
		dg.Type = coap.Confirmable
	}
	if d.con && unsafe(d.m.Code) {
		g.sendJournalled(now, d, dg)
		return
	}
	out, err := g.down.Send(now, d.to, dg, d)
	g.sent(now, d, out, err)
}

func (g *Gateway) sent(now time.Time, d *downlink, out *frontOut, err error) {
	d.out = out
	if err == nil {
		return
	}
	g.c.shed.Add(1)
	if d.relation == reviving {
		g.sleep(now, d)
		return
	}
	g.answerBackend(now, d, coap.ServiceUnavailable, overloaded())
}

// drop takes back what was sent of a request: its token is no longer known.
func (g *Gateway) drop(now time.Time, d *downlink) {
	g.down.Forget(now, d.out)
	d.out = nil
	if g.downlinks[d.own] == d {
		delete(g.downlinks, d.own)
	}
	d.own = token{}
}

// deviceResponse handles a response of a device.
func (g *Gateway) deviceResponse(now time.Time, ev frontEvent) {
	m := &ev.Message
	d := g.downlinks[tokenOf(m.Token)]
	piggybacked := m.Type == coap.Acknowledgement
	if d == nil || d.to.remote != ev.Peer.remote || piggybacked && ev.Sent != d.out {
		g.c.unmatched.Add(1)
		if !piggybacked && g.awaited(ev) {
			return
		}
		g.down.Reject(ev) // RFC 7641 §3.6: ends the observation that it belongs to
		return
	}
	if d.x == nil {
		g.plainResponse(now, d, ev)
		return
	}
	step := d.x.ReceiveInto(g.opening, now, oscore.Message{Code: byte(m.Code), Body: m.Body})
	defer release(g.opening[:min(len(m.Body), cap(g.opening))])
	if step.Kind == endpoint.Wait {
		// Nothing vouches for it: the genuine one may still come.
		g.doubted(now, d, step.Err)
		return
	}
	if !g.acceptDevice(now, d, ev) {
		return
	}
	d.dev.seen = now
	d.dev.trouble = trouble{}
	if step.Kind != endpoint.Notification {
		g.down.Forget(now, d.out)
		d.out = nil
	}
	switch step.Kind {
	case endpoint.Send:
		g.c.echoAnswered.Add(1)
		if step.SameToken {
			dg := coap.Datagram{Type: coap.Confirmable, Code: coap.Code(step.Message.Code), Token: d.own[:], Body: step.Message.Body}
			out, err := g.down.Send(now, d.to, dg, d)
			g.sent(now, d, out, err)
			return
		}
		g.send(now, d, step.Message)
	case endpoint.Notification:
		if d.relation == cancelling {
			return // it crossed the cancellation, which goes on
		}
		g.down.Forget(now, d.out)
		d.out = nil
		g.notification(now, d, m.Type, step.Message)
	case endpoint.Response:
		g.response(now, d, m.Type, step.Message)
	case endpoint.Failed:
		var busy *endpoint.BusyError
		if errors.As(step.Err, &busy) {
			g.drop(now, d)
			g.later(busy.Done, d)
			return
		}
		g.notSealed(now, d, step.Err)
	}
}

// acceptDevice accepts a device's response to a request, which a piggybacked one
// ends.
func (g *Gateway) acceptDevice(now time.Time, d *downlink, ev frontEvent) bool {
	if g.down.AcceptResponse(now, ev) != nil {
		return false
	}
	if ev.Message.Type == coap.Acknowledgement {
		d.out = nil
	}
	return true
}

// response passes the answer on, which ends the exchange.
func (g *Gateway) response(now time.Time, d *downlink, typ coap.Type, m oscore.Message) {
	if d.in == nil && (d.relation == related || d.relation == reviving) {
		// The observation ended with an error, or was not taken up again.
		g.notify(now, d, typ, m)
		g.endDownlink(now, d)
		return
	}
	if d.in == nil && d.journal == resumed {
		g.answerLate(now, d, m)
		return
	}
	g.answerBackend(now, d, coap.Code(m.Code), m.Body)
}

// answerBackend answers the backend's request, and ends the exchange.
func (g *Gateway) answerBackend(now time.Time, d *downlink, code coap.Code, body []byte) {
	in := d.in
	if !d.since.IsZero() && in != nil {
		g.c.latency(now.Sub(d.since))
	}
	d.in = nil
	g.finishJournal(d, code, body)
	g.endDownlink(now, d)
	if in == nil {
		return
	}
	typ := coap.NonConfirmable
	if d.con {
		typ = coap.Confirmable
	}
	if _, err := g.up.Respond(now, in, typ, code, body, nil); err != nil {
		g.c.shed.Add(1)
	}
}

// endDownlink forgets a request or an observation of the backend. What the
// device sends for it from now on is reset.
func (g *Gateway) endDownlink(now time.Time, d *downlink) {
	g.settle(d)
	g.letOn(d)
	g.drop(now, d)
	if d.x != nil {
		d.x.Close()
	}
	if d.in != nil {
		g.up.Release(d.in)
		d.in = nil
	}
	dev := d.dev
	if dev == nil || dev.asked[string(d.token)] != d {
		return
	}
	delete(dev.asked, string(d.token))
	if d.observes {
		dev.observations--
		g.observed--
		g.forgetObservation(d)
	}
	switch d.relation {
	case asked:
		dev.down--
	case dormant:
		dev.asleep--
		g.asleep--
	}
}

// deviceAcknowledged passes an acknowledgement on: the device has taken the
// request, whose answer comes separately (RFC 7252 §5.2.2). A safe request that
// the backend repeats until it is answered survives a restart by that.
func (g *Gateway) deviceAcknowledged(ev frontEvent) {
	if d, ok := ev.Sent.Tag.(*downlink); ok && d.out == ev.Sent && d.in != nil && d.journal != unjournalled {
		g.up.Acknowledge(d.in)
	}
}

// deviceFailed handles a message of this side that a device has reset or never
// acknowledged.
func (g *Gateway) deviceFailed(now time.Time, ev frontEvent) {
	switch tag := ev.Sent.Tag.(type) {
	case *uplink: // RFC 7641 §3.6, §4.5: a response or notification of an observation
		if tag.relation != nil || tag.plainly {
			g.endUplink(now, tag)
		}
	case *downlink:
		if tag.out != ev.Sent {
			return
		}
		tag.out = nil
		if ev.Kind == message.GaveUp {
			g.c.deviceSilent.Add(1)
			g.trouble(now, tag.dev, "it acknowledges no request")
			if tag.relation == reviving {
				tag.ended(g, now)
			}
		}
		// A Reset is protected by nothing: the answer may still come.
	}
}

// unsafe reports whether a request may change a resource (RFC 7252 §5.1, RFC
// 8132 §2).
func unsafe(code byte) bool {
	c := coap.Code(code)
	return c != coap.GET && c != coap.FETCH
}
