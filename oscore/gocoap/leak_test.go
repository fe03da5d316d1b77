package gocoap

import (
	"bytes"
	"context"
	"fmt"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/oscorelay/oscorelay/keys"
	"github.com/oscorelay/oscorelay/oscore"
	"github.com/plgd-dev/go-coap/v3/message"
	"github.com/plgd-dev/go-coap/v3/message/codes"
	"github.com/plgd-dev/go-coap/v3/message/pool"
	"github.com/plgd-dev/go-coap/v3/mux"
	coapnet "github.com/plgd-dev/go-coap/v3/net"
	"github.com/plgd-dev/go-coap/v3/options"
	"github.com/plgd-dev/go-coap/v3/udp"
)

// sides returns n client endpoints with contexts of their own, and the server
// that knows them all.
func sides(t testing.TB, n int, client, server Config) (ceps []*Endpoint, sep *Endpoint) {
	t.Helper()
	sk := keys.New(keys.NewMemory())
	for i := range n {
		e := keys.Entry{Name: "server", Params: oscore.Params{
			MasterSecret: oscore.Secret(fmt.Sprintf("secret %09d", i)), SenderID: []byte{1, byte(i)}, RecipientID: []byte{2},
		}}
		p := e.Peer()
		p.Name = fmt.Sprint("client-", i)
		ck := keys.New(keys.NewMemory())
		if _, err := ck.AddNew(context.Background(), e); err != nil {
			t.Fatal(err)
		}
		if _, err := sk.AddNew(context.Background(), p); err != nil {
			t.Fatal(err)
		}
		client.Keyring = ck
		ceps = append(ceps, New(client))
	}
	server.Keyring = sk
	return ceps, New(server)
}

// eventually waits for a condition that goroutines bring about.
func eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(15 * time.Second); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal(what)
		}
	}
}

func links(e *Endpoint) (n int) {
	e.links.Range(func(any, any) bool { n++; return true })
	return n
}

// live counts goroutines that run code of this package or of go-coap.
func live() int {
	buf := make([]byte, 1<<20)
	n := 0
	for _, g := range strings.Split(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
		if strings.Contains(g, "go-coap") || strings.Contains(g, "gocoap.(*") {
			n++
		}
	}
	return n
}

// After everything is closed nothing is left: no goroutine, no link, no
// request or observation in either side's maps.
func TestNothingLeaks(t *testing.T) {
	eventually(t, "other tests still run", func() bool { return live() == 0 })
	ceps, sep := sides(t, 10, Config{}, Config{MaxHandlers: 16})
	l, err := coapnet.NewListenUDP("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	never := mux.HandlerFunc(func(w mux.ResponseWriter, r *mux.Message) {
		path, _ := r.Path()
		switch path {
		case "/never": // no answer at all
		case "/observe":
			_ = w.SetResponse(codes.Content, message.TextPlain, nil, message.Option{ID: message.Observe, Value: []byte{1}})
		default:
			b, _ := r.ReadBody()
			_ = w.SetResponse(codes.Content, message.TextPlain, bytes.NewReader(b))
		}
	})
	s := udp.NewServer(append(sep.UDPServer(never), options.WithTransmission(1<<16, 50*time.Millisecond, 1, 2))...)
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	var wg sync.WaitGroup
	for _, cep := range ceps {
		wg.Go(func() {
			c, err := cep.DialUDP(l.LocalAddr().String(), "server", nil)
			if err != nil {
				t.Error(err)
				return
			}
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			o, err := c.Observe(ctx, "/observe", func(*pool.Message) {})
			if err != nil {
				t.Error(err)
				return
			}
			if _, err := c.Observe(ctx, "/observe", func(*pool.Message) {}); err != nil { // never cancelled
				t.Error(err)
			}
			for range 3 {
				resp, err := c.Put(ctx, "/x", message.TextPlain, strings.NewReader(strings.Repeat("x", 3000)))
				if err != nil {
					t.Error(err)
					return
				}
				c.ReleaseMessage(resp)
				short, stop := context.WithTimeout(ctx, 20*time.Millisecond)
				if _, err := c.Get(short, "/never"); err == nil {
					t.Error("an answer to /never")
				}
				stop()
			}
			if err := o.Cancel(ctx); err != nil {
				t.Error(err)
			}
			l := c.link
			l.mu.Lock()
			if len(l.waiting) != 1 || len(l.unacked) != 0 { // the observation
				t.Errorf("%d requests wait, %d are unacknowledged", len(l.waiting), len(l.unacked))
			}
			l.mu.Unlock()
			if err := c.Close(); err != nil {
				t.Error(err)
			}
			<-c.Done()
		})
	}
	wg.Wait()
	// What no handler answered is forgotten after EXCHANGE_LIFETIME. The last
	// requests may still be on their way to the server when the clients are gone,
	// and their handlers run: only what stays is left over.
	left := func() (servings, resets, remembered int) {
		sep.links.Range(func(_, v any) bool {
			l := v.(*link)
			l.sweep(time.Now().Add(exchangeLifetime + time.Second))
			l.mu.Lock()
			defer l.mu.Unlock()
			servings, resets, remembered = max(servings, len(l.serving)), max(resets, len(l.resets)), remembered+len(l.seen.byKey)
			return true
		})
		return servings, resets, remembered
	}
	eventually(t, "servings are left after their lifetime", func() bool { // but for the observation of each connection
		servings, resets, remembered := left()
		return servings <= 1 && resets <= 1 && remembered == 0
	})
	s.Stop()
	<-served
	l.Close()
	eventually(t, "goroutines are left", func() bool { return live() == 0 })
	for _, e := range append(ceps, sep) {
		eventually(t, "links are left", func() bool { return links(e) == 0 })
		e.ticker.mu.Lock()
		if e.ticker.running || len(e.ticker.work) != 0 {
			t.Error("a ticker runs on")
		}
		e.ticker.mu.Unlock()
	}
}

