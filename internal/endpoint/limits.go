package endpoint

import (
	"sync"
	"time"

	"github.com/oscorelay/oscorelay/internal/rate"
)

// bucket bounds how often one peer may make this side do something.
type bucket = rate.Bucket

// plainLimiter bounds plain error answers by source and in all.
type plainLimiter struct {
	mu      sync.Mutex
	sources rate.Table
	total   bucket
}

func (l *plainLimiter) take(now time.Time, in *Inbound, perSource, total int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	source := rate.Of(&l.sources, in.Addr)
	if in.Source != "" {
		source = rate.Of(&l.sources, in.Source)
	}
	return source.Take(now, 1, float64(perSource)) && l.total.Take(now, 1, float64(total))
}
