package gocoap_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/oscorelay/oscorelay/keys"
	"github.com/oscorelay/oscorelay/oscore"
	"github.com/oscorelay/oscorelay/oscore/gocoap"
	"github.com/plgd-dev/go-coap/v3/message"
	"github.com/plgd-dev/go-coap/v3/message/codes"
	"github.com/plgd-dev/go-coap/v3/message/pool"
	"github.com/plgd-dev/go-coap/v3/mux"
	coapnet "github.com/plgd-dev/go-coap/v3/net"
	"github.com/plgd-dev/go-coap/v3/options"
	"github.com/plgd-dev/go-coap/v3/udp"
	"github.com/plgd-dev/go-coap/v3/udp/coder"
	udpserver "github.com/plgd-dev/go-coap/v3/udp/server"
)

// side is who sent a datagram.
type side int

const (
	fromClient side = iota
	fromServer
)

// datagram is one that passed the relay, as it came.
type datagram struct {
	from side
	raw  []byte
	message.Message
}

func (d datagram) sealed() bool { return d.Options.HasOption(9) }

// empty tells acknowledgements, resets and pings.
func (d datagram) empty() bool { return d.Code == codes.Empty }

// parse decodes a datagram; the result is a copy.
func parse(t testing.TB, from side, raw []byte) datagram {
	t.Helper()
	d := datagram{from: from, raw: bytes.Clone(raw)}
	d.Options = make(message.Options, 0, 32)
	if _, err := coder.DefaultCoder.Decode(d.raw, &d.Message); err != nil {
		t.Fatalf("datagram %x: %v", raw, err)
	}
	return d
}

// build encodes a datagram.
func build(t testing.TB, m message.Message) []byte {
	t.Helper()
	b := make([]byte, 2048)
	n, err := coder.DefaultCoder.Encode(m, b)
	if err != nil {
		t.Fatal(err)
	}
	return b[:n]
}

// relay stands on the path of one UDP client: it captures everything, and its
// hook says what is passed on in a datagram's place.
type relay struct {
	t        testing.TB
	down, up *net.UDPConn
	client   atomic.Pointer[net.UDPAddr]

	hooks    sync.Mutex // one hook at a time
	mu       sync.Mutex
	hook     func(d datagram) [][]byte // nil passes everything
	captured []datagram
	arrived  chan struct{} // closed and renewed at each datagram
}

// newRelay returns a relay before the server; clients send to its address.
func newRelay(t testing.TB, server string) *relay {
	t.Helper()
	addr, err := net.ResolveUDPAddr("udp4", server)
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{t: t, arrived: make(chan struct{})}
	if r.down, err = net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}); err != nil {
		t.Fatal(err)
	}
	if r.up, err = net.DialUDP("udp4", nil, addr); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() { r.run(fromClient) })
	wg.Go(func() { r.run(fromServer) })
	t.Cleanup(func() {
		r.down.Close()
		r.up.Close()
		wg.Wait()
	})
	return r
}

func (r *relay) addr() string { return r.down.LocalAddr().String() }

func (r *relay) run(from side) {
	b := make([]byte, 4096)
	for {
		var n int
		var err error
		if from == fromClient {
			var a *net.UDPAddr
			if n, a, err = r.down.ReadFromUDP(b); err == nil {
				r.client.Store(a)
			}
		} else {
			n, err = r.up.Read(b)
		}
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			continue // a port is unreachable
		}
		d := parse(r.t, from, b[:n])
		r.mu.Lock()
		r.captured = append(r.captured, d)
		close(r.arrived)
		r.arrived = make(chan struct{})
		hook := r.hook
		r.mu.Unlock()
		out := [][]byte{d.raw}
		if hook != nil {
			r.hooks.Lock()
			out = hook(d)
			r.hooks.Unlock()
		}
		for _, raw := range out {
			r.send(from, raw)
		}
	}
}

// send sends a datagram as the side.
func (r *relay) send(from side, raw []byte) {
	if from == fromClient {
		_, _ = r.up.Write(raw) // the test sees what does not arrive
	} else if a := r.client.Load(); a != nil {
		_, _ = r.down.WriteToUDP(raw, a)
	}
}

// set sets the hook.
func (r *relay) set(hook func(d datagram) [][]byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.hook = hook
}

