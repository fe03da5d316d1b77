package sim

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/oscorelay/oscorelay/oscore/gocoap"
	"github.com/plgd-dev/go-coap/v3/message"
	"github.com/plgd-dev/go-coap/v3/message/codes"
	"github.com/plgd-dev/go-coap/v3/message/pool"
	"github.com/plgd-dev/go-coap/v3/mux"
	coapnet "github.com/plgd-dev/go-coap/v3/net"
	"github.com/plgd-dev/go-coap/v3/options"
	"github.com/plgd-dev/go-coap/v3/udp"
	udpclient "github.com/plgd-dev/go-coap/v3/udp/client"
	udpserver "github.com/plgd-dev/go-coap/v3/udp/server"
)

// nodeConfig is what a node is made of.
type nodeConfig struct {
	listen     string
	sealed     *gocoap.Endpoint // nil: plain
	handle     func(*incoming) Response
	awake      func() bool // nil: always
	ackTimeout time.Duration
	blockSize  int // plain only; OSCORE's is gocoap.Config's
	// stray is told of responses that nothing asked for, which were reset.
	stray func(source string)
}

// node serves and asks from one unconnected UDP socket: what the hosts of
// peers say of unreachable ports does not reach it, and a peer that starts
// anew finds it at the same port.
type node struct {
	cfg     nodeConfig
	packets *coapnet.UDPConn
	server  *udpserver.Server
	plain   *plain // nil if sealed
	ctx     context.Context
	cancel  context.CancelFunc
	done    chan struct{}
}

var errStart = errors.New("sim: the socket does not start")

func newNode(cfg nodeConfig) (*node, error) {
	packets, err := coapnet.NewListenUDP("udp4", cfg.listen)
	if err != nil {
		return nil, fmt.Errorf("sim: listen on %s: %w", cfg.listen, err)
	}
	n := &node{cfg: cfg, packets: packets, done: make(chan struct{})}
	n.ctx, n.cancel = context.WithCancel(context.Background())
	var opts []udpserver.Option
	if cfg.sealed != nil {
		opts = append(cfg.sealed.UDPServer(mux.HandlerFunc(n.serveSealed)), options.WithErrors(func(error) {}))
	} else {
		n.plain = newPlain(n)
		opts = n.plain.options()
	}
	started := make(chan struct{})
	n.server = udp.NewServer(append(opts, &hook{n, started})...)
	go func() {
		defer close(n.done)
		_ = n.server.Serve(packets) // ends with close
	}()
	select {
	case <-started:
	case <-n.done:
		return nil, errors.Join(errStart, packets.Close())
	}
	return n, nil
}

// hook is the option for what every node needs beneath its bundle.
type hook struct {
	n       *node
	started chan struct{}
}

// UDPServerApply implements udpserver.Option. It comes last.
func (h *hook) UDPServerApply(cfg *udpserver.Config) {
	inspect, runner := cfg.RequestMonitor, cfg.PeriodicRunner
	cfg.RequestMonitor = func(cc *udpclient.Conn, m *pool.Message) (bool, error) {
		if h.n.cfg.awake != nil && !h.n.cfg.awake() {
			return true, nil // the radio is off
		}
		return inspect(cc, m)
	}
	cfg.PeriodicRunner = func(f func(now time.Time) bool) {
		close(h.started) // Serve calls it once it has the socket
		runner(f)
	}
	if h.n.cfg.ackTimeout > 0 {
		cfg.TransmissionAcknowledgeTimeout = h.n.cfg.ackTimeout
	}
}

func (n *node) addr() *net.UDPAddr { return n.packets.LocalAddr().(*net.UDPAddr) }

func (n *node) close() {
	n.cancel()
	n.server.Stop()
	<-n.done
	_ = n.packets.Close() // closed by Stop already
	if n.plain != nil {
		n.plain.running.Wait()
	}
}

