package sim

import (
	"context"
	"sync"
	"time"
)

// Event is something that happened: a line of the process protocol, and what
// tests assert on.
type Event struct {
	Event    string  `json:"event"`
	ID       int     `json:"id,omitempty"` // of the command that it answers, or of the observation
	Endpoint string  `json:"ep,omitempty"`
	Addr     string  `json:"addr,omitempty"` // the peer's, or one's own in ready
	Peer     string  `json:"peer,omitempty"` // OSCORE's name of it
	Method   string  `json:"method,omitempty"`
	Path     string  `json:"path,omitempty"`
	Query    string  `json:"query,omitempty"`
	Code     string  `json:"code,omitempty"`
	Format   *int    `json:"ct,omitempty"`
	Payload  []byte  `json:"payload,omitempty"` // base64
	Text     string  `json:"text,omitempty"`    // the payload, where the format is text
	Bytes    int     `json:"bytes,omitempty"`   // its length
	Sum      string  `json:"sum,omitempty"`     // its SHA-256, in hex
	Count    int     `json:"count,omitempty"`
	Location string  `json:"location,omitempty"`
	Clients  []Event `json:"clients,omitempty"`
	Error    string  `json:"error,omitempty"`
}

// Log keeps events in their order. It is safe for concurrent use.
type Log struct {
	mu     sync.Mutex
	events []Event
	first  int // number of events[0]
	change chan struct{}
	print  func(Event)
}

// maxEvents bounds a log; the older half goes.
const maxEvents = 1 << 16

func newLog(print func(Event)) *Log { return &Log{change: make(chan struct{}), print: print} }

func (l *Log) add(e Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.events) == maxEvents {
		l.events = append([]Event(nil), l.events[maxEvents/2:]...)
		l.first += maxEvents / 2
	}
	l.events = append(l.events, e)
	close(l.change)
	l.change = make(chan struct{})
	if l.print != nil {
		l.print(e)
	}
}

// Mark returns the number of events so far, to wait for later ones.
func (l *Log) Mark() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.first + len(l.events)
}

// Since returns the events from a mark on.
func (l *Log) Since(mark int) []Event {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]Event(nil), l.events[min(max(mark-l.first, 0), len(l.events)):]...)
}

// Wait returns the first event from a mark on that ok accepts.
func (l *Log) Wait(ctx context.Context, mark int, ok func(Event) bool) (Event, error) {
	for {
		l.mu.Lock()
		change := l.change
		l.mu.Unlock()
		for _, e := range l.Since(mark) {
			if ok(e) {
				return e, nil
			}
		}
		select {
		case <-change:
		case <-ctx.Done():
			return Event{}, ctx.Err()
		}
	}
}

// Named accepts events of a name.
func Named(name string) func(Event) bool { return func(e Event) bool { return e.Event == name } }

// Clock is where timers and the time of day come from.
type Clock interface {
	Now() time.Time
	// AfterFunc calls f in a goroutine of its own; stop reports whether it
	// prevented that.
	AfterFunc(d time.Duration, f func()) (stop func() bool)
}

type systemClock struct{}

func (systemClock) Now() time.Time { return time.Now() }

func (systemClock) AfterFunc(d time.Duration, f func()) func() bool { return time.AfterFunc(d, f).Stop }
