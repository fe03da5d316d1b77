// Package rate bounds how often strangers can make this side do something, in
// memory that no stranger can make grow. It has no clock of its own.
package rate

import (
	"hash/maphash"
	"time"
)

// Bucket is a token bucket that holds as many tokens as its rate; the zero
// value is full.
type Bucket struct {
	spent float64
	at    time.Time
}

// Take takes n tokens, and reports false, taking none, if there are not as many.
// rate is how many come in a second; below 1, one is held all the same.
func (b *Bucket) Take(now time.Time, n, rate float64) bool {
	if !b.at.IsZero() {
		b.spent = max(0, b.spent-now.Sub(b.at).Seconds()*rate)
	}
	b.at = now
	if b.spent+n > max(rate, 1) {
		return false
	}
	b.spent += n
	return true
}

// buckets is how many a Table has; each takes 32 bytes.
const buckets = 1024

// Table has a bucket for each source. Sources share them by a secret hash, so
// that their number cannot make it grow; sharing can only make it stricter. The
// zero value is ready, and grows to its size when first used.
type Table struct {
	seed  maphash.Seed
	table []Bucket
}

// Of returns the bucket of a source.
func Of[K comparable](t *Table, source K) *Bucket {
	if t.table == nil {
		t.seed, t.table = maphash.MakeSeed(), make([]Bucket, buckets)
	}
	return &t.table[maphash.Comparable(t.seed, source)%buckets]
}
