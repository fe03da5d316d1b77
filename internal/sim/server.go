package sim

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/oscorelay/oscorelay/internal/sim/lwm2m"
	"github.com/oscorelay/oscorelay/oscore/gocoap"
	"github.com/plgd-dev/go-coap/v3/message/codes"
)

// ServerConfig is what a server is made of. Zero values are the defaults.
type ServerConfig struct {
	Listen string // default 127.0.0.1:0
	// OSCORE seals everything; nil is plain. Event is called too.
	OSCORE     *gocoap.Config
	Clock      Clock
	Timeout    time.Duration // of a request whose context has no deadline; default 10 s
	AckTimeout time.Duration // CoAP's ACK_TIMEOUT; default 2 s
	BlockSize  int           // default 1024
	Event      func(Event)   // is called with each event; must not block
}

// Registration is what the server knows of a device.
type Registration struct {
	Endpoint string
	ID       string // the last segment of its location
	Addr     *net.UDPAddr
	Peer     string // OSCORE's name, "" in plain
	Lifetime time.Duration
	Version  string
	Binding  string
	Queue    bool
	Links    string
	Updates  int // since it registered
}

// Server is a small LwM2M server: it knows devices by their endpoint name,
// sends requests to the address of their last registration or update, and
// accepts notifications only from the address that the observation went to. It
// is safe for concurrent use.
type Server struct {
	cfg  ServerConfig
	node *node
	log  *Log

	mu           sync.Mutex
	next         int // of registrations and observations
	byEndpoint   map[string]*registration
	observations map[int]*Observation
	change       chan struct{} // closed and replaced at each registration and update
}

type registration struct {
	Registration
	expiry func() bool
}

// NewServer starts a server.
func NewServer(cfg ServerConfig) (*Server, error) {
	if cfg.Listen == "" {
		cfg.Listen = "127.0.0.1:0"
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = 10 * time.Second
	}
	if cfg.Clock == nil {
		cfg.Clock = systemClock{}
	}
	s := &Server{cfg: cfg, log: newLog(cfg.Event), byEndpoint: map[string]*registration{}, observations: map[int]*Observation{}, change: make(chan struct{})}
	n := nodeConfig{
		listen: cfg.Listen, handle: s.handle, ackTimeout: cfg.AckTimeout, blockSize: cfg.BlockSize,
		stray: func(source string) { s.log.add(Event{Event: "reset", Addr: source}) },
	}
	if cfg.OSCORE != nil {
		c := *cfg.OSCORE
		c.Event = func(e gocoap.Event) {
			line := Event{Event: "oscore", Method: e.Reason, Peer: e.Peer, Addr: e.Source}
			if e.Err != nil {
				line.Error = e.Err.Error()
			}
			s.log.add(line)
			if cfg.OSCORE.Event != nil {
				cfg.OSCORE.Event(e)
			}
		}
		if c.BlockSize == 0 {
			c.BlockSize = cfg.BlockSize
		}
		n.sealed = gocoap.New(c)
	}
	var err error
	if s.node, err = newNode(n); err != nil {
		return nil, err
	}
	return s, nil
}

// Addr returns the address that it serves at and sends from.
func (s *Server) Addr() *net.UDPAddr { return s.node.addr() }

// Log returns what happened: all that was received.
func (s *Server) Log() *Log { return s.log }

// Close ends it without a word to the devices.
func (s *Server) Close() {
	s.mu.Lock()
	for _, r := range s.byEndpoint {
		r.expiry()
	}
	s.mu.Unlock()
	s.node.close()
}

// Registration returns what is known of a device.
func (s *Server) Registration(endpoint string) (Registration, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.byEndpoint[endpoint]
	if r == nil {
		return Registration{}, false
	}
	return r.Registration, true
}

// Registrations returns all, in the order of their endpoint names.
func (s *Server) Registrations() []Registration {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]Registration, 0, len(s.byEndpoint))
	for _, r := range s.byEndpoint {
		out = append(out, r.Registration)
	}
	slices.SortFunc(out, func(a, b Registration) int { return strings.Compare(a.Endpoint, b.Endpoint) })
	return out
}

