package proxy_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/oscorelay/oscorelay/internal/coap"
	"github.com/oscorelay/oscorelay/internal/mallory"
	"github.com/oscorelay/oscorelay/keys"
	"github.com/oscorelay/oscorelay/oscore"
	"github.com/oscorelay/oscorelay/oscore/gocoap"
	"github.com/oscorelay/oscorelay/proxy"
	"github.com/plgd-dev/go-coap/v3/message"
	"github.com/plgd-dev/go-coap/v3/message/codes"
	"github.com/plgd-dev/go-coap/v3/message/pool"
	"github.com/plgd-dev/go-coap/v3/mux"
	coapnet "github.com/plgd-dev/go-coap/v3/net"
	"github.com/plgd-dev/go-coap/v3/udp"
)

const secretPath, secretText = "secret-path", "a text that nobody on the path may read"

// running is a proxy that serves.
type running struct {
	*proxy.Proxy
	stop func() error
}

// start runs a proxy until the test ends or stop is called.
func start(t testing.TB, cfg proxy.Config) *running {
	t.Helper()
	if cfg.Listen == "" {
		cfg.Listen = "127.0.0.1:0"
	}
	if cfg.Drain == 0 {
		cfg.Drain = time.Millisecond
	}
	p, err := proxy.Listen(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Serve(ctx) }()
	r := &running{Proxy: p}
	var once sync.Once
	var ended error
	r.stop = func() error {
		once.Do(func() {
			cancel()
			ended = <-done
		})
		return ended
	}
	t.Cleanup(func() { _ = r.stop() })
	return r
}

func reverse(to string) []proxy.Route { return []proxy.Route{{To: to}} }

var loopback = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}

// server is a sealed server, with a resource that can be observed.
type server struct {
	t     testing.TB
	ep    *gocoap.Endpoint
	addr  string
	calls atomic.Int32

	mu    sync.Mutex
	body  []byte
	conn  mux.Conn
	token message.Token
	ended chan struct{} // a request with Observe 1 came
}

func rings(t testing.TB) (client, server *keys.Keyring) {
	t.Helper()
	e := keys.Entry{Name: "server", Params: oscore.Params{
		MasterSecret: oscore.Secret("a secret of 16 B"), SenderID: []byte{1}, RecipientID: []byte{2},
	}}
	m := e.Peer()
	m.Name = "client"
	client, server = keys.New(keys.NewMemory()), keys.New(keys.NewMemory())
	if _, err := client.AddNew(context.Background(), e); err != nil {
		t.Fatal(err)
	}
	if _, err := server.AddNew(context.Background(), m); err != nil {
		t.Fatal(err)
	}
	return client, server
}

