package anchor

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"github.com/oscorelay/oscorelay/keys"
	"github.com/oscorelay/oscorelay/keys/internal/disk"
)

// The ledger stands beside the anchors and says which material was declared new
// on this machine, and in which store. The same key file imported as new into a
// second directory, or again after the first directory was deleted, would begin
// at 0 again: the ledger remembers where the state does not.
//
// It has a line for each identity: the identity, the store, the directory. The
// first line of an identity counts, so that of two processes that write at once
// one loses.

// LedgerName is its file beside the anchors.
const LedgerName = "declared-new"

// Claim writes identities into the ledger. It returns those that another store
// claimed before, with its directory.
func Claim(fsys disk.FS, anchors string, store UUID, dir string, ids []keys.Identity) (taken map[keys.Identity]string, err error) {
	name := filepath.Join(anchors, LedgerName)
	want := make(map[keys.Identity]bool, len(ids))
	for _, id := range ids {
		want[id] = true
	}
	owners, err := readLedger(fsys, name, want)
	if err != nil {
		return nil, err
	}
	if taken = claimedBefore(owners, store, ids); len(taken) > 0 {
		return taken, nil // nothing is claimed then
	}
	var lines strings.Builder
	for _, id := range ids {
		if _, ok := owners[id]; !ok {
			// A line break first ends what a crash cut short.
			fmt.Fprintf(&lines, "\n%s %s %s", id, store, dir)
		}
	}
	if lines.Len() == 0 {
		return nil, nil
	}
	lines.WriteByte('\n')
	if err := appendLedger(fsys, name, lines.String()); err != nil {
		return nil, err
	}
	if owners, err = readLedger(fsys, name, want); err != nil {
		return nil, err
	}
	return claimedBefore(owners, store, ids), nil
}

// claimedBefore returns those of the identities that another store has, with
// its directory.
func claimedBefore(owners map[keys.Identity]string, store UUID, ids []keys.Identity) map[keys.Identity]string {
	taken := map[keys.Identity]string{}
	for _, id := range ids {
		if line, ok := owners[id]; ok {
			if owner, where, _ := strings.Cut(line, " "); owner != store.String() {
				taken[id] = where
			}
		}
	}
	return taken
}

// readLedger returns what the first line of each identity wanted says after it. Lines
// that are not of its form were cut short and count for nothing.
func readLedger(fsys disk.FS, name string, want map[keys.Identity]bool) (map[keys.Identity]string, error) {
	b, err := fsys.ReadFile(name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("ledger: %w", err)
	}
	owners := map[keys.Identity]string{}
	for line := range bytes.Lines(b) {
		text, whole := bytes.CutSuffix(line, []byte{'\n'})
		fields := bytes.SplitN(text, []byte{' '}, 3)
		if !whole || len(fields) != 3 || len(fields[0]) != 2*len(keys.Identity{}) || len(fields[1]) != 2*len(UUID{}) {
			continue
		}
		var id keys.Identity
		if _, err := hex.Decode(id[:], fields[0]); err != nil || !want[id] {
			continue
		}
		if _, ok := owners[id]; !ok {
			owners[id] = string(fields[1]) + " " + string(fields[2])
		}
	}
	return owners, nil
}

func appendLedger(fsys disk.FS, name, lines string) error {
	f, err := fsys.Append(name)
	if err != nil {
		return fmt.Errorf("ledger: %w", err)
	}
	_, err = f.Write([]byte(lines))
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = fsys.SyncDir(filepath.Dir(name))
	}
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}
