package anchor

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/oscorelay/oscorelay/keys"
	"github.com/oscorelay/oscorelay/keys/internal/disk"
)

// UUID names a store: a line of states, each the successor of one.
type UUID [16]byte

// String returns it in hexadecimal.
func (u UUID) String() string { return hex.EncodeToString(u[:]) }

// NewUUID draws one.
func NewUUID() (u UUID) {
	_, _ = rand.Read(u[:]) // never fails (crypto/rand)
	return u
}

// Anchor is what stands outside the store. It is written before the state gets
// where it says.
type Anchor struct {
	Store     string `json:"store"`
	Epoch     uint64 `json:"epoch"`
	Begins    uint64 `json:"begins,omitempty"` // the next epoch, while its beginning is being written
	Frames    uint64 `json:"frames"`           // the last frame that the state may have; if Closed, that it has
	Closed    bool   `json:"closed"`
	Block     uint64 `json:"block"` // the most numbers one frame may give to one context
	Directory string `json:"directory"`
	Inode     uint64 `json:"inode,omitempty"`
	Machine   string `json:"machine,omitempty"`
}

// NewLine returns the anchor of a state that begins a line of its own.
func NewLine(s State) Anchor {
	return Anchor{Store: s.Store.String(), Epoch: s.Epoch, Frames: s.Frames, Closed: true}
}

// Begin makes durable that an epoch of the state at a place is about to begin.
func (a *Anchor) Begin(fsys disk.FS, name string, epoch uint64, at Place) error {
	a.Begins = epoch
	a.Directory, a.Inode, a.Machine = at.Directory, at.Inode, at.Machine
	return a.Write(fsys, name)
}

// Begun makes durable that the epoch began with the given frame, and allows for
// the next ones.
func (a *Anchor) Begun(fsys disk.FS, name string, s State) error {
	a.Epoch, a.Begins = s.Epoch, 0
	a.Closed, a.Block = false, keys.MaxBlock/16
	a.Frames = s.Frames + Ahead
	return a.Write(fsys, name)
}

// Allow makes the anchor allow for a frame that gives so many numbers to one
// context at most.
func (a *Anchor) Allow(fsys disk.FS, name string, frame, block uint64) error {
	if frame <= a.Frames && block <= a.Block {
		return nil
	}
	b := *a
	if frame > b.Frames {
		b.Frames = frame - 1 + Ahead
	}
	b.Block = max(b.Block, block)
	if err := b.Write(fsys, name); err != nil {
		return err
	}
	*a = b
	return nil
}

// Close makes durable where the state ends after a clean stop.
func (a *Anchor) Close(fsys disk.FS, name string, s State) error {
	a.Frames, a.Closed = s.Frames, true
	return a.Write(fsys, name)
}

// Resume takes in that the state already has the epoch that was about to begin
// when its process died: nothing was given out in it.
func (a *Anchor) Resume(s State) {
	if a.Begins != 0 && s.Epoch == a.Begins {
		a.Epoch, a.Frames, a.Closed = s.Epoch, s.Frames, true
	}
}

// Ahead is how many frames the anchor allows for each time it is written.
const Ahead = 16

// Name returns where the anchor of a store stands.
func Name(dir string, store UUID) string {
	return filepath.Join(dir, store.String()+".anchor")
}

// Read returns nil if there is no anchor, or none that can be read.
func Read(fsys disk.FS, name string) (*Anchor, error) {
	b, err := fsys.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("anchor: %w", err)
	}
	var a Anchor
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if d.Decode(&a) != nil {
		return nil, nil
	}
	return &a, nil
}

// Write replaces the anchor, durably.
func (a *Anchor) Write(fsys disk.FS, name string) error {
	b, err := json.MarshalIndent(a, "", "  ")
	if err != nil {
		return err
	}
	if err := disk.Replace(fsys, name, append(b, '\n')); err != nil {
		return fmt.Errorf("anchor: %w", err)
	}
	return nil
}

// State is where a state has got to, by its own account.
type State struct {
	Store         UUID
	Epoch, Frames uint64
}

// Place is where a state stands.
type Place struct {
	Directory string
	Inode     uint64
	Machine   string
}

// Here returns the place of a directory.
func Here(fsys disk.FS, dir string) Place {
	return Place{dir, fsys.Inode(dir), machineID(fsys)}
}

