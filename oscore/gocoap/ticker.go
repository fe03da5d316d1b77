package gocoap

import (
	"sync"
	"time"
)

// tickEvery is how often connections look for what is to be retransmitted.
// go-coap's own 4 s, in a goroutine for each connection, would make the first
// retransmission come after up to 6 s instead of 2 to 3 (RFC 7252 §4.8).
const tickEvery = 500 * time.Millisecond

// ticker does the periodic work of all connections of an endpoint in one
// goroutine, which lives as long as there is any.
type ticker struct {
	mu      sync.Mutex
	work    []func(now time.Time) bool
	running bool
}

// add has f called until it returns false.
func (t *ticker) add(f func(now time.Time) bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.work = append(t.work, f)
	if !t.running {
		t.running = true
		go t.run()
	}
}

func (t *ticker) run() {
	tick := time.NewTicker(tickEvery)
	defer tick.Stop()
	for now := range tick.C {
		t.mu.Lock()
		work := t.work
		t.work = nil
		t.mu.Unlock()
		kept := work[:0]
		for _, f := range work {
			if f(now) {
				kept = append(kept, f)
			}
		}
		clear(work[len(kept):])
		t.mu.Lock()
		t.work = append(kept, t.work...)
		if len(t.work) == 0 {
			t.work, t.running = nil, false
			t.mu.Unlock()
			return
		}
		t.mu.Unlock()
	}
}
