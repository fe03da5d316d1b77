package message

import (
	"container/heap"
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

	peers    map[P]*peer[P]
	order    list[*peer[P]] // least recently used first
	received map[receivedKey[P]]*Incoming[P]
	byAge    [2]list[*Incoming[P]] // confirmable, non-confirmable; oldest first
	sent     map[sentKey[P]]*Outgoing[P]
	under    int // messages sent or waiting
	bytes    int // kept in received and sent
	timers   timers[P]
	out      []Packet[P]
}

// Packet is a datagram to be sent. Data must not be changed: it may be sent
// again.
type Packet[P comparable] struct {
	Peer P
	Data []byte
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

	hash uint64
}

// New returns a layer.
func New[P comparable](cfg Config) *Layer[P] {
	cfg = cfg.withDefaults()
	return &Layer[P]{
		cfg: cfg, lifetime: cfg.ExchangeLifetime(), non: cfg.NonLifetime(), seed: maphash.MakeSeed(),
		peers: map[P]*peer[P]{}, received: map[receivedKey[P]]*Incoming[P]{}, sent: map[sentKey[P]]*Outgoing[P]{},
	}
}

// Output returns what is to be sent, in its order, and forgets it. The slice is
// used again at the next call that makes output, its datagrams are not.
func (l *Layer[P]) Output() []Packet[P] {
	out := l.out
	l.out = l.out[:0]
	return out
}

func (l *Layer[P]) emit(to P, data []byte) { l.out = append(l.out, Packet[P]{to, data}) }

// empty emits an empty message of four bytes.
func (l *Layer[P]) empty(to P, typ coap.Type, mid uint16) []byte {
	data := coap.Datagram{Type: typ, MessageID: mid}.Append(make([]byte, 0, 4))
	l.emit(to, data)
	return data
}

// Next returns when [Layer.Advance] has something to do; ok is false when it
// has not.
func (l *Layer[P]) Next() (at time.Time, ok bool) {
	if len(l.timers) == 0 {
		return time.Time{}, false
	}
	return l.timers[0].at, true
}

// Advance does what is due: retransmissions, acknowledgements without an
// answer, expiry. It hands every message that is given up to f.
func (l *Layer[P]) Advance(now time.Time, f func(Event[P])) {
	for len(l.timers) > 0 && !l.timers[0].at.After(now) {
		t := heap.Pop(&l.timers).(*timer[P])
		if t.in != nil {
			l.acknowledge(t.in)
			continue
		}
		if o := t.out; l.due(now, o) {
			f(Event[P]{Kind: GaveUp, Peer: o.peer.addr, Sent: o})
		}
	}
	l.expire(now)
}

// Size returns how many peers, accepted messages and sent messages are
// remembered.
func (l *Layer[P]) Size() (peers, received, sent int) {
	return len(l.peers), len(l.received), l.under
}
