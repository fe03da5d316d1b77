package load

import (
	"encoding/binary"
	"sync"
	"sync/atomic"
	"time"

	"github.com/oscorelay/oscorelay/internal/coap"
	"github.com/oscorelay/oscorelay/oscore"
)

// slot is a request under way.
type slot struct {
	token   uint32
	busy    bool
	device  int
	pending *oscore.Pending // of a sealed one
	at      time.Time
	tally   *tally // that it counts for
}

// turns are the requests under way from one side, by their token.
type turns struct {
	mu    sync.Mutex
	slots [1 << 18]slot
	last  uint32
	tally *tally // nil: nobody wants to know

	sent, answered, good atomic.Int64 // good are those of class 2
}

// next enters a request and returns its token. One that has waited for as many
// others as there is room for is given up.
func (t *turns) next(s slot) uint32 {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.last++
	s.token, s.busy, s.at, s.tally = t.last, true, time.Now(), t.tally
	t.slots[t.last%uint32(len(t.slots))] = s
	t.sent.Add(1)
	if t.tally != nil {
		t.tally.sent(s.device)
	}
	return t.last
}

// answer takes a response in. open, if there is one, returns what is within.
func (t *turns) answer(d coap.Datagram, open func(*slot) coap.Datagram) {
	if len(d.Token) != 4 {
		return
	}
	token := binary.BigEndian.Uint32(d.Token)
	t.mu.Lock()
	defer t.mu.Unlock()
	s := &t.slots[token%uint32(len(t.slots))]
	if !s.busy || s.token != token {
		return
	}
	if open != nil {
		d = open(s)
	}
	s.busy = false
	if d.Code.IsSuccess() {
		t.good.Add(1)
	}
	t.answered.Add(1)
	if s.tally != nil && !s.tally.closed {
		s.tally.answered(s.device, d, time.Since(s.at))
	}
}

// watch begins a tally of the requests of so many devices from now on; that of
// before takes no more requests.
func (t *turns) watch(devices int) *tally {
	y := &tally{offered: make([]int, devices), good: make([]int, devices), codes: map[coap.Code]int{}}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.tally = y
	return y
}

// over ends a tally: its requests have so long to be answered.
func (t *turns) over(y *tally, patience time.Duration) {
	for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		t.mu.Lock()
		if t.tally == y {
			t.tally = nil
		}
		y.closed = y.took.all+y.refused.all == sum(y.offered) || time.Now().After(end)
		t.mu.Unlock()
		if y.closed {
			return
		}
	}
}

// burst is how many requests are sent at a time, as a middle takes them in.
const burst = 32

// closed sends n requests, inFlight at a time, and returns how many were not
// answered.
func (t *turns) closed(n, inFlight int, send func(k int)) (lost int) {
	return t.keep(inFlight, send, func(sent int) int { return min(burst, n-sent) })
}

// keep keeps so many requests under way until next, which says how many more to
// send, says none. It returns how many were not answered.
func (t *turns) keep(inFlight int, send func(k int), next func(sent int) int) (lost int) {
	sent, base, missing := int64(0), t.answered.Load(), int64(0)
	wait := func(most int64) {
		for since, seen := time.Now(), t.answered.Load(); sent-(t.answered.Load()-base)-missing > most; {
			time.Sleep(20 * time.Microsecond)
			if now := t.answered.Load(); now != seen {
				since, seen = time.Now(), now
			} else if time.Since(since) > 500*time.Millisecond {
				missing = sent - (seen - base)
			}
		}
	}
	for {
		wait(int64(inFlight - burst))
		k := next(int(sent))
		if k <= 0 {
			break
		}
		send(k)
		sent += int64(k)
	}
	wait(0)
	return int(max(0, sent-(t.answered.Load()-base)))
}