// seen returns what was captured.
func (r *relay) seen() []datagram {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]datagram{}, r.captured...)
}

// find returns the captured datagrams that match.
func (r *relay) find(match func(d datagram) bool) (out []datagram) {
	for _, d := range r.seen() {
		if match(d) {
			out = append(out, d)
		}
	}
	return out
}

// await waits until n captured datagrams match, and returns them.
func (r *relay) await(n int, match func(d datagram) bool) []datagram {
	r.t.Helper()
	deadline := time.After(15 * time.Second)
	for {
		r.mu.Lock()
		arrived := r.arrived
		r.mu.Unlock()
		if found := r.find(match); len(found) >= n {
			return found
		}
		select {
		case <-arrived:
		case <-deadline:
			r.t.Fatalf("fewer than %d of the expected datagrams came; %d in all", n, len(r.seen()))
		}
	}
}

// checkSealed fails the test unless every message on the wire is protected or
// empty, and none holds one of the texts.
func (r *relay) checkSealed(texts ...string) {
	r.t.Helper()
	messages := 0
	for _, d := range r.seen() {
		if !d.empty() {
			messages++
			if !d.sealed() {
				r.t.Errorf("unprotected message on the wire: %v %v", d.from, d.Message.String())
			}
		}
		for _, s := range texts {
			if bytes.Contains(d.raw, []byte(s)) {
				r.t.Errorf("%q on the wire", s)
			}
		}
		for _, o := range d.Options {
			if o.ID == message.URIPath || o.ID == message.URIQuery || o.ID == message.ContentFormat {
				r.t.Errorf("outer option %v on the wire", o.ID)
			}
		}
	}
	if messages == 0 {
		r.t.Error("nothing was captured")
	}
}

// world is a sealed client and a sealed server with a relay between them.
type world struct {
	t        testing.TB
	ck, sk   *keys.Keyring
	cep, sep *gocoap.Endpoint
	relay    *relay
	server   string // its address
	client   *gocoap.Client
	calls    atomic.Int32
	ctx      context.Context
}

type setup struct {
	client, server gocoap.Config // without Keyring
	ck, sk         *keys.Keyring // nil: fresh ones
	handler        mux.Handler   // nil: the world's echo
	objects        mux.Handler   // of the client
	serverOptions  []udpserver.Option
	clientOptions  []udp.Option
}

func newWorld(t testing.TB, s setup) *world {
	t.Helper()
	w := &world{t: t, ck: s.ck, sk: s.sk}
	if w.ck == nil {
		w.ck, w.sk = rings(t)
	}
	s.client.Keyring, s.server.Keyring = w.ck, w.sk
	w.cep, w.sep = gocoap.New(s.client), gocoap.New(s.server)
	h := s.handler
	if h == nil {
		h = mux.HandlerFunc(w.echo)
	}
	w.server = serveUDP(t, w.sep, h, s.serverOptions...)
	w.relay = newRelay(t, w.server)
	conn, err := udp.Dial(w.relay.addr(), append(w.cep.UDPClient(s.objects), s.clientOptions...)...)
	if err != nil {
		t.Fatal(err)
	}
	w.client = w.cep.Client(conn, "server")
	t.Cleanup(func() {
		w.client.Close()
		<-w.client.Done()
	})
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	w.ctx = ctx
	return w
}

// echo counts and returns the request's body.
func (w *world) echo(rw mux.ResponseWriter, m *mux.Message) {
	w.calls.Add(1)
	b, err := m.ReadBody()
	if err != nil {
		w.t.Error(err)
	}
	_ = rw.SetResponse(codes.Content, message.TextPlain, bytes.NewReader(b))
}

// post posts a body to /secret-path and returns the response's.
func (w *world) post(body string) (string, error) {
	resp, err := w.client.Post(w.ctx, "/secret-path", message.TextPlain, bytes.NewReader([]byte(body)))
	if err != nil {
		return "", err
	}
	defer w.client.ReleaseMessage(resp)
	b, err := resp.ReadBody()
	return string(b), err
}

// mustPost posts and checks the echo.
func (w *world) mustPost(body string) {
	w.t.Helper()
	got, err := w.post(body)
	if err != nil {
		w.t.Fatal(err)
	}
	if got != body {
		w.t.Fatalf("%q came back for %q", got, body)
	}
}

