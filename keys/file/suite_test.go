package file

import (
	"errors"
	"path/filepath"
	"testing"

	"github.com/oscorelay/oscorelay/keys"
	"github.com/oscorelay/oscorelay/keys/internal/disk/disktest"
	"github.com/oscorelay/oscorelay/keys/keystest"
)

// die leaves what a dead process leaves: no last words, its locks gone.
func (st *Store) die() {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.err = errors.New("dead")
	for st.writing {
		st.idle.Wait()
	}
	_ = st.f.Close()
	st.locks.Release()
}

func TestSuiteInMemory(t *testing.T) {
	for o := range disktest.Outcomes {
		keystest.Run(t, func(*testing.T) keystest.Subject {
			m := disktest.New()
			var st *Store
			return keystest.Subject{
				Open: func() (_ keys.SSNStore, err error) {
					if st, err = open(m, dir, opts); err == nil && st.Taint() != "" {
						t.Fatalf("tainted: %s", st.Taint())
					}
					return st, err
				},
				Close: func() error { return st.Close() },
				Crash: func() { m = m.Restart(o) },
			}
		})
	}
}

func TestSuiteOnDisk(t *testing.T) {
	keystest.Run(t, func(t *testing.T) keystest.Subject {
		base := t.TempDir()
		var st *Store
		return keystest.Subject{
			Open: func() (_ keys.SSNStore, err error) {
				st, err = Open(filepath.Join(base, "store"), Options{AnchorDir: filepath.Join(base, "anchors")})
				return st, err
			},
			Close: func() error { return st.Close() },
			Crash: func() { st.die() },
		}
	})
}
