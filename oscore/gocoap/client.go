package gocoap

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/oscorelay/oscorelay/internal/coap"
	"github.com/oscorelay/oscorelay/internal/endpoint"
	"github.com/oscorelay/oscorelay/oscore"
	"github.com/plgd-dev/go-coap/v3/message"
	"github.com/plgd-dev/go-coap/v3/message/codes"
	"github.com/plgd-dev/go-coap/v3/message/pool"
	"github.com/plgd-dev/go-coap/v3/mux"
	"github.com/plgd-dev/go-coap/v3/tcp"
	"github.com/plgd-dev/go-coap/v3/udp"
)

// Client is a connection to one peer whose every verb is protected. It is a
// mux.Conn; closing it closes the connection beneath. It is safe for
// concurrent use.
type Client struct {
	mux.Conn
	link *link
	peer string
	// serving is set on the connection that a handler gets: messages of its
	// token answer that request.
	serving *serving
}

// Client returns the protected side of a connection that was made with this
// endpoint's options, to the peer of that name: its verbs send sealed requests
// and return responses that verified.
func (e *Endpoint) Client(conn mux.Conn, peer string) *Client {
	if c, ok := conn.(*Client); ok {
		conn = c.Conn
	}
	_, datagram := conn.(interface{ GetMessageID() int32 })
	return &Client{Conn: conn, link: e.link(conn, datagram), peer: peer}
}

// DialUDP connects to addr over UDP and returns the protected connection to
// the peer; h handles the requests that the peer sends over it, nil has none.
func (e *Endpoint) DialUDP(addr, peer string, h mux.Handler) (*Client, error) {
	conn, err := udp.Dial(addr, e.UDPClient(h)...)
	if err != nil {
		return nil, err
	}
	return e.Client(conn, peer), nil
}

// DialTCP is [Endpoint.DialUDP] over TCP.
func (e *Endpoint) DialTCP(addr, peer string, h mux.Handler) (*Client, error) {
	conn, err := tcp.Dial(addr, e.TCPClient(h)...)
	if err != nil {
		return nil, err
	}
	return e.Client(conn, peer), nil
}

// PeerName returns the name of the peer at the other end.
func (c *Client) PeerName() string { return c.peer }

// RequestOption varies one request of [Client.DoWith].
type RequestOption func(*endpoint.RequestOptions)

// WithProgress has f called as blocks of the request's or the response's body
// have been transferred; total is 0 while it is unknown. f must not block.
func WithProgress(f func(done, total int)) RequestOption {
	return func(o *endpoint.RequestOptions) { o.Progress = f }
}

// WithRederive derives a new context with the peer first (RFC 8613 Appendix
// B.2); the peer's settings must allow the client's role.
func WithRederive() RequestOption {
	return func(o *endpoint.RequestOptions) { o.Rederive = true }
}

// Do sends a request and returns its response. What the request's context does
// not bound, nothing does: without a deadline a lost answer waits for ever.
//
// Errors: [ErrNoPeer], [ErrTainted], a [*PlainError] when only unprotected
// answers came, those of the context, of storage and of the connection.
func (c *Client) Do(req *pool.Message) (*pool.Message, error) { return c.DoWith(req) }

// DoWith is [Client.Do] with options.
func (c *Client) DoWith(req *pool.Message, opts ...RequestOption) (*pool.Message, error) {
	if req.HasOption(message.Observe) {
		return nil, fmt.Errorf("gocoap: a request with Observe goes through DoObserve: %w", ErrUseDo)
	}
	m, err := toOSCORE(req)
	if err != nil {
		return nil, err
	}
	x, out, err := c.begin(req.Context(), m, opts)
	if err != nil {
		return nil, err
	}
	w := c.newWaiter(x, req.Type())
	defer w.stop()
	step, err := w.await(req.Context(), out)
	if err != nil {
		w.abandon()
		return nil, err
	}
	return c.message(req.Context(), step.Message)
}