// A source that proves nothing loses its connection soon.
func TestIdle(t *testing.T) {
	_, sep := sides(t, 1, Config{}, Config{})
	c, err := sep.DialUDP("127.0.0.1:9", "client-0", nil)
	if err != nil {
		t.Fatal(err)
	}
	i := newIdle[*idleConn](sep)
	conn := &idleConn{Conn: c.Conn}
	now := time.Now()
	i.CheckInactivity(now.Add(unprovenIdle-time.Second), conn)
	if conn.closed {
		t.Fatal("closed too early")
	}
	sep.links.Store(mux.Conn(conn), c.link)
	c.link.proven.Store(true)
	i.CheckInactivity(now.Add(provenIdle-time.Minute), conn)
	if conn.closed {
		t.Fatal("a proven peer was closed")
	}
	i.CheckInactivity(now.Add(provenIdle+time.Minute), conn)
	if !conn.closed {
		t.Fatal("not closed")
	}
	conn.closed = false
	c.link.proven.Store(false)
	i.CheckInactivity(now.Add(unprovenIdle+time.Second), conn)
	if !conn.closed {
		t.Fatal("not closed")
	}
	conn.closed = false
	c.link.waiting["token"] = &waiter{l: c.link, stopped: make(chan struct{})}
	i.CheckInactivity(now.Add(unprovenIdle+time.Second), conn)
	if conn.closed {
		t.Fatal("closed though a request of ours waits")
	}
	sep.links.Delete(mux.Conn(conn))
	c.Close()
}

type idleConn struct {
	mux.Conn
	closed bool
}

func (c *idleConn) Close() error { c.closed = true; return nil }

func TestGate(t *testing.T) {
	var g gate
	if err := g.enter(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := g.enter(ended, false); err == nil {
		t.Error("entered a full gate")
	}
	var order []string
	var wg sync.WaitGroup
	add := func(name string, again bool, waiting func() int) {
		n := waiting()
		wg.Go(func() {
			if err := g.enter(context.Background(), again); err != nil {
				t.Error(err)
			}
			order = append(order, name)
			g.leave()
		})
		eventually(t, "nobody waits", func() bool { return waiting() == n+1 })
	}
	count := func(q *[]chan struct{}) func() int {
		return func() int {
			g.mu.Lock()
			defer g.mu.Unlock()
			return len(*q)
		}
	}
	add("new 1", false, count(&g.first))
	add("new 2", false, count(&g.first))
	add("next block", true, count(&g.again))
	g.leave()
	wg.Wait()
	if got := strings.Join(order, ", "); got != "next block, new 1, new 2" {
		t.Error(got)
	}
	if g.taken {
		t.Error("the place is not free")
	}
}

func TestMemoryIsBounded(t *testing.T) {
	var m memory
	now := time.Now()
	for i := range uint64(3 * memorySize) {
		m.store(now, i)
	}
	if len(m.byKey) != memorySize || len(m.order) != memorySize || m.load(now, 0) != nil || m.load(now, 3*memorySize-1) == nil {
		t.Errorf("%d remembered", len(m.byKey))
	}
	if m.load(now.Add(exchangeLifetime+1), 3*memorySize-1) != nil {
		t.Error("remembered for too long")
	}
	m.expire(now.Add(exchangeLifetime + 1))
	if len(m.byKey) != 0 || m.order != nil {
		t.Error("not expired")
	}
}

// Every verb of a go-coap connection that could send a request is protected.
func TestEveryVerbIsOverridden(t *testing.T) {
	own := map[string]bool{}
	for _, name := range []string{"Do", "DoObserve", "Get", "Delete", "Post", "Put", "Observe", "WriteMessage"} {
		own[name] = true
	}
	harmless := map[string]bool{ // nothing of them leaves the host, but a ping
		"AcquireMessage": true, "ReleaseMessage": true, "Ping": true, "RemoteAddr": true, "NetConn": true, "Context": true, "SetContextValue": true,
		"Close": true, "Sequence": true, "Done": true, "AddOnClose": true, "NewGetRequest": true, "NewObserveRequest": true,
		"NewPutRequest": true, "NewPostRequest": true, "NewDeleteRequest": true,
	}
	for _, name := range connMethods() {
		if !own[name] && !harmless[name] {
			t.Errorf("mux.Conn has a new method %s: does it send in plain?", name)
		}
	}
}

func connMethods() (names []string) {
	for m := range reflect.TypeFor[mux.Conn]().Methods() {
		names = append(names, m.Name)
	}
	return names
}