// WaitRegistered waits until a device is registered.
func (s *Server) WaitRegistered(ctx context.Context, endpoint string) (Registration, error) {
	for {
		s.mu.Lock()
		change := s.change
		s.mu.Unlock()
		if r, ok := s.Registration(endpoint); ok {
			return r, nil
		}
		select {
		case <-change:
		case <-ctx.Done():
			return Registration{}, ctx.Err()
		}
	}
}

// handle answers a device's request.
func (s *Server) handle(in *incoming) Response {
	parts := segments(in.Path)
	switch {
	case len(parts) == 1 && parts[0] == "rd" && in.Method == codes.POST:
		return s.register(in)
	case len(parts) == 2 && parts[0] == "rd" && (in.Method == codes.POST || in.Method == codes.PUT):
		return s.update(in, parts[1])
	case len(parts) == 2 && parts[0] == "rd" && in.Method == codes.DELETE:
		return s.deregister(in, parts[1])
	case len(parts) == 1 && parts[0] == "dp" && in.Method == codes.POST:
		return s.sent(in)
	}
	s.log.add(s.received("unexpected", in, ""))
	return Response{Code: codes.NotFound, Format: NoFormat}
}

// received is the event of a request.
func (s *Server) received(event string, in *incoming, endpoint string) Event {
	e := Event{Event: event, Endpoint: endpoint, Peer: in.Peer, Addr: in.Source.String(), Method: in.Method.String(), Path: in.Path, Query: strings.Join(in.Query, "&")}
	e.body(in.Format, in.Payload)
	return e
}

// body fills the payload in.
func (e *Event) body(format int, payload []byte) {
	if format != NoFormat {
		e.Format = &format
	}
	if len(payload) == 0 {
		return
	}
	e.Payload, e.Bytes, e.Sum = payload, len(payload), sum(payload)
	if format == lwm2m.Text || format == lwm2m.LinkFormat || format == lwm2m.SenMLJSON {
		e.Text = string(payload)
	}
}

// parse reads the queries of a registration or an update.
func (r *Registration) parse(queries []string) error {
	for _, q := range queries {
		name, value, _ := strings.Cut(q, "=")
		switch name {
		case "ep":
			r.Endpoint = value
		case "lt":
			n, err := strconv.Atoi(value)
			if err != nil || n <= 0 {
				return fmt.Errorf("%w: lifetime %q", lwm2m.ErrBadRequest, value)
			}
			r.Lifetime = time.Duration(n) * time.Second
		case "lwm2m":
			r.Version = value
		case "b":
			r.Binding = value
			r.Queue = r.Queue || strings.Contains(value, "Q")
		case "Q":
			r.Queue = true
		}
	}
	return nil
}

// register takes a registration; one of the same endpoint makes room, with its
// observations. That of another OSCORE peer does not.
func (s *Server) register(in *incoming) Response {
	r := &registration{Registration: Registration{Addr: in.Source, Peer: in.Peer, Lifetime: 86400 * time.Second, Binding: "U", Links: string(in.Payload)}}
	err := r.parse(in.Query)
	switch {
	case err == nil && r.Endpoint == "":
		err = fmt.Errorf("%w: no endpoint name (ep=)", lwm2m.ErrBadRequest)
	case err == nil && r.Version == "":
		err = fmt.Errorf("%w: no version (lwm2m=)", lwm2m.ErrBadRequest)
	case err == nil && (len(in.Payload) == 0 || in.Format != lwm2m.LinkFormat):
		err = fmt.Errorf("%w: the objects are missing, in link format (40)", lwm2m.ErrBadRequest)
	}
	if err != nil {
		e := s.received("refused", in, r.Endpoint)
		e.Error = err.Error()
		s.log.add(e)
		return failure(err)
	}
	s.mu.Lock()
	if old := s.byEndpoint[r.Endpoint]; old != nil && old.Peer != "" && old.Peer != r.Peer {
		s.mu.Unlock()
		s.log.add(s.received("refused", in, r.Endpoint))
		return Response{Code: codes.Forbidden, Format: NoFormat}
	}
	s.next++
	r.ID = strconv.Itoa(s.next)
	if old := s.byEndpoint[r.Endpoint]; old != nil {
		s.remove(old)
	}
	s.byEndpoint[r.Endpoint] = r
	s.renew(r)
	s.mu.Unlock()
	e := s.received("registered", in, r.Endpoint)
	e.Location = "/rd/" + r.ID
	s.log.add(e)
	s.announce()
	return Response{Code: codes.Created, Format: NoFormat, Location: "/rd/" + r.ID}
}

