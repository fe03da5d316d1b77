package anchor

import (
	"bytes"
	"cmp"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"sort"
	"strings"

	"github.com/oscorelay/oscorelay/keys"
	"github.com/oscorelay/oscorelay/keys/internal/disk"
)

// The ledger stands beside the anchors and says which material was declared new
// on this machine, and in which store. The same key file imported as new into a
// second directory, or again after the first directory was deleted, would begin
// at 0 again: the ledger remembers where the state does not.
//
// It has a line for each identity: the identity, the store, the directory; or for
// many that came at once one line that has in place of the identity the name of a
// file beside it, with the identities in order, 16 bytes each. The first line of an
// identity counts, so that of two processes that write at once one loses.

// LedgerName is its file beside the anchors.
const LedgerName = "declared-new"

// many is from how many identities on they get a file of their own.
const many = 10_000

// segment begins the name of a file with identities, in a line.
const segment = "file:"

// Claim writes identities into the ledger. It returns those that another store
// claimed before, with its directory.
func Claim(fsys disk.FS, anchors string, store UUID, dir string, ids []keys.Identity) (taken map[keys.Identity]string, err error) {
	name := filepath.Join(anchors, LedgerName)
	l := ledger{fsys: fsys, name: name, store: store.String(), ids: slices.Clone(ids)}
	slices.SortFunc(l.ids, compare)
	l.ids = slices.Compact(l.ids)
	if err := l.read(""); err != nil || len(l.taken) > 0 {
		return l.taken, err // nothing is claimed then
	}
	var lines strings.Builder
	own := ""
	if len(l.ids) < many {
		for _, id := range l.ids {
			if !l.ours[id] {
				// A line break first ends what a crash cut short.
				fmt.Fprintf(&lines, "\n%s %s %s", id, store, dir)
			}
		}
	} else {
		var random [8]byte
		_, _ = rand.Read(random[:]) // never fails (crypto/rand)
		own = LedgerName + "." + hex.EncodeToString(random[:])
		all := make([]byte, 0, len(l.ids)*len(keys.Identity{}))
		for _, id := range l.ids {
			all = append(all, id[:]...)
		}
		if err := disk.Replace(fsys, filepath.Join(anchors, own), all); err != nil {
			return nil, fmt.Errorf("ledger: %w", err)
		}
		fmt.Fprintf(&lines, "\n%s%s %s %s", segment, own, store, dir)
	}
	if lines.Len() == 0 {
		return nil, nil
	}
	lines.WriteByte('\n')
	if err := appendLedger(fsys, name, lines.String()); err != nil {
		return nil, err
	}
	return l.taken, l.read(own)
}

func compare(a, b keys.Identity) int { return bytes.Compare(a[:], b[:]) }

// ledger is the ledger as seen by a store that wants some identities.
type ledger struct {
	fsys  disk.FS
	name  string
	store string
	ids   []keys.Identity // in order

	ours  map[keys.Identity]bool
	taken map[keys.Identity]string // with the directory
}

// read goes through the lines, up to the one that names a file. Lines that are not
// of their form were cut short and count for nothing.
func (l *ledger) read(until string) error {
	l.ours, l.taken = map[keys.Identity]bool{}, map[keys.Identity]string{}
	b, err := l.fsys.ReadFile(l.name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("ledger: %w", err)
	}
	for line := range bytes.Lines(b) {
		text, whole := bytes.CutSuffix(line, []byte{'\n'})
		fields := strings.SplitN(string(text), " ", 3)
		if !whole || len(fields) != 3 || len(fields[1]) != 2*len(UUID{}) {
			continue
		}
		if file, ok := strings.CutPrefix(fields[0], segment); ok {
			if file == until {
				return nil
			}
			if fields[1] != l.store {
				if err := l.readFile(file, fields[2]); err != nil {
					return err
				}
			}
			continue
		}
		var id keys.Identity
		if len(fields[0]) != 2*len(id) {
			continue
		}
		if _, err := hex.Decode(id[:], []byte(fields[0])); err != nil {
			continue
		}
		if _, wanted := slices.BinarySearchFunc(l.ids, id, compare); wanted {
			l.found(id, fields[1] == l.store, fields[2])
		}
	}
	return nil
}

// found takes in who has an identity. The first counts.
func (l *ledger) found(id keys.Identity, ours bool, dir string) {
	if _, ok := l.taken[id]; ok || l.ours[id] {
		return
	}
	if ours {
		l.ours[id] = true
	} else {
		l.taken[id] = dir
	}
}

// readFile takes in the identities that another store claimed at once.
func (l *ledger) readFile(file, dir string) error {
	if filepath.Base(file) != file {
		return nil // no name of ours
	}
	all, err := l.fsys.ReadFile(filepath.Join(filepath.Dir(l.name), file))
	if err != nil {
		return fmt.Errorf("ledger: %w: it tells which keys %s has", err, dir)
	}
	const size = len(keys.Identity{})
	for _, id := range l.ids {
		n := len(all) / size
		i := sort.Search(n, func(i int) bool { return cmp.Compare(string(all[i*size:(i+1)*size]), string(id[:])) >= 0 })
		if i < n && keys.Identity(all[i*size:]) == id {
			l.found(id, false, dir)
		}
	}
	return nil
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
