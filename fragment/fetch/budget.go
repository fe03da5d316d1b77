package fetch

import (
	"context"
	"sync"
	"time"
)

// The budget for retries: every verified piece earns a tenth of a retry, time
// lets one trickle in, and there is an end to all of it.
const (
	budgetShare = 0.1
	budgetBurst = 16
	budgetBase  = 64
	budgetPart  = 8 // a further retry for so many units
)

// budget is a token bucket with a total.
type budget struct {
	mu     sync.Mutex
	tokens float64
	left   int
	wait   time.Duration // for one token to trickle in
}

func newBudget(wait time.Duration) *budget {
	return &budget{tokens: budgetBurst, left: budgetBase, wait: wait}
}

// grow adds to the total what the image's size allows, once it is known.
func (b *budget) grow(units uint32) {
	b.mu.Lock()
	b.left += int(units / budgetPart)
	b.mu.Unlock()
}

// earn is called for every piece that verified.
func (b *budget) earn() {
	b.mu.Lock()
	b.tokens = min(b.tokens+budgetShare, budgetBase)
	b.mu.Unlock()
}

// take waits for a retry to be allowed, or returns ErrSuspended.
func (b *budget) take(ctx context.Context) error {
	timer := time.NewTimer(b.wait)
	defer timer.Stop()
	for {
		b.mu.Lock()
		if b.left <= 0 {
			b.mu.Unlock()
			return errBudget
		}
		if b.tokens >= 1 {
			b.tokens--
			b.left--
			b.mu.Unlock()
			return nil
		}
		b.mu.Unlock()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
			b.mu.Lock()
			b.tokens++
			b.mu.Unlock()
			timer.Reset(b.wait)
		}
	}
}
