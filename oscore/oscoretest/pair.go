package oscoretest

import (
	"io"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/oscorelay/oscorelay/oscore"
)

// Handler answers a request that verified.
type Handler func(Message) Message

// Freshness is how fresh a request must be proven to be before the handler
// sees it (RFC 9175 §2.3).
type Freshness int

// The policies, from weak to strong; they mean what gocoap's do.
const (
	FreshWindow Freshness = iota // not received before
	FreshFirst                   // the peer's first request since a restart
	FreshUnsafe                  // every request that may change a resource
	FreshAlways                  // every request
)

// Config is what a pair is made of. Zero values are the defaults.
type Config struct {
	// Server and Client answer the requests that reach that end; nil answers
	// 4.04.
	Server, Client Handler
	// Params is the security context as the client has it; without a master
	// secret it is one of this package's making.
	Params oscore.Params
	// ServerParams, if it has a master secret, is what the server has in place
	// of the client's parameters seen from the other end: for keys that do not
	// fit.
	ServerParams oscore.Params
	// Settings are both ends' for each other.
	Settings oscore.Settings
	// Freshness says how fresh a request must be, at both ends; nil means
	// FreshWindow.
	Freshness func(method Code, path string) Freshness
	// Allow says what the peer may do, at both ends; nil allows everything.
	Allow func(method Code, path string) bool
	// EchoLifetime is how long an Echo value proves freshness; 0 means 30 s.
	EchoLifetime time.Duration
	// BlockSize is the largest inner block, 16 to 1024 bytes; 0 means 1024.
	BlockSize int
	// MaxBody bounds a body put together from blocks, in bytes; 0 means 1 MiB.
	MaxBody int
}

// Pair is two endpoints with a relay between them. It is not safe for
// concurrent use.
type Pair struct {
	Client, Server *Side
	Relay          *Relay

	t    testing.TB
	cfg  Config
	now  time.Time
	rand io.Reader
}

// NewPair makes a pair that shares a security context nobody used before.
func NewPair(t testing.TB, cfg Config) *Pair {
	t.Helper()
	if len(cfg.Params.MasterSecret) == 0 {
		cfg.Params = defaultParams()
	}
	if len(cfg.ServerParams.MasterSecret) == 0 {
		cfg.ServerParams = cfg.Params.Swap()
	}
	p := &Pair{t: t, cfg: cfg, now: time.Unix(1_000_000_000, 0), rand: rand.NewChaCha8([32]byte{1})}
	p.Relay = &Relay{pair: p}
	p.Client = newSide(p, ToServer, "server", cfg.Params, cfg.Client)
	p.Server = newSide(p, ToClient, "client", cfg.ServerParams, cfg.Server)
	return p
}

// Now returns the time of the pair's clock, which stands still between calls
// of Advance.
func (p *Pair) Now() time.Time { return p.now }

// Advance sets the clock on and delivers what was delayed until then, each at
// its time.
func (p *Pair) Advance(d time.Duration) {
	p.t.Helper()
	end := p.now.Add(d)
	for {
		next := end
		for _, l := range p.Relay.late {
			if l.at.Before(next) {
				next = l.at
			}
		}
		if next.After(p.now) {
			p.now = next
		}
		p.Relay.due()
		p.Relay.run()
		if !next.Before(end) {
			return
		}
	}
}
