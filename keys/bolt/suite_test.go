package bolt

import (
	"errors"
	"path/filepath"
	"testing"

	"github.com/oscorelay/oscorelay/keys"
	"github.com/oscorelay/oscorelay/keys/internal/disk"
	"github.com/oscorelay/oscorelay/keys/keystest"
)

// die leaves what a dead process leaves: no last words, its locks gone.
func (st *Store) die() {
	st.mu.Lock()
	if st.err == nil {
		st.err = errors.New("dead")
	}
	st.closing = true
	st.mu.Unlock()
	st.poke()
	<-st.stopped
	_ = st.db.Close() // it writes nothing
	st.locks.Release()
}

func TestSuite(t *testing.T) {
	keystest.Run(t, func(t *testing.T) keystest.Subject {
		base := t.TempDir()
		o := Options{Init: true, AnchorDir: filepath.Join(base, "anchors")}
		var st *Store
		return keystest.Subject{
			Open: func() (_ keys.SSNStore, err error) {
				st, err = Open(filepath.Join(base, "store"), o)
				if err == nil && st.Taint() != "" {
					t.Fatalf("tainted: %s", st.Taint())
				}
				o.Init = false
				return st, err
			},
			Close: func() error { return st.Close() },
			Crash: func() { st.die() },
			Put:   func(entries ...keys.Entry) error { return st.Put(ctx, true, entries...) },
		}
	})
}

// lazy is the file system without the flushes, for tests whose crashes spare the
// kernel.
type lazy struct{ disk.OS }

func (l lazy) Create(name string) (disk.File, error) {
	f, err := l.OS.Create(name)
	return lazyFile{f}, err
}

func (l lazy) Append(name string) (disk.File, error) {
	f, err := l.OS.Append(name)
	return lazyFile{f}, err
}

func (lazy) SyncDir(string) error { return nil }

type lazyFile struct{ disk.File }

func (lazyFile) Sync() error { return nil }
