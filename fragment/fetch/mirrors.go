package fetch

import "sync"

// When an authenticated source is dropped: after so many bad hash pages, or
// when so many in a hundred of its answers were bad, counted from the first
// hundred.
const (
	dropPages   = 3
	dropPercent = 1
	dropSample  = 100
)

// minWeight is how little a source is asked at worst, against 1.
const minWeight = 1.0 / 64

// mirror is a source and what is thought of it.
type mirror struct {
	Source
	weight   float64
	turn     float64 // the smallest is asked next
	good     int64
	bad      int64
	badPages int64
	dropped  bool
	szx      uint8 // largest block it was seen to send
}

// mirrors chooses among the sources of one layout.
type mirrors struct {
	mu  sync.Mutex
	all []*mirror
}

func newMirrors(sources []Source) *mirrors {
	m := &mirrors{}
	for _, s := range sources {
		m.all = append(m.all, &mirror{Source: s, weight: 1, szx: maxSZX})
	}
	return m
}

// pick returns the mirror to ask: each in proportion to its weight, and not
// the one that just failed if there is another.
func (m *mirrors) pick(not *mirror) *mirror {
	m.mu.Lock()
	defer m.mu.Unlock()
	var best *mirror
	for _, x := range m.all {
		if !x.dropped && x != not && (best == nil || x.turn < best.turn) {
			best = x
		}
	}
	if best == nil {
		best = not
	}
	best.turn += 1 / best.weight
	return best
}

// verified counts a piece that verified.
func (m *mirrors) verified(x *mirror) {
	m.mu.Lock()
	defer m.mu.Unlock()
	x.good++
	x.weight = min(1, x.weight*1.25)
}

// failed counts a try that brought nothing that verified. page says that a
// hash page was forged, forged that something was.
func (m *mirrors) failed(x *mirror, forged, page bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	x.weight = max(minWeight, x.weight/2)
	x.bad++
	if !x.Authenticated || !forged {
		// Over bare UDP anyone can have written the datagram in its name.
		return
	}
	if page {
		x.badPages++
	}
	answers := x.good + x.bad
	if x.badPages < dropPages && (answers < dropSample || x.bad*100 <= answers*dropPercent) {
		return
	}
	for _, other := range m.all {
		if other != x && !other.dropped {
			x.dropped = true
			return
		}
	}
}

func (m *mirrors) results() []MirrorResult {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []MirrorResult
	for _, x := range m.all {
		out = append(out, MirrorResult{Label: x.Label, Good: x.good, Bad: x.bad, Weight: x.weight, Dropped: x.dropped})
	}
	return out
}
