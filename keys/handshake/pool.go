package handshake

import "sync"

// pool runs public-key operations: a fixed number at a time, with a bounded
// queue before them. Workers end when there is nothing to do.
type pool struct {
	workers, queue int

	mu      sync.Mutex
	waiting []func()
	running int // workers that are not aside
	asides  int
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
		if p.running > p.workers || len(p.waiting) == 0 { // more than enough, after an aside
			f = nil
			p.running--
		} else {
			f = p.nextLocked()
		}
		p.mu.Unlock()
	}
}

func (p *pool) nextLocked() (f func()) {
	f, p.waiting = p.waiting[0], p.waiting[1:]
	if len(p.waiting) == 0 {
		p.waiting = nil
	}
	p.stats.Messages++
	return f
}

// maxAside bounds the workers that wait aside.
const maxAside = 64

// aside runs f, which waits for a disk rather than computes, and lets another
// worker take the caller's place meanwhile: a slow disk holds up those who need
// it, and all others only once maxAside wait.
func (p *pool) aside(f func()) {
	p.mu.Lock()
	if p.asides >= maxAside {
		p.mu.Unlock()
		f()
		return
	}
	p.asides++
	if len(p.waiting) > 0 {
		go p.work(p.nextLocked())
	} else {
		p.running--
	}
	p.mu.Unlock()
	f()
	p.mu.Lock()
	p.asides--
	p.running++
	p.mu.Unlock()
}
