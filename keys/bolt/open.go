package bolt

import (
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	bbolt "go.etcd.io/bbolt"

	"github.com/oscorelay/oscorelay/keys"
	"github.com/oscorelay/oscorelay/keys/internal/anchor"
	"github.com/oscorelay/oscorelay/keys/internal/disk"
	"github.com/oscorelay/oscorelay/keys/internal/vault"
	"github.com/oscorelay/oscorelay/oscore"
)

// Options say what is not in the directory.
type Options struct {
	// Init makes a new store. It is for the first start alone: without it a
	// store that is missing is an error, since its keys would begin at 0 again,
	// and with it a store that is there is one.
	Init bool
	// AnchorDir holds the anchors; empty means oscorelay/anchors under
	// os.UserConfigDir. It must not be part of what backs up or copies the
	// store, and must last as long as the store does.
	AnchorDir string
	// Hot is how many peers the keyring keeps ready to use; zero means
	// keys.DefaultHot.
	Hot int
	// OnError is called when the keyring found nobody because the store failed.
	OnError func(error)
	// RootKey is the file with the root key; empty means root.key in the
	// directory.
	RootKey string

	openFile func(name string, flag int, mode os.FileMode) (*os.File, error) // tests
	anchors  disk.FS                                                         // tests
	noSync   bool                                                            // tests whose crashes spare the kernel
}

// Errors of Open.
var (
	// ErrMissing: there is no store, and Init was not asked for.
	ErrMissing = errors.New("keys/bolt: the store is missing")
	// ErrExists: there is a store already, and Init was asked for.
	ErrExists = errors.New("keys/bolt: the store exists already")
)

// ErrUnknown is of a change whose write failed in such a way that it may be there
// or not; it shows when the store is opened again. This one has stopped.
var ErrUnknown = errors.New("keys/bolt: whether a change was written is not known")

// K is how many numbers each context owns at each start without a write.
const K = 64

// Store is an open store. It is safe for concurrent use and has every ability
// that package keys knows.
type Store struct {
	fsys  disk.FS
	dir   string
	opts  Options
	db    *bbolt.DB
	aead  cipher.AEAD
	taint string
	locks anchor.Locks
	epoch uint64
	store anchor.UUID

	entriesMu sync.Mutex // held while entries are written
	chunk     int        // entries of an import that are in memory at a time
	part      int        // keys that one of its transactions takes
	ring      *keys.Keyring
	trims     atomic.Bool // a trim is to come

	mu      sync.Mutex
	h       head
	a       anchor.Anchor // owned by the writer after Open
	err     error         // sticky: the disk's content is not known
	closing bool
	live    map[keys.Identity]lease
	taken   map[keys.Identity]struct{} // windows taken in this epoch
	waiting *batch
	wake    chan struct{}
	stopped chan struct{} // closed when the writer has ended
}

var (
	_ keys.SSNStore     = (*Store)(nil)
	_ keys.History      = (*Store)(nil)
	_ keys.WindowStore  = (*Store)(nil)
	_ keys.ContextStore = (*Store)(nil)
	_ keys.Directory    = (*Store)(nil)
)

// Open opens the store in a directory, or makes it if that was asked for. It is a
// new epoch: one commit, after which every context owns [K] numbers.
//
// A store whose past is not known is no error: [Store.Taint] says why, and each
// context refuses to seal until it is derived anew.
func Open(dir string, o Options) (_ *Store, err error) {
	if dir, err = filepath.Abs(dir); err != nil {
		return nil, fmt.Errorf("keys/bolt: %w", err)
	}
	if err := anchor.Places(dir, &o.AnchorDir, &o.RootKey); err != nil {
		return nil, fmt.Errorf("keys/bolt: %w", err)
	}
	if o.openFile == nil {
		o.openFile = os.OpenFile
	}
	if o.anchors == nil {
		o.anchors = disk.OS{}
	}
	st := &Store{
		fsys: o.anchors, dir: dir, opts: o, locks: anchor.Locks{FS: o.anchors}, chunk: chunkSize, part: partSize,
		live: map[keys.Identity]lease{}, taken: map[keys.Identity]struct{}{},
		wake: make(chan struct{}, 1), stopped: make(chan struct{}),
	}
	defer func() {
		if err != nil {
			if st.db != nil {
				_ = st.db.Close()
			}
			st.locks.Release()
		}
	}()
	if err := st.find(); err != nil {
		return nil, err
	}
	if err := st.load(); err != nil {
		return nil, err
	}
	if err := st.begin(); err != nil {
		return nil, err
	}
	go st.writer()
	return st, nil
}

func (st *Store) name() string       { return filepath.Join(st.dir, "store.db") }
func (st *Store) anchorName() string { return anchor.Name(st.opts.AnchorDir, st.h.at.Store) }

