package gocoap

import (
	"sync"
	"time"
)

const (
	// idRunLength is how many IDs a run remembers: less than the half of them that
	// go-coap moves by.
	idRunLength = 0x7000
	// idGap is how many IDs go-coap may have used itself in between.
	idGap = 64
	// maxIDRuns bounds the memory. Moves there and back continue the runs there are.
	maxIDRuns = 8
)

// usedIDs keeps a connection from using a message ID again within
// EXCHANGE_LIFETIME (RFC 7252 §4.4). go-coap counts them up, but moves its counter
// by half the range when a confirmable message of the peer has an ID a little
// ahead. Two such moves lead back to IDs that were just used, and nothing vouches
// for what causes them: a replay does.
type usedIDs struct {
	mu   sync.Mutex
	runs []idRun
}

// idRun is a row of used IDs: the n up to last.
type idRun struct {
	last, n uint16
	at      time.Time // when the last was used
}

// next draws IDs until one is unused.
func (u *usedIDs) next(now time.Time, draw func() int32) int32 {
	u.mu.Lock()
	defer u.mu.Unlock()
	for range 1 << 16 {
		id := draw()
		if u.take(now, uint16(id)) {
			return id
		}
	}
	return draw() // all are used: the rate is above what the RFC allows for
}

// take notes an ID, if it is unused.
func (u *usedIDs) take(now time.Time, id uint16) bool {
	follows, oldest := -1, 0
	for i, r := range u.runs {
		switch {
		case now.Sub(r.at) >= exchangeLifetime:
			u.runs[i].n = 0
		case r.last-id < r.n:
			return false
		}
		if id-r.last <= idGap {
			follows = i
		}
		if r.at.Before(u.runs[oldest].at) {
			oldest = i
		}
	}
	switch {
	case follows >= 0:
		r := &u.runs[follows]
		r.n = min(r.n+(id-r.last), idRunLength)
		r.last, r.at = id, now
	case len(u.runs) < maxIDRuns:
		u.runs = append(u.runs, idRun{id, 1, now})
	default:
		u.runs[oldest] = idRun{id, 1, now}
	}
	return true
}
