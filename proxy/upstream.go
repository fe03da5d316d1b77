package proxy

import (
	"errors"
	"slices"
	"time"

	"github.com/oscorelay/oscorelay/internal/coap"
	"github.com/oscorelay/oscorelay/internal/coap/message"
)

// nextShared moves on to another upstream socket, because every message ID of
// the present one was used within its lifetime: 65536 in 247 s toward one
// server (RFC 7252 §4.4).
func (sh *shard) nextShared() error {
	if len(sh.legs)-1 < sh.cfg.MaxUpstream {
		if _, err := sh.open(false); err != nil {
			return err
		}
		sh.shared = len(sh.legs) - 1
		return nil
	}
	sh.shared = 1 + sh.shared%(len(sh.legs)-1)
	return nil
}

// owner is whom an upstream leg belongs to: the holder of a key, or where none
// is known an address.
type owner struct {
	holder string
	at     address
}

// What a leg passes on for addresses that its holder is not known to be at, in
// all and a second: enough for a device that moves, too little to use up the
// leg's message IDs.
const (
	strangersBurst  = 16
	strangersSecond = 2
)

// errStranger means that a leg has passed on enough for addresses that its
// holder is not known to be at.
var errStranger = errors.New("proxy: too much from other addresses")

// ownLeg returns the upstream leg of an exchange's client, making it if there
// is room.
func (sh *shard) ownLeg(now time.Time, ex *exchange) (*leg, error) {
	of := owner{holder: ex.holder}
	if ex.holder == "" {
		of.at = ex.client.peer
	}
	if g := sh.own[of]; g != nil {
		if g.proof > 0 && g.client != ex.client.peer {
			since := now.Sub(g.strangerAt).Seconds()
			g.strangers, g.strangerAt = min(g.strangers+since*strangersSecond, strangersBurst), now
			if g.strangers < 1 {
				sh.count(strangers)
				return nil, errStranger
			}
			g.strangers--
		}
		return g, nil
	}
	if len(sh.own) >= sh.cfg.MaxUpstream && !sh.dropOwn(now) {
		return nil, message.ErrFull
	}
	g, err := sh.open(true)
	if err != nil {
		return nil, err
	}
	g.owner, g.client, g.used = of, ex.client.peer, now
	g.strangers, g.strangerAt = strangersBurst, now
	sh.own[of] = g
	return g, nil
}

// proven notes what a server's answer proves of a leg's client. A protected
// response says that the request was its holder's and no replay, and so that
// the holder was where the request came from: what servers send goes there
// from now on, unless an answer to a later request has said otherwise.
func (sh *shard) proven(g *leg, ex *exchange, sealed bool, code coap.Code) {
	if !g.own || !sealed && !code.IsSuccess() {
		return
	}
	g.hops[ex.next] = true
	if !sealed || ex.holder == "" || ex.number < g.proof {
		return
	}
	g.proof = ex.number
	if g.client != ex.client.peer {
		g.client = ex.client.peer
		sh.counts.moved++
	}
}

// dropOwn closes the upstream leg that was longest without use among those
// that no server has ever answered, or else among those idle for a day.
func (sh *shard) dropOwn(now time.Time) bool {
	var worst *leg
	for _, g := range sh.own {
		proven := false
		for _, answered := range g.hops {
			proven = proven || answered
		}
		idle := now.Sub(g.used)
		if (!proven && idle > time.Second || idle > 24*time.Hour) && (worst == nil || g.used.Before(worst.used)) {
			worst = g
		}
	}
	if worst == nil {
		return false
	}
	for _, ex := range worst.tokens.places {
		if ex != nil {
			sh.end(now, ex)
		}
	}
	for _, ex := range worst.byClient {
		sh.end(now, ex)
	}
	worst.layer.Close()
	worst.gone = true
	sh.counts.tooLong += worst.sock.TooLong()
	sh.counts.overrun += worst.sock.Overrun()
	_ = worst.sock.Close()
	delete(sh.own, worst.owner)
	sh.legs = slices.DeleteFunc(sh.legs, func(g *leg) bool { return g == worst })
	return true
}
