package sim

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"

	"github.com/oscorelay/oscorelay/internal/sim/lwm2m"
	"github.com/plgd-dev/go-coap/v3/message/codes"
)

// ipatch is iPATCH (RFC 8132), which go-coap has no name for.
const ipatch codes.Code = 7

func (s *Server) within(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, s.cfg.Timeout)
}

// Do sends any request to a device. An answer of any code is a Response, not
// an error.
func (s *Server) Do(ctx context.Context, endpoint string, r Request) (Response, error) {
	to, peer, err := s.target(endpoint)
	if err != nil {
		return Response{}, err
	}
	ctx, cancel := s.within(ctx)
	defer cancel()
	return s.node.do(ctx, to, peer, r)
}

// DoAwake is Do for devices in Queue Mode: it waits until the device registers
// or updates next, and sends the request then.
func (s *Server) DoAwake(ctx context.Context, endpoint string, r Request) (Response, error) {
	mark := s.log.Mark()
	ctx, cancel := s.within(ctx)
	defer cancel()
	if _, err := s.log.Wait(ctx, mark, func(e Event) bool {
		return e.Endpoint == endpoint && (e.Event == "registered" || e.Event == "updated")
	}); err != nil {
		return Response{}, err
	}
	return s.Do(ctx, endpoint, r)
}

// ReadRequest is Read (LwM2M Core §6.3.1); format may be NoFormat.
func ReadRequest(path string, format int) Request {
	return Request{Method: codes.GET, Path: path, Accept: format, Format: NoFormat}
}

// WriteRequest is Write: partial (POST) or replacing (PUT).
func WriteRequest(path string, mode lwm2m.Mode, format int, payload []byte) Request {
	r := Request{Method: codes.PUT, Path: path, Accept: NoFormat, Format: format, Payload: payload}
	if mode == lwm2m.Update {
		r.Method = codes.POST
	}
	return r
}

// ExecuteRequest is Execute.
func ExecuteRequest(path, arguments string) Request {
	r := Request{Method: codes.POST, Path: path, Accept: NoFormat, Format: NoFormat}
	if arguments != "" {
		r.Format, r.Payload = lwm2m.Text, []byte(arguments)
	}
	return r
}

// DiscoverRequest is Discover.
func DiscoverRequest(path string) Request { return ReadRequest(path, lwm2m.LinkFormat) }

// AttributesRequest is Write-Attributes: pmin=10, gt=25, …
func AttributesRequest(path string, queries ...string) Request {
	return Request{Method: codes.PUT, Path: path, Query: queries, Accept: NoFormat, Format: NoFormat}
}

// CreateRequest and DeleteRequest are Create and Delete.
func CreateRequest(path string, format int, payload []byte) Request {
	return Request{Method: codes.POST, Path: path, Accept: NoFormat, Format: format, Payload: payload}
}

// DeleteRequest is Delete.
func DeleteRequest(path string) Request {
	return Request{Method: codes.DELETE, Path: path, Accept: NoFormat, Format: NoFormat}
}

// ReadCompositeRequest is Read-Composite, in SenML JSON or CBOR.
func ReadCompositeRequest(format int, paths ...string) (Request, error) {
	parsed := make([]lwm2m.Path, len(paths))
	for i, p := range paths {
		var err error
		if parsed[i], err = lwm2m.ParsePath(p); err != nil {
			return Request{}, err
		}
	}
	payload, err := lwm2m.EncodePaths(format, parsed)
	return Request{Method: codes.FETCH, Path: "/", Accept: format, Format: format, Payload: payload}, err
}

// WriteCompositeRequest is Write-Composite.
func WriteCompositeRequest(format int, records ...lwm2m.Record) (Request, error) {
	payload, err := lwm2m.Encode(format, lwm2m.Path{}, records)
	return Request{Method: ipatch, Path: "/", Accept: NoFormat, Format: format, Payload: payload}, err
}