// find locks the directory and makes the store if it is to be made.
func (st *Store) find() error {
	there, err := exists(st.name())
	if err != nil {
		return fmt.Errorf("keys/bolt: %w", err)
	}
	if !there && !st.opts.Init {
		return fmt.Errorf("%w: %s; if it was there before, bring back the volume or the working directory it was on; "+
			"only for a first start make a new one (--init)", ErrMissing, st.name())
	}
	for _, d := range []string{st.dir, st.opts.AnchorDir} {
		if err := st.fsys.MkdirAll(d); err != nil {
			return fmt.Errorf("keys/bolt: %w", err)
		}
	}
	if err := st.locks.Take(filepath.Join(st.dir, "lock"), "store "+st.dir); err != nil {
		return fmt.Errorf("keys/bolt: %w", err)
	}
	removeSpills(st.dir)
	// Again, now that nobody else makes it.
	if there, err = exists(st.name()); err != nil {
		return fmt.Errorf("keys/bolt: %w", err)
	}
	if there && st.opts.Init {
		return fmt.Errorf("%w: %s; start without --init", ErrExists, st.name())
	}
	root, err := vault.RootKey(st.fsys, st.opts.RootKey, !there)
	if err != nil {
		return fmt.Errorf("keys/bolt: %w", err)
	}
	defer clear(root)
	if !there {
		if err := st.create(root); err != nil {
			return err
		}
	}
	if st.db, err = st.openDB(st.name(), 0); err != nil {
		return fmt.Errorf("keys/bolt: %s: %w; %s", st.name(), err, moveAway)
	}
	return st.unseal(root)
}

const moveAway = "if another process has it, stop that one; if it is damaged, do not restore a copy over it: move it away and begin anew (--init), with new keys, or with these as tainted ones"

func exists(name string) (bool, error) {
	_, err := os.Stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// openDB opens a database. It is made only if the flag says so.
func (st *Store) openDB(name string, flag int) (db *bbolt.DB, err error) {
	var f *os.File
	err = guarded(func() (err error) {
		db, err = bbolt.Open(name, 0o600, &bbolt.Options{
			Timeout: time.Second, FreelistType: bbolt.FreelistMapType, NoStatistics: true, NoSync: st.opts.noSync, InitialMmapSize: mapped(),
			OpenFile: func(name string, also int, mode os.FileMode) (_ *os.File, err error) {
				f, err = st.opts.openFile(name, also&^os.O_CREATE|flag, mode)
				return f, err
			},
		})
		return err
	})
	if errors.Is(err, errPages) && f != nil {
		_ = f.Close() // with its lock
	}
	return db, err
}

// mapped returns how much of the address space to map at first, so that a file
// that grows need not wait for its readers. Windows would make the file as large.
func mapped() int {
	if runtime.GOOS == "windows" || strconv.IntSize < 64 {
		return 0
	}
	return 1 << 30
}

// errPages says that the file is not as bbolt wrote it.
var errPages = errors.New("the file is damaged, or the disk is")

// guarded makes an error of a panic, with which bbolt answers a damaged page, and
// of the fault with which the system answers a mapped one that cannot be read.
func guarded(do func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: %v", errPages, r)
		}
	}()
	return do()
}

// create makes an empty store: its anchor first, then its file under another
// name, so that there is a whole one with an anchor or none.
func (st *Store) create(root []byte) error {
	var h head
	h.at.Store = anchor.NewUUID()
	_, _ = rand.Read(h.salt[:]) // never fails (crypto/rand)
	aead, err := vault.Cipher(root, h.salt[:], sealedFor)
	if err != nil {
		return fmt.Errorf("keys/bolt: %w", err)
	}
	st.aead = aead
	a := anchor.NewLine(h.at)
	here := anchor.Here(st.fsys, st.dir)
	a.Directory, a.Inode, a.Machine = here.Directory, here.Inode, here.Machine
	if err := a.Write(st.fsys, anchor.Name(st.opts.AnchorDir, h.at.Store)); err != nil {
		return fmt.Errorf("keys/bolt: %w", err)
	}
	tmp := st.name() + ".new"
	_ = os.Remove(tmp) // of a start that was cut short
	db, err := st.openDB(tmp, os.O_CREATE)
	if err == nil {
		err = db.Update(func(tx *bbolt.Tx) error {
			for _, name := range buckets {
				if _, err := tx.CreateBucket(name); err != nil {
					return err
				}
			}
			meta := tx.Bucket(bucketMeta)
			if err := meta.Put(keyRoot, st.seal(keyRoot, nil, []byte(headMagic))); err != nil {
				return err
			}
			return meta.Put(keyHead, h.encode())
		})
		if e := db.Close(); err == nil {
			err = e
		}
	}
	if err == nil {
		err = st.fsys.Rename(tmp, st.name())
	}
	if err == nil {
		err = st.fsys.SyncDir(st.dir)
	}
	if err != nil {
		return fmt.Errorf("keys/bolt: %w", err)
	}
	return nil
}

