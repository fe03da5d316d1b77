package gocoap

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/oscorelay/oscorelay/internal/coap"
	"github.com/oscorelay/oscorelay/internal/endpoint"
	"github.com/oscorelay/oscorelay/oscore"
	"github.com/plgd-dev/go-coap/v3/message/codes"
	"github.com/plgd-dev/go-coap/v3/mux"
)

// Freshness is how fresh a request must be proven to be before the handler
// sees it (RFC 9175 §2.3).
type Freshness int

// The policies, from weak to strong. After the loss of a replay window one Echo
// round trip is asked whatever the policy (RFC 8613 Appendix B.1.2).
const (
	FreshWindow Freshness = iota // not received before; a request held back may come late
	FreshFirst                   // the first request of a peer since the start of the process
	FreshUnsafe                  // every request that may change a resource
	FreshAlways                  // every request
)

// Config is what an [Endpoint] is made of. Zero values are the defaults.
type Config struct {
	// Keyring finds the security contexts; package keys has one. Without it
	// nothing is accepted and nothing is sent.
	Keyring oscore.Keyring
	// Allow says whether a peer may use a method on a path; one that may not
	// gets a protected 4.03. nil allows everything to every peer.
	Allow func(peer string, method codes.Code, path string) bool
	// AllowPlain says whether a request without OSCORE is handed to the
	// router. nil refuses all of them with 4.01.
	AllowPlain func(method codes.Code, path string) bool
	// EDHOC answers handshakes on its path, in plain, and those that come with
	// a request; package keys/handshake has it. nil has none.
	EDHOC Handshakes
	// Freshness says how fresh a request must be. nil means FreshWindow.
	Freshness func(peer string, method codes.Code, path string) Freshness
	// EchoLifetime is how long an Echo value proves freshness; 0 means 30 s.
	EchoLifetime time.Duration
	// BlockSize is the largest inner block, 16 to 1024 bytes; 0 means 1024.
	BlockSize int
	// MaxBody bounds a body put together from blocks, in bytes; 0 means 1 MiB.
	MaxBody int
	// MaxHandlers bounds the requests of one connection that are handled at
	// the same time; 0 means 64. A datagram above it is dropped and comes again,
	// a stream is read more slowly.
	MaxHandlers int
	// ResponsePIV makes every response carry a Partial IV of its own, for
	// services of which several instances may answer.
	ResponsePIV bool
	// Silent suppresses the plain error answers of RFC 8613 §8.2.
	Silent bool
	// PlainErrorWait is how long a request still waits for a protected answer
	// after an unprotected one came, which anybody may have sent; 0 means to
	// the deadline of the request's context.
	PlainErrorWait time.Duration
	// Event is told refusals, challenges and changes of context. It must not
	// block. See [Event].
	Event func(Event)
}

// Event is something an operator may want to know, without secrets: a log line
// or a counter's label.
type Event struct {
	Reason     string // replay, decrypt, no_context, decode, echo_challenge, transport, …
	Peer       string // "" if unknown
	Source     string // the remote address, "" for an outgoing request
	KID        []byte
	KIDContext []byte
	PartialIV  uint64
	Err        error
}

// Errors. Nothing is ever sent in plain instead.
var (
	// ErrNoPeer: the keyring has no such peer.
	ErrNoPeer = endpoint.ErrNoPeer
	// ErrTainted: the context's history is unknown, so it may not seal.
	ErrTainted = endpoint.ErrTainted
	// ErrTransfer: the peer broke the rules of block-wise transfer.
	ErrTransfer = endpoint.ErrTransfer
	// ErrTooLarge: the body is larger than Config.MaxBody.
	ErrTooLarge = endpoint.ErrTooLarge
	// ErrReset: the peer reset the request, which nothing protects.
	ErrReset = errors.New("gocoap: request was reset by an unprotected message")
	// ErrNoAck: a confirmable request was not acknowledged after all its
	// retransmissions (RFC 7252 §4.8.2, MAX_TRANSMIT_WAIT: 93 s).
	ErrNoAck = errors.New("gocoap: request was not acknowledged")
	// ErrUnbound: the connection was not made with this endpoint's options, so
	// no answer would be seen.
	ErrUnbound = errors.New("gocoap: connection was not made with this endpoint's options (UDPServer, UDPClient, …), answers are not seen")
	// ErrClosed: the connection was closed.
	ErrClosed = errors.New("gocoap: connection closed")
	// ErrUseDo: a request was passed to WriteMessage.
	ErrUseDo = errors.New("gocoap: send requests by Do or a verb; WriteMessage is for responses and notifications")
)

// PlainError is an answer that nothing protects: the server may have sent it,
// or anybody else on the path. It is an error whatever its code.
type PlainError struct {
	Code       codes.Code
	Diagnostic string
}

func (e *PlainError) Error() string {
	s := fmt.Sprintf("gocoap: unprotected answer %d.%02d %s", e.Code>>5, e.Code&0x1f, coap.Code(e.Code).Name())
	if e.Diagnostic != "" {
		s += fmt.Sprintf(" (%q)", e.Diagnostic)
	}
	return s
}

