package terminate

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"time"

	"github.com/fxamacker/cbor/v2"
	"github.com/oscorelay/oscorelay/internal/coap"
	"github.com/oscorelay/oscorelay/internal/coap/message"
	"github.com/oscorelay/oscorelay/keys/bolt"
	"github.com/oscorelay/oscorelay/oscore"
)

// journalState is where an unsafe request of the backend stands.
type journalState uint8

const (
	unjournalled journalState = iota
	journals                  // it is in the journal, or about to be
	resumed                   // it was taken up from there
)

// journalKey names a request of the backend as it is repeated.
type journalKey struct {
	context string
	mid     uint16
	token   string
}

// entry is what an earlier process left of one.
type entry struct {
	until time.Time // nobody repeats it afterwards
	done  bool
	code  coap.Code
	body  []byte
	again *downlink // under way again; nil: what became of it is not known
}

// journalled is a record of the journal.
type journalled struct {
	context  string
	exchange bolt.Exchange
	outcome  bolt.Outcome
}

// record is an unsafe request under way, as it is kept: what the backend sent, and
// the datagram that goes out for it.
type record struct {
	_        struct{} `cbor:",toarray"`
	Code     byte
	Body     []byte
	Datagram []byte
	Remote   string
	Local    string
}

// peerOf is the backend of a route as it asks a device. The index is of one context
// for ever, its name is not.
func peerOf(index uint32, route string) string {
	return string(binary.BigEndian.AppendUint32(nil, index)) + route
}

func parsePeer(s string) (index uint32, route string, ok bool) {
	if len(s) < 4 {
		return 0, "", false
	}
	return binary.BigEndian.Uint32([]byte(s)), s[4:], true
}

func (g *Gateway) exchange(d *downlink) bolt.Exchange {
	return bolt.Exchange{Peer: peerOf(d.dev.index, g.cfg.Name), MessageID: d.mid, Token: d.token}
}

// sendJournalled has an unsafe request written to the journal, whole, and then
// sends it. It goes out in no other form unless its device has said that it did
// not act on it.
func (g *Gateway) sendJournalled(now time.Time, d *downlink, dg coap.Datagram) {
	mid, err := g.down.MessageID(now, d.to)
	if err != nil {
		g.sent(now, d, nil, err)
		return
	}
	dg.MessageID = mid
	r := record{Code: d.m.Code, Body: d.m.Body, Datagram: dg.Append(nil), Remote: d.to.remote.String()}
	if dg, err = coap.ParseDatagram(r.Datagram); err != nil { // which stays, unlike what it was made of
		g.sent(now, d, nil, err)
		return
	}
	if d.to.local.IsValid() {
		r.Local = d.to.local.String()
	}
	data, err := cbor.Marshal(r)
	if err != nil {
		g.sent(now, d, nil, err)
		return
	}
	first := d.journal == unjournalled
	d.journal = journals
	x, own := g.exchange(d), d.own
	g.workers.Go(func() {
		var (
			earlier  bolt.Outcome
			repeated bool
			err      error
		)
		err = g.db.join(func(tx *bolt.Tx) (err error) {
			if !first {
				return tx.Again(x, data)
			}
			earlier, repeated, err = tx.Begin(x, data, now)
			return err
		})
		var out sending
		g.locked(&out, func() {
			now := time.Now()
			switch {
			case d.own != own || d.dev.asked[string(d.token)] != d:
				return // it ended meanwhile
			case errors.Is(err, bolt.ErrUnknown):
				// The next process may find it and send it: to say now that it was
				// not sent would have it asked for twice. The backend repeats it.
				g.c.storage.Add(1)
				g.cfg.Logger.Error("whether an unsafe request is in the journal is not known, so it is neither sent nor answered", "route", g.cfg.Name, "context", d.dev.name, "error", err)
				return
			case err != nil:
				g.c.storage.Add(1)
				g.cfg.Logger.Error("an unsafe request cannot be journalled, so it is not sent", "route", g.cfg.Name, "context", d.dev.name, "error", err)
				d.journal = unjournalled
				g.answerBackend(now, d, coap.ServiceUnavailable, refusal("the journal cannot be written"))
				return
			case repeated:
				d.journal = unjournalled // and stays as it is
				if code, body, ok := parseAnswer(earlier.Response); earlier.Done && ok {
					g.answerBackend(now, d, code, body)
				} else {
					g.endDownlink(now, d) // whether it ran is not known
				}
				return
			}
			out, err := g.down.SendAs(now, d.to, dg, d)
			g.sent(now, d, out, err)
		})
	})
}

// finishJournal keeps the answer of a journalled request for its repetitions.
// Should it be lost, the request itself goes out once more, which is a repetition
// to the device.
func (g *Gateway) finishJournal(d *downlink, code coap.Code, body []byte) {
	if d.journal == unjournalled {
		return
	}
	x, data := g.exchange(d), append([]byte{byte(code)}, body...)
	g.db.add(func(tx *bolt.Tx) error { return tx.Finish(x, data) })
	if e := g.journal[d.key()]; e != nil {
		e.done, e.code, e.body, e.again = true, code, data[1:], nil
	}
}

func (d *downlink) key() journalKey { return journalKey{d.dev.name, d.mid, string(d.token)} }

func parseAnswer(b []byte) (code coap.Code, body []byte, ok bool) {
	if len(b) < 1 || !coap.Code(b[0]).IsResponse() {
		return 0, nil, false
	}
	return coap.Code(b[0]), b[1:], true
}