// Verdict compares a state with its anchor. It returns why the state is not the
// last one, or how many numbers every context has to skip, and whether the
// windows saved in the state are the last.
//
//  1. the anchor is this machine's and this directory's
//  2. the epoch is the anchor's, or the one that was about to begin
//  3. the state has as many frames as it had, or could have had
func (a *Anchor) Verdict(s State, at Place) (taint string, skip uint64, windows bool) {
	switch {
	case a == nil:
		return "this machine has no anchor for the store: its directory was copied or restored from elsewhere, or the anchor was deleted", 0, false
	case a.Store != s.Store.String():
		return "the anchor belongs to another store", 0, false
	case a.Machine != "" && at.Machine != "" && a.Machine != at.Machine:
		return "the store and its anchor were copied from another machine", 0, false
	case a.Directory != at.Directory && (a.Inode == 0 || at.Inode == 0 || a.Inode != at.Inode):
		return fmt.Sprintf("the directory is a copy of %s", a.Directory), 0, false
	}
	switch {
	case a.Begins != 0 && s.Epoch == a.Begins:
		// The beginning was written, and nothing after it: no number was used.
		return "", 0, false
	case s.Epoch < a.Epoch:
		return fmt.Sprintf("an old state was restored (start %d of the store, the last was %d)", s.Epoch, a.Epoch), 0, false
	case s.Epoch > a.Epoch:
		return fmt.Sprintf("an old anchor was restored (start %d, the store's last was %d)", a.Epoch, s.Epoch), 0, false
	case s.Frames > a.Frames:
		return "an old anchor was restored (the state is ahead of it)", 0, false
	case a.Closed && s.Frames < a.Frames, s.Frames+Ahead < a.Frames:
		return fmt.Sprintf("an old state was restored (record %d, the last was %d)", s.Frames, a.Frames), 0, false
	}
	return "", (a.Frames - s.Frames) * a.Block, a.Closed
}

// machineID returns a name for the machine that a copied disk does not take to
// another one, empty if there is none. Its hash is stored, as machine-id(5) asks.
func machineID(fsys disk.FS) string {
	for _, name := range []string{"/etc/machine-id", "/var/lib/dbus/machine-id"} {
		b, err := fsys.ReadFile(name)
		if b = bytes.TrimSpace(b); err != nil || len(b) == 0 {
			continue
		}
		sum := sha256.Sum256(append([]byte("oscorelay anchor\x00"), b...))
		return hex.EncodeToString(sum[:8])
	}
	return ""
}

// Lock takes a lock between processes on what is described; an error says who
// has it.
func Lock(fsys disk.FS, name, what string) (unlock func() error, err error) {
	unlock, err = fsys.Lock(name)
	var other *disk.LockedError
	switch {
	case errors.As(err, &other) && other.PID > 0:
		return nil, fmt.Errorf("the %s is in use by process %d: two must not share its sequence numbers; stop that one first (%w)", what, other.PID, err)
	case err != nil:
		return nil, fmt.Errorf("the %s is in use: %w", what, err)
	}
	return unlock, nil
}

// Locks are the locks that a store holds until it is closed.
type Locks struct {
	FS      disk.FS
	unlocks []func() error
}

// Take takes a lock on what is described.
func (l *Locks) Take(name, what string) error {
	unlock, err := Lock(l.FS, name, what)
	if err == nil {
		l.unlocks = append(l.unlocks, unlock)
	}
	return err
}

// Leave gives the last lock back.
func (l *Locks) Leave() {
	last := len(l.unlocks) - 1
	_ = l.unlocks[last]()
	l.unlocks = l.unlocks[:last]
}

// Release gives all of them back.
func (l *Locks) Release() {
	for len(l.unlocks) > 0 {
		l.Leave()
	}
}

// Places fills in where the anchors and the root key of a store stand if nobody
// says: [DefaultDir], and root.key in the store's directory.
func Places(dir string, anchors, rootKey *string) (err error) {
	if *anchors == "" {
		if *anchors, err = DefaultDir(); err != nil {
			return fmt.Errorf("no place for the anchor (%w): name a directory that lasts and is not copied with %s", err, dir)
		}
	}
	if *rootKey == "" {
		*rootKey = filepath.Join(dir, "root.key")
	}
	return nil
}

// DefaultDir returns where anchors stand when nobody says: oscorelay/anchors
// under os.UserConfigDir.
func DefaultDir() (string, error) {
	config, err := os.UserConfigDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(config, "oscorelay", "anchors"), nil
}