// announce wakes who waits for a registration or an update.
func (s *Server) announce() {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.change)
	s.change = make(chan struct{})
}

// renew starts the lifetime again. s.mu is held.
func (s *Server) renew(r *registration) {
	if r.expiry != nil {
		r.expiry()
	}
	r.expiry = s.cfg.Clock.AfterFunc(r.Lifetime, func() {
		s.mu.Lock()
		known := s.byEndpoint[r.Endpoint] == r
		if known {
			s.remove(r)
		}
		s.mu.Unlock()
		if known {
			s.log.add(Event{Event: "expired", Endpoint: r.Endpoint, Location: "/rd/" + r.ID})
		}
	})
}

// remove forgets a registration and its observations. s.mu is held.
func (s *Server) remove(r *registration) {
	r.expiry()
	delete(s.byEndpoint, r.Endpoint)
	for id, o := range s.observations {
		if o.Endpoint == r.Endpoint {
			o.forget()
			delete(s.observations, id)
		}
	}
}

func (s *Server) find(id string) *registration {
	for _, r := range s.byEndpoint {
		if r.ID == id {
			return r
		}
	}
	return nil
}

// update takes an update, from whatever address: requests follow it. Of
// another OSCORE peer it is refused.
func (s *Server) update(in *incoming, id string) Response {
	s.mu.Lock()
	r := s.find(id)
	if r == nil || r.Peer != in.Peer {
		s.mu.Unlock()
		s.log.add(s.received("unknown", in, ""))
		return Response{Code: codes.NotFound, Format: NoFormat}
	}
	updated := r.Registration
	if err := updated.parse(slices.DeleteFunc(slices.Clone(in.Query), func(q string) bool { return strings.HasPrefix(q, "ep=") })); err != nil {
		s.mu.Unlock()
		return failure(err)
	}
	if len(in.Payload) > 0 {
		updated.Links = string(in.Payload)
	}
	updated.Addr = in.Source
	updated.Updates++
	r.Registration = updated
	s.renew(r)
	s.mu.Unlock()
	e := s.received("updated", in, updated.Endpoint)
	e.Count = updated.Updates
	s.log.add(e)
	s.announce()
	return Response{Code: codes.Changed, Format: NoFormat}
}

func (s *Server) deregister(in *incoming, id string) Response {
	s.mu.Lock()
	r := s.find(id)
	if r == nil || r.Peer != in.Peer {
		s.mu.Unlock()
		s.log.add(s.received("unknown", in, ""))
		return Response{Code: codes.NotFound, Format: NoFormat}
	}
	s.remove(r)
	s.mu.Unlock()
	s.log.add(s.received("deregistered", in, r.Endpoint))
	return Response{Code: codes.Deleted, Format: NoFormat}
}

// sent takes what a device sends by itself: it is known by its OSCORE peer, or
// by its address.
func (s *Server) sent(in *incoming) Response {
	endpoint := ""
	s.mu.Lock()
	for _, r := range s.byEndpoint {
		if in.Peer != "" && r.Peer == in.Peer || in.Peer == "" && r.Addr.String() == in.Source.String() {
			endpoint = r.Endpoint
		}
	}
	s.mu.Unlock()
	s.log.add(s.received("sent", in, endpoint))
	switch {
	case endpoint == "":
		return Response{Code: codes.NotFound, Format: NoFormat}
	case composite(in.Format) == NoFormat:
		return failure(lwm2m.ErrFormat)
	}
	return Response{Code: codes.Changed, Format: NoFormat}
}

// ErrUnregistered means that no device of that endpoint name is registered.
var ErrUnregistered = errors.New("sim: no such device is registered")

// target returns where requests to a device go.
func (s *Server) target(endpoint string) (*net.UDPAddr, string, error) {
	r, ok := s.Registration(endpoint)
	if !ok {
		return nil, "", fmt.Errorf("%w: %q", ErrUnregistered, endpoint)
	}
	return r.Addr, r.Peer, nil
}