// Endpoint is OSCORE for go-coap, in both roles: servers and connections made
// with its options exchange protected messages. It is safe for concurrent use.
type Endpoint struct {
	cfg    Config
	ep     *endpoint.Endpoint
	outer  *endpoint.Reassembler
	links  sync.Map // mux.Conn → *link
	expire atomic.Int64
	ticker ticker
}

// New returns an endpoint.
func New(cfg Config) *Endpoint {
	if cfg.MaxHandlers <= 0 {
		cfg.MaxHandlers = 64
	}
	c := endpoint.Config{
		Keyring: cfg.Keyring, EchoLifetime: cfg.EchoLifetime, BlockSize: cfg.BlockSize, MaxBody: cfg.MaxBody,
		ResponsePIV: cfg.ResponsePIV, Silent: cfg.Silent,
	}
	if cfg.Allow != nil {
		c.Allow = func(peer string, method coap.Code, path string) bool {
			return cfg.Allow(peer, codes.Code(method), path)
		}
	}
	if cfg.Freshness != nil {
		c.Freshness = func(peer string, method coap.Code, path string) endpoint.Freshness {
			return endpoint.Freshness(cfg.Freshness(peer, codes.Code(method), path))
		}
	}
	if cfg.Event != nil {
		c.Event = func(e endpoint.Event) {
			cfg.Event(Event{string(e.Reason), e.Peer, e.Source, e.KID, e.KIDCtx, e.PIV, e.Err})
		}
	}
	e := &Endpoint{
		cfg: cfg, ep: endpoint.New(c, time.Now()),
		outer: endpoint.NewReassembler(maxUnfragmented, 4<<20, maxTransmitWait),
	}
	if cfg.EDHOC != nil {
		cfg.EDHOC.Watch(e.Forget)
	}
	return e
}

const (
	// maxUnfragmented is MAX_UNFRAGMENTED_SIZE (RFC 8613 §4.1.3.4.2), in bytes
	// of ciphertext.
	maxUnfragmented = 4096
	// exchangeLifetime is RFC 7252's EXCHANGE_LIFETIME.
	exchangeLifetime = 247 * time.Second
	// expireEvery is how often idle block-wise transfers are looked for.
	expireEvery = 10 * time.Second
)

// Forget drops what is remembered of a peer beside its context: observations,
// transfers, Echo values. Call it after the peer was removed from the keyring.
func (e *Endpoint) Forget(peer string) { e.ep.Forget(peer) }

// tick drops idle state now and then; traffic drives it.
func (e *Endpoint) tick(now time.Time) {
	last := e.expire.Load()
	if now.UnixNano()-last > int64(expireEvery) && e.expire.CompareAndSwap(last, now.UnixNano()) {
		e.ep.Expire(now)
		if e.cfg.EDHOC != nil {
			e.cfg.EDHOC.Expire(now)
		}
		e.links.Range(func(_, l any) bool {
			l.(*link).sweep(now)
			return true
		})
	}
}

// report tells of a failure that no caller is there to be told.
func (e *Endpoint) report(reason, peer string, err error) {
	if e.cfg.Event != nil {
		e.cfg.Event(Event{Reason: reason, Peer: peer, Err: err})
	}
}

type requestKey struct{}

// Peer returns the name of the peer whose protected message the context belongs
// to: in a handler, gocoap.Peer(r.Context()). ok is false for a plain request.
func Peer(ctx context.Context) (name string, ok bool) {
	in, ok := ctx.Value(requestKey{}).(*endpoint.Incoming)
	if !ok {
		return "", false
	}
	return in.Peer.Name(), true
}

// PartialIV returns the sequence number of the protected request that the
// context belongs to; of one in blocks, that of the last. Together with the peer
// it names a request for good, in a log for instance: it is never accepted twice
// under one context. ok is false for a plain request.
func PartialIV(ctx context.Context) (n uint64, ok bool) {
	in, ok := ctx.Value(requestKey{}).(*endpoint.Incoming)
	if !ok {
		return 0, false
	}
	return in.PartialIV(), true
}

// Handler returns a handler for plain requests: those that Config.AllowPlain
// lets pass go to h, the others get 4.01, and stray responses nothing. The
// option bundles install it; it is exported for servers that are configured by
// hand.
func (e *Endpoint) Handler(h mux.Handler) mux.Handler {
	return mux.HandlerFunc(func(w mux.ResponseWriter, r *mux.Message) {
		code := coap.Code(r.Code())
		switch {
		case !code.IsRequest():
			return // a stray response would reach the router (and be answered)
		case r.HasOption(optionOSCORE):
			setPlain(w, codes.BadOption)
		case h == nil || e.cfg.AllowPlain == nil || !e.cfg.AllowPlain(r.Code(), pathOf(r.Options())):
			setPlain(w, codes.Unauthorized)
		default:
			h.ServeCOAP(w, r)
		}
	})
}