// begin starts an exchange, after one that derives a new context.
func (c *Client) begin(ctx context.Context, m oscore.Message, opts []RequestOption) (*endpoint.Exchange, oscore.Message, error) {
	var o endpoint.RequestOptions
	for _, f := range opts {
		f(&o)
	}
	for {
		x, out, err := c.link.e.ep.Begin(time.Now(), c.peer, m, o)
		var busy *endpoint.BusyError
		if !errors.As(err, &busy) {
			return x, out, err
		}
		select {
		case <-busy.Done:
		case <-ctx.Done():
			return nil, oscore.Message{}, ctx.Err()
		}
	}
}

// message returns a response as go-coap has it.
func (c *Client) message(ctx context.Context, m oscore.Message) (*pool.Message, error) {
	resp := c.AcquireMessage(ctx)
	if err := fromOSCORE(resp, m); err != nil {
		c.ReleaseMessage(resp)
		return nil, err
	}
	return resp, nil
}

// Get sends a GET.
func (c *Client) Get(ctx context.Context, path string, opts ...message.Option) (*pool.Message, error) {
	req, err := c.NewGetRequest(ctx, path, opts...)
	return c.doNew(req, err)
}

// Delete sends a DELETE.
func (c *Client) Delete(ctx context.Context, path string, opts ...message.Option) (*pool.Message, error) {
	req, err := c.NewDeleteRequest(ctx, path, opts...)
	return c.doNew(req, err)
}

// Post sends a POST.
func (c *Client) Post(ctx context.Context, path string, contentFormat message.MediaType, payload io.ReadSeeker, opts ...message.Option) (*pool.Message, error) {
	req, err := c.NewPostRequest(ctx, path, contentFormat, payload, opts...)
	return c.doNew(req, err)
}

// Put sends a PUT.
func (c *Client) Put(ctx context.Context, path string, contentFormat message.MediaType, payload io.ReadSeeker, opts ...message.Option) (*pool.Message, error) {
	req, err := c.NewPutRequest(ctx, path, contentFormat, payload, opts...)
	return c.doNew(req, err)
}

func (c *Client) doNew(req *pool.Message, err error) (*pool.Message, error) {
	if err != nil {
		return nil, err
	}
	defer c.ReleaseMessage(req)
	return c.Do(req)
}

// Observe registers an observation; see [Client.DoObserve].
func (c *Client) Observe(ctx context.Context, path string, f func(*pool.Message), opts ...message.Option) (mux.Observation, error) {
	req, err := c.NewObserveRequest(ctx, path, opts...)
	if err != nil {
		return nil, err
	}
	defer c.ReleaseMessage(req)
	return c.DoObserve(req, f)
}

// WriteMessage protects a response or a notification and sends it: the message's
// token names the request that it answers. A request is refused with
// [ErrUseDo]; nothing is ever sent in plain.
func (c *Client) WriteMessage(m *pool.Message) error {
	if coap.Code(m.Code()).IsRequest() {
		return ErrUseDo
	}
	s := c.serving
	if s == nil || string(s.token) != string(m.Token()) {
		c.link.mu.Lock()
		s = c.link.serving[servingKey{c.peer, string(m.Token())}]
		c.link.mu.Unlock()
	}
	if s == nil {
		return endpoint.ErrEnded
	}
	out, err := toOSCORE(m)
	if err != nil {
		return err
	}
	typ := m.Type()
	if typ != message.Confirmable && typ != message.NonConfirmable {
		typ = message.Unset
	}
	return s.send(out, typ)
}

// waiter is a request under way: what comes under its token goes to its
// exchange.
type waiter struct {
	c   *Client
	typ message.Type

	mu      sync.Mutex // guards x
	x       *endpoint.Exchange
	token   string
	mid     int32
	plain   error
	grace   *time.Timer
	steps   chan endpoint.Step
	stopped chan struct{}
	once    sync.Once
	err     error
}

// stepQueue is how many notifications may wait for the program; older ones
// make room, since the newest state is what counts (RFC 7641 §1.3).
const stepQueue = 64

func (c *Client) newWaiter(x *endpoint.Exchange, typ message.Type) *waiter {
	if typ != message.NonConfirmable {
		typ = message.Confirmable
	}
	return &waiter{c: c, x: x, typ: typ, mid: -1, steps: make(chan endpoint.Step, stepQueue), stopped: make(chan struct{})}
}

