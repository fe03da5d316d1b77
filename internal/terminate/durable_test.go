package terminate

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/oscorelay/oscorelay/keys/bolt"
)

// disk is a store that is full for a while.
type disk struct {
	mu      sync.Mutex
	err     error
	tries   int
	written int
}

func (s *disk) update(_ context.Context, fn func(*bolt.Tx) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tries++
	if s.err != nil {
		return s.err
	}
	return fn(nil)
}

func (s *disk) set(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
}

type lockedText struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *lockedText) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedText) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// A full disk: what was to be written waits for space and is written then, who
// waits for it is told to go on, it is counted, and said when it begins and ends.
func TestBehindFullDisk(t *testing.T) {
	s := &disk{err: fmt.Errorf("keys/bolt: %w", syscall.ENOSPC)}
	var said lockedText
	var c counters
	b := newBehind(s.update, slog.New(slog.NewTextHandler(&said, nil)), &c)
	once := func(*bolt.Tx) error { s.written++; return nil }
	b.add(once)
	wait := func() {
		t.Helper()
		done := make(chan struct{})
		b.after(func() { close(done) })
		select {
		case <-done:
		case <-time.After(10 * time.Second):
			t.Fatal("who waits for the disk waits for ever")
		}
	}
	for range 3 {
		wait()
	}
	if n := c.storage.Load(); n == 0 {
		t.Error("it is not counted")
	}
	if n := strings.Count(said.String(), "level=ERROR"); n != 1 {
		t.Errorf("it is said %d times: %s", n, said.String())
	}
	for range maxBehind {
		b.add(once)
	}
	s.set(nil)
	wait()
	s.mu.Lock()
	if s.written != maxBehind {
		t.Errorf("%d of %d that fit are written", s.written, maxBehind)
	}
	s.mu.Unlock()
	if !strings.Contains(said.String(), "takes changes again") {
		t.Errorf("its end is not said: %s", said.String())
	}
	// It is told anew when it happens anew, and an end in that state is a failure.
	s.set(syscall.ENOSPC)
	b.add(once)
	wait()
	if n := strings.Count(said.String(), "level=ERROR"); n != 2 {
		t.Errorf("it is said %d times: %s", n, said.String())
	}
	if err := b.close(); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("%v", err)
	}
}

// A change that cannot be made takes no other with it.
func TestBehindBadChange(t *testing.T) {
	s := &disk{}
	var said lockedText
	b := newBehind(s.update, slog.New(slog.NewTextHandler(&said, nil)), &counters{})
	b.add(func(*bolt.Tx) error { return errors.New("damaged") })
	b.add(func(*bolt.Tx) error { s.written++; return nil })
	if err := b.close(); err != nil || s.written != 1 || !strings.Contains(said.String(), "damaged") {
		t.Errorf("%v, %d written\n%s", err, s.written, said.String())
	}
}

// A store that has stopped takes nothing any more: nothing is kept for it.
func TestBehindStopped(t *testing.T) {
	s := &disk{err: bolt.ErrUnknown}
	b := newBehind(s.update, slog.New(slog.DiscardHandler), &counters{})
	b.add(func(*bolt.Tx) error { return nil })
	if err := b.close(); !errors.Is(err, bolt.ErrUnknown) || s.tries != 1 {
		t.Errorf("%v after %d tries", err, s.tries)
	}
}

// What somebody waits for takes with it what was to be written before it, in one
// transaction and in order, and is not held up by what cannot be written.
func TestBehindJoins(t *testing.T) {
	s := &disk{}
	b := newBehind(s.update, slog.New(slog.DiscardHandler), &counters{})
	var order []string
	step := func(name string, err error) func(*bolt.Tx) error {
		return func(*bolt.Tx) error { order = append(order, name); return err }
	}
	b.turn.Lock() // nobody else writes meanwhile
	b.add(step("finish", nil))
	b.turn.Unlock()
	if err := b.join(step("begin", nil)); err != nil {
		t.Error(err)
	}
	s.mu.Lock()
	if s.tries != 1 || fmt.Sprint(order) != "[finish begin]" {
		t.Errorf("%d transactions: %v", s.tries, order)
	}
	order = nil
	s.mu.Unlock()
	b.add(step("bad", errors.New("damaged")))
	if err := b.join(step("begin", nil)); err != nil {
		t.Error("held up:", err)
	}
	refused := errors.New("refused")
	b.add(step("finish", nil))
	if err := b.join(step("begin", refused)); !errors.Is(err, refused) {
		t.Error(err)
	}
	if err := b.close(); err != nil {
		t.Error(err)
	}
	if n := strings.Count(fmt.Sprint(order), "finish"); n < 1 || order[len(order)-1] != "finish" {
		t.Errorf("what was joined is lost with the one that failed: %v", order)
	}
}
