package proxy

import (
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"net/netip"
	"time"

	"github.com/oscorelay/oscorelay/internal/coap"
)

// overloaded is the refusal for want of room. Its Max-Age says when to come again
// (RFC 7252 §5.9.3.4; a minute, were it left out), a few seconds that are not the
// same for all, else all came again at once.
func overloaded() *refusal {
	return &refusal{code: coap.ServiceUnavailable, why: "overloaded", age: 4 + rand.N[byte](8)}
}

// shedding decides who goes when the table of exchanges is full. Where servers
// are silent it must be the oldest: half-open exchanges make room for those that
// are answered. Where a server is slow, and asked for more than it can do, it must
// be the newest: the oldest would be dropped just before its answer comes, then
// the next, and nobody be served at all. What tells the two apart are the answers
// that come after all to exchanges that were dropped. So a few are, every now and
// then, to see.
type shedding struct {
	newest   bool // most of the last trial were answered late
	trial    [trialSize]dropped
	n        int // of the trial
	answered int
	full     time.Time // when the last of the trial was dropped
}

// errServerFull says that as many requests wait for a server as may be under way
// to it. More would only wait longer: beyond Config.AckDelay their clients had to
// be acknowledged, and then answered, each by itself, which is twice the work when
// there is too much of it already.
var errServerFull = errors.New("proxy: too many requests wait for the server")

// trialSize is how many exchanges a trial drops.
const trialSize = 32

// dropped is an exchange of a trial.
type dropped struct {
	token    uint64
	next     address
	answered bool
}

// victim reports whether the oldest exchange makes room for a new one; if not, the
// new one is refused.
func (s *shedding) victim(now time.Time, oldest *exchange, patience time.Duration) bool {
	if s.n == trialSize && now.Sub(s.full) > patience {
		s.newest = 2*s.answered > trialSize
		s.n, s.answered = 0, 0
	}
	if s.n < trialSize && oldest.to != nil {
		s.trial[s.n] = dropped{token: oldest.token, next: oldest.next}
		s.n++
		s.full = now
		return true
	}
	return !s.newest
}

// late notes a response to no exchange. Tokens cannot be guessed.
func (s *shedding) late(token uint64, from address) {
	for i := range s.trial[:s.n] {
		if d := &s.trial[i]; d.token == token && d.next == from && !d.answered {
			d.answered = true
			if s.answered++; 2*s.answered > trialSize {
				s.newest = true
			}
			return
		}
	}
}

// makeRoom makes room for a request in the full table of exchanges, or says that
// there is none.
func (sh *shard) makeRoom(now time.Time, from *leg, p *plan) bool {
	oldest := sh.waiting.head
	if !sh.shedding.victim(now, oldest, sh.cfg.AckTimeout) {
		// A server that takes its time holds up no other for long.
		elsewhere := from == sh.front && oldest.next != sh.destination(p)
		if since := oldest.deadline.Add(-sh.p.cfg.Timeout); !elsewhere || now.Sub(since) < sh.cfg.AckTimeout {
			return false
		}
	}
	sh.dropOldest(now)
	return true
}

// destination is where a request goes whose server's address is known.
func (sh *shard) destination(p *plan) address {
	return sh.p.address(netip.AddrPortFrom(p.target.addr.Unmap(), p.target.port), netip.Addr{})
}

func (sh *shard) dropOldest(now time.Time) {
	sh.count(exchangesFull)
	sh.fail(now, sh.waiting.head, overloaded())
}

// late sees to a response to no exchange.
func (sh *shard) late(ev *event) {
	if sh.shedding.n > 0 && len(ev.Message.Token) == 8 {
		sh.shedding.late(binary.BigEndian.Uint64(ev.Message.Token), ev.Peer)
	}
}
