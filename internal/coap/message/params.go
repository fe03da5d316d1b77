package message

import (
	"math/rand/v2"
	"time"
)

// Config holds the transmission parameters (RFC 7252 §4.8) and the limits. The
// zero value is the RFC's defaults.
type Config struct {
	AckTimeout      time.Duration // ACK_TIMEOUT; 2 s
	AckRandomFactor float64       // ACK_RANDOM_FACTOR, at least 1; 1.5
	MaxRetransmit   int           // MAX_RETRANSMIT; 4. Negative means none
	NStart          int           // NSTART: unacknowledged confirmable messages to one peer; 1
	MaxLatency      time.Duration // MAX_LATENCY; 100 s

	// AckDelay is how long an answer may take and still travel in the
	// acknowledgement (§5.2.1); a quarter of AckTimeout.
	AckDelay time.Duration

	// ReuseIDs draws a message ID again before its lifetime is over rather than
	// to return ErrNoMessageID: for an endpoint that cannot answer from another
	// address, where an answer that a peer may take for a duplicate is better
	// than none.
	ReuseIDs bool

	MaxPeers     int // peers remembered; 100000
	MaxReceived  int // accepted messages remembered, all peers together; 262144
	PeerReceived int // and for one peer; 1024
	MaxSent      int // messages under way or waiting, all peers together; 65536
	PeerSent     int // and for one peer; 65536
	MaxBytes     int // bytes kept for repetition and retransmission, 256 of them for each message; 64 MiB

	// Reuse makes another message of one that its owner has ended (Forget,
	// AcceptResponse, Respond, Release), so that none is allocated. The owner must
	// then not touch it again, not even to end it a second time.
	Reuse bool

	// Kept counts the bytes that several layers keep, so that MaxBytes is the
	// limit of them all; nil: this layer has it alone.
	Kept *int

	// Amplification limits what is sent to a peer that has not shown that it
	// receives at its address: so many times what came from there. 0: no limit.
	Amplification int

	// Rand gives 64 random bits, for the jitter and the first message IDs;
	// math/rand/v2's generator, which is seeded by the system.
	Rand func() uint64

	// FirstID gives the first message ID toward a peer; nil means a random one.
	// An endpoint that is restarted with the same address while its peers go on
	// gives one that is far from those it used before: to a peer that it takes
	// for a repetition a new request is a duplicate (§4.5).
	FirstID func(peer any) uint16
}

func (c Config) withDefaults() Config {
	def(&c.AckTimeout, 2*time.Second)
	def(&c.AckRandomFactor, 1.5)
	c.AckRandomFactor = max(c.AckRandomFactor, 1)
	def(&c.MaxRetransmit, 4)
	c.MaxRetransmit = max(c.MaxRetransmit, 0)
	def(&c.NStart, 1)
	def(&c.MaxLatency, 100*time.Second)
	def(&c.AckDelay, c.AckTimeout/4)
	def(&c.MaxPeers, 100_000)
	def(&c.MaxReceived, 1<<18)
	def(&c.PeerReceived, 1024)
	def(&c.MaxSent, 1<<16)
	def(&c.PeerSent, 1<<16)
	def(&c.MaxBytes, 64<<20)
	if c.Rand == nil {
		c.Rand = rand.Uint64
	}
	return c
}

func def[T comparable](v *T, value T) {
	var zero T
	if *v == zero {
		*v = value
	}
}

// MaxTransmitSpan is the time from the first transmission of a confirmable
// message to its last retransmission (RFC 7252 §4.8.2); 45 s by default.
func (c Config) MaxTransmitSpan() time.Duration {
	c = c.withDefaults()
	return time.Duration(float64(c.AckTimeout) * float64(int(1)<<c.MaxRetransmit-1) * c.AckRandomFactor)
}

// MaxTransmitWait is the time from the first transmission of a confirmable
// message to the moment its sender gives up (§4.8.2); 93 s by default.
func (c Config) MaxTransmitWait() time.Duration {
	c = c.withDefaults()
	return time.Duration(float64(c.AckTimeout) * float64(int(1)<<(c.MaxRetransmit+1)-1) * c.AckRandomFactor)
}

// ExchangeLifetime is the time from starting to send a confirmable message to
// the moment when its message ID can be used again (§4.8.2); 247 s by default.
func (c Config) ExchangeLifetime() time.Duration {
	c = c.withDefaults()
	return c.MaxTransmitSpan() + 2*c.MaxLatency + c.AckTimeout // PROCESSING_DELAY is ACK_TIMEOUT
}

// NonLifetime is the same for a non-confirmable message (§4.8.2); 145 s by
// default.
func (c Config) NonLifetime() time.Duration {
	return c.MaxTransmitSpan() + c.withDefaults().MaxLatency
}
