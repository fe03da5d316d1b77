package message

import (
	"container/heap"
	"time"
)

// timer is a deadline of a message received (its acknowledgement is due) or
// sent (its retransmission, or its end). It stands in its owner.
type timer[P comparable] struct {
	at    time.Time
	index int // in the heap, plus one; 0 means not set
	in    *Incoming[P]
	out   *Outgoing[P]
}

type timers[P comparable] []*timer[P]

func (t timers[P]) Len() int           { return len(t) }
func (t timers[P]) Less(i, j int) bool { return t[i].at.Before(t[j].at) }
func (t timers[P]) Swap(i, j int) {
	t[i], t[j] = t[j], t[i]
	t[i].index, t[j].index = i+1, j+1
}

// Push implements heap.Interface.
func (t *timers[P]) Push(x any) {
	x.(*timer[P]).index = len(*t) + 1
	*t = append(*t, x.(*timer[P]))
}

// Pop implements heap.Interface.
func (t *timers[P]) Pop() any {
	last := len(*t) - 1
	x := (*t)[last]
	(*t)[last] = nil
	*t = (*t)[:last]
	x.index = 0
	return x
}

// set puts the deadline in place, whether or not one was set.
func (t *timers[P]) set(x *timer[P], at time.Time) {
	x.at = at
	if x.index == 0 {
		heap.Push(t, x)
	} else {
		heap.Fix(t, x.index-1)
	}
}

// stop removes the deadline, if there is one.
func (t *timers[P]) stop(x *timer[P]) {
	if x.index != 0 {
		heap.Remove(t, x.index-1)
	}
}