// do sends a request and waits for its whole response. The context must have
// a deadline.
func (n *node) do(ctx context.Context, to *net.UDPAddr, peer string, r Request, opts ...gocoap.RequestOption) (Response, error) {
	if n.plain != nil {
		return n.plain.do(ctx, to, r)
	}
	c, err := n.client(to, peer)
	if err != nil {
		return Response{}, err
	}
	m := n.message(ctx, c, r, -1)
	defer c.ReleaseMessage(m)
	resp, err := c.DoWith(m, opts...)
	if err != nil {
		return Response{}, err
	}
	defer c.ReleaseMessage(resp)
	p, err := copyPacket(resp)
	return p.response(), err
}

func (n *node) client(to *net.UDPAddr, peer string) (*gocoap.Client, error) {
	conn, err := n.server.NewConn(to)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrClosed, err)
	}
	return n.cfg.sealed.Client(conn, peer), nil
}

func (n *node) message(ctx context.Context, c *gocoap.Client, r Request, observe int) *pool.Message {
	m := c.AcquireMessage(ctx)
	r.packet(observe).fill(m)
	m.SetType(message.Confirmable)
	if r.NON {
		m.SetType(message.NonConfirmable)
	}
	return m
}

// watch is the asking side of an observation.
type watch struct {
	cancel func(ctx context.Context) error // by a request with Observe 1
	forget func()                          // by the RST of the next notification; nil if sealed
}

// observe registers an observation; f is called with each notification after
// the first response, one at a time.
func (n *node) observe(ctx context.Context, to *net.UDPAddr, peer string, r Request, f func(Response)) (*watch, Response, error) {
	if n.plain != nil {
		return n.plain.observe(ctx, to, r, f)
	}
	c, err := n.client(to, peer)
	if err != nil {
		return nil, Response{}, err
	}
	m := n.message(ctx, c, r, 0)
	defer c.ReleaseMessage(m)
	first := make(chan Response, 1)
	var once sync.Once
	o, err := c.DoObserve(m, func(m *pool.Message) {
		p, err := copyPacket(m)
		if err != nil {
			return // a body in memory
		}
		isFirst := false
		once.Do(func() { isFirst = true; first <- p.response() })
		if !isFirst {
			f(p.response())
		}
	})
	if err != nil {
		return nil, Response{}, err
	}
	select {
	case resp := <-first:
		return &watch{cancel: func(ctx context.Context) error { return o.Cancel(ctx) }}, resp, nil
	case <-ctx.Done(): // its blocks did not all come
		return nil, Response{}, errors.Join(ctx.Err(), o.Cancel(ctx))
	}
}

// serveSealed answers a request that verified.
func (n *node) serveSealed(w mux.ResponseWriter, r *mux.Message) {
	p, err := copyPacket(r.Message)
	if err != nil {
		_ = w.SetResponse(codes.BadRequest, message.TextPlain, nil)
		return
	}
	in := &incoming{Request: p.request(), Observe: p.number(message.Observe), Token: string(r.Token())}
	in.Peer, _ = gocoap.Peer(r.Context())
	in.Source, _ = w.Conn().RemoteAddr().(*net.UDPAddr)
	conn, token := w.Conn(), append(message.Token{}, r.Token()...)
	in.notify = func(r Response, confirm bool) error {
		m := conn.AcquireMessage(conn.Context())
		defer conn.ReleaseMessage(m)
		observe := -1
		if r.Observe {
			observe = 1 // OSCORE orders notifications by their Partial IVs
		}
		r.packet(observe).fill(m)
		m.SetToken(token)
		m.SetType(message.NonConfirmable)
		if confirm {
			m.SetType(message.Confirmable)
		}
		return conn.WriteMessage(m)
	}
	resp := n.cfg.handle(in)
	observe := -1
	if resp.Observe {
		observe = 0
	}
	out := resp.packet(observe)
	var body *bytes.Reader
	if len(out.payload) > 0 {
		body = bytes.NewReader(out.payload)
		_ = w.SetResponse(out.code, message.MediaType(resp.Format), body, out.options...)
		return
	}
	_ = w.SetResponse(out.code, message.TextPlain, nil, out.options...)
}
