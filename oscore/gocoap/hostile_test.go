package gocoap_test

import (
	"bytes"
	"context"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	piondtls "github.com/pion/dtls/v3"
	"github.com/plgd-dev/go-coap/v3/dtls"
	"github.com/plgd-dev/go-coap/v3/message"
	"github.com/plgd-dev/go-coap/v3/message/codes"
	"github.com/plgd-dev/go-coap/v3/message/pool"
	"github.com/plgd-dev/go-coap/v3/mux"
	coapnet "github.com/plgd-dev/go-coap/v3/net"
	"github.com/plgd-dev/go-coap/v3/options"
	"github.com/plgd-dev/go-coap/v3/udp"

	"github.com/oscorelay/oscorelay/internal/coap"
	"github.com/oscorelay/oscorelay/internal/proof"
	"github.com/oscorelay/oscorelay/oscore/gocoap"
)

// relay stands between a client and a server on UDP and does to each datagram
// what it is told: a nil function lets it pass.
type relay struct {
	front net.PacketConn
	back  net.Conn

	mu       sync.Mutex
	client   net.Addr
	toServer func(d []byte) [][]byte
	toClient func(d []byte) [][]byte
	seen     [][]byte
}

func newRelay(t *testing.T, server string) *relay {
	t.Helper()
	front, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	back, err := net.Dial("udp4", server)
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{front: front, back: back}
	t.Cleanup(func() { _ = front.Close(); _ = back.Close() })
	go r.pump(r.readClient, func() func([]byte) [][]byte { return r.toServer }, func(d []byte) { _, _ = back.Write(d) })
	go r.pump(back.Read, func() func([]byte) [][]byte { return r.toClient }, r.writeClient)
	return r
}

func (r *relay) addr() string { return r.front.LocalAddr().String() }

// set changes what is done to datagrams from now on.
func (r *relay) set(toServer, toClient func([]byte) [][]byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.toServer, r.toClient = toServer, toClient
}

func (r *relay) readClient(b []byte) (int, error) {
	n, addr, err := r.front.ReadFrom(b)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.client = addr
	return n, err
}

func (r *relay) writeClient(d []byte) {
	r.mu.Lock()
	addr := r.client
	r.mu.Unlock()
	_, _ = r.front.WriteTo(d, addr)
}

func (r *relay) pump(read func([]byte) (int, error), rule func() func([]byte) [][]byte, write func([]byte)) {
	b := make([]byte, 2048)
	for {
		n, err := read(b)
		if err != nil {
			return
		}
		d := bytes.Clone(b[:n])
		r.mu.Lock()
		r.seen = append(r.seen, d)
		change := rule()
		r.mu.Unlock()
		out := [][]byte{d}
		if change != nil {
			out = change(d)
		}
		for _, d := range out {
			write(d)
		}
	}
}

// parsed reads a datagram of the test's own traffic.
func parsed(d []byte) coap.Datagram {
	p, err := coap.ParseDatagram(d)
	if err != nil {
		panic(err) // both ends are this module's
	}
	return p
}

// flip returns a copy with the last byte changed.
func flip(d []byte) []byte {
	d = bytes.Clone(d)
	d[len(d)-1] ^= 1
	return d
}

// receive reads one datagram.
func receive(t *testing.T, c net.Conn) coap.Datagram {
	t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 2048)
	n, err := c.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	return parsed(b[:n])
}

