package endpoint

import (
	"crypto/rand"
	"encoding/binary"
	"io"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/oscorelay/oscorelay/internal/coap"
	"github.com/oscorelay/oscorelay/oscore"
)

// Config is what an endpoint is made of. The zero value of every field but
// Keyring is the default that its comment gives.
type Config struct {
	// Keyring finds the contexts. Without one every protected request is
	// answered 4.01 and none is sent.
	Keyring oscore.Keyring
	// Allow says whether a peer may use a method on a path; a peer that may
	// not gets a protected 4.03. nil allows everything.
	Allow func(peer string, method coap.Code, path string) bool
	// Serve says whether a peer is served at all, like Allow, and is asked
	// first. nil means every peer is.
	Serve func(peer string) bool
	// Freshness says how fresh a request must be proven to be (RFC 9175 §2.3).
	// nil means Fresh for everything.
	Freshness func(peer string, method coap.Code, path string) Freshness
	// Fresh is the policy without Freshness. The zero value is FreshWindow.
	Fresh Freshness
	// EchoLifetime is how long an Echo value proves freshness; 0 means 30 s.
	EchoLifetime time.Duration
	// Transparent makes the endpoint leave block-wise transfer to those at both
	// ends: every block is a request of its own, in both roles, and bodies are
	// neither put together nor cut. It is for a gateway, which then holds no
	// body, and loses none when it is restarted.
	Transparent bool
	// Moved, if set, tells that a request came from another address than the
	// peer's earlier ones: it must then be proven fresh (RFC 9175 §2.3), as with
	// FreshAlways, since a message held back can be delivered from anywhere. It
	// may set Incoming.User.
	Moved func(r *Incoming) bool
	// BlockSize is the largest block sent, in bytes: 16 to 1024; 0 means 1024.
	BlockSize int
	// MaxBody bounds a reassembled body, in bytes; 0 means 1 MiB.
	MaxBody int
	// MaxTransfers bounds the block-wise transfers under way, per peer; 0
	// means 16. Their bytes are bounded by MaxBody times 4 for each peer.
	MaxTransfers int
	// MaxObservations bounds the observations of one peer; 0 means 256.
	MaxObservations int
	// TransferLifetime is how long an idle block-wise transfer is kept; 0
	// means 247 s, RFC 7252's EXCHANGE_LIFETIME.
	TransferLifetime time.Duration
	// ResponsePIV makes every response carry a Partial IV of its own: for
	// endpoints that cannot rule out that another instance answers too.
	ResponsePIV bool
	// Silent suppresses the plain error answers of RFC 8613 §8.2.
	Silent bool
	// ErrorRate bounds the plain error answers to one source, in answers a
	// second with a burst of as many; 0 means 10.
	ErrorRate int
	// ErrorRateTotal bounds all plain error answers together likewise; 0 means 1000.
	ErrorRateTotal int
	// RederiveAfter is after how many requests without a protected answer a
	// context is derived anew, for peers with RoleClient; 0 means 3.
	RederiveAfter int
	// Event, if set, is told every refusal and challenge by its reason. It
	// must not block.
	Event func(Event)
	// Rand gives the randomness of Echo values and of Appendix B.2; nil means
	// crypto/rand.
	Rand io.Reader
}

// Event is a refusal, a challenge or a change of context, for logs and
// counters. It never holds key material or payload.
type Event struct {
	Reason Reason
	Peer   string // "" if unknown
	Source string // as the transport named it
	KID    []byte // as received; aliases the message
	KIDCtx []byte
	PIV    uint64
	Err    error
}

// Endpoint is one OSCORE endpoint in both roles. It is safe for concurrent
// use. Time is the caller's: every method that needs it takes now, which must
// not go backwards (a time.Time of time.Now does not).
//
// No lock is held while a [oscore.Peer] is asked for anything, so that a peer
// that waits for its storage holds up nobody else.
type Endpoint struct {
	cfg   Config
	start time.Time
	echo  echoKey
	plain plainLimiter

	tagBase [4]byte // what Request-Tags of this process begin with
	nextTag atomic.Uint32

	mu    sync.RWMutex // guards the table, not what is in it; never taken under peerState.mu
	peers map[string]*peerState
}

// New returns an endpoint that starts now.
func New(cfg Config, now time.Time) *Endpoint {
	setDefault(&cfg.EchoLifetime, 30*time.Second)
	setDefault(&cfg.TransferLifetime, 247*time.Second)
	setDefault(&cfg.BlockSize, 1024)
	setDefault(&cfg.MaxBody, 1<<20)
	setDefault(&cfg.MaxTransfers, 16)
	setDefault(&cfg.MaxObservations, 256)
	setDefault(&cfg.ErrorRate, 10)
	setDefault(&cfg.ErrorRateTotal, 1000)
	setDefault(&cfg.RederiveAfter, 3)
	if cfg.Rand == nil {
		cfg.Rand = rand.Reader
	}
	e := &Endpoint{cfg: cfg, start: now, peers: map[string]*peerState{}}
	e.echo.init(cfg.Rand, now)
	if err := e.random(e.tagBase[:]); err != nil {
		// A Request-Tag need not be secret, only new.
		binary.BigEndian.PutUint32(e.tagBase[:], uint32(now.UnixNano()>>16))
	}
	return e
}

func setDefault[T int | time.Duration](v *T, d T) {
	if *v <= 0 {
		*v = d
	}
}

// Forget drops all that is remembered of a peer: observations, transfers, Echo
// values. Call it when the peer's context is removed.
func (e *Endpoint) Forget(name string) {
	e.mu.Lock()
	s := e.peers[name]
	delete(e.peers, name)
	e.mu.Unlock()
	if s != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.dropContext()
	}
}

// Expire drops transfers that have been idle for longer than their lifetime.
// Call it now and then, every few seconds; nothing else depends on it.
func (e *Endpoint) Expire(now time.Time) {
	e.mu.RLock()
	defer e.mu.RUnlock()
	for _, s := range e.peers {
		s.mu.Lock()
		s.transfers.expire(now, e.cfg.TransferLifetime)
		s.mu.Unlock()
	}
}

func (e *Endpoint) event(ev Event) {
	if e.cfg.Event != nil {
		e.cfg.Event(ev)
	}
}

// sourceText names where a message came from.
func sourceText(source string, addr netip.AddrPort) string {
	if source == "" && addr.IsValid() {
		return addr.String()
	}
	return source
}

// random fills b; an error of the source of randomness is fatal to the
// operation that asked.
func (e *Endpoint) random(b []byte) error {
	_, err := io.ReadFull(e.cfg.Rand, b)
	return err
}
