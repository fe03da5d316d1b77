package message

// moment is a time in nanoseconds since the layer's first call.
type moment = int64

// retransmissions is a heap of deadlines, the next one first. The back-off is
// jittered (RFC 7252 §4.2), so that only these need one: every other deadline
// is a constant time away and waits in a list.
type retransmissions[P comparable] []retransmission[P]

type retransmission[P comparable] struct {
	at  moment
	out *Outgoing[P]
}

// set puts a deadline in place, whether or not one was set.
func (t *retransmissions[P]) set(o *Outgoing[P], at moment) {
	if o.index == 0 {
		*t = append(*t, retransmission[P]{at, o})
		o.index = len(*t)
	}
	i := o.index - 1
	(*t)[i].at = at
	t.down(t.up(i))
}

// stop removes the deadline, if there is one.
func (t *retransmissions[P]) stop(o *Outgoing[P]) {
	if o.index == 0 {
		return
	}
	i, last := o.index-1, len(*t)-1
	o.index = 0
	moved := (*t)[last]
	(*t)[last] = retransmission[P]{}
	*t = (*t)[:last]
	if i < last {
		t.put(i, moved)
		t.down(t.up(i))
	}
}

func (t retransmissions[P]) put(i int, r retransmission[P]) {
	t[i] = r
	r.out.index = i + 1
}

func (t retransmissions[P]) up(i int) int {
	r := t[i]
	for i > 0 {
		parent := (i - 1) / 4
		if t[parent].at <= r.at {
			break
		}
		t.put(i, t[parent])
		i = parent
	}
	t.put(i, r)
	return i
}

func (t retransmissions[P]) down(i int) {
	r := t[i]
	for {
		least := i
		at := r.at
		for c := 4*i + 1; c < min(4*i+5, len(t)); c++ {
			if t[c].at < at {
				least, at = c, t[c].at
			}
		}
		if least == i {
			break
		}
		t.put(i, t[least])
		i = least
	}
	t.put(i, r)
}
