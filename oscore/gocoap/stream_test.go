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

	"github.com/oscorelay/oscorelay/oscore/gocoap"
	"github.com/plgd-dev/go-coap/v3/message"
	"github.com/plgd-dev/go-coap/v3/message/codes"
	"github.com/plgd-dev/go-coap/v3/message/pool"
	"github.com/plgd-dev/go-coap/v3/mux"
	"github.com/plgd-dev/go-coap/v3/tcp/coder"
)

// wiretap passes a TCP connection on and keeps both directions' bytes.
type wiretap struct {
	mu   sync.Mutex
	both [2]bytes.Buffer
}

func newWiretap(t *testing.T, server string) (*wiretap, string) {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &wiretap{}
	var wg sync.WaitGroup
	t.Cleanup(func() {
		l.Close()
		wg.Wait()
	})
	wg.Go(func() {
		down, err := l.Accept()
		if err != nil {
			return
		}
		up, err := net.Dial("tcp4", server)
		if err != nil {
			t.Error(err)
			down.Close()
			return
		}
		pass := func(from side, dst, src net.Conn) {
			defer dst.Close()
			b := make([]byte, 4096)
			for {
				n, err := src.Read(b)
				if err != nil {
					return
				}
				w.mu.Lock()
				w.both[from].Write(b[:n])
				w.mu.Unlock()
				if _, err := dst.Write(b[:n]); err != nil {
					return
				}
			}
		}
		wg.Go(func() { pass(fromClient, up, down) })
		pass(fromServer, down, up)
	})
	return w, l.Addr().String()
}

// messages returns what one side sent, signalling left out.
func (w *wiretap) messages(t *testing.T, from side) (out []*pool.Message) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	for b := w.both[from].Bytes(); len(b) > 0; {
		m := pool.NewMessage(context.Background())
		n, err := m.UnmarshalWithDecoder(coder.DefaultCoder, b)
		if err != nil {
			t.Fatal(err)
		}
		if m.Code() < 0xe0 {
			out = append(out, m)
		}
		b = b[n:]
	}
	return out
}

func TestStreamIsSealed(t *testing.T) {
	ck, sk := rings(t)
	var calls atomic.Int32
	tap, addr := newWiretap(t, serveTCP(t, gocoap.New(gocoap.Config{Keyring: sk}), echoRouter(t, &calls)))
	c, err := gocoap.New(gocoap.Config{Keyring: ck}).DialTCP(addr, "server", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	body := bytes.Repeat([]byte("confidential"), 2000)
	resp, err := c.Post(ctx, "/echo", message.TextPlain, bytes.NewReader(body))
	if err != nil || bodyOf(t, resp) != string(body) {
		t.Fatal(err)
	}
	for _, from := range []side{fromClient, fromServer} {
		messages := tap.messages(t, from)
		if len(messages) < 24 {
			t.Errorf("%d messages from side %d", len(messages), from)
		}
		for _, m := range messages {
			if !m.HasOption(9) || m.HasOption(message.URIPath) || m.Code() != codes.POST && m.Code() != codes.Changed {
				t.Errorf("on the wire: %v", m)
			}
		}
		tap.mu.Lock()
		if raw := tap.both[from].Bytes(); bytes.Contains(raw, []byte("confidential")) || bytes.Contains(raw, []byte("echo")) {
			t.Error("path or payload on the wire")
		}
		tap.mu.Unlock()
	}
}

// A captured request on another TCP connection is refused, as are plain ones.
func TestStreamReplay(t *testing.T) {
	ck, sk := rings(t)
	var calls atomic.Int32
	server := serveTCP(t, gocoap.New(gocoap.Config{Keyring: sk}), echoRouter(t, &calls))
	tap, addr := newWiretap(t, server)
	c, err := gocoap.New(gocoap.Config{Keyring: ck}).DialTCP(addr, "server", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if _, err := c.Post(ctx, "/echo", message.TextPlain, text("x")); err != nil {
		t.Fatal(err)
	}
	tap.mu.Lock()
	replay := bytes.Clone(tap.both[fromClient].Bytes())
	tap.mu.Unlock()
	plain := pool.NewMessage(ctx)
	plain.SetCode(codes.GET)
	plain.SetToken(message.Token("plain"))
	if err := plain.SetPath("/echo"); err != nil {
		t.Fatal(err)
	}
	raw, err := plain.MarshalWithEncoder(coder.DefaultCoder)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("tcp4", server)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write(append(replay, raw...)); err != nil {
		t.Fatal(err)
	}
	var got []byte
	refused := 0
	for b := make([]byte, 4096); refused < 2; {
		n, err := conn.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, b[:n]...)
		for len(got) > 0 {
			m := pool.NewMessage(ctx)
			n, err := m.UnmarshalWithDecoder(coder.DefaultCoder, got)
			if err != nil {
				break // the rest is under way
			}
			got = got[n:]
			if m.Code() < 0xe0 {
				if m.Code() != codes.Unauthorized || m.HasOption(9) {
					t.Errorf("answered %v", m)
				}
				refused++
			}
		}
	}
	if calls.Load() != 1 {
		t.Errorf("the handler ran %d times", calls.Load())
	}
}

// More requests than handlers may run: a stream loses none.
func TestStreamBackPressure(t *testing.T) {
	ck, sk := rings(t)
	var calls, running, most atomic.Int32
	sep := gocoap.New(gocoap.Config{Keyring: sk, MaxHandlers: 4})
	addr := serveTCP(t, sep, mux.HandlerFunc(func(w mux.ResponseWriter, _ *mux.Message) {
		n := running.Add(1)
		for old := most.Load(); n > old && !most.CompareAndSwap(old, n); old = most.Load() {
		}
		time.Sleep(time.Millisecond)
		running.Add(-1)
		calls.Add(1)
		_ = w.SetResponse(codes.Content, message.TextPlain, nil)
	}))
	c, err := gocoap.New(gocoap.Config{Keyring: ck}).DialTCP(addr, "server", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var wg sync.WaitGroup
	for range 300 {
		wg.Go(func() {
			if _, err := c.Get(ctx, "/x"); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if calls.Load() != 300 || most.Load() > 4 {
		t.Errorf("%d calls, %d at the same time", calls.Load(), most.Load())
	}
}

// Nobody listens: the error comes without waiting for the deadline.
func TestPortUnreachable(t *testing.T) {
	ck, _ := rings(t)
	l, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	addr := l.LocalAddr().String()
	l.Close()
	c, err := gocoap.New(gocoap.Config{Keyring: ck}).DialUDP(addr, "server", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if _, err := c.Get(ctx, "/x"); !errors.Is(err, gocoap.ErrClosed) {
		t.Errorf("%v, want ErrClosed", err)
	}
}

// A response body of a type of the program's own.
type slowReader struct{ io.ReadSeeker }

func (r slowReader) Read(b []byte) (int, error) { return r.ReadSeeker.Read(b[:min(1, len(b))]) }

func TestAnyReadSeeker(t *testing.T) {
	w := newWorld(t, setup{handler: mux.HandlerFunc(func(rw mux.ResponseWriter, _ *mux.Message) {
		_ = rw.SetResponse(codes.Content, message.TextPlain, slowReader{text("byte by byte")})
	})})
	if resp := w.do(codes.GET, "/x", ""); bodyOf(t, resp) != "byte by byte" {
		t.Error(resp)
	}
}
