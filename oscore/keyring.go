package oscore

// Keyring finds security contexts for an endpoint. Package keys has one with
// durable state; a program with a key store of its own implements it. All
// methods are safe for concurrent use.
//
// It stands here, not beside its consumers, because two packages consume it
// (the go-coap binding in public, the endpoint behind it) and a public
// signature names public types only.
type Keyring interface {
	// Find appends to dst the peers that a request's kid and kid context may
	// mean, [MaxCandidates] at most, and says how they were found (§8.2 step
	// 2). A nil kidContext means that the request has none; an empty one is
	// present.
	Find(dst []Peer, kid, kidContext []byte) ([]Peer, Match)
	// Peer returns the peer of that name.
	Peer(name string) (Peer, bool)
}

// MaxCandidates bounds how many contexts a request without kid context is
// tried against.
const MaxCandidates = 4

// Match is the outcome of a look-up.
type Match int

// The five outcomes.
const (
	// MatchNone: nobody has that kid.
	MatchNone Match = iota
	// MatchExact: kid and kid context name one context.
	MatchExact
	// MatchKID: there is no kid context; the peers found share the kid and are
	// to be tried in turn.
	MatchKID
	// MatchRederive: the kid is known and the kid context is a CBOR byte
	// string that is nobody's ID Context: a message of Appendix B.2 for the
	// peers found.
	MatchRederive
	// MatchSession: the kid is the connection identifier of an EDHOC session
	// that has no context yet (RFC 9668 §3.3); no peer is returned.
	MatchSession
)

// String returns the outcome as a log attribute.
func (m Match) String() string {
	switch m {
	case MatchExact:
		return "exact"
	case MatchKID:
		return "kid"
	case MatchRederive:
		return "rederive"
	case MatchSession:
		return "session"
	}
	return "none"
}

// Peer is one security relationship and its current context. Its methods take
// exclusive access to the context for the time they need it and keep its
// sequence numbers durable: a sealing method may block on storage when a lease
// runs out, and fails, rather than use a number that was not reserved. All
// methods are safe for concurrent use.
type Peer interface {
	// Name identifies the peer to access lists, logs and metrics. It is no
	// secret and does not change when the context is derived anew.
	Name() string
	// Settings returns what was configured for the peer.
	Settings() Settings

	// SealRequest is [Context.SealRequest].
	SealRequest(dst []byte, p *Pending, m Message) (Message, error)
	// SealRequestAs is [Context.SealRequestAs].
	SealRequestAs(dst []byte, p *Pending, inner, outer Message) (Message, error)
	// Resume is [Context.Resume].
	Resume(p *Pending, sealed Message) error
	// OpenRequest is [Context.OpenRequest].
	OpenRequest(dst []byte, r *Request, m Message) (Message, error)
	// SealResponse is [Context.SealResponse].
	SealResponse(dst []byte, r *Request, m Message) (Message, error)
	// SealChallenge is [Context.SealChallenge].
	SealChallenge(dst []byte, r *Request, echo []byte) (Message, error)
	// AcceptEcho is [Context.AcceptEcho].
	AcceptEcho(r *Request) error
	// Usage is [Context.Usage].
	Usage() Usage
	// IDContext is [Context.IDContext].
	IDContext() []byte
	// Tainted reports whether the context's history is unknown, so that it may
	// not seal: only a context derived anew can (Appendix B.2, EDHOC).
	Tainted() bool

	// Derive returns a context of the peer's parameters with another ID
	// Context, which requests carry as kidContext. The peer's own context
	// stays. The ID Context must hold fresh randomness (Appendix B.2).
	Derive(idContext, kidContext []byte) (*Context, error)
	// Adopt makes a context that Derive returned the peer's own, durably: the
	// last step of Appendix B.2 at both ends. The earlier context is deleted, a
	// taint ends, and requests carry no kid context from then on.
	Adopt(c *Context) error
}

// Settings are a peer's switches. The zero value is the default.
type Settings struct {
	// Rederive says in which roles of Appendix B.2 this peer is spoken to.
	Rederive Role
	// RederiveOnStart makes the endpoint derive a new context before its first
	// request, as LwM2M's transport specification asks for a first use.
	RederiveOnStart bool
	// NoEcho tells that the peer does not know Echo (RFC 9175), so that
	// freshness cannot be asked of it.
	NoEcho bool
	// MaxUnfragmented is the largest message sent to the peer without inner
	// block-wise, in bytes of body; zero means 1024 (§4.1.3.4.2).
	MaxUnfragmented int
}

// Role is a set of roles in Appendix B.2.
type Role int

// Roles in Appendix B.2; they may be combined.
const (
	RoleNone   Role = 0
	RoleClient Role = 1 // sends request #1
	RoleServer Role = 2 // answers it
)
