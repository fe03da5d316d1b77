package oscoretest

import (
	"encoding/binary"
	"errors"
	"slices"

	"github.com/oscorelay/oscorelay/internal/coap"
	"github.com/oscorelay/oscorelay/internal/endpoint"
	"github.com/oscorelay/oscorelay/keys"
	"github.com/oscorelay/oscorelay/oscore"
)

// Event is a refusal, a challenge or a change of context at an end.
type Event struct {
	Reason string // replay, decrypt, no_context, decode, echo_challenge, unprotected, …
	Err    error
}

// Side is one end of a pair, in both roles.
type Side struct {
	pair      *Pair
	out       Direction
	peer      string
	params    oscore.Params
	handler   Handler
	store     *keys.Memory
	ep        *endpoint.Endpoint
	tokens    uint32
	exchanges map[string]*Exchange // by token
	observers []observer
	handled   []Message
	events    []Event
}

// observer is an observation by the other end.
type observer struct {
	path string
	o    *endpoint.Observation
}

func newSide(p *Pair, out Direction, peer string, params oscore.Params, h Handler) *Side {
	p.t.Helper()
	if h == nil {
		h = func(Message) Message { return Respond(NotFound, nil) }
	}
	s := &Side{pair: p, out: out, peer: peer, params: params, handler: h, store: keys.NewMemory()}
	s.start(newRing(p.t, s.store, s.entry(), (*keys.Keyring).AddNew))
	return s
}

func (s *Side) entry() keys.Entry {
	return keys.Entry{Name: s.peer, Params: s.params, Settings: s.pair.cfg.Settings}
}

// start begins a life of the side.
func (s *Side) start(ring *keys.Keyring) {
	cfg := s.pair.cfg
	c := endpoint.Config{
		Keyring: ring, EchoLifetime: cfg.EchoLifetime, BlockSize: cfg.BlockSize, MaxBody: cfg.MaxBody, Rand: s.pair.rand,
		ErrorRate: 1 << 20, ErrorRateTotal: 1 << 20, // the clock stands still
		Event: func(e endpoint.Event) { s.events = append(s.events, Event{string(e.Reason), e.Err}) },
	}
	if cfg.Allow != nil {
		c.Allow = func(_ string, method coap.Code, path string) bool { return cfg.Allow(Code(method), path) }
	}
	if cfg.Freshness != nil {
		c.Freshness = func(_ string, method coap.Code, path string) endpoint.Freshness {
			return endpoint.Freshness(cfg.Freshness(Code(method), path))
		}
	}
	s.ep = endpoint.New(c, s.pair.now)
	for _, x := range s.exchanges {
		x.fail(ErrRestarted)
	}
	s.exchanges, s.observers = map[string]*Exchange{}, nil
}

// Restart is a crash and a new start: the replay window, Echo values, requests
// and observations are lost, the sequence numbers are not (RFC 8613 Appendix
// B.1). What was handled stays counted.
func (s *Side) Restart() {
	s.pair.t.Helper()
	s.store.Restart()
	s.start(newRing(s.pair.t, s.store, s.entry(), (*keys.Keyring).Add))
}

// Lose is a new start that has lost the sequence numbers too: the context is
// tainted, and seals nothing until a new one is derived (Appendix B.2, where
// Config.Settings allow it).
func (s *Side) Lose() {
	s.pair.t.Helper()
	s.store = keys.NewMemory()
	s.start(newRing(s.pair.t, s.store, s.entry(), (*keys.Keyring).Add))
}

// Handled returns the requests that reached this side's handler.
func (s *Side) Handled() []Message { return slices.Clone(s.handled) }

// Events returns this side's refusals, challenges and changes of context.
func (s *Side) Events() []Event { return slices.Clone(s.events) }

// Reasons returns the reasons of Events.
func (s *Side) Reasons() (out []string) {
	for _, e := range s.events {
		out = append(out, e.Reason)
	}
	return out
}

// Do sends a request, lets the relay deliver all that comes of it, and returns
// the answer: see [Exchange.Answer].
func (s *Side) Do(m Message) (Message, error) {
	s.pair.t.Helper()
	return s.Send(m).Answer()
}

// Send sends a request and lets the relay deliver all that comes of it.
func (s *Side) Send(m Message) *Exchange {
	s.pair.t.Helper()
	return s.begin(m, endpoint.RequestOptions{})
}

// Observe registers an observation of the request's path.
func (s *Side) Observe(m Message) *Exchange {
	s.pair.t.Helper()
	m.Options = append(slices.Clone(m.Options), Option{coap.Observe, nil})
	return s.Send(m)
}

