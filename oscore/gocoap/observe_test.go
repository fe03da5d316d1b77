package gocoap_test

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/oscorelay/oscorelay/internal/proof"
	"github.com/oscorelay/oscorelay/oscore/gocoap"
	"github.com/plgd-dev/go-coap/v3/message"
	"github.com/plgd-dev/go-coap/v3/message/codes"
	"github.com/plgd-dev/go-coap/v3/message/pool"
	"github.com/plgd-dev/go-coap/v3/mux"
)

// sensor is a resource that can be observed; the test notifies by it.
type sensor struct {
	t     testing.TB
	mu    sync.Mutex
	conn  mux.Conn
	token message.Token
	// cancelled is closed when a request with Observe 1 came.
	cancelled chan struct{}
	calls     atomic.Int32
}

func newSensor(t testing.TB) *sensor { return &sensor{t: t, cancelled: make(chan struct{})} }

func (s *sensor) ServeCOAP(w mux.ResponseWriter, m *mux.Message) {
	s.calls.Add(1)
	obs, err := m.Observe()
	if err == nil && obs == 1 {
		close(s.cancelled)
	}
	if err == nil && obs == 0 {
		s.mu.Lock()
		s.conn, s.token = w.Conn(), append(message.Token{}, m.Token()...)
		s.mu.Unlock()
		_ = w.SetResponse(codes.Content, message.TextPlain, text("registered"), message.Option{ID: message.Observe, Value: []byte{1}})
		return
	}
	_ = w.SetResponse(codes.Content, message.TextPlain, text("plain get"))
}

// notify sends a notification, and returns what that returned.
func (s *sensor) notify(typ message.Type, code codes.Code, body string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.conn.AcquireMessage(s.conn.Context())
	defer s.conn.ReleaseMessage(n)
	n.SetCode(code)
	n.SetType(typ)
	n.SetToken(s.token)
	n.SetObserve(2)
	n.SetContentFormat(message.TextPlain)
	n.SetBody(text(body))
	return s.conn.WriteMessage(n)
}

func (s *sensor) mustNotify(typ message.Type, body string) {
	s.t.Helper()
	if err := s.notify(typ, codes.Content, body); err != nil {
		s.t.Fatal(err)
	}
}