// repeated reports whether the backend's request is one that an earlier process
// had, and deals with it.
func (g *Gateway) repeated(now time.Time, d *downlink) bool {
	if !unsafe(d.m.Code) {
		return false
	}
	e := g.journal[d.key()]
	if e == nil {
		return false
	}
	g.c.repeated.Add(1)
	switch {
	case e.done:
		g.answerBackend(now, d, e.code, e.body)
	case e.again != nil && e.again.in == nil:
		e.again.in = d.in
	default:
		g.up.Release(d.in)
	}
	return true
}

// takeUp takes up the unsafe requests that an earlier process had under way: the
// same bytes go out again. A token is of one request at a time (RFC 7252 §5.3.1),
// so of those under one token the backend awaits the last alone: it has the
// answers of the others, even where the journal has not. Sent now, such an answer
// would pass for the last one's (Californium 2 gives all blocks of a transfer one
// token).
func (g *Gateway) takeUp(now time.Time, begun []journalled) {
	lifetime := message.Config{}.ExchangeLifetime()
	last := map[journalKey]time.Time{} // by context and token
	for _, j := range begun {
		k := journalKey{context: j.context, token: string(j.exchange.Token)}
		if j.outcome.Begun.After(last[k]) {
			last[k] = j.outcome.Begun
		}
	}
	for _, j := range begun {
		if now.Sub(j.outcome.Begun) > lifetime {
			continue
		}
		dev := g.devices[j.context]
		if dev == nil {
			continue
		}
		e := &entry{until: j.outcome.Begun.Add(lifetime)}
		g.journal[journalKey{dev.name, j.exchange.MessageID, string(j.exchange.Token)}] = e
		if j.outcome.Done {
			e.code, e.body, e.done = parseAnswer(j.outcome.Response)
			continue
		}
		current := j.outcome.Begun.Equal(last[journalKey{context: dev.name, token: string(j.exchange.Token)}])
		if current && now.Sub(j.outcome.Begun) < g.cfg.Timeout {
			e.again = g.resume(now, dev, j)
		}
	}
}

// resume sends one again; nil if that cannot be.
func (g *Gateway) resume(now time.Time, dev *device, j journalled) *downlink {
	var r record
	if cbor.Unmarshal(j.outcome.Request, &r) != nil {
		return nil
	}
	dg, err := coap.ParseDatagram(r.Datagram)
	if err != nil {
		return nil
	}
	d := &downlink{
		index: dev.index, dev: dev, token: j.exchange.Token, mid: j.exchange.MessageID, con: true,
		m: oscore.Message{Code: r.Code, Body: r.Body}, own: tokenOf(dg.Token), journal: resumed,
	}
	if d.to.remote, err = netip.ParseAddrPort(r.Remote); err != nil {
		return nil
	}
	if d.own == (token{}) {
		return nil // none of this side's
	}
	d.to.local, _ = netip.ParseAddr(r.Local)
	d.x, err = g.e.Resume(dev.name, d.m, oscore.Message{Code: byte(dg.Code), Body: dg.Body})
	if err != nil || !g.await(now, d) {
		return nil // such as a context that was derived anew: it cannot be answered any more
	}
	g.enterDownlink(d)
	g.downlinks[d.own] = d
	if d.out, err = g.down.SendAs(now, d.to, dg, d); err != nil {
		g.endDownlink(now, d)
		return nil
	}
	g.c.resumed.Add(1)
	g.holdBack(d)
	return d
}

// proxyAckTimeout is the ACK_TIMEOUT that a proxy on the way may have: RFC 7252's.
const proxyAckTimeout = 2 * time.Second

// holdBack makes what else goes to the device wait for a request that was taken
// up. Its number is from before the restart, and all new ones are beyond a gap
// that is wider than a replay window (RFC 8613 Appendix B.1.1): once the device
// has seen one of those, it refuses the request as a replay, and nobody knows
// whether it ran. The wait ends with any answer, and when it was sent once more,
// be it by a proxy: what the device has answered before, by a separate response,
// is not answered again.
func (g *Gateway) holdBack(d *downlink) {
	dev := d.dev
	if dev.settled == nil {
		dev.settled = make(chan struct{})
	}
	d.ahead = true
	dev.resuming++
	settled := dev.settled
	limit := min(2*max(g.cfg.AckTimeout, proxyAckTimeout), g.cfg.Timeout/2)
	go func() {
		timer := time.NewTimer(limit)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-settled:
			return
		case <-g.ctx.Done():
			return
		}
		g.mu.Lock()
		defer g.mu.Unlock()
		g.letOn(d)
	}()
}

// letOn ends what holdBack began.
func (g *Gateway) letOn(d *downlink) {
	if !d.ahead {
		return
	}
	d.ahead = false
	if d.dev.resuming--; d.dev.resuming == 0 {
		close(d.dev.settled)
		d.dev.settled = nil
	}
}

// answerLate answers a request that was taken up and that the backend has not
// repeated, be it that an acknowledgement had reached it: as a separate response
// (RFC 7252 §5.2.2).
func (g *Gateway) answerLate(now time.Time, d *downlink, m oscore.Message) {
	if _, err := g.up.Send(now, d.index, coap.Datagram{Type: coap.Confirmable, Code: coap.Code(m.Code), Token: d.token, Body: m.Body}, nil); err != nil {
		g.c.shed.Add(1)
	}
	g.answerBackend(now, d, coap.Code(m.Code), m.Body)
}

// expireJournal forgets what nobody repeats any more.
func (g *Gateway) expireJournal(now time.Time) {
	for k, e := range g.journal {
		if e.until.Before(now) {
			delete(g.journal, k)
		}
	}
	if now.Sub(g.swept) < 10*time.Second {
		return
	}
	g.swept = now
	before := now.Add(-message.Config{}.ExchangeLifetime())
	g.db.add(func(tx *bolt.Tx) error {
		_, err := tx.Expire(before)
		return err
	})
}
