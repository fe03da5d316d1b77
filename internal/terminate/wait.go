package terminate

import "time"

// exchange is a request that waits for its answer.
type exchange interface {
	ended(g *Gateway, now time.Time) // its time is over
	deadline() *wait
}

// wait is an exchange's place among those that wait.
type wait struct {
	since, until time.Time
	of           exchange // nil: it is in no list
	prev, next   *wait
}

// waits are the exchanges that wait, in the order of their deadlines.
type waits struct {
	head, tail *wait
	n          int
	asking     int // of them requests of the backend
}

func (l *waits) push(w *wait, x exchange) {
	w.of, w.prev, w.next = x, l.tail, nil
	if l.tail == nil {
		l.head = w
	} else {
		l.tail.next = w
	}
	l.tail = w
	l.n++
	if _, asks := x.(*downlink); asks {
		l.asking++
	}
}

// remove takes a place out, if it is in the list.
func (l *waits) remove(w *wait) {
	if w.of == nil {
		return
	}
	if w.prev == nil {
		l.head = w.next
	} else {
		w.prev.next = w.next
	}
	if w.next == nil {
		l.tail = w.prev
	} else {
		w.next.prev = w.prev
	}
	l.n--
	if _, asks := w.of.(*downlink); asks {
		l.asking--
	}
	w.of, w.prev, w.next = nil, nil, nil
}

// await enters an exchange; ok is false when there are too many. Either way leaves
// a quarter of the places to the other: a server that asks devices that sleep, each
// a few times, does not keep those from it that are awake.
func (g *Gateway) await(now time.Time, x exchange) (ok bool) {
	w, l := x.deadline(), &g.waiting
	l.remove(w)
	n := l.n - l.asking
	if _, asks := x.(*downlink); asks {
		n = l.asking
	}
	if most := g.cfg.MaxExchanges; l.n >= most || n >= most-most/4 {
		return false
	}
	w.since, w.until = now, now.Add(g.cfg.Timeout)
	g.waiting.push(w, x)
	return true
}

// settle takes it out.
func (g *Gateway) settle(x exchange) { g.waiting.remove(x.deadline()) }

// expire ends exchanges whose time is over.
func (g *Gateway) expire(now time.Time) {
	for w := g.waiting.head; w != nil && !w.until.After(now); w = g.waiting.head {
		x := w.of
		g.c.timeouts.Add(1)
		g.waiting.remove(w)
		x.ended(g, now)
	}
}
