package terminate

import (
	"bytes"
	"crypto/sha256"
	"time"

	"github.com/fxamacker/cbor/v2"
	"github.com/oscorelay/oscorelay/internal/coap"
	"github.com/oscorelay/oscorelay/internal/coap/message"
	"github.com/oscorelay/oscorelay/internal/endpoint"
	"github.com/oscorelay/oscorelay/keys/bolt"
	"github.com/oscorelay/oscorelay/oscore"
)

// observation is what the store keeps of one: the request that asked for it.
type observation struct {
	_           struct{} `cbor:",toarray"`
	Code        byte
	Confirmable bool
	Body        []byte
	Route       string
	Token       []byte // the backend's
}

// observationKey names an observation in the store: backends of several routes may
// choose the same token.
func (g *Gateway) observationKey(token []byte) []byte {
	sum := sha256.Sum256(append([]byte(g.cfg.Name+"\x00"), token...))
	return sum[:8]
}

// parseObservation reads an observation; ok is false for one of another route, or
// of a future version: the backend will miss that, and observe anew.
func (g *Gateway) parseObservation(o bolt.Observation) (kept observation, ok bool) {
	ok = cbor.Unmarshal(o.Data, &kept) == nil && kept.Route == g.cfg.Name && coap.Check(kept.Body) == nil
	return kept, ok
}

// notification passes a notification on. The first answers the request.
func (g *Gateway) notification(now time.Time, d *downlink, typ coap.Type, m oscore.Message) {
	g.settle(d)
	if d.in != nil && d.relation == related {
		m.Body = bytes.Clone(m.Body)
		d.first = m // is about to be passed on
		return
	}
	if d.in == nil {
		if d.relation == reviving {
			d.relation = related
			g.c.revived.Add(1)
		}
		if d.relation == related {
			g.notify(now, d, typ, m)
		}
		return
	}
	if !d.observes { // it answers a cancellation: the exchange knows better
		return
	}
	m.Body = bytes.Clone(m.Body) // what it stands in is not its own
	d.relation, d.first = related, m
	d.dev.down--
	g.c.latency(now.Sub(d.since))
	data, err := cbor.Marshal(observation{Code: d.m.Code, Confirmable: d.con, Body: d.m.Body, Route: g.cfg.Name, Token: d.token})
	if err != nil {
		return // it cannot
	}
	o := bolt.Observation{Peer: d.dev.name, Token: g.observationKey(d.token), Data: data}
	g.keepOf(d.dev, func(tx *bolt.Tx) error { return tx.PutObservation(o) })
	// A backend that knows itself observing never asks again: it is told when
	// the store knows it too.
	g.db.after(func() {
		var out sending
		g.locked(&out, func() { g.answerObserve(time.Now(), d) })
	})
}

// answerObserve answers the request that began an observation.
func (g *Gateway) answerObserve(now time.Time, d *downlink) {
	in, m := d.in, d.first
	if in == nil {
		return // it ended meanwhile
	}
	d.in, d.first = nil, oscore.Message{}
	typ := coap.NonConfirmable
	if d.con {
		typ = coap.Confirmable
	}
	if _, err := g.up.Respond(now, in, typ, coap.Code(m.Code), d.numbered(now, m.Body), d); err != nil {
		g.c.shed.Add(1)
	}
}

// notify sends a notification to the backend.
func (g *Gateway) notify(now time.Time, d *downlink, typ coap.Type, m oscore.Message) {
	if typ == coap.Acknowledgement { // of what was asked for again
		typ = coap.Confirmable
	}
	code, body := coap.Code(m.Code), m.Body
	if code.IsSuccess() {
		body = d.numbered(now, body)
	}
	g.c.notifications.Add(1)
	if _, err := g.up.Send(now, d.index, coap.Datagram{Type: typ, Code: code, Token: d.token, Body: body}, d); err != nil {
		g.c.shed.Add(1)
	}
}

// numbered returns the body with an Observe value that grows over restarts (RFC
// 7641 §4.4): inside OSCORE it is empty, since the Partial IV orders
// notifications there.
func (d *downlink) numbered(now time.Time, body []byte) []byte {
	d.seq = coap.NextObserve(d.seq, now.UnixMilli())
	opts, payload, err := coap.Split(body)
	if err != nil {
		return body
	}
	opts = opts.Without(coap.Observe).AddObserve(d.seq)
	return coap.AppendBody(make([]byte, 0, len(body)+4), opts, payload)
}

// notificationFailed handles a notification that the backend has reset, which
// cancels the observation (RFC 7641 §3.6), or did not acknowledge: it may be
// starting again, and says so by a Reset of the next.
func (g *Gateway) notificationFailed(now time.Time, d *downlink, ev backEvent) {
	if d.relation == cancelling {
		return // a notification crossed the backend's own cancellation
	}
	if ev.Kind == message.Reset && d.dev.asked[string(d.token)] == d {
		g.c.cancelled.Add(1)
		g.cancelObservation(now, d, nil)
	}
}