// unseal reads the head and proves the root key.
func (st *Store) unseal(root []byte) error {
	return st.look(func(tx *bbolt.Tx) (err error) {
		meta := tx.Bucket(bucketMeta)
		if meta == nil {
			return fmt.Errorf("keys/bolt: %s: %w: it is none", st.name(), errForm)
		}
		if st.h, err = decodeHead(meta.Get(keyHead)); errors.Is(err, errForm) {
			return fmt.Errorf("keys/bolt: %s: %w", st.name(), err)
		} else if err != nil {
			return fmt.Errorf("keys/bolt: %s: %w; %s", st.name(), err, moveAway)
		}
		for _, name := range buckets {
			if tx.Bucket(name) == nil {
				return fmt.Errorf("keys/bolt: %s: the bucket %s is missing: %w; %s", st.name(), name, errDamaged, moveAway)
			}
		}
		if st.aead, err = vault.Cipher(root, st.h.salt[:], sealedFor); err != nil {
			return fmt.Errorf("keys/bolt: %w", err)
		}
		if _, err := st.open(keyRoot, nil, meta.Get(keyRoot)); err != nil {
			return fmt.Errorf("keys/bolt: the root key %s does not open %s: it is another one, or the store was changed", st.opts.RootKey, st.name())
		}
		return nil
	})
}

// load compares the store with its anchor. What has no known past becomes a line
// of its own with everything in it tainted. It writes nothing but the anchor's
// announcement of the epoch, and leaves in st.h what the epoch begins with.
func (st *Store) load() error {
	if err := st.locks.Take(st.anchorName()+".lock", "store that "+st.dir+" is a copy of"); err != nil {
		return fmt.Errorf("keys/bolt: %w", err)
	}
	a, err := anchor.Read(st.fsys, st.anchorName())
	if err != nil {
		return fmt.Errorf("keys/bolt: %w", err)
	}
	here := anchor.Here(st.fsys, st.dir)
	reason, skip, windows := a.Verdict(st.h.at, here)
	if reason != "" {
		st.taint = reason
		st.locks.Leave() // the line that this is no part of may go on
		st.h.at.Store = anchor.NewUUID()
		if err := st.locks.Take(st.anchorName()+".lock", "store"); err != nil {
			return fmt.Errorf("keys/bolt: %w", err)
		}
		st.a = anchor.NewLine(st.h.at)
	} else {
		st.a = *a
		st.a.Resume(st.h.at)
	}
	if err := st.a.Begin(st.fsys, st.anchorName(), st.h.at.Epoch+1, here); err != nil {
		return fmt.Errorf("keys/bolt: %w", err)
	}
	st.h.at.Epoch++
	st.epoch, st.store = st.h.at.Epoch, st.h.at.Store
	st.h.at.Frames++
	st.h.offset += K + min(skip, oscore.MaxSequence+1)
	if !windows {
		st.h.windows = st.h.at.Epoch
	}
	return nil
}

// begin makes the epoch durable: the store begins it, and then the anchor leaves
// the one before.
func (st *Store) begin() error {
	err := st.safely(func(tx *bbolt.Tx) error {
		if st.taint != "" {
			line := binary.BigEndian.AppendUint32(nil, st.h.line)
			if err := tx.Bucket(bucketReasons).Put(line, []byte(st.taint)); err != nil {
				return err
			}
			st.h.line++
		}
		return tx.Bucket(bucketMeta).Put(keyHead, st.h.encode())
	})
	if err == nil {
		err = st.a.Begun(st.fsys, st.anchorName(), st.h.at)
	}
	if err != nil {
		return fmt.Errorf("keys/bolt: %w", err)
	}
	return nil
}

// Taint says why Open tainted every context that was there; it is empty if it
// did not.
func (st *Store) Taint() string { return st.taint }

// Dir returns the directory.
func (st *Store) Dir() string { return st.dir }

// Epoch counts the starts of the store. Nothing that an earlier one held in
// memory is valid any more.
func (st *Store) Epoch() uint64 { return st.epoch }

// Close deletes the windows that were taken, which makes those put back the ones
// to hand over, and says in the anchor where the store ends. It is the difference
// between a clean stop and a crash: keyrings are to be closed before.
func (st *Store) Close() error {
	st.mu.Lock()
	if st.closing {
		st.mu.Unlock()
		<-st.stopped
		return nil
	}
	st.closing = true // for whoever comes now
	st.mu.Unlock()
	st.poke()
	<-st.stopped // what came before is written
	defer st.locks.Release()
	st.mu.Lock()
	defer st.mu.Unlock()
	err := st.err
	if err == nil {
		err = st.sweepWindows()
	}
	if err == nil {
		if err = st.a.Close(st.fsys, st.anchorName(), st.h.at); err != nil {
			err = fmt.Errorf("keys/bolt: %w", err)
		}
	}
	if errors.Is(err, errPages) {
		return err // bbolt may hold its own locks still
	}
	if e := st.db.Close(); err == nil && e != nil {
		err = fmt.Errorf("keys/bolt: %w", e)
	}
	return err
}
