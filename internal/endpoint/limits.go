package endpoint

import (
	"hash/maphash"
	"sync"
	"time"
)

// bucket is a token bucket; the zero value is full.
type bucket struct {
	spent float64
	at    time.Time
}

// take reports whether one more may pass at the rate, with a burst of as many.
func (b *bucket) take(now time.Time, rate float64) bool {
	if !b.at.IsZero() {
		b.spent = max(0, b.spent-now.Sub(b.at).Seconds()*rate)
	}
	b.at = now
	if b.spent+1 > max(rate, 1) {
		return false
	}
	b.spent++
	return true
}

// plainLimiter bounds plain error answers by source and in all. Sources share
// a fixed table by hash, so that an attacker's addresses cannot make it grow;
// sharing can only make answers rarer.
type plainLimiter struct {
	mu    sync.Mutex
	seed  maphash.Seed
	table []bucket
	total bucket
}

const plainBuckets = 1024

func (l *plainLimiter) take(now time.Time, in *Inbound, rate, totalRate int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.table == nil {
		l.seed, l.table = maphash.MakeSeed(), make([]bucket, plainBuckets)
	}
	hash := maphash.String(l.seed, in.Source)
	if in.Source == "" {
		hash = maphash.Comparable(l.seed, in.Addr)
	}
	b := &l.table[hash%plainBuckets]
	return b.take(now, float64(rate)) && l.total.take(now, float64(totalRate))
}
