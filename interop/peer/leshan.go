package peer

import (
	"fmt"
	"net/netip"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Leshan is a running LwM2M server. Three versions answer to the same words:
// the demo server as published, by its REST interface and event stream, and
// the servers on two later versions of the library, by lines.
type Leshan struct {
	*Process
	Addr netip.AddrPort // CoAP
	Page string         // the demo's web page, empty for the others

	events *eventLog
	call   func(LeshanCommand) (LeshanReply, error)
	begin  func() // starts it, again too; nil for the demo server
}

// Crash ends the server by kill -9 and starts it again: it has forgotten all
// devices, and the events begin anew.
func (l *Leshan) Crash() {
	l.Kill(syscall.SIGKILL)
	l.begin()
}

// LeshanCommand is what a server is told to do to a device.
type LeshanCommand struct {
	ID       int      `json:"id"`
	Op       string   `json:"op"` // clients, read, write, execute, observe, cancel, discover, create, delete, read-composite, observe-composite, cancel-composite
	Endpoint string   `json:"ep,omitempty"`
	Path     string   `json:"path,omitempty"`
	Paths    []string `json:"paths,omitempty"`
	Value    string   `json:"value,omitempty"`
	Opaque   string   `json:"opaque,omitempty"`  // in place of Value, hexadecimal
	Format   string   `json:"format,omitempty"`  // Leshan's name of it; its own choice if empty
	Timeout  int64    `json:"timeout,omitempty"` // milliseconds
}

// LeshanReply is what came of a command.
type LeshanReply struct {
	Code      int               `json:"code"` // 205
	Values    map[string]string `json:"values"`
	Links     []string          `json:"links"`
	Clients   []LeshanClient    `json:"clients"`
	Cancelled int               `json:"cancelled"`
	Message   string            `json:"message"`
	Error     string            `json:"error"` // Leshan's own: a timeout, no such device, the device is asleep
}

// LeshanClient is a device as the server holds it.
type LeshanClient struct {
	Endpoint     string `json:"ep"`
	Registration string `json:"registration"`
	Address      string `json:"address"` // where the server sends to
	Queue        bool   `json:"queue"`
}

// LeshanEvent is something that a server or a client told by itself.
type LeshanEvent struct {
	Kind     string            `json:"event"` // registered, updated, deregistered, notification, composite-notification, notification-error, send, …
	Endpoint string            `json:"ep"`
	Path     string            `json:"path"`
	Address  string            `json:"address"`
	Values   map[string]string `json:"values"`
	Value    string            `json:"value"`
	Bytes    int               `json:"bytes"`
	Times    int               `json:"times"`
	What     string            `json:"what"`
	Error    string            `json:"error"`
}

// leshanPatience bounds one command where the test does not say.
const leshanPatience = 20 * time.Second

// Do runs one command and gives its reply, whatever it is.
func (l *Leshan) Do(t testing.TB, c LeshanCommand) LeshanReply {
	t.Helper()
	return l.wait(t, c, <-l.Begin(c))
}

// leshanAnswer is a reply with the harness's own error.
type leshanAnswer struct {
	reply LeshanReply
	err   error
}

func (l *Leshan) wait(t testing.TB, c LeshanCommand, a leshanAnswer) LeshanReply {
	t.Helper()
	if a.err != nil {
		t.Fatalf("%s: %s %s: %v", l.name, c.Op, c.Path, a.err)
	}
	return a.reply
}

// Begin starts a command; its answer comes over the channel.
func (l *Leshan) Begin(c LeshanCommand) <-chan leshanAnswer {
	if c.Timeout == 0 {
		c.Timeout = leshanPatience.Milliseconds()
	}
	done := make(chan leshanAnswer, 1)
	go func() {
		r, err := l.call(c)
		done <- leshanAnswer{r, err}
	}()
	return done
}

// End waits for a command that was begun.
func (l *Leshan) End(t testing.TB, c LeshanCommand, begun <-chan leshanAnswer) LeshanReply {
	t.Helper()
	return l.wait(t, c, <-begun)
}

// Clients gives the devices that are registered.
func (l *Leshan) Clients(t testing.TB) []LeshanClient {
	t.Helper()
	return l.Do(t, LeshanCommand{Op: "clients"}).Clients
}

// Client gives one device that is registered.
func (l *Leshan) Client(t testing.TB, ep string) LeshanClient {
	t.Helper()
	for _, c := range l.Clients(t) {
		if c.Endpoint == ep {
			return c
		}
	}
	t.Fatalf("%s: %s is not registered", l.name, ep)
	return LeshanClient{}
}

// Read reads a path and fails the test unless that succeeds.
func (l *Leshan) Read(t testing.TB, ep, path string) LeshanReply {
	t.Helper()
	return l.must(t, 205, LeshanCommand{Op: "read", Endpoint: ep, Path: path})
}

// Write writes a text.
func (l *Leshan) Write(t testing.TB, ep, path, value string) {
	t.Helper()
	l.must(t, 204, LeshanCommand{Op: "write", Endpoint: ep, Path: path, Value: value})
}

// Execute runs a resource.
func (l *Leshan) Execute(t testing.TB, ep, path string) {
	t.Helper()
	l.must(t, 204, LeshanCommand{Op: "execute", Endpoint: ep, Path: path})
}

// Discover gives the links below a path.
func (l *Leshan) Discover(t testing.TB, ep, path string) []string {
	t.Helper()
	return l.must(t, 205, LeshanCommand{Op: "discover", Endpoint: ep, Path: path}).Links
}

// Observe begins an observation and gives the value of now.
func (l *Leshan) Observe(t testing.TB, ep, path string) LeshanReply {
	t.Helper()
	return l.must(t, 205, LeshanCommand{Op: "observe", Endpoint: ep, Path: path})
}

// ObserveComposite begins an observation of several paths.
func (l *Leshan) ObserveComposite(t testing.TB, ep string, paths ...string) LeshanReply {
	t.Helper()
	return l.must(t, 205, LeshanCommand{Op: "observe-composite", Endpoint: ep, Paths: paths})
}

// ReadComposite reads several paths at once.
func (l *Leshan) ReadComposite(t testing.TB, ep string, paths ...string) LeshanReply {
	t.Helper()
	return l.must(t, 205, LeshanCommand{Op: "read-composite", Endpoint: ep, Paths: paths})
}

// CancelObserve drops the observations of a path. Leshan does it by itself:
// the device learns of it from the Reset to its next notification.
func (l *Leshan) CancelObserve(t testing.TB, ep, path string) {
	t.Helper()
	r := l.Do(t, LeshanCommand{Op: "cancel", Endpoint: ep, Path: path})
	if r.Error != "" || r.Cancelled != 1 {
		t.Fatalf("%s: cancelled %d observations of %s: %s", l.name, r.Cancelled, path, r.Error)
	}
}

// CancelObserveComposite is [Leshan.CancelObserve] for a composite one.
func (l *Leshan) CancelObserveComposite(t testing.TB, ep string, paths ...string) {
	t.Helper()
	r := l.Do(t, LeshanCommand{Op: "cancel-composite", Endpoint: ep, Paths: paths})
	if r.Error != "" || r.Cancelled != 1 {
		t.Fatalf("%s: cancelled %d observations of %s: %s", l.name, r.Cancelled, paths, r.Error)
	}
}

func (l *Leshan) must(t testing.TB, code int, c LeshanCommand) LeshanReply {
	t.Helper()
	r := l.Do(t, c)
	r.Must(t, code, fmt.Sprintf("%s: %s %s%s", l.name, c.Op, c.Path, c.Paths))
	return r
}

// Must fails the test unless the reply has the code.
func (r LeshanReply) Must(t testing.TB, code int, what string) {
	t.Helper()
	if r.Error != "" || r.Code != code {
		t.Fatalf("%s: %d %s%s, want %d", what, r.Code, r.Message, r.Error, code)
	}
}

// Seen gives the number of events so far, for [Leshan.Await] to begin at.
func (l *Leshan) Seen() int { return l.events.seen() }

// Await waits for an event from the given one on.
func (l *Leshan) Await(t testing.TB, from int, what string, ok func(LeshanEvent) bool) LeshanEvent {
	t.Helper()
	return l.events.await(t, l.name, from, what, ok)
}

// AwaitNotification waits for a notification with the value.
func (l *Leshan) AwaitNotification(t testing.TB, from int, ep, path, value string) {
	t.Helper()
	l.Await(t, from, "notification of "+path+"="+value, func(e LeshanEvent) bool {
		return (e.Kind == "notification" || e.Kind == "composite-notification") && e.Endpoint == ep && e.Values[path] == value
	})
}

// AwaitRegistered waits until the endpoint registers.
func (l *Leshan) AwaitRegistered(t testing.TB, from int, ep string) LeshanEvent {
	t.Helper()
	return l.Await(t, from, "registration of "+ep, func(e LeshanEvent) bool { return e.Kind == "registered" && e.Endpoint == ep })
}

// Count gives the number of events of a kind from the given one on.
func (l *Leshan) Count(from int, kind string) int {
	n := 0
	for _, e := range l.events.from(from) {
		if e.Kind == kind {
			n++
		}
	}
	return n
}

// eventLog keeps events for those who wait.
type eventLog struct {
	mu      sync.Mutex
	changed *sync.Cond
	all     []LeshanEvent
	lines   int   // of the program, taken so far
	err     error // no more will come
}

func newEventLog() *eventLog {
	e := &eventLog{}
	e.changed = sync.NewCond(&e.mu)
	return e
}

func (e *eventLog) add(v LeshanEvent) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.all = append(e.all, v)
	e.changed.Broadcast()
}