// Rederive derives a new context with the other end (RFC 8613 Appendix B.2)
// and then sends the request; Config.Settings must allow both roles.
func (s *Side) Rederive(m Message) *Exchange {
	s.pair.t.Helper()
	return s.begin(m, endpoint.RequestOptions{Rederive: true})
}

func (s *Side) begin(m Message, o endpoint.RequestOptions) *Exchange {
	s.pair.t.Helper()
	x := &Exchange{side: s}
	in, err := m.encode()
	if err != nil {
		x.fail(err)
		return x
	}
	var out oscore.Message
	if x.x, out, err = s.ep.Begin(s.pair.now, s.peer, in, o); err != nil {
		x.fail(err)
		return x
	}
	x.send(s.token(), out)
	s.pair.Relay.run()
	return x
}

// token returns one that this side did not use before.
func (s *Side) token() []byte {
	s.tokens++
	return binary.BigEndian.AppendUint32([]byte{byte(s.out)}, s.tokens)
}

// Notify sends a notification to each observation of the path and returns to
// how many. A code of class 4 or 5 ends them.
func (s *Side) Notify(path string, m Message) int {
	s.pair.t.Helper()
	out, err := m.encode()
	if err != nil {
		s.pair.t.Fatalf("oscoretest: %v", err)
	}
	n := 0
	for _, o := range s.observers {
		if o.path != path || o.o.Ended() {
			continue
		}
		sealed, err := o.o.Notify(s.pair.now, out)
		if err != nil {
			s.events = append(s.events, Event{"notification", err})
			continue
		}
		n++
		s.send(o.o.Token(), sealed)
	}
	s.pair.Relay.run()
	return n
}

func (s *Side) send(token []byte, m oscore.Message) {
	s.pair.Relay.send(Packet{Direction: s.out, Token: slices.Clone(token), Message: m})
}

// receive takes a message from the relay.
func (s *Side) receive(p Packet) {
	switch {
	case p.IsResponse():
		if x := s.exchanges[string(p.Token)]; x != nil {
			x.receive(p.Message)
		}
	case p.IsRequest():
		s.serve(p)
	}
}

func (s *Side) serve(p Packet) {
	res := s.ep.Receive(s.pair.now, endpoint.Inbound{Source: "relay", Token: p.Token, Message: p.Message})
	switch res.Verdict {
	case endpoint.NotProtected:
		s.events = append(s.events, Event{"unprotected", oscore.ErrUnprotected})
		s.send(p.Token, oscore.Message{Code: byte(Unauthorized)})
	case endpoint.Reply:
		s.send(p.Token, res.Message)
	case endpoint.Deliver:
		s.deliver(p.Token, res.Incoming)
	}
}

// deliver runs the handler. A successful answer to a registration accepts it.
func (s *Side) deliver(token []byte, in *endpoint.Incoming) {
	request := decode(in.Message)
	request.Payload = slices.Clone(request.Payload)
	s.handled = append(s.handled, request)
	answer := s.handler(request)
	if _, has := answer.Option(coap.Observe); in.Observes() && !has {
		answer.Options = append(slices.Clone(answer.Options), Option{coap.Observe, nil})
	}
	m, err := answer.encode()
	if err != nil {
		s.pair.t.Fatalf("oscoretest: the handler's answer: %v", err)
	}
	out, send, err := in.Respond(s.pair.now, m)
	if err != nil {
		s.events = append(s.events, Event{"response", err})
		return
	}
	if o := in.Observation(); o != nil {
		s.observers = append(s.observers, observer{request.Path, o})
	}
	if send {
		s.send(token, out)
	}
}

// Errors.
var (
	// ErrNoAnswer: no answer that verifies came.
	ErrNoAnswer = errors.New("oscoretest: no answer that verifies")
	// ErrRestarted: the side that asked was started anew.
	ErrRestarted = errors.New("oscoretest: the side was started anew")
	// ErrTainted: the context's history is unknown, so nothing was sent.
	ErrTainted = endpoint.ErrTainted
	// ErrTransfer: the peer broke the rules of block-wise transfer.
	ErrTransfer = endpoint.ErrTransfer
	// ErrTooLarge: the body is larger than Config.MaxBody.
	ErrTooLarge = endpoint.ErrTooLarge
)

// PlainError is an answer that nothing protects.
type PlainError struct{ Code Code }

func (e *PlainError) Error() string { return "oscoretest: unprotected answer " + e.Code.String() }