// cancelObservation passes a cancellation on, sealed; in waits for its answer.
func (g *Gateway) cancelObservation(now time.Time, d *downlink, in *backIn) {
	if d.in != nil || d.relation != related || d.x == nil {
		g.endDownlink(now, d)
		return
	}
	m, err := d.x.Cancel(now)
	if err != nil || !g.await(now, d) {
		d.in = in
		g.answerBackend(now, d, coap.ServiceUnavailable, overloaded())
		return
	}
	d.in, d.relation = in, cancelling
	g.forgetObservation(d)
	g.down.Forget(now, d.out)
	out, err := g.down.Send(now, d.to, coap.Datagram{Type: coap.Confirmable, Code: coap.Code(m.Code), Token: d.own[:], Body: m.Body}, d)
	g.sent(now, d, out, err)
}

// forgetObservation takes an observation out of the store.
func (g *Gateway) forgetObservation(d *downlink) {
	name, token := d.dev.name, g.observationKey(d.token)
	g.db.add(func(tx *bolt.Tx) error { return tx.DeleteObservation(name, token) })
}

// keep enters an observation that an earlier process left: dormant, until it is
// asked for again.
func (g *Gateway) keep(dev *device, o bolt.Observation) {
	kept, ok := g.parseObservation(o)
	if !ok {
		return
	}
	d := &downlink{
		index: dev.index, dev: dev, token: kept.Token, con: kept.Confirmable,
		m: oscore.Message{Code: kept.Code, Body: kept.Body}, observes: true, relation: dormant,
	}
	if dev.asked == nil {
		dev.asked = map[string]*downlink{}
	}
	dev.asked[string(d.token)] = d
	dev.observations++
	dev.asleep++
	g.observed++
	g.asleep++
}

// queueDormant has the observations of a device taken up in their turn.
func (g *Gateway) queueDormant(dev *device) {
	for _, d := range dev.asked {
		if d.relation == dormant && d.queued == nil {
			d.queued = g.dormant.PushBack(d)
		}
	}
}

// nextDormant returns observations to be taken up now, n at most, and marks
// them.
func (g *Gateway) nextDormant(n int) (due []*downlink) {
	for e := g.dormant.Front(); e != nil && len(due) < n; e = g.dormant.Front() {
		d := g.dormant.Remove(e).(*downlink)
		d.queued = nil
		if d.relation != dormant || d.dev.asked[string(d.token)] != d || !d.dev.at.remote.IsValid() {
			continue
		}
		d.relation = reviving
		d.dev.asleep--
		g.asleep--
		due = append(due, d)
	}
	return due
}

// wake takes up the dormant observations of a device that was just heard: it
// listens now.
func (g *Gateway) wake(dev *device) {
	if dev.asleep == 0 {
		return
	}
	for _, d := range dev.asked {
		switch {
		case d.relation != dormant:
		case d.queued != nil:
			g.dormant.MoveToFront(d.queued)
		default:
			d.queued = g.dormant.PushFront(d)
		}
	}
}

// awaited reports whether an unknown response may belong to an observation that
// is about to be taken up: it is not reset then, and the device gets its request
// soon, since it is awake.
func (g *Gateway) awaited(ev frontEvent) bool {
	_, protected, err := oscore.FindOption(oscore.Message{Code: byte(ev.Message.Code), Body: ev.Message.Body})
	if err != nil || !protected {
		return false
	}
	for e, n := g.dormant.Front(), 0; e != nil && n < 64; e, n = e.Next(), n+1 {
		if e.Value.(*downlink).dev.at.remote == ev.Peer.remote {
			return true
		}
	}
	return false
}

// revive asks for an observation again (RFC 8613 Appendix B.1.3 wants its
// notification number forgotten). It takes the lock.
func (g *Gateway) revive(now time.Time, d *downlink, out *sending) {
	seal := false
	g.locked(out, func() {
		switch {
		case d.relation != reviving: // it ended meanwhile
		case !g.await(now, d):
			g.c.shed.Add(1)
			g.sleep(now, d)
		case d.dev.plain:
			g.sendPlain(now, d)
		case d.dev.settled != nil:
			g.later(d.dev.settled, d)
		default:
			seal = true
		}
	})
	if !seal {
		return
	}
	x, sealed, err := g.e.Begin(now, d.dev.name, d.m, endpoint.RequestOptions{})
	g.locked(out, func() { g.begun(now, d, x, sealed, err) })
}

// sleep leaves an observation until its device is heard again.
func (g *Gateway) sleep(now time.Time, d *downlink) {
	g.settle(d)
	g.drop(now, d)
	if d.x != nil {
		d.x.Close()
		d.x = nil
	}
	d.relation = dormant
	d.dev.asleep++
	g.asleep++
}

// contextsChanged goes on with the devices whose contexts were derived anew.
func (g *Gateway) contextsChanged(now time.Time) {
	g.anew.Store(false)
	g.rederivedMu.Lock()
	names := g.rederived
	g.rederived = nil
	g.rederivedMu.Unlock()
	for _, name := range names {
		g.contextChanged(now, name)
	}
}

// contextChanged goes on with a device whose context was derived anew (RFC 8613
// Appendix B.2): it has to register again, as OMA-TS-LightweightM2M_Transport
// wants it, and its observations, which ended with the context, are asked for
// under the new one.
func (g *Gateway) contextChanged(now time.Time, name string) {
	dev := g.devices[name]
	if dev == nil {
		return
	}
	if dev.location != "" {
		dev.location = ""
		g.keepLocation(dev)
	}
	for _, d := range dev.asked {
		if d.relation == related && d.in == nil {
			g.sleep(now, d)
		}
	}
	for _, u := range dev.observing {
		g.endUplink(now, u)
	}
	g.queueDormant(dev)
}