func serve(t testing.TB, ring *keys.Keyring) *server {
	t.Helper()
	s := &server{t: t, ep: gocoap.New(gocoap.Config{Keyring: ring}), body: []byte(secretText), ended: make(chan struct{}, 10)}
	l, err := coapnet.NewListenUDP("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	u := udp.NewServer(s.ep.UDPServer(s)...)
	done := make(chan error, 1)
	go func() { done <- u.Serve(l) }()
	t.Cleanup(func() {
		u.Stop()
		<-done
		l.Close()
	})
	s.addr = l.LocalAddr().String()
	return s
}

func (s *server) ServeCOAP(w mux.ResponseWriter, m *mux.Message) {
	s.calls.Add(1)
	if path, err := m.Path(); err != nil || path != "/"+secretPath {
		s.t.Errorf("path %q, %v", path, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if m.Code() == codes.PUT {
		b, err := m.ReadBody()
		if err != nil {
			s.t.Error(err)
		}
		s.body = b
		_ = w.SetResponse(codes.Changed, message.TextPlain, nil)
		return
	}
	var opts []message.Option
	switch obs, err := m.Observe(); {
	case err != nil:
	case obs == 0:
		s.conn, s.token = w.Conn(), slices.Clone(m.Token())
		opts = []message.Option{{ID: message.Observe, Value: []byte{1}}}
	case obs == 1:
		s.ended <- struct{}{}
	}
	_ = w.SetResponse(codes.Content, message.TextPlain, bytes.NewReader(s.body), opts...)
}

func (s *server) notify(typ message.Type, body string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.conn.AcquireMessage(s.conn.Context())
	defer s.conn.ReleaseMessage(n)
	n.SetCode(codes.Content)
	n.SetType(typ)
	n.SetToken(s.token)
	n.SetObserve(2)
	n.SetBody(bytes.NewReader([]byte(body)))
	return s.conn.WriteMessage(n)
}

func dial(t testing.TB, ring *keys.Keyring, addr string, h mux.Handler) *gocoap.Client {
	t.Helper()
	c, err := gocoap.New(gocoap.Config{Keyring: ring}).DialUDP(addr, "server", h)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Close()
		<-c.Done()
	})
	return c
}

func within(t testing.TB, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

func body(t testing.TB, m *pool.Message, err error) string {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	b, err := m.ReadBody()
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// checkSealed fails the test unless all that was captured is protected.
func checkSealed(t testing.TB, where string, r *mallory.Relay) {
	t.Helper()
	n := 0
	for _, p := range r.Capture() {
		d, err := coap.ParseDatagram(p.Data)
		if err != nil {
			t.Fatal(err)
		}
		if d.Code == coap.Empty {
			continue
		}
		n++
		if _, ok := coap.Find(d.Body, coap.OSCORE); !ok {
			t.Errorf("%s: unprotected %v %x", where, d.Code, p.Data)
		}
		for _, number := range []uint16{coap.URIPath, coap.URIQuery, coap.ContentFormat, coap.Accept, coap.Block1, coap.Block2, coap.ETag} {
			if _, ok := coap.Find(d.Body, number); ok {
				t.Errorf("%s: %s outside", where, coap.OptionName(number))
			}
		}
		if bytes.Contains(p.Data, []byte(secretPath)) || bytes.Contains(p.Data, []byte(secretText[:12])) {
			t.Errorf("%s: plain text in %x", where, p.Data)
		}
	}
	if n == 0 {
		t.Errorf("%s: nothing was captured", where)
	}
}

// TestSealedThroughChains: what a sealed client and server do together they do
// through one to four proxies, reverse and forward, and no capture on any hop
// shows what they say.
func TestSealedThroughChains(t *testing.T) {
	for _, kind := range []string{"reverse", "Proxy-Uri", "Proxy-Scheme"} {
		for n := 1; n <= 4; n++ {
			t.Run(fmt.Sprint(kind, " ", n), func(t *testing.T) {
				ck, sk := rings(t)
				s := serve(t, sk)
				hops := []*mallory.Relay{tap(t, s.addr)}
				next := hops[0].Addr()
				var asked []message.Option
				switch target := netip.MustParseAddrPort(next); kind {
				case "Proxy-Uri":
					asked = []message.Option{{ID: message.ProxyURI, Value: []byte("coap://" + next + "/" + secretPath)}}
				case "Proxy-Scheme":
					asked = []message.Option{
						{ID: message.URIHost, Value: []byte(target.Addr().String())},
						{ID: message.URIPort, Value: []byte{byte(target.Port() >> 8), byte(target.Port())}},
						{ID: message.ProxyScheme, Value: []byte("coap")},
					}
				}
				for i := range n {
					cfg := proxy.Config{Routes: reverse(next)}
					if kind != "reverse" {
						cfg = proxy.Config{Forward: &proxy.Forward{Allow: loopback}}
						if i > 0 {
							cfg.Forward.Via = next
						}
					}
					hop := tap(t, start(t, cfg).Addr().String())
					hops = append(hops, hop)
					next = hop.Addr()
				}
				c := dial(t, ck, next, nil)
				everything(t, s, c, asked)
				for i, hop := range hops {
					checkSealed(t, fmt.Sprint("hop ", len(hops)-i), hop)
				}
			})
		}
	}
}

func tap(t testing.TB, to string) *mallory.Relay {
	t.Helper()
	r, err := mallory.New(to)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

// everything is GET, PUT and GET of 20 KB block-wise, Observe and its end.
func everything(t *testing.T, s *server, c *gocoap.Client, asked []message.Option) {
	t.Helper()
	ctx := within(t, 20*time.Second)
	path := "/" + secretPath
	got, err := c.Get(ctx, path, asked...)
	if b := body(t, got, err); b != secretText {
		t.Fatalf("got %q", b)
	}
	large := bytes.Repeat([]byte(secretText+" "), 20480/len(secretText))
	put, err := c.Put(ctx, path, message.TextPlain, bytes.NewReader(large), asked...)
	if body(t, put, err); put.Code() != codes.Changed {
		t.Fatalf("PUT: %v", put.Code())
	}
	got, err = c.Get(ctx, path, asked...)
	if b := body(t, got, err); b != string(large) {
		t.Fatalf("%d bytes came back of %d", len(b), len(large))
	}
	s.mu.Lock()
	s.body = []byte("now")
	s.mu.Unlock()
	notes := make(chan string, 100)
	o, err := c.Observe(ctx, path, func(m *pool.Message) { notes <- body(t, m, nil) }, asked...)
	if err != nil {
		t.Fatal(err)
	}
	want := func(text string) {
		t.Helper()
		select {
		case b := <-notes:
			if b != text {
				t.Fatalf("notified of %q, want %q", b, text)
			}
		case <-ctx.Done():
			t.Fatalf("no notification of %q", text)
		}
	}
	want("now")
	for i := range 6 {
		text := fmt.Sprint("value ", i)
		if err := s.notify(message.Type(i%2), text); err != nil {
			t.Fatal(err)
		}
		want(text)
	}
	if err := o.Cancel(ctx); err != nil {
		t.Fatal(err)
	}
	select {
	case <-s.ended:
	case <-ctx.Done():
		t.Fatal("the server did not hear that the observation is cancelled")
	}
}

// TestServerCalls: with a port for each client a server can send requests to
// its clients, as LwM2M servers do, and tell them apart.
func TestServerCalls(t *testing.T) {
	ck, sk := rings(t)
	s := serve(t, sk)
	r := start(t, proxy.Config{Routes: reverse(s.addr), PerClient: true})
	hop := tap(t, r.Addr().String())
	objects := mux.HandlerFunc(func(w mux.ResponseWriter, m *mux.Message) {
		_ = w.SetResponse(codes.Content, message.TextPlain, bytes.NewReader([]byte("the client's")))
	})
	c := dial(t, ck, hop.Addr(), objects)
	ctx := within(t, 20*time.Second)
	if _, err := c.Observe(ctx, "/"+secretPath, func(*pool.Message) {}); err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	back := s.ep.Client(s.conn, "client")
	s.mu.Unlock()
	for range 3 {
		m, err := back.Get(ctx, "/"+secretPath)
		if b := body(t, m, err); b != "the client's" {
			t.Fatalf("%q", b)
		}
	}
	if st := r.Stats(); st.Upstream != 1 {
		t.Errorf("%d upstream sockets for one client", st.Upstream)
	}
	checkSealed(t, "client's side", hop)
}

// TestRestart: a proxy that is killed and started anew is noticed by nobody
// but as a delay, and repeats nothing.
func TestRestart(t *testing.T) {
	ck, sk := rings(t)
	s := serve(t, sk)
	r := start(t, proxy.Config{Routes: reverse(s.addr)})
	listen := r.Addr().String()
	c := dial(t, ck, listen, nil)
	ctx := within(t, 30*time.Second)
	for i := range 3 {
		m, err := c.Get(ctx, "/"+secretPath)
		if b := body(t, m, err); b != secretText {
			t.Fatalf("%d: %q", i, b)
		}
		_ = r.stop()
		r = start(t, proxy.Config{Listen: listen, Routes: reverse(s.addr)})
	}
	m, err := c.Get(ctx, "/"+secretPath)
	body(t, m, err)
	if n := s.calls.Load(); n != 4 {
		t.Errorf("the handler ran %d times for 4 requests", n)
	}
}

// TestLossAndDuplication: loss on one side and duplicates on the other are the
// proxy's to mend: every request is answered, and runs once.
func TestLossAndDuplication(t *testing.T) {
	ck, sk := rings(t)
	s := serve(t, sk)
	upstream := tap(t, s.addr)
	r := start(t, proxy.Config{Routes: reverse(upstream.Addr()), AckTimeout: 100 * time.Millisecond})
	downstream := tap(t, r.Addr().String())
	var n atomic.Int32
	upstream.SetScript(func(p mallory.Packet) [][]byte {
		if n.Add(1)%4 == 1 {
			return nil
		}
		return [][]byte{p.Data}
	})
	downstream.SetScript(func(p mallory.Packet) [][]byte { return [][]byte{p.Data, p.Data, p.Data} })
	c := dial(t, ck, downstream.Addr(), nil)
	ctx := within(t, 60*time.Second)
	var wg sync.WaitGroup
	for range 6 {
		wg.Go(func() {
			m, err := c.Get(ctx, "/"+secretPath)
			if err != nil {
				t.Error(err)
				return
			}
			body(t, m, nil)
		})
	}
	wg.Wait()
	if n := s.calls.Load(); n != 6 {
		t.Errorf("the handler ran %d times for 6 requests", n)
	}
	if st := r.Stats(); st.Duplicates == 0 {
		t.Error("the proxy saw no duplicate")
	}
}

// TestDrain: a proxy that ends lets what is under way come to its end, and says
// so when it could not.
func TestDrain(t *testing.T) {
	ck, sk := rings(t)
	s := serve(t, sk)
	upstream := tap(t, s.addr)
	arrived, pass := make(chan struct{}, 10), make(chan struct{})
	upstream.SetScript(func(p mallory.Packet) [][]byte {
		if p.Direction == mallory.ToServer {
			arrived <- struct{}{}
			<-pass
		}
		return [][]byte{p.Data}
	})
	r := start(t, proxy.Config{Routes: reverse(upstream.Addr()), Drain: 20 * time.Second})
	c := dial(t, ck, r.Addr().String(), nil)
	answered := make(chan error, 1)
	go func() {
		_, err := c.Get(within(t, 20*time.Second), "/"+secretPath)
		answered <- err
	}()
	<-arrived
	ended := make(chan error, 1)
	go func() { ended <- r.stop() }()
	close(pass)
	if err := errors.Join(<-answered, <-ended); err != nil {
		t.Fatal(err)
	}
}
