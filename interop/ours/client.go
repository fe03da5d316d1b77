package ours

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/oscorelay/oscorelay/interop/peer"
	"github.com/oscorelay/oscorelay/keys"
	"github.com/oscorelay/oscorelay/oscore/gocoap"
	"github.com/plgd-dev/go-coap/v3/message"
	"github.com/plgd-dev/go-coap/v3/message/codes"
	"github.com/plgd-dev/go-coap/v3/message/pool"
	"github.com/plgd-dev/go-coap/v3/mux"
	"github.com/plgd-dev/go-coap/v3/options"
	"github.com/plgd-dev/go-coap/v3/tcp"
	"github.com/plgd-dev/go-coap/v3/udp"
)

const (
	// patience bounds one request unless the test says otherwise.
	patience = 20 * time.Second
	// ackTimeout is short, so that a test of loss need not wait.
	ackTimeout = time.Second
	// nstart lets several requests be unacknowledged at a time.
	nstart = 8
)

// Client is this library as a client.
type Client struct {
	events
	t      testing.TB
	cfg    Config
	addr   netip.AddrPort
	entry  keys.Entry
	store  *keys.Memory
	ring   *keys.Keyring
	c      *gocoap.Client
	Derive bool // Appendix B.2 before the next request
}

// StartClient connects to the server at the address, which is the relay's.
func StartClient(t testing.TB, server netip.AddrPort, c peer.Context, cfg Config) *Client {
	t.Helper()
	o := &Client{t: t, cfg: cfg, addr: server, entry: cfg.entry(t, c, true), store: keys.NewMemory()}
	if err := keys.DeclareNew(t.Context(), o.store, &o.entry.Params); err != nil {
		t.Fatal(err)
	}
	o.start()
	t.Cleanup(func() {
		o.c.Close()
		o.log(t, "our client")
	})
	return o
}

func (c *Client) start() {
	c.t.Helper()
	c.ring = keys.New(c.store)
	if _, err := c.ring.Add(c.t.Context(), c.entry.Clone()); err != nil {
		c.t.Fatal(err)
	}
	gc := c.cfg.Gocoap
	gc.Keyring = c.ring
	gc.Event = c.add
	ep := gocoap.New(gc)
	var conn mux.Conn
	var err error
	if c.cfg.TCP {
		conn, err = tcp.Dial(c.addr.String(), ep.TCPClient(nil)...)
	} else {
		conn, err = udp.Dial(c.addr.String(), append(ep.UDPClient(nil), options.WithTransmission(nstart, ackTimeout, 4))...)
	}
	if err != nil {
		c.t.Fatal(err)
	}
	c.c = ep.Client(conn, other)
}

// Crash ends the client as kill -9 does and starts it again on another port.
func (c *Client) Crash() {
	c.t.Helper()
	c.c.Close()
	c.store.Restart()
	c.start()
}

// SetPatience bounds the requests from now on; 0 means 20 s.
func (c *Client) SetPatience(d time.Duration) { c.cfg.Patience = d }

// Peer is the server as the client's keyring has it.
func (c *Client) Peer() *keys.Peer {
	p, _ := c.ring.Get(other)
	return p
}

var methods = map[string]codes.Code{"GET": codes.GET, "POST": codes.POST, "PUT": codes.PUT, "DELETE": codes.DELETE}

// Do sends one request and waits for all that comes of it.
func (c *Client) Do(t testing.TB, r peer.Request) peer.Result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), cmp.Or(c.cfg.Patience, patience))
	defer cancel()
	if r.Plain {
		return c.plain(ctx, t, r)
	}
	req := c.c.AcquireMessage(ctx)
	defer c.c.ReleaseMessage(req)
	fill(t, req, r)
	if o := c.cfg.Origin; o.IsValid() {
		req.SetOptionString(message.ProxyScheme, "coap")
		req.SetOptionString(message.URIHost, o.Addr().String())
		req.SetOptionUint32(message.URIPort, uint32(o.Port()))
	}
	if r.Observe > 0 {
		return c.observe(ctx, t, req, r.Observe)
	}
	var opts []gocoap.RequestOption
	if c.Derive {
		opts, c.Derive = append(opts, gocoap.WithRederive()), false
	}
	resp, err := c.c.DoWith(req, opts...)
	return result(t, resp, true, err)
}

