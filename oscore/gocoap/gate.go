package gocoap

import (
	"context"
	"slices"
	"sync"
)

// gate admits the messages of requests to a connection one at a time, before
// they are sealed: what is sealed goes out next, in the order of Partial IVs. A
// request that waited for its turn sealed would find that the peer's replay
// window had left it behind. Over datagrams it holds requests to an NSTART of
// 1, too (RFC 7252 §4.7): a confirmable one leaves when it was acknowledged.
//
// Further messages of an exchange (an Echo round trip, the next block) are
// sealed as the answer to the last is opened, and go first.
type gate struct {
	mu    sync.Mutex
	taken bool
	again []chan struct{}
	first []chan struct{}
}

// queue takes a place in the order; it is had when the channel is closed.
func (g *gate) queue(again bool) chan struct{} {
	turn := make(chan struct{})
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case !g.taken:
		g.taken = true
		close(turn)
	case again:
		g.again = append(g.again, turn)
	default:
		g.first = append(g.first, turn)
	}
	return turn
}

// wait waits for the place. When the context ends before, the place is given up.
func (g *gate) wait(ctx context.Context, turn chan struct{}) error {
	select {
	case <-turn:
		return nil
	default:
	}
	select {
	case <-turn:
		return nil
	case <-ctx.Done():
		g.giveUp(turn)
		return ctx.Err()
	}
}

// enter takes a place and waits for it.
func (g *gate) enter(ctx context.Context, again bool) error {
	return g.wait(ctx, g.queue(again))
}

// leave gives the place to the next.
func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.pass()
}

// giveUp leaves, or leaves the queue.
func (g *gate) giveUp(turn chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, q := range []*[]chan struct{}{&g.again, &g.first} {
		if i := slices.Index(*q, turn); i >= 0 {
			*q = slices.Delete(*q, i, i+1)
			return
		}
	}
	g.pass()
}

func (g *gate) pass() {
	for _, q := range []*[]chan struct{}{&g.again, &g.first} {
		if len(*q) > 0 {
			close((*q)[0])
			(*q)[0] = nil
			*q = (*q)[1:]
			return
		}
	}
	g.taken = false
}
