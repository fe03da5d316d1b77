package handshake

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/oscorelay/oscorelay/internal/endpoint"
	"github.com/oscorelay/oscorelay/keys"
	"github.com/oscorelay/oscorelay/keys/edhoc"
)

// MaxMessage is the longest EDHOC message taken, in bytes, with what CoAP puts
// in front of it.
const MaxMessage = 8192

// Ring is where identifiers are held and contexts go: *keys.Keyring.
type Ring interface {
	ReserveFreeID(avoid ...[]byte) ([]byte, error)
	ReleaseID(id []byte)
	Get(name string) (*keys.Peer, bool)
	ReplaceSession(ctx context.Context, e keys.Entry) (*keys.Peer, *keys.Replaced, error)
	Forget(ctx context.Context, name string) error
}

// Config is what a [Service] is made of. Zero values are the defaults.
type Config struct {
	// Ring takes the contexts; the endpoint that serves must have the same.
	Ring Ring
	// EDHOC has the identities, methods and suites. Forgeries 0 means 8 here.
	EDHOC edhoc.Config
	// Store says whom to trust and how they are called.
	Store *edhoc.Store
	// Trust, if set, decides for the server's side in place of Store.Anyone.
	Trust edhoc.Trust
	// Name, if set, names peers in place of Store.Name. In the keyring every
	// name gets "edhoc:" in front, so that no handshake can take the place of
	// a peer that was configured.
	Name func(*edhoc.Credential) string

	// Path is the EDHOC resource; "" means /.well-known/edhoc.
	Path string
	// Reverse has the server answer an empty POST with message_1.
	Reverse bool
	// Message4 requires message_4 of the Responder. The request that is combined
	// with message_3 is refused then (RFC 9668 §3.3.1).
	Message4 bool
	// OfferMessage4 has the server send message_4 to clients that send message_3
	// alone, and take the combined request from others, in which there is none
	// (RFC 9668 §5). Message4 goes before it.
	OfferMessage4 bool

	// Roaming lets a handshake that one host began be continued by another, for
	// clients behind proxies that send from several addresses. Without it such
	// messages find no session; with it whoever guesses a connection identifier
	// can end a handshake of somebody else's. Hosts are told apart as for Rate.
	Roaming bool
	// MaxSessions bounds the half-open sessions; 0 means 1024.
	MaxSessions int
	// SessionLifetime ends a session that goes no further; 0 means 30 s.
	SessionLifetime time.Duration
	// Workers run the public-key operations; 0 means half of GOMAXPROCS, at
	// least 1.
	Workers int
	// Queue bounds the messages that wait for a worker; 0 means 64.
	Queue int
	// Rate bounds the handshakes begun by one source in a second, with a burst
	// of as many; 0 means 10. A source is an address without its port, and of
	// IPv6 the first 64 bits.
	Rate int
	// RateTotal bounds the handshakes begun in a second; 0 means 200. Above
	// half of it a source must prove its address by Echo. A message_2 above
	// three times the length of message_1 counts for more there, in proportion.
	RateTotal int

	// MaxContexts bounds the contexts in the ring that come from handshakes;
	// the one made longest ago makes room. 0 means 65536.
	MaxContexts int
	// ContextLifetime ends a context so long after its handshake; 0: never.
	ContextLifetime time.Duration
	// MaxUnfragmented is MAX_UNFRAGMENTED_SIZE (RFC 8613 §4.1.3.4.2), in bytes:
	// above it message_3 does not go out with a request, but before it (RFC 9668
	// §3.2.2). 0 means 4096.
	MaxUnfragmented int
	// Established, if set, is told each context that the server's side has
	// entered, to make it durable. An error takes it out again and ends the
	// handshake. Calls for different peers come at once, as many as Workers.
	Established func(keys.Entry) error
	// Removed, if set, is told each context taken out for MaxContexts,
	// ContextLifetime or by Remove, for it to be gone durably on return: its
	// numbers are forgotten afterwards.
	Removed func(peer string)
	// Event, if set, is told what became of each handshake. It must not block.
	Event func(Event)
}

// Event is something an operator may want to know, without secrets.
type Event struct {
	Reason string // established, rejected, busy, rate_limited, echo_challenge, evicted, expired, no_session, storage
	Peer   string // "" if unknown
	Source string
	Err    error
}

// Service runs handshakes in both roles of CoAP and EDHOC. It is safe for
// concurrent use.
type Service struct {
	cfg       Config
	initiator *edhoc.Initiator
	responder *edhoc.Responder
	trust     edhoc.Trust
	path      []string

	pool     pool
	limits   limits
	incoming *endpoint.Reassembler
	answers  answers

	mu       sync.Mutex
	sessions map[string]*session
	byAge    list.List // of *session, the oldest in front

	names    nameLocks  // order what becomes of one name's contexts
	ctxMu    sync.Mutex // guards what follows; nothing slow is done under it
	contexts map[string]*list.Element
	ctxAge   list.List // of contextAge
	watchers []func(peer string)
}

