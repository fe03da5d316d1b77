package keystest_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"github.com/oscorelay/oscorelay/keys"
	"github.com/oscorelay/oscorelay/keys/keystest"
	"github.com/oscorelay/oscorelay/oscore"
)

func TestMemory(t *testing.T) {
	keystest.Run(t, func(*testing.T) keystest.Subject {
		m := keys.NewMemory()
		return keystest.Subject{
			Open:  func() (keys.SSNStore, error) { return m, nil },
			Close: func() error { return nil },
			Crash: m.Restart,
		}
	})
}

// broken are stores that each break one promise.
var broken = map[string]func() keystest.Subject{
	"forgets numbers": func() keystest.Subject {
		var m *keys.Memory
		return keystest.Subject{
			Open: func() (keys.SSNStore, error) {
				if m == nil {
					m = keys.NewMemory()
				}
				return m, nil
			},
			Close: func() error { return nil },
			Crash: func() { m = nil },
		}
	},
	"writes behind":       func() keystest.Subject { return flawed(&behind{Memory: keys.NewMemory()}) },
	"knows everything":    func() keystest.Subject { return flawed(credulous{keys.NewMemory()}) },
	"keeps taken windows": func() keystest.Subject { return flawed(&hoarder{Memory: keys.NewMemory()}) },
	"crash keeps windows": func() keystest.Subject {
		m := &survivor{Memory: keys.NewMemory()}
		return keystest.Subject{
			Open:  func() (keys.SSNStore, error) { return m, nil },
			Close: func() error { return nil },
			Crash: m.crash,
		}
	},
}

func flawed(s interface {
	keys.SSNStore
	Restart()
},
) keystest.Subject {
	return keystest.Subject{Open: func() (keys.SSNStore, error) { return s, nil }, Close: func() error { return nil }, Crash: s.Restart}
}

// behind gives numbers first and remembers them with the next call.
type behind struct {
	*keys.Memory
	mu      sync.Mutex
	pending map[keys.Identity]uint64
	next    map[keys.Identity]uint64
}

func (b *behind) Declare(ctx context.Context, id []byte, next uint64) (bool, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.next == nil {
		b.next, b.pending = map[keys.Identity]uint64{}, map[keys.Identity]uint64{}
	}
	created, err := b.Memory.Declare(ctx, id, next)
	if created {
		b.next[keys.Identity(id)] = next
	}
	return created, err
}

func (b *behind) Reserve(ctx context.Context, id []byte, n uint32) (lo, hi uint64, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.Known(ctx, id); err != nil {
		return 0, 0, err
	}
	i := keys.Identity(id)
	if p, ok := b.pending[i]; ok {
		b.next[i] = p
	}
	lo = max(b.next[i], b.pending[i])
	if hi, err = keys.RangeEnd(lo, n); err == nil {
		b.pending[i] = hi
	}
	return lo, hi, err
}

func (b *behind) Restart() { b.Memory.Restart(); clear(b.pending) }

// credulous knows material that it never saw.
type credulous struct{ *keys.Memory }

func (c credulous) Reserve(ctx context.Context, id []byte, n uint32) (lo, hi uint64, err error) {
	_, _ = c.Declare(ctx, id, 0)
	return c.Memory.Reserve(ctx, id, n)
}

// hoarder gives a window away and keeps it.
type hoarder struct{ *keys.Memory }

func (h *hoarder) TakeWindow(ctx context.Context, id []byte) (oscore.WindowState, bool, error) {
	s, ok, err := h.Memory.TakeWindow(ctx, id)
	if ok {
		err = h.PutWindows(ctx, []keys.Window{{ID: keys.Identity(id), State: s}})
	}
	return s, ok, err
}

// survivor deletes windows that were taken, but not durably.
type survivor struct {
	*keys.Memory
	mu    sync.Mutex
	taken []keys.Window
}

func (s *survivor) TakeWindow(ctx context.Context, id []byte) (oscore.WindowState, bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w, ok, err := s.Memory.TakeWindow(ctx, id)
	if ok {
		s.taken = append(s.taken, keys.Window{ID: keys.Identity(id), State: w})
	}
	return w, ok, err
}

func (s *survivor) crash() {
	s.Restart()
	_ = s.PutWindows(context.Background(), s.taken)
	s.taken = nil
}

const brokenEnv = "KEYSTEST_BROKEN"

// TestBroken runs the suite on a broken store, when TestSuiteFindsBrokenStores
// asks for one.
func TestBroken(t *testing.T) {
	b, ok := broken[os.Getenv(brokenEnv)]
	if !ok {
		t.Skip("run by TestSuiteFindsBrokenStores")
	}
	keystest.Run(t, func(*testing.T) keystest.Subject { return b() })
}

func TestSuiteFindsBrokenStores(t *testing.T) {
	for name := range broken {
		t.Run(name, func(t *testing.T) {
			c := exec.Command(os.Args[0], "-test.run=^TestBroken$", "-test.v")
			c.Env = append(os.Environ(), brokenEnv+"="+name)
			out, err := c.CombinedOutput()
			var exit *exec.ExitError
			if !errors.As(err, &exit) || !strings.Contains(string(out), "--- FAIL: TestBroken/") {
				t.Errorf("the suite accepts it (%v):\n%s", err, out)
			}
		})
	}
}
