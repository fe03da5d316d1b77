package file

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/oscorelay/oscorelay/keys/internal/disk"
)

// uuid names a store: a line of states, each the successor of one.
type uuid [16]byte

func (u uuid) String() string { return hex.EncodeToString(u[:]) }

func newUUID() (u uuid) {
	_, _ = rand.Read(u[:]) // never fails (crypto/rand)
	return u
}

// anchor is what stands outside the store. It is written before the state gets
// where it says.
type anchor struct {
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

// ahead is how many frames the anchor allows for each time it is written.
const ahead = 16

func anchorName(dir string, store uuid) string {
	return filepath.Join(dir, store.String()+".anchor")
}

// readAnchor returns nil if there is no anchor, or none that can be read.
func readAnchor(fsys disk.FS, name string) (*anchor, error) {
	b, err := fsys.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("keys/file: anchor: %w", err)
	}
	var a anchor
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if d.Decode(&a) != nil {
		return nil, nil
	}
	return &a, nil
}

func (a *anchor) write(fsys disk.FS, name string) error {
	b, err := json.MarshalIndent(a, "", "  ")
	if err != nil {
		return err
	}
	if err := disk.Replace(fsys, name, append(b, '\n')); err != nil {
		return fmt.Errorf("keys/file: anchor: %w", err)
	}
	return nil
}

// verdict compares a state with its anchor. It returns why the state is not the
// last one, or how many numbers every context has to skip, and whether the
// windows saved in the state are the last.
//
//  1. the anchor is this machine's and this directory's
//  2. the epoch is the anchor's, or the one that was about to begin
//  3. the state has as many frames as it had, or could have had
func (a *anchor) verdict(s *state, dir string, inode uint64, machine string) (taint string, skip uint64, windows bool) {
	switch {
	case a == nil:
		return "this machine has no anchor for the store: its directory was copied or restored from elsewhere, or the anchor was deleted", 0, false
	case a.Store != s.store.String():
		return "the anchor belongs to another store", 0, false
	case a.Machine != "" && machine != "" && a.Machine != machine:
		return "the store and its anchor were copied from another machine", 0, false
	case a.Directory != dir && (a.Inode == 0 || inode == 0 || a.Inode != inode):
		return fmt.Sprintf("the directory is a copy of %s", a.Directory), 0, false
	}
	switch {
	case a.Begins != 0 && s.epoch == a.Begins:
		// The beginning was written, and nothing after it: no number was used.
		return "", 0, false
	case s.epoch < a.Epoch:
		return fmt.Sprintf("an old state was restored (start %d of the store, the last was %d)", s.epoch, a.Epoch), 0, false
	case s.epoch > a.Epoch:
		return fmt.Sprintf("an old anchor was restored (start %d, the store's last was %d)", a.Epoch, s.epoch), 0, false
	case s.frames > a.Frames:
		return "an old anchor was restored (the state is ahead of it)", 0, false
	case a.Closed && s.frames < a.Frames, s.frames+ahead < a.Frames:
		return fmt.Sprintf("an old state was restored (record %d, the last was %d)", s.frames, a.Frames), 0, false
	}
	return "", (a.Frames - s.frames) * a.Block, a.Closed
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