// plain sends without OSCORE, over a connection of go-coap's alone.
func (c *Client) plain(ctx context.Context, t testing.TB, r peer.Request) peer.Result {
	t.Helper()
	conn, err := udp.Dial(c.addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	req := conn.AcquireMessage(ctx)
	defer conn.ReleaseMessage(req)
	fill(t, req, r)
	token, err := message.GetToken()
	if err != nil {
		t.Fatal(err)
	}
	req.SetToken(token)
	resp, err := conn.Do(req)
	return result(t, resp, false, err)
}

func fill(t testing.TB, req *pool.Message, r peer.Request) {
	t.Helper()
	code, ok := methods[r.Method]
	if !ok {
		t.Fatalf("our client: unknown method %q", r.Method)
	}
	req.SetCode(code)
	req.SetType(message.Confirmable)
	if r.NON {
		req.SetType(message.NonConfirmable)
	}
	if err := req.SetPath(r.Path); err != nil {
		t.Fatal(err)
	}
	if r.Query != "" {
		req.AddQuery(r.Query)
	}
	if r.Accept != nil {
		req.SetAccept(message.MediaType(*r.Accept))
	}
	if r.Format != nil {
		req.SetContentFormat(message.MediaType(*r.Format))
	}
	if r.IfMatch != nil {
		req.AddOptionBytes(message.IfMatch, r.IfMatch)
	}
	if r.IfNoneMatch {
		req.SetOptionBytes(message.IfNoneMatch, nil)
	}
	if r.Observe > 0 {
		req.SetObserve(0)
	}
	if r.Payload != nil {
		req.SetBody(bytes.NewReader(r.Payload))
	}
}

// observe waits for so many notifications, or for the last one, and cancels
// what still goes on.
func (c *Client) observe(ctx context.Context, t testing.TB, req *pool.Message, notes int) peer.Result {
	t.Helper()
	arrived := make(chan peer.Answer, notes+1)
	o, err := c.c.DoObserve(req, func(m *pool.Message) {
		a := answer(t, m, true)
		a.Kind = "NOTE"
		select {
		case arrived <- a:
		default: // more than were asked for
		}
	})
	if err != nil {
		return result(t, nil, true, err)
	}
	var res peer.Result
	for i := range notes + 1 {
		select {
		case a := <-arrived:
			if i == 0 {
				a.Kind, res.Answer = "ANSWER", a
			} else {
				res.More = append(res.More, a)
			}
			if a.Observe == nil { // none to follow
				return res
			}
		case <-ctx.Done():
			res.Error = "no notification in time"
			return res
		}
	}
	if err := o.Cancel(ctx); err != nil {
		res.Error = "cancellation: " + err.Error()
	}
	return res
}

func result(t testing.TB, m *pool.Message, sealed bool, err error) peer.Result {
	t.Helper()
	var plain *gocoap.PlainError
	switch {
	case errors.As(err, &plain):
		return peer.Result{Error: err.Error(), Answer: peer.Answer{
			Kind: "ANSWER", Code: peer.Dotted(byte(plain.Code)), Payload: []byte(plain.Diagnostic),
		}}
	case err != nil:
		return peer.Result{Error: err.Error()}
	}
	return peer.Result{Answer: answer(t, m, sealed)}
}

func answer(t testing.TB, m *pool.Message, sealed bool) peer.Answer {
	t.Helper()
	a := peer.Answer{Kind: "ANSWER", Code: peer.Dotted(byte(m.Code())), Sealed: sealed}
	number := func(id message.OptionID) *int {
		v, err := m.GetOptionUint32(id)
		if err != nil {
			return nil
		}
		return peer.Int(int(v))
	}
	a.Format, a.MaxAge, a.Observe = number(message.ContentFormat), number(message.MaxAge), number(message.Observe)
	if tag, err := m.ETag(); err == nil {
		a.ETag = bytes.Clone(tag)
	}
	body, err := m.ReadBody()
	if err != nil {
		t.Errorf("our client: body of a response: %v", err)
	}
	a.Payload = append([]byte{}, body...)
	return a
}