// untilEnded notifies now and then until the observation is found to be over.
func (s *sensor) untilEnded() {
	s.t.Helper()
	deadline := time.After(10 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for s.notify(message.NonConfirmable, codes.Content, "still?") == nil {
		select {
		case <-tick.C:
		case <-deadline:
			s.t.Fatal("the observation does not end")
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// watch observes and returns the notifications' bodies.
func (w *world) watch() (mux.Observation, chan string) {
	w.t.Helper()
	got := make(chan string, 1000)
	o, err := w.client.Observe(w.ctx, "/secret-path", func(m *pool.Message) { got <- bodyOf(w.t, m) })
	if err != nil {
		w.t.Fatal(err)
	}
	return o, got
}

func (w *world) want(got chan string, body string) {
	w.t.Helper()
	select {
	case b := <-got:
		if b != body {
			w.t.Fatalf("%.40q came, want %.40q", b, body)
		}
	case <-w.ctx.Done():
		w.t.Fatalf("%.40q did not come", body)
	}
}

func isNotification(d datagram) bool {
	return isSealedResponse(d) && d.Type != message.Acknowledgement
}

func TestNotifications(t *testing.T) {
	s := newSensor(t)
	w := newWorld(t, setup{handler: s})
	o, got := w.watch()
	w.want(got, "registered")
	for _, typ := range []message.Type{message.NonConfirmable, message.Confirmable} {
		for i := range 5 {
			body := fmt.Sprint(typ, " notification ", i)
			s.mustNotify(typ, body)
			w.want(got, body)
		}
		large := strings.Repeat("0123456789abcdef", 200) + typ.String()
		s.mustNotify(typ, large)
		w.want(got, large)
	}
	confirmable := w.relay.find(func(d datagram) bool { return isNotification(d) && d.Type == message.Confirmable })
	if len(confirmable) != 6 {
		t.Errorf("%d confirmable notifications", len(confirmable))
	}
	for _, d := range confirmable {
		w.relay.await(1, func(a datagram) bool { return a.from == fromClient && isAck(a) && a.MessageID == d.MessageID })
	}
	for _, d := range w.relay.find(isNotification) {
		if d.Code != codes.Content || !d.Options.HasOption(message.Observe) {
			t.Errorf("outer %v", d.Message.String())
		}
	}
	if err := o.Cancel(w.ctx); err != nil || !o.Canceled() {
		t.Error(err)
	}
	<-s.cancelled
	if err := s.notify(message.NonConfirmable, codes.Content, "after"); err == nil {
		t.Error("a notification after the cancellation")
	}
	registrations := w.relay.find(func(d datagram) bool { return isSealedRequest(d) && d.Options.HasOption(message.Observe) })
	if len(registrations) != 2 {
		t.Fatalf("%d requests with outer Observe", len(registrations))
	}
	for i, d := range registrations {
		if v, err := d.Options.Observe(); err != nil || v != uint32(i) || d.Code != codes.FETCH || !bytes.Equal(d.Token, registrations[0].Token) {
			t.Errorf("registration %d: %v", i, d.Message.String())
		}
	}
	w.relay.checkSealed("secret", "notification", "0123456789abcdef", "registered")
	proof.Checklist(t, "O-4.1.3.5-1", "O-4.1.3.5-3", "O-4.1.3.5-5", "O-4.1.3.5.1-1", "O-8-2")
}

func TestResetEndsObservation(t *testing.T) {
	for _, typ := range []message.Type{message.NonConfirmable, message.Confirmable} {
		s := newSensor(t)
		w := newWorld(t, setup{handler: s})
		_, got := w.watch()
		w.want(got, "registered")
		s.mustNotify(typ, "one")
		d := w.relay.await(1, isNotification)[0]
		w.relay.send(fromClient, build(t, message.Message{Type: message.Reset, MessageID: d.MessageID}))
		s.untilEnded()
	}
}

// A client that lost its observation resets what comes.
func TestLostClientResets(t *testing.T) {
	s := newSensor(t)
	w := newWorld(t, setup{handler: s})
	_, got := w.watch()
	w.want(got, "registered")
	// Another client takes the relay's place toward the server.
	cep := gocoap.New(gocoap.Config{Keyring: w.ck})
	w.client.Close()
	<-w.client.Done()
	c, err := cep.DialUDP(w.relay.addr(), "server", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Get(w.ctx, "/x"); err != nil {
		t.Fatal(err)
	}
	s.mustNotify(message.Confirmable, "for nobody")
	w.relay.await(1, func(d datagram) bool { return d.from == fromClient && isReset(d) })
	s.untilEnded()
}

func TestConnectionCloseEndsObservation(t *testing.T) {
	ck, sk := rings(t)
	s := newSensor(t)
	sep := gocoap.New(gocoap.Config{Keyring: sk})
	c, err := gocoap.New(gocoap.Config{Keyring: ck}).DialTCP(serveTCP(t, sep, s), "server", nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	got := make(chan string, 100)
	o, err := c.Observe(ctx, "/x", func(m *pool.Message) { got <- bodyOf(t, m) })
	if err != nil {
		t.Fatal(err)
	}
	if <-got != "registered" {
		t.Error("first notification")
	}
	s.mustNotify(message.NonConfirmable, "one")
	if <-got != "one" {
		t.Error("second notification")
	}
	c.Close()
	<-c.Done()
	s.untilEnded()
	for !o.Canceled() {
		if ctx.Err() != nil {
			t.Fatal("the observation goes on without a connection")
		}
		time.Sleep(time.Millisecond)
	}
}

func TestErrorNotificationEndsObservation(t *testing.T) {
	s := newSensor(t)
	w := newWorld(t, setup{handler: s})
	codesGot := make(chan codes.Code, 10)
	o, err := w.client.Observe(w.ctx, "/secret-path", func(m *pool.Message) { codesGot <- m.Code() })
	if err != nil {
		t.Fatal(err)
	}
	if c := <-codesGot; c != codes.Content {
		t.Error(c)
	}
	if err := s.notify(message.Confirmable, codes.NotFound, "gone"); err != nil {
		t.Fatal(err)
	}
	select {
	case c := <-codesGot:
		if c != codes.NotFound {
			t.Error(c)
		}
	case <-w.ctx.Done():
		t.Fatal("the error did not come")
	}
	for !o.Canceled() && w.ctx.Err() == nil {
		time.Sleep(time.Millisecond)
	}
	if err := s.notify(message.NonConfirmable, codes.Content, "more"); err == nil {
		t.Error("a notification after the error")
	}
	w.relay.checkSealed("gone")
	proof.Checklist(t, "O-4.1.3.5.2-1")
}

// A resource that does not notify: f is called once.
func TestObserveWithoutNotifications(t *testing.T) {
	w := newWorld(t, setup{})
	o, got := w.watch()
	w.want(got, "")
	if err := o.Cancel(w.ctx); err != nil {
		t.Error(err)
	}
}

// Forged notifications neither reach the program nor end the observation, and
// an old one held back is left out.
func TestForgedNotifications(t *testing.T) {
	s := newSensor(t)
	w := newWorld(t, setup{handler: s, client: gocoap.Config{PlainErrorWait: time.Millisecond}})
	o, got := w.watch()
	w.want(got, "registered")
	w.relay.set(func(d datagram) [][]byte {
		if !isNotification(d) {
			return [][]byte{d.raw}
		}
		return [][]byte{plainTwin(t, d, codes.NotFound), plainTwin(t, d, codes.Content), flip(d.raw, -1), d.raw, d.raw}
	})
	for i := range 20 {
		body := fmt.Sprint("notification ", i)
		s.mustNotify(message.NonConfirmable, body)
		w.want(got, body)
	}
	old := w.relay.find(isNotification)[0]
	w.relay.send(fromServer, old.raw)
	s.mustNotify(message.NonConfirmable, "last")
	w.want(got, "last")
	if o.Canceled() {
		t.Error("the observation ended")
	}
	proof.Checklist(t, "O-8.4.2-1", "O-7.4.1-2", "O-7.4.1-3", "O-4.1.3.5.2-4")
}

// Notifications of one observation do not pass for those of another.
func TestObservationsStayDistinct(t *testing.T) {
	var mu sync.Mutex
	conns := map[string]func(body string){}
	w := newWorld(t, setup{handler: mux.HandlerFunc(func(rw mux.ResponseWriter, m *mux.Message) {
		path, _ := m.Path()
		conn, token := rw.Conn(), append(message.Token{}, m.Token()...)
		mu.Lock()
		conns[path] = func(body string) {
			n := conn.AcquireMessage(conn.Context())
			defer conn.ReleaseMessage(n)
			n.SetCode(codes.Content)
			n.SetType(message.NonConfirmable)
			n.SetToken(token)
			n.SetObserve(2)
			n.SetBody(text(body))
			if err := conn.WriteMessage(n); err != nil {
				t.Error(err)
			}
		}
		mu.Unlock()
		_ = rw.SetResponse(codes.Content, message.TextPlain, text(path), message.Option{ID: message.Observe, Value: []byte{1}})
	})})
	a, b := make(chan string, 10), make(chan string, 10)
	for path, got := range map[string]chan string{"/a": a, "/b": b} {
		if _, err := w.client.Observe(w.ctx, path, func(m *pool.Message) { got <- bodyOf(t, m) }); err != nil {
			t.Fatal(err)
		}
		w.want(got, path)
	}
	tokens := w.relay.find(func(d datagram) bool { return isSealedRequest(d) && d.Options.HasOption(message.Observe) })
	w.relay.set(func(d datagram) [][]byte {
		if !isNotification(d) {
			return [][]byte{d.raw}
		}
		other := d.Message
		other.Token = tokens[0].Token
		if bytes.Equal(d.Token, other.Token) {
			other.Token = tokens[1].Token
		}
		return [][]byte{build(t, other), d.raw}
	})
	mu.Lock()
	defer mu.Unlock()
	for i := range 10 {
		conns["/a"](fmt.Sprint("a", i))
		conns["/b"](fmt.Sprint("b", i))
		w.want(a, fmt.Sprint("a", i))
		w.want(b, fmt.Sprint("b", i))
	}
	proof.Requirement(t, "direct", "RMo-001")
}

// The callback is slow and the sensor fast: the newest state arrives at last.
func TestSlowObserver(t *testing.T) {
	s := newSensor(t)
	w := newWorld(t, setup{handler: s})
	release := make(chan struct{})
	var got []string
	done := make(chan struct{})
	_, err := w.client.Observe(w.ctx, "/secret-path", func(m *pool.Message) {
		<-release
		got = append(got, bodyOf(t, m))
		if got[len(got)-1] == "newest" {
			close(done)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 1000 {
		s.mustNotify(message.NonConfirmable, fmt.Sprint("notification ", i))
		w.relay.await(i+1, isNotification) // none is lost in a socket's buffer
	}
	s.mustNotify(message.Confirmable, "newest")
	w.relay.await(1, func(d datagram) bool { return d.from == fromClient && isAck(d) })
	close(release)
	select {
	case <-done:
	case <-w.ctx.Done():
		t.Fatal("the newest did not come")
	}
	if len(got) > 200 {
		t.Errorf("%d notifications were kept for a program that does not take them", len(got))
	}
}

// Confirmable notifications wait for each other, and the newest one goes next.
func TestConfirmableNotificationsAreHeld(t *testing.T) {
	s := newSensor(t)
	w := newWorld(t, setup{handler: s})
	_, got := w.watch()
	w.want(got, "registered")
	w.relay.set(func(d datagram) [][]byte {
		if d.from == fromClient && isAck(d) {
			return nil
		}
		return [][]byte{d.raw}
	})
	s.mustNotify(message.Confirmable, "first")
	first := w.relay.await(1, isNotification)[0]
	w.want(got, "first")
	for i := range 100 {
		s.mustNotify(message.Confirmable, fmt.Sprint("held ", i))
	}
	if n := len(w.relay.find(isNotification)); n != 1 {
		t.Errorf("%d notifications on the wire while the first is unacknowledged", n)
	}
	w.relay.set(nil)
	w.relay.send(fromClient, build(t, message.Message{Type: message.Acknowledgement, MessageID: first.MessageID}))
	w.want(got, "held 99")
}

// A request under the same token leaves the observation alone, a registration
// anew replaces it.
func TestReregistration(t *testing.T) {
	s := newSensor(t)
	w := newWorld(t, setup{handler: s})
	_, got := w.watch()
	w.want(got, "registered")
	s.mustNotify(message.NonConfirmable, "one")
	w.want(got, "one")
	_, again := w.watch()
	w.want(again, "registered")
	s.mustNotify(message.NonConfirmable, "two")
	w.want(again, "two")
	if s.calls.Load() != 2 {
		t.Errorf("%d calls", s.calls.Load())
	}
	regs := w.relay.find(func(d datagram) bool { return isSealedRequest(d) && d.Options.HasOption(message.Observe) })
	if len(regs) != 2 || bytes.Equal(regs[0].Token, regs[1].Token) {
		t.Error("registrations share a token")
	}
}
