package main

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/oscorelay/oscorelay/oscore"
)

// survey counts contexts. Those in use are looked at when somebody asks, all of
// them by itself now and then: a fleet of a million takes a second.
type survey struct {
	mu      sync.Mutex
	tainted int
	names   []string // the first of them
	known   bool
	again   chan struct{} // something changed
}

// surveyEvery is how old the count of all contexts may get when nothing is known
// to have changed, surveyPage how many are looked at in one go.
const (
	surveyEvery = 10 * time.Minute
	surveyPage  = 1000
	surveySmall = 10_000 // contexts that a start waits for
)

// surveyed is what contexts in use say.
type surveyed struct {
	all, hot, renew int
	headroom        uint64
}

// now looks at the contexts in use.
func (s *survey) now(reg *registry) surveyed {
	hot := reg.ring.Hot()
	v := surveyed{all: reg.ring.Len(), hot: len(hot), headroom: oscore.MaxSequence + 1}
	for _, p := range hot {
		st := p.Status()
		if st.Usage.Near() {
			v.renew++
		}
		v.headroom = min(v.headroom, oscore.MaxSequence+1-st.NextSequence)
	}
	return v
}

// taints returns how many contexts are tainted, if that is known yet.
func (s *survey) taints() (n int, known bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.tainted, s.known
}

// count counts the tainted contexts.
func (s *survey) count(ctx context.Context, reg *registry) error {
	n, first, err := reg.store.Tainted(ctx, 100)
	if err != nil {
		return err
	}
	slices.Sort(first)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tainted, s.names, s.known = n, first, true
	return nil
}

// run counts until the context ends, and tells when there are more than before.
func (s *survey) run(ctx context.Context, reg *registry, tell func(n int, names []string)) {
	told, _ := s.taints()
	t := time.NewTicker(surveyEvery)
	defer t.Stop()
	for {
		_ = s.count(ctx, reg) // a store that has stopped is told by others
		s.mu.Lock()
		n, names := s.tainted, s.names
		s.mu.Unlock()
		if n > told {
			tell(n, names)
		}
		told = n
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		case <-s.again:
		}
	}
}

// expire asks for a new count.
func (s *survey) expire() {
	select {
	case s.again <- struct{}{}:
	default: // it is asked for already
	}
}
