package file

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"sync"

	"github.com/oscorelay/oscorelay/keys"
	"github.com/oscorelay/oscorelay/keys/internal/anchor"
	"github.com/oscorelay/oscorelay/keys/internal/disk"
	"github.com/oscorelay/oscorelay/keys/internal/vault"
	"github.com/oscorelay/oscorelay/oscore"
)

// Options say where things stand that are not in the directory.
type Options struct {
	// AnchorDir holds the anchors; empty means oscorelay/anchors under
	// os.UserConfigDir. It must not be part of what backs up or copies the
	// store, and must last as long as the store does.
	AnchorDir string
	// RootKey is the file with the root key; empty means root.key in the
	// directory.
	RootKey string
}

// Store is an open directory. It is safe for concurrent use and has every
// ability of a store that package keys knows.
type Store struct {
	fsys  disk.FS
	dir   string
	opts  Options
	root  []byte
	taint string // why Open tainted what there was, empty if it did not
	locks anchor.Locks

	// entriesMu is held while the key file is written.
	entriesMu sync.Mutex
	entries   []keys.Entry
	added     *added // changes beside the key file; nil: none yet
	merge     bool   // the key file is to be written before anything is added: what the disk holds is not known

	mu      sync.Mutex
	s       *state
	f       disk.File
	size    int // of the state file
	lean    int // its size after the last compaction
	a       anchor.Anchor
	err     error // sticky: the disk's content is not known, or the store is closed
	saved   map[keys.Identity]bool
	waiting *batch // takes in records while another batch is written
	writing bool
	idle    *sync.Cond // signals that nobody is writing
}

var (
	_ keys.SSNStore     = (*Store)(nil)
	_ keys.History      = (*Store)(nil)
	_ keys.WindowStore  = (*Store)(nil)
	_ keys.ContextStore = (*Store)(nil)
	_ keys.UsageStore   = (*Store)(nil)
)

// Open opens a directory, and makes it if it does not exist. It fails if another
// process has it open, if the state is damaged, or if the root key does not open
// the key file.
//
// A state whose past is not known is no error: [Store.Taint] says why, and each
// context refuses to seal until it is derived anew.
func Open(dir string, o Options) (*Store, error) { return open(disk.OS{}, dir, o) }

func open(fsys disk.FS, dir string, o Options) (_ *Store, err error) {
	if dir, err = filepath.Abs(dir); err != nil {
		return nil, fmt.Errorf("keys/file: %w", err)
	}
	if err := anchor.Places(dir, &o.AnchorDir, &o.RootKey); err != nil {
		return nil, fmt.Errorf("keys/file: %w", err)
	}
	st := &Store{fsys: fsys, dir: dir, opts: o, locks: anchor.Locks{FS: fsys}, saved: map[keys.Identity]bool{}}
	st.idle = sync.NewCond(&st.mu)
	defer func() {
		if err != nil {
			st.locks.Release()
		}
	}()
	for _, d := range []string{dir, o.AnchorDir} {
		if err := fsys.MkdirAll(d); err != nil {
			return nil, fmt.Errorf("keys/file: %w", err)
		}
	}
	if err := st.locks.Take(filepath.Join(dir, "lock"), "store "+dir); err != nil {
		return nil, fmt.Errorf("keys/file: %w", err)
	}
	if err := st.loadEntries(); err != nil {
		return nil, err
	}
	if err := st.loadState(); err != nil {
		return nil, err
	}
	if err := st.begin(); err != nil {
		return nil, err
	}
	if st.merge {
		if err := st.writeEntries(st.entries); err != nil {
			_ = st.f.Close()
			return nil, err
		}
	}
	return st, nil
}

func (st *Store) keysName() string   { return filepath.Join(st.dir, "keys") }
func (st *Store) stateName() string  { return filepath.Join(st.dir, "state") }
func (st *Store) anchorName() string { return anchor.Name(st.opts.AnchorDir, st.s.store) }

// loadEntries reads the key file and the root key.
func (st *Store) loadEntries() error {
	b, err := st.fsys.ReadFile(st.keysName())
	missing := errors.Is(err, fs.ErrNotExist)
	if err != nil && !missing {
		return fmt.Errorf("keys/file: %w", err)
	}
	if st.root, err = vault.RootKey(st.fsys, st.opts.RootKey, missing); err != nil {
		return fmt.Errorf("keys/file: %w", err)
	}
	if missing {
		return nil
	}
	if st.entries, err = decodeEntries(st.keysName(), st.root, b); err != nil {
		return err
	}
	st.merge, err = st.loadAdded(b)
	return err
}

// loadState reads the state and compares it with the anchor. What has no known
// past becomes a store of its own, with everything in it tainted.
func (st *Store) loadState() error {
	b, err := st.fsys.ReadFile(st.stateName())
	switch {
	case errors.Is(err, fs.ErrNotExist):
		st.s = newState(anchor.NewUUID())
		if len(st.entries) > 0 {
			st.taint = "the key file was there without its state file"
		}
		return st.newLine()
	case err != nil:
		return fmt.Errorf("keys/file: %w", err)
	}
	if st.s, st.size, err = readState(st.stateName(), b); err != nil {
		return err
	}
	if err := st.locks.Take(st.anchorName()+".lock", "store that "+st.dir+" is a copy of"); err != nil {
		return fmt.Errorf("keys/file: %w", err)
	}
	a, err := anchor.Read(st.fsys, st.anchorName())
	if err != nil {
		return fmt.Errorf("keys/file: %w", err)
	}
	reason, skip, windows := a.Verdict(st.s.at(), anchor.Here(st.fsys, st.dir))
	if reason != "" {
		st.taint = reason
		st.locks.Leave() // the line that this is no part of may go on
		st.s.store = anchor.NewUUID()
		return st.newLine()
	}
	if !windows {
		clear(st.s.windows)
	}
	st.a = *a
	st.a.Resume(st.s.at())
	return st.startEpoch(skip)
}

