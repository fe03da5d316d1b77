package handshake

import "sync"

// pool runs public-key operations: a fixed number at a time, with a bounded
// queue before them. Workers end when there is nothing to do.
type pool struct {
	workers, queue int

	mu      sync.Mutex
	waiting []func()
	running int
	peak    int // most that ever waited
}

// run has f run soon, and reports false if the queue is full.
func (p *pool) run(f func()) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.running < p.workers {
		p.running++
		go p.work(f)
		return true
	}
	if len(p.waiting) >= p.queue {
		return false
	}
	p.waiting = append(p.waiting, f)
	p.peak = max(p.peak, len(p.waiting))
	return true
}

func (p *pool) work(f func()) {
	for f != nil {
		f()
		p.mu.Lock()
		if len(p.waiting) > 0 {
			f, p.waiting = p.waiting[0], p.waiting[1:]
		} else {
			f = nil
			p.running--
			p.waiting = nil
		}
		p.mu.Unlock()
	}
}
