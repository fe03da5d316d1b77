package file

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/oscorelay/oscorelay/keys"
	"github.com/oscorelay/oscorelay/keys/internal/anchor"
	"github.com/oscorelay/oscorelay/keys/internal/disk"
	"github.com/oscorelay/oscorelay/keys/internal/vault"
)

// View is what a directory holds, read without opening it: no lock, no new
// epoch, nothing changed. Another process may have it open.
type View struct {
	Store   string // names the line of states
	Epoch   uint64
	Entries []EntryView
}

// EntryView is an entry and what the state knows of it.
type EntryView struct {
	keys.Entry
	Taint     error  // why its history is unknown, nil if it is known
	Next      uint64 // numbers below were reserved
	IDContext []byte // what Appendix B.2 agreed on, nil if it did not run
}

// Read reads a directory. It does not compare the state with the anchor: that a
// state was copied or restored shows when it is opened.
func Read(dir string, o Options) (*View, error) { return readView(disk.OS{}, dir, o) }

func readView(fsys disk.FS, dir string, o Options) (*View, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("keys/file: %w", err)
	}
	st := &Store{fsys: fsys, dir: dir, opts: o}
	if st.opts.RootKey == "" {
		st.opts.RootKey = filepath.Join(dir, "root.key")
	}
	b, err := fsys.ReadFile(st.keysName())
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, fmt.Errorf("keys/file: %w", err)
	default:
		if st.root, err = vault.RootKey(fsys, st.opts.RootKey, false); err != nil {
			return nil, fmt.Errorf("keys/file: %w", err)
		}
		if st.entries, err = decodeEntries(st.keysName(), st.root, b); err != nil {
			return nil, err
		}
		if _, err := st.loadAdded(b); err != nil {
			return nil, err
		}
	}
	st.s = newState(anchor.UUID{})
	b, err = fsys.ReadFile(st.stateName())
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, fmt.Errorf("keys/file: %w", err)
	default:
		if st.s, _, err = readState(st.stateName(), b); err != nil {
			return nil, err
		}
	}
	v := &View{Store: st.s.store.String(), Epoch: st.s.epoch}
	for _, e := range st.entries {
		id, _, err := keys.Identities(&e.Params)
		if err != nil {
			return nil, fmt.Errorf("keys/file: %s: entry %q: %w", st.keysName(), e.Name, err)
		}
		ev := EntryView{Entry: e}
		if d, ok := st.s.derived[id]; ok {
			id, ev.IDContext = d.id, d.idContext
		}
		ev.Taint, ev.Next = st.s.known(id), st.s.ids[id].next
		v.Entries = append(v.Entries, ev)
	}
	return v, nil
}
