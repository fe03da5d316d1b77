package message

import (
	"errors"
	"hash/maphash"
	"time"

	"github.com/oscorelay/oscorelay/internal/coap"
)

var (
	// ErrFull means that a limit of the Config is reached and that nothing
	// could be dropped for the new message.
	ErrFull = errors.New("message: table full")

	// ErrDuplicate means that the message, or another copy of it, was accepted
	// before.
	ErrDuplicate = errors.New("message: duplicate")

	// ErrNoMessageID means that every message ID was used toward that peer
	// within its lifetime (RFC 7252 §4.4); send from another endpoint.
	ErrNoMessageID = errors.New("message: no message ID is free toward that peer")
)

// Layer is the message layer of one local endpoint toward any number of peers
// of address type P.
type Layer[P comparable] struct {
	cfg      Config
	lifetime time.Duration // EXCHANGE_LIFETIME
	non      time.Duration // NON_LIFETIME
	seed     maphash.Seed
	base     time.Time // of every moment

	peers      map[P]*peer[P]
	last       *peer[P]              // the one that was looked up last
	order      list[*peer[P]]        // by the moment since when they are watched
	remembered int                   // messages accepted
	byAge      [2]list[*Incoming[P]] // confirmable, non-confirmable; oldest first
	accepted   uint64                // messages so far
	delayed    list[*Incoming[P]]    // acknowledgements that wait for their answer; oldest first
	under      int                   // messages sent or waiting
	ending     [3]list[*Outgoing[P]] // acknowledged, non-confirmable requests, non-confirmable responses; oldest first
	again      retransmissions[P]
	bytes      int  // kept in received and sent
	total      *int // by all layers that share the limit
	withheld   uint64

	out   []Packet[P]
	arena []byte // of out

	freeIn  []*Incoming[P]
	freeOut []*Outgoing[P]
}

// Packet is a datagram to be sent.
type Packet[P comparable] struct {
	Peer P
	Data []byte
	at   int // where Data begins in the arena
	size int
}

// Kind says what an [Event] is.
type Kind uint8

// The kinds of events.
const (
	None         Kind = iota // nothing for the caller; Err may say why
	Request                  // a request, not verified yet: AcceptRequest it, or leave it
	Response                 // a response, not verified yet: AcceptResponse it, or leave it
	Acknowledged             // Sent is acknowledged; its answer, if any, comes separately
	Reset                    // the peer has reset Sent
	GaveUp                   // Sent was not acknowledged in time
)

// Event is what a datagram or the passing of time came to.
type Event[P comparable] struct {
	Kind Kind
	Peer P

	// Message is what came in; it aliases the datagram.
	Message coap.Datagram

	// Sent is the message that the event answers. A response that is not
	// piggybacked has none: it is found by its token.
	Sent *Outgoing[P]

	// Err says why a datagram came to nothing, if it was not in order: it
	// wraps coap.ErrFormat or is ErrDuplicate.
	Err error

	peer     *peer[P] // if it was known
	hash     uint64
	accepted uint64 // Layer.accepted when it came
	judged   bool   // no copy of it was known then
	size     int
}

// New returns a layer.
func New[P comparable](cfg Config) *Layer[P] {
	cfg = cfg.withDefaults()
	l := &Layer[P]{
		cfg: cfg, lifetime: cfg.ExchangeLifetime(), non: cfg.NonLifetime(), seed: maphash.MakeSeed(),
		peers: map[P]*peer[P]{}, total: cfg.Kept,
	}
	if l.total == nil {
		l.total = &l.bytes
	}
	return l
}

// overhead is what an entry of a table costs beside its datagram, in bytes.
const overhead = 256

// keeps counts bytes.
func (l *Layer[P]) keeps(size int) {
	l.bytes += size
	if l.total != &l.bytes {
		*l.total += size
	}
}

// at returns a time as a moment.
func (l *Layer[P]) at(now time.Time) moment {
	if l.base.IsZero() {
		l.base = now
	}
	return int64(now.Sub(l.base))
}

// Output returns what is to be sent, in its order, and forgets it. The slice is
// used again at the next call that makes output, its datagrams are not.
func (l *Layer[P]) Output() []Packet[P] {
	var fresh []byte
	return l.Swap(&fresh)
}

// Swap is [Layer.Output] without allocation: the datagrams stand in a buffer
// that the caller receives for the one it gives, and are valid as long as it
// keeps that.
func (l *Layer[P]) Swap(buffer *[]byte) []Packet[P] {
	out := l.out
	for i := range out {
		p := &out[i]
		p.Data = l.arena[p.at : p.at+p.size : p.at+p.size]
	}
	l.out = l.out[:0]
	l.arena, *buffer = (*buffer)[:0], l.arena
	return out
}

// emit copies a datagram into the output.
func (l *Layer[P]) emit(to P, data []byte) {
	l.out = append(l.out, Packet[P]{Peer: to, at: len(l.arena), size: len(data)})
	l.arena = append(l.arena, data...)
}

// emitMessage writes a datagram into the output and returns it, valid until
// the next one.
func (l *Layer[P]) emitMessage(to P, d coap.Datagram) []byte {
	at := len(l.arena)
	l.arena = d.Append(l.arena)
	l.out = append(l.out, Packet[P]{Peer: to, at: at, size: len(l.arena) - at})
	return l.arena[at:]
}

// empty emits an empty message of four bytes.
func (l *Layer[P]) empty(to P, typ coap.Type, mid uint16) {
	l.emitMessage(to, coap.Datagram{Type: typ, MessageID: mid})
}

// Next returns when [Layer.Advance] has something to do; ok is false when it
// has not.
func (l *Layer[P]) Next() (at time.Time, ok bool) {
	next := moment(1<<63 - 1)
	if len(l.again) > 0 {
		next = l.again[0].at
	}
	if n := l.delayed.head; n != nil {
		next = min(next, n.value.due)
	}
	for i := range l.ending {
		if n := l.ending[i].head; n != nil {
			next = min(next, n.value.due)
		}
	}
	if next == 1<<63-1 {
		return time.Time{}, false
	}
	return l.base.Add(time.Duration(next)), true
}

// Advance does what is due: retransmissions, acknowledgements without an
// answer, expiry. It hands every message that is given up to f.
func (l *Layer[P]) Advance(now time.Time, f func(Event[P])) {
	at := l.at(now)
	for n := l.delayed.head; n != nil && n.value.due <= at; n = l.delayed.head {
		l.acknowledge(n.value)
	}
	for len(l.again) > 0 && l.again[0].at <= at {
		l.due(at, l.again[0].out, f)
	}
	for i := range l.ending {
		for n := l.ending[i].head; n != nil && n.value.due <= at; n = l.ending[i].head {
			l.forget(at, n.value)
		}
	}
	l.expire(at)
}

// Size returns how many peers, accepted messages and sent messages are
// remembered.
func (l *Layer[P]) Size() (peers, received, sent int) {
	return len(l.peers), l.remembered, l.under
}

// Withheld returns how many datagrams were not sent, or not at once, because of
// Config.Amplification.
func (l *Layer[P]) Withheld() uint64 { return l.withheld }

// Close takes what the layer keeps out of the count that it shares with others
// (Config.Kept). What still happens to it is counted for itself.
func (l *Layer[P]) Close() {
	if l.total != &l.bytes {
		*l.total -= l.bytes
		l.total = &l.bytes
	}
}