func (w *world) wantCalls(n int32) {
	w.t.Helper()
	if got := w.calls.Load(); got != n {
		w.t.Fatalf("the handler ran %d times, want %d", got, n)
	}
}

// do sends a request of any code.
func (w *world) do(code codes.Code, path string, body string, opts ...message.Option) *pool.Message {
	w.t.Helper()
	resp, err := w.client.Do(w.request(code, path, body, opts...))
	if err != nil {
		w.t.Fatal(err)
	}
	return resp
}

func (w *world) request(code codes.Code, path, body string, opts ...message.Option) *pool.Message {
	w.t.Helper()
	req := w.client.AcquireMessage(w.ctx)
	req.SetCode(code)
	req.SetType(message.Confirmable)
	if err := req.SetPath(path); err != nil {
		w.t.Fatal(err)
	}
	for _, o := range opts {
		req.AddOptionBytes(o.ID, o.Value)
	}
	if body != "" {
		req.SetBody(bytes.NewReader([]byte(body)))
	}
	return req
}

func bodyOf(t testing.TB, m *pool.Message) string {
	t.Helper()
	b, err := m.ReadBody()
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// flip returns a copy with one bit of the byte at i changed; i counts from the
// end if negative.
func flip(b []byte, i int) []byte {
	b = bytes.Clone(b)
	if i < 0 {
		i += len(b)
	}
	b[i] ^= 1
	return b
}

func isSealedRequest(d datagram) bool { return d.from == fromClient && d.sealed() }

func isSealedResponse(d datagram) bool { return d.from == fromServer && d.sealed() }

func isAck(d datagram) bool { return d.Type == message.Acknowledgement && d.empty() }

func isReset(d datagram) bool { return d.Type == message.Reset }

func text(s string) io.ReadSeeker { return bytes.NewReader([]byte(s)) }

// stranger is a socket of somebody else.
func stranger(t testing.TB, server string) *net.UDPConn {
	t.Helper()
	addr, err := net.ResolveUDPAddr("udp4", server)
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.DialUDP("udp4", nil, addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// ask sends a datagram and returns the answer.
func ask(t testing.TB, c *net.UDPConn, raw []byte) datagram {
	t.Helper()
	if _, err := c.Write(raw); err != nil {
		t.Fatal(err)
	}
	return answer(t, c)
}

func answer(t testing.TB, c *net.UDPConn) datagram {
	t.Helper()
	b := make([]byte, 4096)
	if err := c.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	n, err := c.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	return parse(t, fromServer, b[:n])
}

func ring(t testing.TB, store keys.SSNStore, e keys.Entry) *keys.Keyring {
	t.Helper()
	r := keys.New(store)
	if _, err := r.AddNew(context.Background(), e); err != nil {
		t.Fatal(err)
	}
	return r
}

// entry is the client's side of the tests' context.
func entry() keys.Entry {
	return keys.Entry{Name: "server", Params: oscore.Params{
		MasterSecret: oscore.Secret("a secret of 16 B"), SenderID: []byte{1}, RecipientID: []byte{2},
	}}
}

// mirror is the server's.
func mirror() keys.Entry {
	e := entry()
	p := e.Peer()
	p.Name = "client"
	return p
}

// rings returns keyrings that know each other as "server" and "client".
func rings(t testing.TB) (client, server *keys.Keyring) {
	t.Helper()
	return ring(t, keys.NewMemory(), entry()), ring(t, keys.NewMemory(), mirror())
}

// serveUDP runs a UDP server and returns its address.
func serveUDP(t testing.TB, ep *gocoap.Endpoint, h mux.Handler, opts ...udpserver.Option) string {
	t.Helper()
	addr, _ := startUDP(t, ep, h, opts...)
	return addr
}

func startUDP(t testing.TB, ep *gocoap.Endpoint, h mux.Handler, opts ...udpserver.Option) (string, *udpserver.Server) {
	t.Helper()
	l, err := coapnet.NewListenUDP("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := udp.NewServer(append(ep.UDPServer(h), opts...)...)
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() {
		s.Stop()
		<-done
		l.Close()
	})
	return l.LocalAddr().String(), s
}

type udpServerOption = udpserver.Option

// quick makes go-coap retransmit soon, so that tests of loss are short.
var quick = options.WithTransmission(1<<16, 300*time.Millisecond, 1, 4)
