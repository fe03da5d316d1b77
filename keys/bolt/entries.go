package bolt

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"runtime"
	"slices"
	"sync"

	bbolt "go.etcd.io/bbolt"

	"github.com/oscorelay/oscorelay/keys"
	"github.com/oscorelay/oscorelay/keys/internal/anchor"
	"github.com/oscorelay/oscorelay/keys/internal/vault"
	"github.com/oscorelay/oscorelay/oscore"
)

// chunkSize is how many entries are written in one transaction, and how many of an
// import are in memory at a time.
const chunkSize = 25_000

// partSize is how many keys of the index a transaction of an import writes, twice
// as many as entries.
const partSize = 50_000

// Put writes entries, in place of those of the same names. The keyring sees them
// when Put returns; a peer of an entry that is replaced ends.
//
// fresh says that their material was never used anywhere. Without it material
// that the store does not know is tainted; material that it knows keeps its
// numbers either way. It returns keys.ErrTainted for fresh material that is known
// to have been used, keys.ErrDuplicate for entries that stand in each other's
// way, and writes nothing then. It is one transaction: for many entries there is
// [Store.Import].
func (st *Store) Put(ctx context.Context, fresh bool, entries ...keys.Entry) error {
	st.entriesMu.Lock()
	defer st.entriesMu.Unlock()
	return st.put(ctx, exchange{fresh: fresh, entries: entries}, func(int, int) {})
}

// exchange is what one transaction does to the entries.
type exchange struct {
	fresh   bool
	entries []keys.Entry
	sources []string        // of each; nil: an entry keeps its own
	same    map[string]bool // names of those that are there, but for their source
	removed []string        // names
	mark    []byte          // what Mark is to return; nil: what it was
}

