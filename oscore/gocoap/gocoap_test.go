package gocoap_test

import (
	"bytes"
	"context"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/oscorelay/oscorelay/oscore/gocoap"
	"github.com/plgd-dev/go-coap/v3/message"
	"github.com/plgd-dev/go-coap/v3/message/codes"
	"github.com/plgd-dev/go-coap/v3/message/pool"
	"github.com/plgd-dev/go-coap/v3/mux"
	coapnet "github.com/plgd-dev/go-coap/v3/net"
	"github.com/plgd-dev/go-coap/v3/tcp"
)

func serveTCP(t testing.TB, ep *gocoap.Endpoint, h mux.Handler) string {
	t.Helper()
	l, err := coapnet.NewTCPListener("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := tcp.NewServer(ep.TCPServer(h)...)
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() {
		s.Stop()
		<-done
		l.Close()
	})
	return l.Addr().(*net.TCPAddr).String()
}

func echoRouter(t testing.TB, calls *atomic.Int32) *mux.Router {
	r := mux.NewRouter()
	handle := func(path string, f mux.HandlerFunc) {
		if err := r.Handle(path, f); err != nil {
			t.Fatal(err)
		}
	}
	handle("/echo", func(w mux.ResponseWriter, m *mux.Message) {
		calls.Add(1)
		b, err := m.ReadBody()
		if err != nil {
			t.Error(err)
		}
		if peer, ok := gocoap.Peer(m.Context()); !ok || peer != "client" {
			t.Errorf("peer %q", peer)
		}
		_ = w.SetResponse(codes.Content, message.AppOctets, bytes.NewReader(b))
	})
	handle("/observe", func(w mux.ResponseWriter, m *mux.Message) {
		calls.Add(1)
		obs, err := m.Observe()
		if err != nil || obs != 0 {
			_ = w.SetResponse(codes.Content, message.TextPlain, bytes.NewReader(bytes.Repeat([]byte("4"), 2501)))
			return
		}
		conn, token := w.Conn(), append(message.Token{}, m.Token()...)
		go func() {
			for i := range 5 {
				n := conn.AcquireMessage(conn.Context())
				n.SetCode(codes.Content)
				n.SetToken(token)
				n.SetObserve(uint32(i + 2))
				n.SetContentFormat(message.TextPlain)
				n.SetBody(bytes.NewReader(bytes.Repeat([]byte{byte('0' + i)}, 1+i/4*2500)))
				_ = conn.WriteMessage(n)
				conn.ReleaseMessage(n)
			}
		}()
	})
	return r
}

func TestRoundTrip(t *testing.T) {
	for _, transport := range []string{"udp", "tcp"} {
		t.Run(transport, func(t *testing.T) {
			ck, sk := rings(t)
			var calls atomic.Int32
			sep, cep := gocoap.New(gocoap.Config{Keyring: sk}), gocoap.New(gocoap.Config{Keyring: ck})
			var c *gocoap.Client
			var err error
			if transport == "udp" {
				c, err = cep.DialUDP(serveUDP(t, sep, echoRouter(t, &calls)), "server", nil)
			} else {
				c, err = cep.DialTCP(serveTCP(t, sep, echoRouter(t, &calls)), "server", nil)
			}
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			for _, n := range []int{0, 1, 1000, 1024, 1025, 20000} {
				body := bytes.Repeat([]byte("x"), n)
				resp, err := c.Post(ctx, "/echo", message.AppOctets, bytes.NewReader(body))
				if err != nil {
					t.Fatal(n, err)
				}
				got, err := resp.ReadBody()
				if err != nil || !bytes.Equal(got, body) || resp.Code() != codes.Content {
					t.Fatalf("%d bytes: %v, %d bytes back, %v", n, resp.Code(), len(got), err)
				}
				c.ReleaseMessage(resp)
			}
			if calls.Load() != 6 {
				t.Errorf("handler ran %d times", calls.Load())
			}
		})
	}
}

func TestObserve(t *testing.T) {
	ck, sk := rings(t)
	var calls atomic.Int32
	sep, cep := gocoap.New(gocoap.Config{Keyring: sk}), gocoap.New(gocoap.Config{Keyring: ck})
	c, err := cep.DialUDP(serveUDP(t, sep, echoRouter(t, &calls)), "server", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	got := make(chan byte, 10)
	o, err := c.Observe(ctx, "/observe", func(m *pool.Message) {
		b, err := m.ReadBody()
		if err != nil || len(b) == 0 {
			t.Errorf("notification %q %v", b, err)
			return
		}
		got <- b[0]
	})
	if err != nil {
		t.Fatal(err)
	}
	last := byte(0)
	for last != '4' {
		select {
		case b := <-got:
			if b <= last {
				t.Errorf("%c after %c", b, last)
			}
			last = b
		case <-ctx.Done():
			t.Fatal("no notification", last)
		}
	}
	if err := o.Cancel(ctx); err != nil || !o.Canceled() {
		t.Fatal(err)
	}
}
