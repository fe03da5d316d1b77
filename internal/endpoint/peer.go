package endpoint

import "sync"

// peerState is what the endpoint remembers of a peer that proved itself, or
// that this side sends to. It is made when there is something to remember: a
// peer that only asks and is answered has none.
type peerState struct {
	mu sync.Mutex

	// Client role.
	failures int             // requests in a row without a protected answer
	echo     string          // to put into the next request (RFC 9175 §2.3)
	tags     map[string]bool // cache keys with uploads that did not conclude, see beginUpload
	deriving chan struct{}   // closed when the run of Appendix B.2 under way is over
	started  bool            // a context was derived in this process
	clean    bool            // every message under the context is of this process

	// Server role.
	proven       bool // a request of the peer was proven fresh since the start
	rates        *peerRates
	run          *serverRun
	transfers    transfers
	observations map[observationID]*Observation
}

// peerRates bounds what a peer's replayed requests can ask for.
type peerRates struct{ challenges, runs bucket }

// find returns the peer's state, nil if there is none.
func (e *Endpoint) find(name string) *peerState {
	e.mu.RLock()
	defer e.mu.RUnlock()
	return e.peers[name]
}

// state returns the peer's state, making it if there is none.
func (e *Endpoint) state(name string) *peerState {
	if s := e.find(name); s != nil {
		return s
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	s := e.peers[name]
	if s == nil {
		s = &peerState{}
		e.peers[name] = s
	}
	return s
}

// dropContext drops what belongs to the security context that the peer had.
// s.mu is held.
func (s *peerState) dropContext() {
	for _, o := range s.observations {
		o.ended.Store(true)
	}
	s.observations, s.transfers, s.echo = nil, transfers{}, ""
}

// adopted notes that a new context was agreed on (Appendix B.2). What began
// under the earlier one is over: its notifications could not be sealed, its
// blocks must not mix with new ones, and an Echo value goes back only within
// the context it came in (RFC 9175 §2.3).
func (e *Endpoint) adopted(name string) {
	s := e.state(name)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dropContext()
	s.started, s.clean, s.failures = true, true, 0
}