// Read reads a path; an answer that is no success is a *CodeError.
func (s *Server) Read(ctx context.Context, endpoint, path string, format int) (Response, error) {
	return s.succeed(ctx, endpoint, ReadRequest(path, format))
}

// Write writes a path.
func (s *Server) Write(ctx context.Context, endpoint, path string, mode lwm2m.Mode, format int, payload []byte) error {
	_, err := s.succeed(ctx, endpoint, WriteRequest(path, mode, format, payload))
	return err
}

// Execute executes a resource.
func (s *Server) Execute(ctx context.Context, endpoint, path, arguments string) error {
	_, err := s.succeed(ctx, endpoint, ExecuteRequest(path, arguments))
	return err
}

func (s *Server) succeed(ctx context.Context, endpoint string, r Request) (Response, error) {
	resp, err := s.Do(ctx, endpoint, r)
	if err == nil {
		err = resp.Err()
	}
	return resp, err
}

// Observation is an observation of a device's resources.
type Observation struct {
	ID       int
	Endpoint string
	Path     string
	s        *Server
	watch    *watch
	over     atomic.Bool
}

// Observe registers an observation by a request of ReadRequest or
// ReadCompositeRequest. f, which may be nil, is called with each notification
// after the first response; each is an event "notification", too.
func (s *Server) Observe(ctx context.Context, endpoint string, r Request, f func(Response)) (*Observation, Response, error) {
	s.mu.Lock()
	s.next++
	id := s.next
	s.mu.Unlock()
	return s.observeAs(ctx, id, endpoint, r, f)
}

func (s *Server) observeAs(ctx context.Context, id int, endpoint string, r Request, f func(Response)) (*Observation, Response, error) {
	to, peer, err := s.target(endpoint)
	if err != nil {
		return nil, Response{}, err
	}
	ctx, cancel := s.within(ctx)
	defer cancel()
	o := &Observation{ID: id, Endpoint: endpoint, Path: r.Path, s: s}
	w, resp, err := s.node.observe(ctx, to, peer, r, func(resp Response) {
		if o.over.Load() {
			return // its registration is gone
		}
		e := Event{Event: "notification", ID: id, Endpoint: endpoint, Path: r.Path, Addr: to.String(), Peer: peer, Code: CodeText(resp.Code)}
		e.body(resp.Format, resp.Payload)
		s.log.add(e)
		if f != nil {
			f(resp)
		}
	})
	if err != nil {
		return nil, resp, err
	}
	o.watch = w
	if resp.Observe {
		s.mu.Lock()
		s.observations[id] = o
		s.mu.Unlock()
	}
	return o, resp, nil
}

// Observation returns an observation by its ID.
func (s *Server) Observation(id int) (*Observation, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o, ok := s.observations[id]
	return o, ok
}

// Observations returns the IDs of the observations of a device.
func (s *Server) Observations(endpoint string) (ids []int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, o := range s.observations {
		if o.Endpoint == endpoint {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// Cancel ends the observation by a request with Observe 1.
func (o *Observation) Cancel(ctx context.Context) error {
	ctx, cancel := o.s.within(ctx)
	defer cancel()
	o.s.mu.Lock()
	delete(o.s.observations, o.ID)
	o.s.mu.Unlock()
	return o.watch.cancel(ctx)
}

// ErrPassive means that an observation under OSCORE is not ended by RST here.
var ErrPassive = errors.New("sim: under OSCORE cancel by a request")

// CancelPassively forgets the observation: the next notification is reset, as
// Leshan does.
func (o *Observation) CancelPassively() error {
	if o.watch.forget == nil {
		return ErrPassive
	}
	o.s.mu.Lock()
	delete(o.s.observations, o.ID)
	o.s.mu.Unlock()
	o.watch.forget()
	return nil
}

// forget drops it where the registration goes. Under OSCORE notifications may
// still come: they are acknowledged, and nobody is told.
func (o *Observation) forget() {
	o.over.Store(true)
	if o.watch.forget != nil {
		o.watch.forget()
	}
}
