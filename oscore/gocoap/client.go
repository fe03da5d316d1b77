package gocoap

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/oscorelay/oscorelay/internal/coap"
	"github.com/oscorelay/oscorelay/internal/endpoint"
	"github.com/oscorelay/oscorelay/oscore"
	"github.com/plgd-dev/go-coap/v3/message"
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
	// first is set where message_3 of a handshake goes out with a request.
	first *firstRequest
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

// Do sends a request and returns its response, which the caller releases. Give
// the request's context a deadline: once a request was acknowledged nothing else
// ends the wait for an answer that was lost.
//
// Errors: [ErrNoPeer], [ErrTainted], [ErrNoAck], [ErrClosed], [ErrUnbound], a
// [*PlainError] when only unprotected answers came, those of the context, of
// storage and of the connection.
func (c *Client) Do(req *pool.Message) (*pool.Message, error) { return c.DoWith(req) }

// DoWith is [Client.Do] with options.
func (c *Client) DoWith(req *pool.Message, opts ...RequestOption) (resp *pool.Message, err error) {
	if req.HasOption(message.Observe) {
		return nil, fmt.Errorf("gocoap: a request with Observe goes through DoObserve: %w", ErrUseDo)
	}
	m, err := toOSCORE(req)
	if err != nil {
		return nil, err
	}
	turn, err := c.first.enter(req.Context())
	if err != nil {
		return nil, err
	}
	defer func() { err = turn.leave(err) }()
	w, step, err := c.ask(req.Context(), turn, m, req.Type(), opts)
	if err != nil {
		return nil, err
	}
	defer w.stop()
	c.first.confirm()
	return c.message(req.Context(), step.Message)
}

// ask sends a request and waits for its first response or notification. Where
// the server asks for a new context, and another exchange is deriving it, the
// request was not acted upon, and is sent anew afterwards.
func (c *Client) ask(ctx context.Context, turn *turn, m oscore.Message, typ message.Type, opts []RequestOption) (*waiter, endpoint.Step, error) {
	for {
		w, err := c.begin(ctx, turn, m, typ, opts)
		if err != nil {
			return nil, endpoint.Step{}, err
		}
		step, err := w.next(ctx)
		if err == nil {
			return w, step, nil
		}
		var busy *endpoint.BusyError
		if !errors.As(err, &busy) {
			w.abandon()
			return nil, step, err
		}
		w.stop()
		select {
		case <-busy.Done:
		case <-ctx.Done():
			return nil, step, ctx.Err()
		}
	}
}

// begin seals the first message of an exchange, when its turn has come, and
// sends it. While another exchange derives a new context, it waits.
func (c *Client) begin(ctx context.Context, turn *turn, m oscore.Message, typ message.Type, opts []RequestOption) (*waiter, error) {
	var o endpoint.RequestOptions
	for _, f := range opts {
		f(&o)
	}
	if err := c.link.checkBound(); err != nil {
		return nil, err
	}
	for {
		if err := c.link.gate.enter(ctx, false); err != nil {
			return nil, err
		}
		if c.link.conn.Context().Err() != nil {
			c.link.gate.leave()
			return nil, ErrClosed
		}
		x, out, err := c.link.e.ep.Begin(time.Now(), c.peer, m, o)
		if err == nil {
			w := newWaiter(c.link, x, typ)
			if out, err = turn.combine(ctx, w, out); err != nil {
				c.link.gate.leave()
				w.abandon()
				return nil, err
			}
			if err := w.sendNew(ctx, out); err != nil {
				w.abandon()
				return nil, err
			}
			return w, nil
		}
		c.link.gate.leave()
		var busy *endpoint.BusyError
		if !errors.As(err, &busy) {
			return nil, err
		}
		select {
		case <-busy.Done:
		case <-ctx.Done():
			return nil, ctx.Err()
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