// ErrConfig: the configuration does not fit together.
var ErrConfig = errors.New("handshake: configuration")

// New checks the configuration. With Methods that the identities can serve in one
// role alone the other is left out, and fails where it is asked for.
func New(cfg Config) (*Service, error) {
	switch {
	case cfg.Ring == nil:
		return nil, fmt.Errorf("%w: Ring is missing", ErrConfig)
	case cfg.Store == nil && (cfg.Trust == nil || cfg.Name == nil):
		return nil, fmt.Errorf("%w: Store is missing, or Trust and Name in its place", ErrConfig)
	}
	setDefault(&cfg.EDHOC.Forgeries, 8)
	setDefault(&cfg.MaxSessions, 1024)
	setDefault(&cfg.SessionLifetime, 30*time.Second)
	setDefault(&cfg.Workers, max(1, runtime.GOMAXPROCS(0)/2))
	setDefault(&cfg.Queue, 64)
	setDefault(&cfg.Rate, 10)
	setDefault(&cfg.RateTotal, 200)
	setDefault(&cfg.MaxContexts, 1<<16)
	setDefault(&cfg.MaxUnfragmented, 4096)
	if cfg.Path == "" {
		cfg.Path = "/.well-known/edhoc"
	}
	if cfg.Name == nil {
		cfg.Name = cfg.Store.Name
	}
	s := &Service{
		cfg: cfg, trust: cfg.Trust, path: segments(cfg.Path),
		incoming: endpoint.NewReassembler(MaxMessage, 512<<10, cfg.SessionLifetime),
		sessions: map[string]*session{}, contexts: map[string]*list.Element{},
	}
	if s.trust == nil {
		s.trust = cfg.Store.Anyone()
	}
	s.pool.workers, s.pool.queue = cfg.Workers, cfg.Queue
	s.limits.init(cfg.Rate, cfg.RateTotal, longestAnswer(cfg.EDHOC.Identities))
	var noInitiator, noResponder error
	s.initiator, noInitiator = edhoc.NewInitiator(forRole(cfg.EDHOC, edhoc.RoleInitiator))
	s.responder, noResponder = edhoc.NewResponder(forRole(cfg.EDHOC, edhoc.RoleResponder))
	if noInitiator != nil && (noResponder != nil || cfg.Reverse) {
		return nil, noInitiator
	}
	return s, nil
}

// forRole leaves of the methods those that some identity can serve in the role:
// with a key of one kind, methods 1 and 2 are each for one role alone.
func forRole(cfg edhoc.Config, r edhoc.Role) edhoc.Config {
	cfg.Methods = slices.DeleteFunc(slices.Clone(cfg.Methods), func(m edhoc.Method) bool {
		return !slices.ContainsFunc(cfg.Identities, func(i edhoc.Identity) bool { return (i.Exchanger != nil) == m.Static(r) })
	})
	return cfg
}

func setDefault[T int | time.Duration](v *T, d T) {
	if *v <= 0 {
		*v = d
	}
}

// Path returns the path of the EDHOC resource.
func (s *Service) Path() string { return s.cfg.Path }

// Watch has f called with the name of each peer whose context was entered,
// replaced or taken out. It is for endpoints, which remember more of a peer.
func (s *Service) Watch(f func(peer string)) {
	s.ctxMu.Lock()
	defer s.ctxMu.Unlock()
	s.watchers = append(s.watchers, f)
}

func (s *Service) event(reason, peer, source string, err error) {
	if s.cfg.Event != nil {
		s.cfg.Event(Event{reason, peer, source, err})
	}
}

// Link describes the resource for /.well-known/core (RFC 9668 §6).
func (s *Service) Link() string {
	var b strings.Builder
	fmt.Fprintf(&b, "<%s>;rt=core.edhoc", s.cfg.Path)
	if s.responder != nil {
		for _, c := range s.responder.Suites() {
			fmt.Fprintf(&b, ";ed-csuite=%d", c)
		}
		for _, m := range s.responder.Methods() {
			fmt.Fprintf(&b, ";ed-method=%d", m)
		}
	}
	b.WriteString(";ed-cred-t=0;ed-cred-t=1;ed-cred-t=2")                                       // CWT, CCS, X.509
	b.WriteString(";ed-idcred-t=4;ed-idcred-t=13;ed-idcred-t=14;ed-idcred-t=33;ed-idcred-t=34") // kid, kcwt, kccs, x5chain, x5t
	if s.cfg.Reverse {
		b.WriteString(";ed-i")
	}
	if s.responder != nil {
		b.WriteString(";ed-r")
	}
	if !s.cfg.Message4 {
		b.WriteString(";ed-comb-req")
	}
	return b.String()
}
