package handshake

import "sync"

// pool runs public-key operations: a fixed number at a time, with a bounded
// queue before them. Workers end when there is nothing to do.
type pool struct {
	workers, queue int

	mu      sync.Mutex
	waiting []func()
	running int
	stats   Stats
}

// Stats count what handshakes cost.
type Stats struct {
	Messages    uint64 // messages whose public-key operations were begun
	PeakWorkers int    // most of them at a time
	PeakQueue   int    // most that waited
}

// Stats returns the counts since the start.
func (s *Service) Stats() Stats {
	s.pool.mu.Lock()
	defer s.pool.mu.Unlock()
	return s.pool.stats
}

// run has f run soon, and reports false if the queue is full.
func (p *pool) run(f func()) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.running < p.workers {
		p.running++
		p.stats.Messages++
		p.stats.PeakWorkers = max(p.stats.PeakWorkers, p.running)
		go p.work(f)
		return true
	}
	if len(p.waiting) >= p.queue {
		return false
	}
	p.waiting = append(p.waiting, f)
	p.stats.PeakQueue = max(p.stats.PeakQueue, len(p.waiting))
	return true
}

func (p *pool) work(f func()) {
	for f != nil {
		f()
		p.mu.Lock()
		if len(p.waiting) > 0 {
			f, p.waiting = p.waiting[0], p.waiting[1:]
			p.stats.Messages++
		} else {
			f = nil
			p.running--
			p.waiting = nil
		}
		p.mu.Unlock()
	}
}
