package proxy

import (
	"math/bits"
	"time"
)

// reason is why a datagram came to something else than to be passed on.
type reason uint8

// The reasons, in the order of their names in [Reasons].
const (
	badRequest reason = iota
	badOption
	forbidden
	noRoute
	notProxying
	loops
	draining
	exchangesFull
	peerFull
	serverFull
	observationsFull
	peerObservationsFull
	transfersFull
	tableFull
	strangers
	serverReset
	badAnswer
	unresolved
	silence
	duplicate
	malformed
	unmatched
	reasons
)

// Reasons are the names that count what was not passed on, in groups: what was
// refused by rule, what was shed for want of room (5.03, or no answer), what a
// server did wrong, what no server did, and what was dropped.
var Reasons = [reasons]string{
	"bad_request", "bad_option", "forbidden", "no_route", "not_proxying", "loop",
	"draining", "exchanges_full", "peer_exchanges_full", "server_full", "observations_full", "peer_observations_full", "transfers_full", "table_full", "stranger_limited",
	"server_reset", "bad_answer", "unresolved",
	"timeout",
	"duplicate", "malformed", "unmatched",
}

// sum adds the counts of a group.
func (c *counts) sum(from, to reason) (n uint64) {
	for _, v := range c.by[from : to+1] {
		n += v
	}
	return n
}

// counts are a shard's, under its lock.
type counts struct {
	by                            [reasons]uint64
	requests, responses, transfer uint64
	moved                         uint64
	tooLong, overrun              uint64 // of sockets that are closed
	latency                       [latencies]uint64
	elapsed                       time.Duration
}

// latencies is how many buckets a Histogram has.
const latencies = 16

// Histogram is how long servers took to answer, as it looked from here.
// Bucket i counts answers below 2^i milliseconds that are in no bucket before;
// the last one counts all others.
type Histogram struct {
	Buckets [latencies]uint64
	Count   uint64
	Sum     time.Duration
}

func (c *counts) answered(after time.Duration) {
	c.latency[min(bits.Len64(uint64(after/time.Millisecond)), latencies-1)]++
	c.elapsed += after
}

// Stats are counters since the start, and gauges of now.
type Stats struct {
	Requests  uint64 // passed on
	Responses uint64 // passed back, notifications included
	Transfers uint64 // requests cut into blocks
	Moved     uint64 // return addresses that moved to where their key's holder is now

	Refused    uint64 // requests refused by rule: 4.00, 4.02, 4.03, 4.04, 5.05, 5.08
	Shed       uint64 // requests refused or dropped for want of room: 5.03
	Timeouts   uint64 // 5.04
	BadGateway uint64 // 5.02
	Duplicates uint64 // answered from memory, or ignored
	Malformed  uint64 // datagrams that are no CoAP
	Unmatched  uint64 // responses to no request

	By       map[string]uint64 // all of these by reason, see Reasons
	Withheld uint64            // datagrams kept back from peers that have not shown that they receive
	Unsent   uint64            // datagrams that the system did not take
	TooLong  uint64            // datagrams above MaxDatagram, dropped
	Overrun  uint64            // datagrams that came while a socket's buffer was full, dropped by the system

	Exchanges   int // requests under way
	Relations   int // observations
	Upstream    int // sockets toward servers
	Peers       int // addresses remembered
	Remembered  int // messages remembered for deduplication
	Outstanding int // messages kept for retransmission or a Reset
	Bytes       int // kept for deduplication, retransmission and blocks, each message's bookkeeping included
	Shards      int

	Latency Histogram // from a request to its answer
}

// Stats returns the proxy's counters.
func (p *Proxy) Stats() Stats {
	s := Stats{By: make(map[string]uint64, reasons), Unsent: p.unsent.Load(), Shards: len(p.shards)}
	for _, sh := range p.shards {
		sh.mu.Lock()
		c := &sh.counts
		s.Requests += c.requests
		s.Responses += c.responses
		s.Transfers += c.transfer
		s.Moved += c.moved
		s.TooLong += c.tooLong
		s.Overrun += c.overrun
		s.Refused += c.sum(badRequest, loops)
		s.Shed += c.sum(draining, strangers)
		s.BadGateway += c.sum(serverReset, unresolved)
		s.Timeouts += c.by[silence]
		s.Duplicates += c.by[duplicate]
		s.Malformed += c.by[malformed]
		s.Unmatched += c.by[unmatched]
		for i, n := range c.by {
			s.By[Reasons[i]] += n
		}
		for i, n := range c.latency {
			s.Latency.Buckets[i] += n
			s.Latency.Count += n
		}
		s.Latency.Sum += c.elapsed
		s.Exchanges += sh.waiting.n
		s.Relations += sh.relations
		s.Upstream += len(sh.legs) - 1
		s.Bytes += sh.kept[0] + sh.kept[1] + sh.transferred
		for _, g := range sh.legs {
			peers, received, sent := g.layer.Size()
			s.Peers += peers
			s.Remembered += received
			s.Outstanding += sent
			s.Withheld += g.layer.Withheld()
			s.TooLong += g.sock.TooLong()
			s.Overrun += g.sock.Overrun()
		}
		sh.mu.Unlock()
	}
	return s
}
