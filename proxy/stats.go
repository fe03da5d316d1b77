package proxy

import "sync/atomic"

// Stats are counters since the start, and gauges of now.
type Stats struct {
	Requests    uint64 // passed on
	Responses   uint64 // passed back, notifications included
	Refused     uint64 // requests refused by rule: 4.00, 4.02, 4.03, 4.04, 5.05, 5.08
	Shed        uint64 // requests refused or dropped for want of room: 5.03
	Timeouts    uint64 // 5.04
	BadGateway  uint64 // 5.02
	Duplicates  uint64 // answered from memory, or ignored
	Malformed   uint64 // datagrams that are no CoAP
	Unmatched   uint64 // responses to no request
	Exchanges   int    // requests under way
	Relations   int    // observations
	Upstream    int    // sockets toward servers
	Peers       int    // addresses remembered
	Remembered  int    // messages remembered for deduplication
	Outstanding int    // messages kept for retransmission or a Reset
}

type counters struct {
	requests, responses, refused, shed, timeouts, badGateway, duplicates, malformed, unmatched, unsent atomic.Uint64
}

// Stats returns the proxy's counters.
func (p *Proxy) Stats() Stats {
	c := &p.counters
	s := Stats{
		Requests: c.requests.Load(), Responses: c.responses.Load(), Refused: c.refused.Load(), Shed: c.shed.Load(), Timeouts: c.timeouts.Load(),
		BadGateway: c.badGateway.Load(), Duplicates: c.duplicates.Load(), Malformed: c.malformed.Load(), Unmatched: c.unmatched.Load(),
	}
	for _, sh := range p.shards {
		sh.mu.Lock()
		s.Exchanges, s.Relations, s.Upstream = s.Exchanges+sh.waiting.n, s.Relations+sh.relations, s.Upstream+len(sh.legs)-1
		for _, g := range sh.legs {
			peers, received, sent := g.layer.Size()
			s.Peers += peers
			s.Remembered += received
			s.Outstanding += sent
		}
		sh.mu.Unlock()
	}
	return s
}