// newLine makes the state a store of its own: with an anchor of its own, and all
// that it knows tainted if there is a reason.
func (st *Store) newLine() error {
	if err := st.locks.Take(st.anchorName()+".lock", "store"); err != nil {
		return fmt.Errorf("keys/file: %w", err)
	}
	if st.taint != "" {
		if err := st.taintAll(); err != nil {
			return err
		}
	}
	clear(st.s.windows)
	st.a = anchor.NewLine(st.s.at())
	return st.startEpoch(0)
}

// taintAll taints what the state knows and what the key file holds.
func (st *Store) taintAll() error {
	n, isNew := st.s.reason(st.taint)
	if isNew {
		st.s.reasons[n] = st.taint
	}
	for id, h := range st.s.ids {
		if h.taint == 0 {
			st.s.ids[id] = history{h.next, n}
		}
	}
	for i := range st.entries {
		id, _, err := keys.Identities(&st.entries[i].Params)
		if err != nil {
			return fmt.Errorf("keys/file: %s: entry %q: %w", st.keysName(), st.entries[i].Name, err)
		}
		if _, ok := st.s.ids[id]; !ok {
			st.s.ids[id] = history{0, n}
		}
	}
	return nil
}

// startEpoch makes a new epoch durable: the anchor says that it begins, the
// state begins it, the anchor says that it began. The state is written as a
// whole, which also cuts off what a crash left at its end.
func (st *Store) startEpoch(skip uint64) error {
	windows := st.s.windows
	epoch := st.s.epoch + 1
	if err := st.a.Begin(st.fsys, st.anchorName(), epoch, anchor.Here(st.fsys, st.dir)); err != nil {
		return fmt.Errorf("keys/file: %w", err)
	}
	st.s.windows = map[keys.Identity]oscore.WindowState{}
	st.s.beginEpoch(epoch, skip)
	st.s.frames++
	data := st.s.encode(st.s.frames, func(keys.Identity) bool { return false })
	if err := disk.Replace(st.fsys, st.stateName(), data); err != nil {
		return fmt.Errorf("keys/file: %w", err)
	}
	st.size, st.lean = len(data), len(data)
	st.s.windows = windows
	return nil
}

// begin lets the epoch's first number go: the anchor leaves the one before.
func (st *Store) begin() error {
	if err := st.a.Begun(st.fsys, st.anchorName(), st.s.at()); err != nil {
		return fmt.Errorf("keys/file: %w", err)
	}
	f, err := st.fsys.Append(st.stateName())
	if err != nil {
		return fmt.Errorf("keys/file: %w", err)
	}
	st.f = f
	return nil
}

// Taint says why Open tainted every context that was there; it is empty if it
// did not.
func (st *Store) Taint() string { return st.taint }

// Dir returns the directory.
func (st *Store) Dir() string { return st.dir }

// Keyring returns a keyring with a peer for each entry. Close it before the
// store.
func (st *Store) Keyring(ctx context.Context) (*keys.Keyring, error) {
	ring := keys.New(st)
	for _, e := range st.Entries() {
		if _, err := ring.Add(ctx, e); err != nil {
			return nil, fmt.Errorf("keys/file: %s: %w", st.keysName(), err)
		}
	}
	return ring, nil
}

// Close saves the windows that were handed over and says in the anchor where the
// state ends. It is the difference between a clean stop and a crash: keyrings
// are to be closed before.
func (st *Store) Close() error {
	if err := st.mergeAdded(); err != nil {
		return errors.Join(err, st.close())
	}
	return st.close()
}

func (st *Store) close() error {
	st.mu.Lock()
	defer st.mu.Unlock()
	if errors.Is(st.err, keys.ErrClosed) {
		return nil
	}
	err := st.err
	st.err = keys.ErrClosed // for whoever comes now
	for st.writing {
		st.idle.Wait()
	}
	defer st.locks.Release()
	if err == nil {
		st.writing = true
		err = st.handOver()
	}
	if e := st.f.Close(); err == nil && e != nil {
		err = fmt.Errorf("keys/file: %w", e)
	}
	st.err = keys.ErrClosed
	clear(st.root)
	for i := range st.entries {
		clear(st.entries[i].Params.MasterSecret)
	}
	return err
}

// handOver writes the windows that nobody took in this epoch, which the epoch's
// beginning voided on disk, and the anchor.
func (st *Store) handOver() error {
	var records []byte
	for _, id := range sorted(st.s.windows) {
		if !st.saved[id] {
			records = appendWindow(records, id, st.s.windows[id])
		}
	}
	if len(records) > 0 {
		if err := st.write(records, 0); err != nil {
			return err
		}
	}
	if err := st.a.Close(st.fsys, st.anchorName(), st.s.at()); err != nil {
		return fmt.Errorf("keys/file: %w", err)
	}
	return nil
}
