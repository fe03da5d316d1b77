package gocoap_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/oscorelay/oscorelay/internal/proof"
	"github.com/oscorelay/oscorelay/keys"
	"github.com/oscorelay/oscorelay/oscore"
	"github.com/oscorelay/oscorelay/oscore/gocoap"
	"github.com/pion/dtls/v3"
	godtls "github.com/plgd-dev/go-coap/v3/dtls"
	"github.com/plgd-dev/go-coap/v3/message"
	"github.com/plgd-dev/go-coap/v3/message/codes"
	"github.com/plgd-dev/go-coap/v3/mux"
	coapnet "github.com/plgd-dev/go-coap/v3/net"
	"github.com/plgd-dev/go-coap/v3/options"
	"github.com/plgd-dev/go-coap/v3/tcp"
	"github.com/plgd-dev/go-coap/v3/udp"
)

func TestNoContextNothingSent(t *testing.T) {
	ck := keys.New(keys.NewMemory())
	if _, err := ck.Add(t.Context(), entry()); err != nil { // history unknown
		t.Fatal(err)
	}
	_, sk := rings(t)
	w := newWorld(t, setup{ck: ck, sk: sk})
	_, err := w.post("secret body")
	if !errors.Is(err, gocoap.ErrTainted) {
		t.Errorf("%v, want ErrTainted", err)
	}
	other := w.cep.Client(w.client.Conn, "nobody")
	if _, err := other.Get(w.ctx, "/secret-path"); !errors.Is(err, gocoap.ErrNoPeer) {
		t.Errorf("%v, want ErrNoPeer", err)
	}
	if _, err := other.Observe(w.ctx, "/secret-path", nil); !errors.Is(err, gocoap.ErrNoPeer) {
		t.Errorf("%v, want ErrNoPeer", err)
	}
	none := gocoap.New(gocoap.Config{})
	c, err := none.DialUDP(w.relay.addr(), "server", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Get(w.ctx, "/secret-path"); !errors.Is(err, gocoap.ErrNoPeer) {
		t.Errorf("%v, want ErrNoPeer", err)
	}
	// The relay is asked last: what was sent before it has arrived then.
	if err := w.client.Conn.Ping(w.ctx); err != nil {
		t.Fatal(err)
	}
	for _, d := range w.relay.seen() {
		if !d.empty() {
			t.Errorf("on the wire: %v", d.Message.String())
		}
	}
	w.wantCalls(0)
}

func TestWriteMessageRefusesRequests(t *testing.T) {
	w := newWorld(t, setup{})
	if err := w.client.WriteMessage(w.request(codes.POST, "/secret-path", "secret")); !errors.Is(err, gocoap.ErrUseDo) {
		t.Error(err)
	}
	stray := w.client.AcquireMessage(w.ctx)
	stray.SetCode(codes.Content)
	stray.SetToken(message.Token("nothing"))
	if err := w.client.WriteMessage(stray); err == nil {
		t.Error("an answer to no request was sent")
	}
	if _, err := w.client.Do(w.request(codes.GET, "/x", "", message.Option{ID: message.Observe})); !errors.Is(err, gocoap.ErrUseDo) {
		t.Error(err)
	}
	if len(w.relay.seen()) != 0 {
		t.Error("something was sent")
	}
}

// The refusal of a connection that the endpoint does not see.
func TestUnbound(t *testing.T) {
	w := newWorld(t, setup{})
	conn, err := udp.Dial(w.relay.addr())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := w.cep.Client(conn, "server").Get(w.ctx, "/x"); !errors.Is(err, gocoap.ErrUnbound) {
		t.Errorf("UDP: %v, want ErrUnbound", err)
	}
	if len(w.relay.seen()) != 0 {
		t.Error("something was sent")
	}
	stream, err := tcp.Dial(serveTCP(t, w.sep, mux.HandlerFunc(w.echo)))
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	ctx, cancel := context.WithTimeout(w.ctx, 100*time.Millisecond)
	defer cancel()
	if _, err := w.cep.Client(stream, "server").Get(ctx, "/x"); !errors.Is(err, gocoap.ErrUnbound) {
		t.Errorf("TCP: %v, want ErrUnbound", err)
	}
}

func TestAllow(t *testing.T) {
	w := newWorld(t, setup{server: gocoap.Config{Allow: func(peer string, method codes.Code, path string) bool {
		return peer == "client" && method == codes.GET && path == "/open"
	}}})
	if resp := w.do(codes.GET, "/open", ""); resp.Code() != codes.Content {
		t.Error(resp)
	}
	for _, r := range []struct {
		code codes.Code
		path string
	}{{codes.GET, "/closed"}, {codes.PUT, "/open"}, {codes.GET, "/open/more"}, {codes.GET, "/"}} {
		if resp := w.do(r.code, r.path, ""); resp.Code() != codes.Forbidden {
			t.Errorf("%v %s: %v", r.code, r.path, resp.Code())
		}
	}
	w.wantCalls(1)
	w.relay.checkSealed("closed") // the refusal, too
}

func TestPlainRequests(t *testing.T) {
	plain := message.Message{Type: message.Confirmable, Code: codes.GET, MessageID: 7, Token: message.Token("tok"), Options: message.Options{{ID: message.URIPath, Value: []byte("open")}}}
	t.Run("refused", func(t *testing.T) {
		w := newWorld(t, setup{})
		d := ask(t, stranger(t, w.server), build(t, plain))
		if d.Code != codes.Unauthorized || d.Type != message.Acknowledgement || d.MessageID != 7 || string(d.Token) != "tok" {
			t.Error(d.Message.String())
		}
		w.wantCalls(0)
	})
	t.Run("allowed", func(t *testing.T) {
		w := newWorld(t, setup{server: gocoap.Config{AllowPlain: func(_ codes.Code, path string) bool { return path == "/open" }}})
		c := stranger(t, w.server)
		if d := ask(t, c, build(t, plain)); d.Code != codes.Content {
			t.Error(d.Message.String())
		}
		plain.MessageID++
		plain.Options = message.Options{{ID: message.URIPath, Value: []byte("closed")}}
		if d := ask(t, c, build(t, plain)); d.Code != codes.Unauthorized {
			t.Error(d.Message.String())
		}
		w.wantCalls(1)
	})
	t.Run("rate", func(t *testing.T) {
		w := newWorld(t, setup{})
		c := stranger(t, w.server)
		answers := 0
		for i := range int32(100) {
			plain.MessageID = 100 + i
			if _, err := c.Write(build(t, plain)); err != nil {
				t.Fatal(err)
			}
			ping := build(t, message.Message{Type: message.Confirmable, MessageID: 0x8000 + i})
			for d := ask(t, c, ping); d.Type != message.Reset; d = answer(t, c) {
				answers++
			}
		}
		if answers > 50 {
			t.Errorf("%d answers to 100 requests of a stranger", answers)
		}
	})
}

func TestGuard(t *testing.T) {
	w := newWorld(t, setup{})
	for name, guarded := range map[string]bool{"guarded": true, "bare": false} {
		var calls atomic.Int32
		var h mux.Handler = mux.HandlerFunc(func(rw mux.ResponseWriter, _ *mux.Message) {
			calls.Add(1)
			_ = rw.SetResponse(codes.Content, message.TextPlain, nil)
		})
		if guarded {
			h = gocoap.Guard(h)
		}
		l, err := coapnet.NewListenUDP("udp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		s := udp.NewServer(options.WithMux(h))
		done := make(chan error, 1)
		go func() { done <- s.Serve(l) }()
		w.mustPost("x")
		request := w.relay.find(isSealedRequest)[0].raw
		d := ask(t, stranger(t, l.LocalAddr().String()), request)
		// The bare one shows what the guard is for.
		if guarded && (d.Code != codes.BadOption || calls.Load() != 0) || !guarded && calls.Load() != 1 {
			t.Errorf("%s: %v, %d calls", name, d.Code, calls.Load())
		}
		s.Stop()
		<-done
		l.Close()
	}
}

func TestFreshness(t *testing.T) {
	w := newWorld(t, setup{server: gocoap.Config{Freshness: func(_ string, method codes.Code, _ string) gocoap.Freshness {
		if method == codes.GET {
			return gocoap.FreshWindow
		}
		return gocoap.FreshUnsafe
	}}})
	// A PUT that is held back: the client gives up, and it is delivered later.
	w.relay.set(func(datagram) [][]byte { return nil })
	ctx, cancel := context.WithTimeout(w.ctx, 100*time.Millisecond)
	defer cancel()
	if _, err := w.client.Put(ctx, "/switch", message.TextPlain, text("on")); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
	w.relay.set(func(d datagram) [][]byte {
		if d.from == fromServer {
			return nil // what the late request is answered is for no one
		}
		return [][]byte{d.raw}
	})
	w.relay.send(fromClient, w.relay.find(isSealedRequest)[0].raw)
	w.relay.await(1, isSealedResponse) // 4.01 with Echo, protected
	w.wantCalls(0)
	w.relay.set(nil)
	before := len(w.relay.find(isSealedRequest))
	resp, err := w.client.Put(w.ctx, "/switch", message.TextPlain, text("off"))
	if err != nil || resp.Code() != codes.Content {
		t.Fatal(resp, err)
	}
	w.wantCalls(1)
	if rounds := len(w.relay.find(isSealedRequest)) - before; rounds != 2 {
		t.Errorf("%d messages for a request that needs an Echo, want 2", rounds)
	}
	before = len(w.relay.find(isSealedRequest))
	if resp := w.do(codes.PUT, "/switch", "on"); resp.Code() != codes.Content {
		t.Error(resp)
	}
	if rounds := len(w.relay.find(isSealedRequest)) - before; rounds != 1 {
		t.Errorf("%d messages with an Echo from the last answer, want 1", rounds)
	}
	if resp := w.do(codes.PUT, "/large", string(bytes.Repeat([]byte("x"), 20000))); resp.Code() != codes.Content {
		t.Error(resp)
	}
	w.relay.checkSealed("switch")
	proof.Requirement(t, "direct", "E2E-6")
	proof.Checklist(t, "E-03", "E-04", "E-05", "E-06", "E-08", "E-09")
}

func TestServerLosesItsWindow(t *testing.T) {
	store := keys.NewMemory()
	ck := ring(t, keys.NewMemory(), entry())
	sk := ring(t, store, mirror())
	w := newWorld(t, setup{ck: ck, sk: sk})
	w.mustPost("before")
	captured := w.relay.find(isSealedRequest)[0]

	store.Restart() // what kill -9 leaves
	sk2 := keys.New(store)
	if _, err := sk2.Add(t.Context(), mirror()); err != nil {
		t.Fatal(err)
	}
	w2 := newWorld(t, setup{ck: ck, sk: sk2})
	// A replay meets the new process before the genuine client does: it is
	// challenged, not acted on.
	if d := ask(t, stranger(t, w2.server), captured.raw); !d.sealed() {
		t.Errorf("the replay was answered %v", d.Message.String())
	}
	w2.wantCalls(0)
	w2.mustPost("after")
	w2.wantCalls(1)
	if n := len(w2.relay.find(isSealedRequest)); n != 2 {
		t.Errorf("%d messages, want the request and its repetition with an Echo", n)
	}
	if d := ask(t, stranger(t, w2.server), captured.raw); d.Code != codes.Unauthorized || d.sealed() {
		t.Errorf("the replay was answered %v", d.Message.String())
	}
	w2.mustPost("and on")
	w2.wantCalls(2)
	proof.Requirement(t, "direct", "E2E-3")
	proof.Checklist(t, "O-B.1.2-1", "O-7.5-1")
}

func TestRederive(t *testing.T) {
	ce, se := entry(), mirror()
	ce.Settings.Rederive, se.Settings.Rederive = oscore.RoleClient, oscore.RoleServer
	ck := keys.New(keys.NewMemory())
	if _, err := ck.Add(t.Context(), ce); err != nil { // its history is lost
		t.Fatal(err)
	}
	w := newWorld(t, setup{ck: ck, sk: ring(t, keys.NewMemory(), se)})
	w.mustPost("secret body")
	w.mustPost("secret body")
	w.wantCalls(2)
	resp, err := w.client.DoWith(w.request(codes.POST, "/x", "anew"), gocoap.WithRederive())
	if err != nil || bodyOf(t, resp) != "anew" {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 4 { // others wait for the derivation
		wg.Go(func() {
			if _, err := w.client.DoWith(w.request(codes.POST, "/x", "anew"), gocoap.WithRederive()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	w.relay.checkSealed("secret")
}

func TestAuthentication(t *testing.T) {
	wrong := entry()
	wrong.Params.MasterSecret = oscore.Secret("another 16 bytes")
	swapped := entry()
	swapped.Params = swapped.Params.Swap()
	unknown := entry()
	unknown.Params.SenderID = []byte{7}
	for name, c := range map[string]struct {
		entry keys.Entry
		code  codes.Code
	}{"secret": {wrong, codes.BadRequest}, "IDs swapped": {swapped, codes.Unauthorized}, "unknown kid": {unknown, codes.Unauthorized}} {
		t.Run(name, func(t *testing.T) {
			_, sk := rings(t)
			w := newWorld(t, setup{ck: ring(t, keys.NewMemory(), c.entry), sk: sk, client: gocoap.Config{PlainErrorWait: 100 * time.Millisecond}})
			_, err := w.post("secret body")
			var plain *gocoap.PlainError
			if !errors.As(err, &plain) || plain.Code != c.code {
				t.Errorf("%v, want %v", err, c.code)
			}
			w.wantCalls(0)
		})
	}
	t.Run("server", func(t *testing.T) {
		// Who has not the key answers something in the form of a protected
		// response: the client takes nothing of it.
		w := newWorld(t, setup{client: gocoap.Config{PlainErrorWait: time.Minute}})
		w.relay.set(func(d datagram) [][]byte {
			if isSealedResponse(d) {
				return [][]byte{flip(d.raw, -1)}
			}
			return [][]byte{d.raw}
		})
		ctx, cancel := context.WithTimeout(w.ctx, 200*time.Millisecond)
		defer cancel()
		if _, err := w.client.Get(ctx, "/x"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v", err)
		}
	})
	proof.Requirement(t, "direct", "E2E-4")
}

// Both sides send requests on one connection: the server from a handler and
// from its listening socket, the client meanwhile.
func TestBothRoles(t *testing.T) {
	for _, transport := range []string{"udp", "tcp"} {
		t.Run(transport, func(t *testing.T) {
			ck, sk := rings(t)
			cep, sep := gocoap.New(gocoap.Config{Keyring: ck}), gocoap.New(gocoap.Config{Keyring: sk})
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			register := mux.HandlerFunc(func(rw mux.ResponseWriter, m *mux.Message) {
				back, err := rw.Conn().Get(m.Context(), "/3/0/0")
				if err != nil {
					t.Error(err)
					return
				}
				b, _ := back.ReadBody()
				rw.Conn().ReleaseMessage(back)
				_ = rw.SetResponse(codes.Created, message.TextPlain, bytes.NewReader(b))
			})
			objects := mux.HandlerFunc(func(rw mux.ResponseWriter, m *mux.Message) {
				if peer, ok := gocoap.Peer(m.Context()); !ok || peer != "server" {
					t.Errorf("peer %q", peer)
				}
				_ = rw.SetResponse(codes.Content, message.TextPlain, text("manufacturer"))
			})
			var c *gocoap.Client
			var err error
			var back func() mux.Conn
			var relayed *relay
			if transport == "udp" {
				addr, server := startUDP(t, sep, register)
				relayed = newRelay(t, addr)
				c, err = cep.DialUDP(relayed.addr(), "server", objects)
				back = func() mux.Conn {
					conn, err := server.NewConn(relayed.up.LocalAddr().(*net.UDPAddr))
					if err != nil {
						t.Fatal(err)
					}
					return sep.Client(conn, "client")
				}
			} else {
				c, err = cep.DialTCP(serveTCP(t, sep, register), "server", objects)
			}
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			var wg sync.WaitGroup
			for range 20 {
				wg.Go(func() {
					resp, err := c.Post(ctx, "/rd", message.TextPlain, text("register"))
					if err != nil || resp.Code() != codes.Created {
						t.Error(resp, err)
						return
					}
					if bodyOf(t, resp) != "manufacturer" {
						t.Error("wrong body")
					}
				})
			}
			wg.Wait()
			if back == nil {
				proof.Requirement(t, "direct-tcp", "MBT-001")
				return
			}
			resp, err := back().Get(ctx, "/3/0/0")
			if err != nil || bodyOf(t, resp) != "manufacturer" {
				t.Error(err)
			}
			relayed.checkSealed("manufacturer", "register")
			proof.Checklist(t, "O-3.1-1")
			proof.Requirement(t, "direct-udp", "MBT-001")
		})
	}
}

// A server may send the first request from its listening socket, to an address
// that never sent anything.
func TestServerBegins(t *testing.T) {
	ck, sk := rings(t)
	cep, sep := gocoap.New(gocoap.Config{Keyring: ck}), gocoap.New(gocoap.Config{Keyring: sk})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	device := serveUDP(t, cep, mux.HandlerFunc(func(rw mux.ResponseWriter, _ *mux.Message) {
		_ = rw.SetResponse(codes.Content, message.TextPlain, text("device"))
	}))
	addr, err := net.ResolveUDPAddr("udp4", device)
	if err != nil {
		t.Fatal(err)
	}
	_, server := startUDP(t, sep, nil)
	var conn mux.Conn
	for conn == nil { // Serve may not have begun
		if cc, err := server.NewConn(addr); err == nil {
			conn = cc
		}
	}
	resp, err := sep.Client(conn, "client").Get(ctx, "/3/0/0")
	if err != nil || bodyOf(t, resp) != "device" {
		t.Fatal(err)
	}
}

func TestDTLS(t *testing.T) {
	ck, sk := rings(t)
	cep, sep := gocoap.New(gocoap.Config{Keyring: ck}), gocoap.New(gocoap.Config{Keyring: sk})
	key := func([]byte) ([]byte, error) { return []byte("transport secret"), nil }
	l, err := coapnet.NewDTLSListener("udp4", "127.0.0.1:0", coapnet.NewDTLSServerOptions(dtls.WithPSK(key), dtls.WithPSKIdentityHint([]byte("hint")), dtls.WithCipherSuites(dtls.TLS_PSK_WITH_AES_128_CCM_8)))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var calls atomic.Int32
	s := godtls.NewServer(sep.DTLSServer(echoRouter(t, &calls))...)
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	defer func() {
		s.Stop()
		<-done
	}()
	conn, err := godtls.Dial(l.Addr().String(), godtls.NewDTLSClientOptions(dtls.WithPSK(key), dtls.WithPSKIdentityHint([]byte("hint")), dtls.WithCipherSuites(dtls.TLS_PSK_WITH_AES_128_CCM_8)), cep.UDPClient(nil)...)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	c := cep.Client(conn, "server")
	for _, n := range []int{0, 100, 20000} {
		body := bytes.Repeat([]byte("x"), n)
		resp, err := c.Post(ctx, "/echo", message.AppOctets, bytes.NewReader(body))
		if err != nil || bodyOf(t, resp) != string(body) {
			t.Fatal(n, err)
		}
	}
	if calls.Load() != 3 {
		t.Errorf("%d calls", calls.Load())
	}
	proof.Requirement(t, "direct-dtls", "MBT-001")
}

func TestConcurrentRequests(t *testing.T) {
	for _, transport := range []string{"udp", "tcp"} {
		t.Run(transport, func(t *testing.T) {
			// The window is the default, of 32: none of 500 requests may be
			// overtaken by as many others.
			ck, sk := rings(t)
			cep, sep := gocoap.New(gocoap.Config{Keyring: ck}), gocoap.New(gocoap.Config{Keyring: sk})
			var calls atomic.Int32
			var c *gocoap.Client
			var err error
			if transport == "tcp" {
				c, err = cep.DialTCP(serveTCP(t, sep, echoRouter(t, &calls)), "server", nil)
			} else {
				c, err = cep.DialUDP(serveUDP(t, sep, echoRouter(t, &calls)), "server", nil)
			}
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			var wg sync.WaitGroup
			for i := range 500 {
				wg.Go(func() {
					body := fmt.Sprint("request ", i)
					if i%50 == 0 {
						body = string(bytes.Repeat([]byte(body), 300))
					}
					resp, err := c.Post(ctx, "/echo", message.TextPlain, text(body))
					if err != nil {
						t.Error(err)
						return
					}
					if bodyOf(t, resp) != body {
						t.Error("another request's answer")
					}
					c.ReleaseMessage(resp)
				})
			}
			wg.Wait()
			if calls.Load() != 500 {
				t.Errorf("the handler ran %d times", calls.Load())
			}
		})
	}
}

// Fifty devices with contexts of their own; the handler of one never returns.
func TestManyConnections(t *testing.T) {
	const devices = 50
	sk := keys.New(keys.NewMemory())
	rings := make([]*keys.Keyring, devices)
	for i := range rings {
		e := entry()
		e.Params.SenderID = []byte{9, byte(i)}
		e.Params.MasterSecret = oscore.Secret(fmt.Sprintf("secret %09d", i))
		p := e.Peer()
		p.Name = fmt.Sprint("device-", i)
		if _, err := sk.AddNew(t.Context(), p); err != nil {
			t.Fatal(err)
		}
		rings[i] = ring(t, keys.NewMemory(), e)
	}
	blocked := make(chan struct{})
	stuck := make(chan struct{})
	sep := gocoap.New(gocoap.Config{Keyring: sk})
	addr := serveUDP(t, sep, mux.HandlerFunc(func(rw mux.ResponseWriter, m *mux.Message) {
		peer, _ := gocoap.Peer(m.Context())
		if peer == "device-0" {
			close(stuck)
			<-blocked
		}
		_ = rw.SetResponse(codes.Content, message.TextPlain, text(peer))
	}))
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var wg sync.WaitGroup
	run := func(i, n int) {
		c, err := gocoap.New(gocoap.Config{Keyring: rings[i]}).DialUDP(addr, "server", nil)
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		for range n {
			resp, err := c.Get(ctx, "/x")
			if err != nil || bodyOf(t, resp) != fmt.Sprint("device-", i) {
				t.Error(i, err)
				return
			}
			c.ReleaseMessage(resp)
		}
	}
	var first sync.WaitGroup
	first.Go(func() { run(0, 1) })
	<-stuck
	for i := 1; i < devices; i++ {
		wg.Go(func() { run(i, 20) })
	}
	wg.Wait()
	close(blocked)
	first.Wait()
}

func TestFetchAndPatch(t *testing.T) {
	var got atomic.Value
	w := newWorld(t, setup{handler: mux.HandlerFunc(func(rw mux.ResponseWriter, m *mux.Message) {
		b, _ := m.ReadBody()
		path, _ := m.Path()
		got.Store(fmt.Sprint(m.Code(), path, len(b)))
		_ = rw.SetResponse(codes.Content, message.TextPlain, bytes.NewReader(b))
	})})
	for _, code := range []codes.Code{codes.FETCH, codes.IPATCH, codes.PATCH, codes.PUT, codes.DELETE} {
		for _, n := range []int{1, 3000} {
			body := string(bytes.Repeat([]byte("x"), n))
			resp := w.do(code, "/3/0", body)
			if bodyOf(t, resp) != body || got.Load() != fmt.Sprint(code, "/3/0", n) {
				t.Errorf("%v %d: %v", code, n, got.Load())
			}
		}
	}
	w.relay.checkSealed("xxxx")
}

func TestProgress(t *testing.T) {
	w := newWorld(t, setup{})
	body := string(bytes.Repeat([]byte("0123456789abcdef"), 20000/16))
	var done, calls int
	resp, err := w.client.DoWith(w.request(codes.PUT, "/firmware", body), gocoap.WithProgress(func(d, total int) {
		calls++
		done = d
		if d < 0 || total != 0 && d > total {
			t.Errorf("%d of %d", d, total)
		}
	}))
	if err != nil || bodyOf(t, resp) != body {
		t.Fatal(err)
	}
	if done != len(body) || calls < 38 {
		t.Errorf("%d calls, %d bytes at last", calls, done)
	}
	w.relay.checkSealed("firmware", "0123456789abcdef")
	proof.Checklist(t, "O-4.1.3.4.1-1", "O-4.1.3.4.1-2", "O-4.1.3.4.2-2")
}

func TestNoResponse(t *testing.T) {
	w := newWorld(t, setup{})
	ctx, cancel := context.WithTimeout(w.ctx, 300*time.Millisecond)
	defer cancel()
	req := w.request(codes.PUT, "/secret-path", "x", message.Option{ID: message.NoResponse, Value: []byte{2}})
	req.SetContext(ctx)
	if _, err := w.client.Do(req); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
	w.wantCalls(1)
	if n := len(w.relay.find(isSealedResponse)); n != 0 {
		t.Errorf("%d responses, though the request wants none", n)
	}
	w.relay.await(1, func(d datagram) bool { return d.from == fromServer && isAck(d) })
	w.relay.checkSealed("secret")
	proof.Checklist(t, "O-4.1.3.6-1", "O-4.1.3.6-2")
}

func TestUnknownCriticalOption(t *testing.T) {
	w := newWorld(t, setup{})
	for _, o := range []message.Option{{ID: 65001}, {ID: 31}} {
		if resp := w.do(codes.GET, "/x", "", o); resp.Code() != codes.BadOption {
			t.Errorf("option %d: %v", o.ID, resp.Code())
		}
	}
	if resp := w.do(codes.GET, "/x", "", message.Option{ID: 65000}); resp.Code() != codes.Content {
		t.Error(resp)
	}
	w.wantCalls(1)
	w.relay.checkSealed()
}