func (e *eventLog) close(err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.err = err
	e.changed.Broadcast()
}

// hasRead tells that the first n lines of the program were taken.
func (e *eventLog) hasRead(n int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.lines = n
	e.changed.Broadcast()
}

// awaitRead waits until they are.
func (e *eventLog) awaitRead(n int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for e.lines < n && e.err == nil {
		e.changed.Wait()
	}
}

func (e *eventLog) seen() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.all)
}

func (e *eventLog) from(n int) []LeshanEvent {
	e.mu.Lock()
	defer e.mu.Unlock()
	return append([]LeshanEvent(nil), e.all[n:]...)
}

func (e *eventLog) await(t testing.TB, name string, from int, what string, ok func(LeshanEvent) bool) LeshanEvent {
	t.Helper()
	deadline := time.Now().Add(leshanPatience)
	late := time.AfterFunc(leshanPatience, func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.changed.Broadcast()
	})
	defer late.Stop()
	e.mu.Lock()
	defer e.mu.Unlock()
	for n := from; ; {
		for ; n < len(e.all); n++ {
			if ok(e.all[n]) {
				return e.all[n]
			}
		}
		if e.err != nil || !time.Now().Before(deadline) {
			t.Fatalf("%s: no %s (%v) among %v", name, what, e.err, e.all[from:])
		}
		e.changed.Wait()
	}
}

func decimal(port uint16) string { return strconv.Itoa(int(port)) }
