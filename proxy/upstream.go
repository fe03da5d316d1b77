package proxy

import (
	"slices"
	"time"

	"github.com/oscorelay/oscorelay/internal/coap/message"
)

// nextShared moves on to another upstream socket, because every message ID of
// the present one was used within its lifetime: 65536 in 247 s toward one
// server (RFC 7252 §4.4).
func (sh *shard) nextShared() error {
	if len(sh.legs)-1 < sh.cfg.MaxUpstream {
		if _, err := sh.open(false, address{}); err != nil {
			return err
		}
		sh.shared = len(sh.legs) - 1
		return nil
	}
	sh.shared = 1 + sh.shared%(len(sh.legs)-1)
	return nil
}

// ownLeg returns the upstream leg of a client, making it if there is room.
func (sh *shard) ownLeg(now time.Time, client address) (*leg, error) {
	if g := sh.own[client]; g != nil {
		return g, nil
	}
	if len(sh.own) >= sh.cfg.MaxUpstream && !sh.dropOwn(now) {
		return nil, message.ErrFull
	}
	g, err := sh.open(true, client)
	if err != nil {
		return nil, err
	}
	g.used = now
	sh.own[client] = g
	return g, nil
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
	_ = worst.sock.Close()
	delete(sh.own, worst.client)
	sh.legs = slices.DeleteFunc(sh.legs, func(g *leg) bool { return g == worst })
	return true
}
