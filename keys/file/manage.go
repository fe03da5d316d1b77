package file

import (
	"context"
	"fmt"
	"slices"

	"github.com/oscorelay/oscorelay/keys"
	"github.com/oscorelay/oscorelay/keys/internal/anchor"
	"github.com/oscorelay/oscorelay/keys/internal/disk"
	"github.com/oscorelay/oscorelay/oscore"
)

// Entries returns the entries of the key file.
func (st *Store) Entries() []keys.Entry {
	st.entriesMu.Lock()
	defer st.entriesMu.Unlock()
	return cloneEntries(st.entries)
}

func cloneEntries(entries []keys.Entry) []keys.Entry {
	out := make([]keys.Entry, len(entries))
	for i := range entries {
		out[i] = entries[i].Clone()
	}
	return out
}

// Put writes entries into the key file, in place of those of the same names. A
// keyring that is open already does not see them.
//
// fresh says that their material was never used anywhere. Without it material
// that the store does not know is tainted; material that it knows keeps its
// numbers either way. It returns keys.ErrTainted for fresh material that the
// store knows to have been used, keys.ErrDuplicate for entries that stand in
// each other's way, and writes nothing then.
func (st *Store) Put(ctx context.Context, fresh bool, entries ...keys.Entry) error {
	st.entriesMu.Lock()
	defer st.entriesMu.Unlock()
	entries = cloneEntries(entries)
	all := slices.Clone(st.entries)
	at := map[string]int{}
	for i := range all {
		at[all[i].Name] = i
	}
	for _, e := range entries {
		if i, ok := at[e.Name]; ok {
			all[i] = e
			continue
		}
		at[e.Name] = len(all)
		all = append(all, e)
	}
	trial := keys.New(keys.NewMemory())
	for _, e := range all {
		if _, err := trial.Add(ctx, e); err != nil {
			return err
		}
	}
	if fresh {
		if err := st.declare(entries); err != nil {
			return err
		}
	}
	return st.writeEntries(all)
}

// declare makes the material of entries known, in one frame, if nobody else on
// this machine declared it.
func (st *Store) declare(entries []keys.Entry) error {
	if err := st.claim(entries); err != nil {
		return err
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	out, err := st.join(nil)
	if err != nil {
		return err
	}
	var records []byte
	var apply []func()
	for i := range entries {
		p := &entries[i].Params
		sender, recipient, err := keys.Identities(p)
		if err != nil {
			return err
		}
		if h, ok := st.s.ids[sender]; ok {
			if h.taint != 0 {
				return fmt.Errorf("keys/file: entry %q cannot be fresh: %w", entries[i].Name, st.s.known(sender))
			}
			continue
		}
		fresh := oscore.Fresh(p.WindowSize)
		w, _ := fresh.State()
		records = appendNumbers(records, sender, 0)
		records = appendWindow(records, recipient, w)
		apply = append(apply, func() {
			st.s.ids[sender] = history{}
			st.s.windows[recipient], st.saved[recipient] = w, true
		})
	}
	out.add(nil, 0, records, func() {
		for _, f := range apply {
			f()
		}
	})
	return st.commit(out)
}

// claim enters material that is news to the store into the machine's ledger.
func (st *Store) claim(entries []keys.Entry) error {
	var ids []keys.Identity
	var names []string
	for i := range entries {
		id, _, err := keys.Identities(&entries[i].Params)
		if err != nil {
			return err
		}
		st.mu.Lock()
		_, known := st.s.ids[id]
		st.mu.Unlock()
		if !known {
			ids, names = append(ids, id), append(names, entries[i].Name)
		}
	}
	taken, err := anchor.Claim(st.fsys, st.opts.AnchorDir, st.s.store, st.dir, ids)
	if err != nil {
		return fmt.Errorf("keys/file: %w", err)
	}
	for i, id := range ids {
		if where, ok := taken[id]; ok {
			return fmt.Errorf("keys/file: entry %q cannot be fresh: %w", names[i], &keys.TaintError{
				Reason: "the same keys were declared new on this machine before, in " + where,
			})
		}
	}
	return nil
}

// Remove takes entries out of the key file. Their numbers stay in the state, so
// that the same material put back goes on where it stopped.
func (st *Store) Remove(names ...string) error {
	st.entriesMu.Lock()
	defer st.entriesMu.Unlock()
	all := slices.Clone(st.entries)
	for _, name := range names {
		i := slices.IndexFunc(all, func(e keys.Entry) bool { return e.Name == name })
		if i < 0 {
			return fmt.Errorf("%w: %q in %s", keys.ErrNotFound, name, st.dir)
		}
		all = slices.Delete(all, i, i+1)
	}
	return st.writeEntries(all)
}

// writeEntries replaces the key file. The caller holds st.entriesMu.
func (st *Store) writeEntries(all []keys.Entry) error {
	st.mu.Lock()
	err := st.err
	st.mu.Unlock()
	if err != nil {
		return err
	}
	b, err := encodeEntries(st.root, all)
	if err == nil {
		err = disk.Replace(st.fsys, st.keysName(), b)
	}
	if err != nil {
		st.merge = true
		return fmt.Errorf("keys/file: %w", err)
	}
	st.entries = all
	st.dropAdded()
	return nil
}