// soon bounds a step of a test that should succeed.
func soon(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// text returns a message's payload.
func text(t testing.TB, m *pool.Message) string {
	t.Helper()
	b, err := m.ReadBody()
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// counter is a router whose /n counts its calls.
func counter(t *testing.T, calls *atomic.Int32) *mux.Router {
	t.Helper()
	r := mux.NewRouter()
	if err := r.Handle("/n", mux.HandlerFunc(func(w mux.ResponseWriter, _ *mux.Message) {
		calls.Add(1)
		_ = w.SetResponse(codes.Content, message.TextPlain, bytes.NewReader([]byte("ok")))
	})); err != nil {
		t.Fatal(err)
	}
	return r
}

func one(path string, h mux.HandlerFunc) *mux.Router {
	r := mux.NewRouter()
	r.HandleFunc(path, h)
	return r
}

// dialUDP connects with options of the test's own behind the endpoint's.
func dialUDP(t *testing.T, ep *gocoap.Endpoint, addr string, h mux.Handler, more ...udp.Option) *gocoap.Client {
	t.Helper()
	conn, err := udp.Dial(addr, append(append(ep.UDPClient(h), options.WithErrors(func(error) {})), more...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(); <-conn.Done() })
	return ep.Client(conn, "server")
}

// TestForgedBeforeGenuine lets forged datagrams with the genuine message ID and
// token come before each genuine one, both ways: the exchange goes on.
func TestForgedBeforeGenuine(t *testing.T) {
	proof.Checklist(t, "O-8.2-3", "O-8.4-2")
	ck, sk := rings(t)
	var calls atomic.Int32
	r := newRelay(t, serveUDP(t, gocoap.New(gocoap.Config{Keyring: sk}), counter(t, &calls)))
	forge := func(d []byte) [][]byte {
		p := parsed(d)
		if p.Code == coap.Empty {
			return [][]byte{d}
		}
		if p.Code.IsRequest() {
			return [][]byte{flip(d), flip(d), d}
		}
		plain := coap.Datagram{Type: p.Type, Code: coap.BadRequest, MessageID: p.MessageID, Token: p.Token}
		return [][]byte{flip(d), plain.Append(nil), flip(d), d}
	}
	r.set(forge, forge)
	c := dialUDP(t, gocoap.New(gocoap.Config{Keyring: ck}), r.addr(), nil)
	for range 5 {
		resp, err := c.Get(soon(t), "/n")
		if err != nil || text(t, resp) != "ok" {
			t.Fatalf("%v, %v", resp, err)
		}
	}
	if calls.Load() != 5 {
		t.Errorf("the handler ran %d times for 5 requests", calls.Load())
	}
}

// TestDuplicates answers doubled and retransmitted requests from memory.
func TestDuplicates(t *testing.T) {
	ck, sk := rings(t)
	var calls, answers atomic.Int32
	r := newRelay(t, serveUDP(t, gocoap.New(gocoap.Config{Keyring: sk}), counter(t, &calls)))
	r.set(func(d []byte) [][]byte { return [][]byte{d, d, d} }, func(d []byte) [][]byte {
		if answers.Add(1) == 1 {
			return nil // the first answer is lost
		}
		return [][]byte{d}
	})
	resp, err := dialUDP(t, gocoap.New(gocoap.Config{Keyring: ck}), r.addr(), nil).Get(soon(t), "/n")
	if err != nil || text(t, resp) != "ok" || calls.Load() != 1 {
		t.Fatalf("%v, %v, %d calls", resp, err, calls.Load())
	}
}

// TestReplay refuses a captured request from another address.
func TestReplay(t *testing.T) {
	proof.Checklist(t, "O-7.4-1", "O-7.4-2")
	ck, sk := rings(t)
	var calls atomic.Int32
	addr := serveUDP(t, gocoap.New(gocoap.Config{Keyring: sk}), counter(t, &calls))
	r := newRelay(t, addr)
	if _, err := dialUDP(t, gocoap.New(gocoap.Config{Keyring: ck}), r.addr(), nil).Get(soon(t), "/n"); err != nil {
		t.Fatal(err)
	}
	thief, err := net.Dial("udp4", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer thief.Close()
	r.mu.Lock()
	captured := r.seen[0]
	r.mu.Unlock()
	if _, err := thief.Write(captured); err != nil {
		t.Fatal(err)
	}
	if d := receive(t, thief); d.Code != coap.Unauthorized || !bytes.Contains(d.Body, []byte("Replay detected")) {
		t.Errorf("answer to the replay: %v %q", d.Code, d.Body)
	}
	if calls.Load() != 1 {
		t.Errorf("the handler ran %d times", calls.Load())
	}
}

// TestStrays sends a server what belongs to no exchange: no handler runs,
// nothing is answered but by a Reset, and traffic goes on.
func TestStrays(t *testing.T) {
	ck, sk := rings(t)
	var calls atomic.Int32
	ep := gocoap.New(gocoap.Config{Keyring: sk, AllowPlain: func(codes.Code, string) bool { calls.Add(1); return true }})
	addr := serveUDP(t, ep, counter(t, &calls))
	c, err := net.Dial("udp4", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	sealed := []byte{0x90, 0xff, 1}
	for _, d := range []coap.Datagram{
		{Type: coap.NonConfirmable, Code: coap.Content, MessageID: 1, Token: []byte{1}},
		{Type: coap.Reset, MessageID: 2},
		{Type: coap.Acknowledgement, MessageID: 3},
		{Type: coap.NonConfirmable, Code: coap.CSM, MessageID: 4},
		{Type: coap.Acknowledgement, Code: coap.Content, MessageID: 5, Token: []byte{1}, Body: sealed},
		{Type: coap.Confirmable, Code: coap.Content, MessageID: 6, Token: []byte{9}, Body: sealed},
	} {
		if _, err := c.Write(d.Append(nil)); err != nil {
			t.Fatal(err)
		}
	}
	if d := receive(t, c); d.Type != coap.Reset || d.MessageID != 6 {
		t.Errorf("answer to a sealed confirmable stray: %v %v %d", d.Type, d.Code, d.MessageID)
	}
	if calls.Load() != 0 {
		t.Errorf("a handler ran %d times", calls.Load())
	}
	if _, err := dialUDP(t, gocoap.New(gocoap.Config{Keyring: ck}), addr, nil).Get(soon(t), "/n"); err != nil {
		t.Error(err)
	}
}

// TestSeparateResponse answers a slow request by an acknowledgement and a
// response of its own.
func TestSeparateResponse(t *testing.T) {
	ck, sk := rings(t)
	release := make(chan struct{})
	var calls, acks atomic.Int32
	r := newRelay(t, serveUDP(t, gocoap.New(gocoap.Config{Keyring: sk}), one("/slow", func(w mux.ResponseWriter, _ *mux.Message) {
		calls.Add(1)
		<-release
		_ = w.SetResponse(codes.Content, message.TextPlain, bytes.NewReader([]byte("late")))
	})))
	r.set(nil, func(d []byte) [][]byte {
		if p := parsed(d); p.Type == coap.Acknowledgement && p.Code == coap.Empty && acks.Add(1) == 1 {
			close(release)
		}
		return [][]byte{d, d}
	})
	resp, err := dialUDP(t, gocoap.New(gocoap.Config{Keyring: ck}), r.addr(), nil).Get(soon(t), "/slow")
	if err != nil || text(t, resp) != "late" || calls.Load() != 1 {
		t.Fatalf("%v, %v, %d calls", resp, err, calls.Load())
	}
}

// TestDTLS runs sealed exchanges in both directions inside DTLS.
func TestDTLS(t *testing.T) {
	ck, sk := rings(t)
	psk := piondtls.WithPSK(func([]byte) ([]byte, error) { return []byte("transport key"), nil })
	hint, suite := piondtls.WithPSKIdentityHint([]byte("test")), piondtls.WithCipherSuites(piondtls.TLS_PSK_WITH_AES_128_CCM_8)
	l, err := coapnet.NewDTLSListener("udp4", "127.0.0.1:0", coapnet.NewDTLSServerOptions(psk, hint, suite))
	if err != nil {
		t.Fatal(err)
	}
	ep := gocoap.New(gocoap.Config{Keyring: sk})
	s := dtls.NewServer(append(ep.DTLSServer(one("/rd", func(w mux.ResponseWriter, r *mux.Message) {
		resp, err := w.Conn().Get(r.Context(), "/3/0/0")
		if err != nil {
			t.Error(err)
			return
		}
		_ = w.SetResponse(codes.Changed, message.TextPlain, bytes.NewReader([]byte(text(t, resp))))
	})), options.WithErrors(func(error) {}))...)
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() { s.Stop(); <-done })

	cep := gocoap.New(gocoap.Config{Keyring: ck})
	objects := one("/3/0/0", func(w mux.ResponseWriter, r *mux.Message) {
		if who, ok := gocoap.Peer(r.Context()); who != "server" || !ok {
			t.Errorf("request of %q", who)
		}
		_ = w.SetResponse(codes.Content, message.TextPlain, bytes.NewReader([]byte("maker")))
	})
	conn, err := dtls.Dial(l.Addr().String(), dtls.NewDTLSClientOptions(psk, hint, suite), append(cep.UDPClient(objects), options.WithErrors(func(error) {}))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(); <-conn.Done() })
	resp, err := cep.Client(conn, "server").Post(soon(t), "/rd", message.TextPlain, nil)
	if err != nil || resp.Code() != codes.Changed || text(t, resp) != "maker" {
		t.Fatalf("%v, %v", resp, err)
	}
}