// send sends one message of the exchange under a new token, which takes the
// place of the earlier one.
func (w *waiter) send(ctx context.Context, m oscore.Message) error {
	token := make(message.Token, 8)
	if _, err := rand.Read(token); err != nil {
		return err
	}
	return w.sendUnder(ctx, token, m)
}

func (w *waiter) sendUnder(ctx context.Context, token message.Token, m oscore.Message) error {
	l := w.c.link
	msg := l.outgoing(ctx)
	if err := fromOSCORE(msg, m); err != nil {
		l.conn.ReleaseMessage(msg)
		return err
	}
	msg.SetToken(token)
	mid := int32(-1)
	if u, ok := l.conn.(interface{ GetMessageID() int32 }); ok {
		mid = u.GetMessageID()
		msg.SetType(w.typ)
		msg.SetMessageID(mid)
	}
	l.mu.Lock()
	if l.waiting[w.token] == w {
		delete(l.waiting, w.token)
	}
	w.token, w.mid = string(token), mid
	l.waiting[w.token] = w
	l.mu.Unlock()
	// A confirmable message blocks until it is acknowledged.
	go func() {
		defer l.conn.ReleaseMessage(msg)
		if err := l.conn.WriteMessage(msg); err != nil && ctx.Err() == nil {
			w.refused(err)
		}
	}()
	return nil
}

// await sends and waits until the exchange has something for the program.
func (w *waiter) await(ctx context.Context, out oscore.Message) (endpoint.Step, error) {
	if err := w.send(ctx, out); err != nil {
		return endpoint.Step{}, err
	}
	return w.next(ctx)
}

// next waits for the exchange's next response or notification, sending what
// the exchange wants to be sent.
func (w *waiter) next(ctx context.Context) (endpoint.Step, error) {
	for {
		select {
		case step := <-w.steps:
			switch step.Kind {
			case endpoint.Send:
				if err := w.send(ctx, step.Message); err != nil {
					return step, err
				}
			case endpoint.Failed:
				return step, step.Err
			default:
				return step, nil
			}
		case <-w.stopped:
			return endpoint.Step{}, w.err
		case <-ctx.Done():
			return endpoint.Step{}, w.reason(ctx.Err())
		}
	}
}

// reason explains why nothing came: by the unprotected answer, if there was one.
func (w *waiter) reason(err error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.plain != nil {
		return errors.Join(w.plain, err)
	}
	return err
}

// receive passes a message to the exchange and reports whether it verified.
func (w *waiter) receive(m *pool.Message) bool {
	in, err := toOSCORE(m)
	if err != nil {
		return false
	}
	w.mu.Lock()
	step := w.x.Receive(time.Now(), in)
	w.mu.Unlock()
	switch step.Kind {
	case endpoint.Wait:
		var plain *endpoint.PlainError
		if errors.As(step.Err, &plain) {
			w.refused(&PlainError{codes.Code(plain.Code), plain.Diagnostic})
		}
		// An old notification is authentic all the same: acknowledge it.
		return errors.Is(step.Err, oscore.ErrStale)
	case endpoint.Failed:
		if errors.Is(step.Err, endpoint.ErrEnded) {
			return false
		}
	}
	for {
		select {
		case w.steps <- step:
			return true
		default:
			select {
			case <-w.steps:
			default:
			}
		}
	}
}

// refused notes an answer that nothing protects. The genuine one may still
// come: the request fails only after a while.
func (w *waiter) refused(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.plain != nil {
		return
	}
	w.plain = err
	if wait := w.c.link.e.cfg.PlainErrorWait; wait > 0 {
		w.grace = time.AfterFunc(wait, func() { w.fail(err) })
	}
}

// fail ends the wait with an error.
func (w *waiter) fail(err error) {
	w.once.Do(func() {
		w.err = err
		close(w.stopped)
	})
}

// abandon gives the exchange up: no verified answer came.
func (w *waiter) abandon() {
	w.mu.Lock()
	w.x.Abandon()
	w.mu.Unlock()
	w.stop()
}

// stop takes the waiter out of its link.
func (w *waiter) stop() {
	l := w.c.link
	l.mu.Lock()
	if l.waiting[w.token] == w {
		delete(l.waiting, w.token)
	}
	l.mu.Unlock()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.grace != nil {
		w.grace.Stop()
	}
	w.x.Close()
}
