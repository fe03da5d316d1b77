package gocoap

import (
	"context"
	"sync"
)

// gate admits the requests of a connection before they are sealed. What is
// sealed thus goes out soon and in the order of its Partial IVs: a request that
// waited for its turn sealed would find that the replay window had left it
// behind. It holds the requests to NSTART, too (RFC 7252 §4.7).
//
// Messages of an exchange under way are sealed already (an Echo round trip, the
// next block) and go first.
type gate struct {
	mu     sync.Mutex
	free   int
	again  []chan struct{}
	queued []chan struct{}
}

// enter waits for a place.
func (g *gate) enter(ctx context.Context, again bool) error {
	g.mu.Lock()
	if g.free > 0 {
		g.free--
		g.mu.Unlock()
		return nil
	}
	turn := make(chan struct{})
	if again {
		g.again = append(g.again, turn)
	} else {
		g.queued = append(g.queued, turn)
	}
	g.mu.Unlock()
	select {
	case <-turn:
		return nil
	case <-ctx.Done():
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.remove(&g.again, turn) || g.remove(&g.queued, turn) {
		return ctx.Err()
	}
	g.pass() // the turn came at the same moment
	return ctx.Err()
}

// leave gives the place to the next.
func (g *gate) leave() {
	g.mu.Lock()
	g.pass()
	g.mu.Unlock()
}

func (g *gate) pass() {
	for _, queue := range []*[]chan struct{}{&g.again, &g.queued} {
		if q := *queue; len(q) > 0 {
			close(q[0])
			q[0] = nil
			*queue = q[1:]
			return
		}
	}
	g.free++
}

func (g *gate) remove(queue *[]chan struct{}, turn chan struct{}) bool {
	for i, c := range *queue {
		if c == turn {
			*queue = append((*queue)[:i], (*queue)[i+1:]...)
			return true
		}
	}
	return false
}
