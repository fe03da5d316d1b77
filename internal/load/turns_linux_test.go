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
}

// turns are the requests under way from one side, by their token.
type turns struct {
	mu    sync.Mutex
	slots [1 << 14]slot
	last  uint32

	sent, answered, good atomic.Int64 // good are those of class 2
}

// next enters a request and returns its token. One that has waited for as many
// others as there is room for is given up.
func (t *turns) next(s slot) uint32 {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.last++
	s.token, s.busy = t.last, true
	t.slots[t.last%uint32(len(t.slots))] = s
	t.sent.Add(1)
	return t.last
}

// answer takes a response in. open, if there is one, returns the code within.
func (t *turns) answer(d coap.Datagram, open func(*slot) coap.Code) {
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
	code := d.Code
	if open != nil {
		code = open(s)
	}
	s.busy = false
	if code.IsSuccess() {
		t.good.Add(1)
	}
	t.answered.Add(1)
}

// burst is how many requests are sent at a time, as a middle takes them in.
const burst = 32

// closed sends n requests, inFlight at a time, and returns how many were not
// answered.
func (t *turns) closed(n, inFlight int, send func(k int)) (lost int) {
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
	for int(sent) < n {
		wait(int64(inFlight - burst))
		k := min(burst, n-int(sent))
		send(k)
		sent += int64(k)
	}
	wait(0)
	return int(max(0, sent-(t.answered.Load()-base)))
}