// put is Put under st.entriesMu, and more.
func (st *Store) put(ctx context.Context, c exchange, progress func(done, of int)) error {
	fresh, entries := c.fresh, c.entries
	all, err := indexAll(ctx, entries)
	if err != nil {
		return err
	}
	if err := st.conflicts(entries); err != nil {
		return err
	}
	var unknown []keys.Identity
	err = st.View(ctx, func(tx *Tx) error {
		if err := clashes(tx.tx, all, c.removed); err != nil || !fresh {
			return err
		}
		h, err := decodeHead(tx.tx.Bucket(bucketMeta).Get(keyHead))
		if err != nil {
			return err
		}
		for i := range all {
			x := &all[i]
			if tx.tx.Bucket(bucketNumbers).Get(x.sender[:]) == nil {
				unknown = append(unknown, x.sender)
			} else if _, err := known(tx.tx, &h, x.sender); err != nil {
				return fmt.Errorf("keys/bolt: entry %q cannot be fresh: %w", x.name, err)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	progress(len(entries), 3*len(entries))
	if id, err := st.claim(unknown); id != nil {
		name := all[slices.IndexFunc(all, func(x indexed) bool { return x.sender == *id })].name
		return fmt.Errorf("keys/bolt: entry %q cannot be fresh: %w", name, err)
	} else if err != nil {
		return err
	}
	names := make([]string, 0, len(all)+len(c.removed))
	for i := range all {
		if !c.same[all[i].name] {
			names = append(names, all[i].name)
		}
	}
	resume, err := st.suspend(ctx, append(names, c.removed...))
	if err != nil {
		return err
	}
	defer resume()
	err = st.Update(ctx, func(tx *Tx) error {
		for _, name := range c.removed {
			if err := st.dropWhole(tx.tx, name); err != nil {
				return err
			}
		}
		if c.mark != nil {
			if err := st.putMark(tx.tx, c.mark); err != nil {
				return err
			}
		}
		if len(all) == 0 {
			return nil
		}
		if err := st.putIdentities(tx.tx, fresh, entries, all); err != nil {
			return err
		}
		return st.putEntries(tx.tx, entries, all, c.sources)
	})
	if err == nil {
		progress(3*len(entries), 3*len(entries))
	}
	return err
}

// conflicts finds entries that cannot stand beside what the keyring was given. The
// caller holds st.entriesMu.
func (st *Store) conflicts(entries []keys.Entry) error {
	if st.ring == nil {
		return nil
	}
	for i := range entries {
		if err := st.ring.Conflict(&entries[i]); err != nil {
			return fmt.Errorf("keys/bolt: %w", err)
		}
	}
	return nil
}

// suspend takes peers out of the keyring while their entries change. The caller
// holds st.entriesMu.
func (st *Store) suspend(ctx context.Context, names []string) (resume func(), err error) {
	if st.ring == nil {
		return func() {}, nil
	}
	return st.ring.Suspend(ctx, names)
}

// indexAll checks entries and derives their identities, on all processors.
func indexAll(ctx context.Context, entries []keys.Entry) ([]indexed, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	all := make([]indexed, len(entries))
	errs := make([]error, runtime.GOMAXPROCS(0))
	var wg sync.WaitGroup
	for w := range errs {
		wg.Go(func() {
			for i := w; i < len(entries); i += len(errs) {
				err := entries[i].Check()
				if err == nil {
					all[i], err = index(&entries[i])
				}
				if err != nil {
					errs[w] = err
					return
				}
			}
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	return all, nil
}

// claim enters material that is news to the store into the machine's ledger. If
// another store has some already it says which, with the taint.
func (st *Store) claim(ids []keys.Identity) (id *keys.Identity, err error) {
	taken, err := anchor.Claim(st.fsys, st.opts.AnchorDir, st.store, st.dir, ids)
	if err != nil {
		return nil, fmt.Errorf("keys/bolt: %w", err)
	}
	for _, id := range ids {
		if where, ok := taken[id]; ok {
			return &id, &keys.TaintError{Reason: "the same keys were declared new on this machine before, in " + where}
		}
	}
	return nil, nil
}

// putIdentities writes the index and, for fresh material that is news, numbers
// and an open window.
func (st *Store) putIdentities(tx *bbolt.Tx, fresh bool, entries []keys.Entry, all []indexed) error {
	h, err := decodeHead(tx.Bucket(bucketMeta).Get(keyHead))
	if err != nil {
		return err
	}
	// All of the old ones first: a name may take over what another had.
	for i := range all {
		if err := st.dropIndex(tx, all[i].name); err != nil {
			return err
		}
	}
	var inIndex, windows []item
	for i := range all {
		x := &all[i]
		_ = x.each(func(k, v []byte) error {
			inIndex = append(inIndex, item{k, v})
			return nil
		})
		if !fresh || tx.Bucket(bucketNumbers).Get(x.sender[:]) != nil {
			continue
		}
		if err := setNumbers(tx, &h, x.sender, 0); err != nil {
			return err
		}
		w := oscore.Fresh(entries[i].Params.WindowSize)
		s, _ := w.State()
		windows = append(windows, item{x.recipient[:], encodeWindow(h.windows, s)})
	}
	for _, to := range []struct {
		bucket []byte
		items  []item
	}{{bucketIndex, inIndex}, {bucketWindows, windows}} {
		slices.SortFunc(to.items, func(a, b item) int { return bytes.Compare(a.key, b.key) })
		b := tx.Bucket(to.bucket)
		for _, it := range to.items {
			if err := b.Put(it.key, it.value); err != nil {
				return err
			}
		}
	}
	for i := range all {
		if err := st.indexFound(tx, all[i].sender, []byte(all[i].name)); err != nil {
			return err
		}
	}
	return nil
}

// indexFound makes found what Appendix B.2 gave the material of an entry when it
// was in the store before.
func (st *Store) indexFound(tx *bbolt.Tx, sender keys.Identity, name []byte) error {
	v := tx.Bucket(bucketDerived).Get(sender[:])
	if len(v) < len(sender) {
		return nil
	}
	// The kid is in the record, which may not be written yet.
	return tx.Bucket(bucketIndex).Put(derivedKey(name), bytes.Clone(v[len(sender):]))
}

// plainEntry is what an entry's value seals: the identities of sender and recipient,
// and the entry without its name.
func plainEntry(dst []byte, sender, recipient keys.Identity, e *keys.Entry) []byte {
	c := *e
	c.Name = ""
	return vault.AppendEntry(append(append(dst, sender[:]...), recipient[:]...), &c)
}

// putEntries seals and writes entries.
func (st *Store) putEntries(tx *bbolt.Tx, entries []keys.Entry, all []indexed, sources []string) error {
	w, err := st.newWriter(tx)
	if err != nil {
		return err
	}
	order := make([]int, len(all))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int { return cmp.Compare(all[a].name, all[b].name) })
	for _, i := range order {
		var source *string
		if sources != nil {
			source = &sources[i]
		}
		whole := plainEntry(nil, all[i].sender, all[i].recipient, &entries[i])
		err = w.put([]byte(all[i].name), whole, source)
		clear(whole)
		if err != nil {
			return err
		}
	}
	return w.places.save()
}

// writer writes entries in the order of their names.
type writer struct {
	st      *Store
	tx      *bbolt.Tx
	entries *bbolt.Bucket
	places  *places
	sources map[string]uint16
}

func (st *Store) newWriter(tx *bbolt.Tx) (*writer, error) {
	places, err := newPlaces(tx)
	w := &writer{st, tx, tx.Bucket(bucketEntries), places, map[string]uint16{}}
	w.entries.FillPercent = 0.9 // they mostly come in order
	return w, err
}

// put writes an entry: its place, its source, the one it had if it is nil, and the
// rest sealed for name, place and source.
func (w *writer) put(name, whole []byte, source *string) error {
	old := w.entries.Get(name)
	from := sourceOf(old)
	if from != 0 {
		w.places.from--
	}
	place, err := w.places.of(name, old)
	if err == nil && source != nil {
		from, err = w.source(*source)
	}
	if err != nil {
		return err
	}
	if from != 0 {
		w.places.from++
	}
	at := binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint32(nil, place), from)
	value := append(at, w.st.seal(bucketEntries, entryKey(name, at), whole)...)
	if err := w.entries.Put(name, value); err != nil {
		return err
	}
	idContext := w.tx.Bucket(bucketIndex).Get(derivedKey(name))
	if idContext == nil {
		return nil
	}
	return w.st.indexDerived(w.tx, keys.Identity(whole), bytes.Clone(idContext))
}

// dropIndex deletes what the index holds of an entry that is there.
func (st *Store) dropIndex(tx *bbolt.Tx, name string) error {
	r, ok, err := st.record(tx, name)
	if err != nil || !ok {
		return err
	}
	x := indexOf(&r.Entry, r.Sender, r.Recipient)
	b := tx.Bucket(bucketIndex)
	if err := dropDerived(b, []byte(name), r.Entry.Params.RecipientID); err != nil {
		return err
	}
	return x.each(func(k, v []byte) error {
		if v != nil && !bytes.Equal(b.Get(k), v) {
			return nil // another entry has it already
		}
		return b.Delete(k)
	})
}

// record reads an entry and its identities.
func (st *Store) record(tx *bbolt.Tx, name string) (r keys.Record, ok bool, err error) {
	value := tx.Bucket(bucketEntries).Get([]byte(name))
	if value == nil {
		return r, false, nil
	}
	r, err = st.unsealEntry([]byte(name), value)
	return r, err == nil, err
}

func (st *Store) unsealEntry(name, value []byte) (r keys.Record, err error) {
	const ids = 2 * len(r.Sender)
	if len(value) < headLen {
		return r, fmt.Errorf("keys/bolt: %s: entry %q: %w", st.name(), name, errDamaged)
	}
	plain, err := st.open(bucketEntries, entryKey(name, value[:headLen]), value[headLen:])
	if err == nil && len(plain) < ids {
		err = errDamaged
	}
	if err == nil {
		r.Index = binary.BigEndian.Uint32(value)
		r.Sender, r.Recipient = keys.Identity(plain), keys.Identity(plain[ids/2:])
		r.Entry, err = vault.ParseEntry(plain[ids:])
		r.Entry.Name = string(name)
		clear(plain)
	}
	if err != nil {
		return r, fmt.Errorf("keys/bolt: %s: entry %q: %w", st.name(), name, err)
	}
	return r, nil
}

// entryKey is what an entry is sealed for. No name holds a zero.
func entryKey(name, head []byte) []byte {
	return append(append(bytes.Clone(name), 0), head...)
}

// Entry returns the entry of that name.
func (st *Store) Entry(ctx context.Context, name string) (e keys.Entry, ok bool, err error) {
	err = st.View(ctx, func(tx *Tx) (err error) {
		r, there, err := st.record(tx.tx, name)
		e, ok = r.Entry, there
		return err
	})
	return e, ok, err
}

// Entries calls fn for each entry, in the order of their names, until it returns
// an error. fn may use the store.
func (st *Store) Entries(ctx context.Context, fn func(keys.Entry) error) error {
	var last []byte
	for {
		var some []keys.Entry
		err := st.View(ctx, func(tx *Tx) error {
			c := tx.tx.Bucket(bucketEntries).Cursor()
			k, v := c.Seek(last)
			if last != nil && bytes.Equal(k, last) {
				k, v = c.Next()
			}
			for ; k != nil && len(some) < 1000; k, v = c.Next() {
				r, err := st.unsealEntry(k, v)
				if err != nil {
					return err
				}
				some = append(some, r.Entry)
			}
			return nil
		})
		if err != nil || len(some) == 0 {
			return err
		}
		for _, e := range some {
			if err := fn(e); err != nil {
				return err
			}
		}
		last = []byte(some[len(some)-1].Name)
	}
}

// Remove deletes entries, and the observations and facts of their peers. Their
// numbers stay, so that the same material put back goes on where it stopped.
func (st *Store) Remove(ctx context.Context, names ...string) error {
	st.entriesMu.Lock()
	defer st.entriesMu.Unlock()
	resume, err := st.suspend(ctx, names)
	if err != nil {
		return err
	}
	defer resume()
	return st.Update(ctx, func(tx *Tx) error {
		for _, name := range names {
			if tx.tx.Bucket(bucketEntries).Get([]byte(name)) == nil {
				return fmt.Errorf("%w: %q in %s", keys.ErrNotFound, name, st.dir)
			}
			if err := st.dropWhole(tx.tx, name); err != nil {
				return err
			}
		}
		return nil
	})
}

// dropWhole deletes an entry and what there is of its peer but the numbers.
func (st *Store) dropWhole(tx *bbolt.Tx, name string) error {
	if err := st.dropIndex(tx, name); err != nil {
		return err
	}
	if err := dropEntry(tx, name); err != nil {
		return err
	}
	for _, of := range [][]byte{bucketObserve, bucketFacts} {
		if err := deletePrefix(tx.Bucket(of), append([]byte(name), 0)); err != nil {
			return err
		}
	}
	return nil
}

// dropEntry deletes an entry. Its place is not given again.
func dropEntry(tx *bbolt.Tx, name string) error {
	b := tx.Bucket(bucketEntries)
	places, err := newPlaces(tx)
	if err == nil {
		err = places.drop(b.Get([]byte(name)))
	}
	if err == nil {
		err = places.save()
	}
	if err == nil {
		err = b.Delete([]byte(name))
	}
	return err
}

// deletePrefix deletes what has keys that begin so.
func deletePrefix(b *bbolt.Bucket, prefix []byte) error {
	var gone [][]byte
	c := b.Cursor()
	for k, _ := c.Seek(prefix); k != nil && bytes.HasPrefix(k, prefix); k, _ = c.Next() {
		gone = append(gone, bytes.Clone(k))
	}
	for _, k := range gone {
		if err := b.Delete(k); err != nil {
			return err
		}
	}
	return nil
}
