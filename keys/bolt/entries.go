package bolt

import (
	"bytes"
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

// chunkSize is how many entries one transaction of an import takes.
const chunkSize = 250_000

// Put writes entries, in place of those of the same names. The keyring sees them
// when Put returns; a peer of an entry that is replaced ends.
//
// fresh says that their material was never used anywhere. Without it material
// that the store does not know is tainted; material that it knows keeps its
// numbers either way. It returns keys.ErrTainted for fresh material that is known
// to have been used, keys.ErrDuplicate for entries that stand in each other's
// way, and writes nothing then.
func (st *Store) Put(ctx context.Context, fresh bool, entries ...keys.Entry) error {
	return st.Import(ctx, fresh, entries, nil)
}

// Import is [Store.Put] for many entries: sorted, in transactions of some hundred
// thousand. progress, if there is one, is called with how many of the steps are
// done. An import that was cut short is complete when it has been run again.
func (st *Store) Import(ctx context.Context, fresh bool, entries []keys.Entry, progress func(done, of int)) error {
	st.entriesMu.Lock()
	defer st.entriesMu.Unlock()
	p := &progressing{fn: progress, of: 3 * len(entries)}
	all, err := indexAll(ctx, entries, p)
	if err != nil {
		return err
	}
	var unknown []keys.Identity
	var news, replaced []string
	for i := range entries {
		if st.ring == nil {
			break
		}
		if err := st.ring.Conflict(&entries[i]); err != nil {
			return fmt.Errorf("keys/bolt: %w", err)
		}
	}
	err = st.View(ctx, func(tx *Tx) error {
		for i := range all {
			if st.ring != nil && live(tx.tx, []byte(all[i].name)) {
				replaced = append(replaced, all[i].name)
			}
		}
		if err := clashes(tx.tx, all); err != nil || !fresh {
			return err
		}
		h, err := decodeHead(tx.tx.Bucket(bucketMeta).Get(keyHead))
		if err != nil {
			return err
		}
		for i := range all {
			x := &all[i]
			if tx.tx.Bucket(bucketNumbers).Get(x.sender[:]) == nil {
				unknown, news = append(unknown, x.sender), append(news, x.name)
			} else if _, err := known(tx.tx, &h, x.sender); err != nil {
				return fmt.Errorf("keys/bolt: entry %q cannot be fresh: %w", x.name, err)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := st.claim(unknown, news); err != nil {
		return err
	}
	resume, err := st.suspend(ctx, replaced)
	if err != nil {
		return err
	}
	defer resume()
	// In two passes, each in the order of its keys: what the identities are, and
	// then the entries. One transaction does both for a few.
	order := make([]int, len(entries))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int { return bytes.Compare(all[a].sender[:], all[b].sender[:]) })
	first := func(tx *bbolt.Tx, part []int) error { return st.putIdentities(tx, fresh, entries, all, part) }
	second := func(tx *bbolt.Tx, part []int) error { return st.putEntries(tx, entries, all, part) }
	if len(entries) <= st.chunk {
		return st.inChunks(ctx, order, p, 2, func(tx *bbolt.Tx, part []int) error {
			if err := first(tx, part); err != nil {
				return err
			}
			part = slices.Clone(part)
			slices.SortFunc(part, func(a, b int) int { return bytes.Compare([]byte(entries[a].Name), []byte(entries[b].Name)) })
			return second(tx, part)
		})
	}
	if err := st.inChunks(ctx, order, p, 1, first); err != nil {
		return err
	}
	slices.SortFunc(order, func(a, b int) int { return bytes.Compare([]byte(entries[a].Name), []byte(entries[b].Name)) })
	return st.inChunks(ctx, order, p, 1, second)
}

// suspend takes peers out of the keyring while their entries change. The caller
// holds st.entriesMu.
func (st *Store) suspend(ctx context.Context, names []string) (resume func(), err error) {
	if st.ring == nil {
		return func() {}, nil
	}
	return st.ring.Suspend(ctx, names)
}

// progressing tells how far an import has got.
type progressing struct {
	fn       func(done, of int)
	done, of int
}

func (p *progressing) add(n int) {
	p.done += n
	if p.fn != nil {
		p.fn(p.done, p.of)
	}
}

// indexAll checks entries and derives their identities, on all processors.
func indexAll(ctx context.Context, entries []keys.Entry, p *progressing) ([]indexed, error) {
	all := make([]indexed, len(entries))
	for at := 0; at < len(entries); at += chunkSize {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		part := entries[at:min(at+chunkSize, len(entries))]
		errs := make([]error, runtime.GOMAXPROCS(0))
		var wg sync.WaitGroup
		for w := range errs {
			wg.Go(func() {
				for i := w; i < len(part); i += len(errs) {
					err := part[i].Check()
					if err == nil {
						all[at+i], err = index(&part[i])
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
		p.add(len(part))
	}
	return all, nil
}

// inChunks runs do in a transaction for each chunk of what there is.
func (st *Store) inChunks(ctx context.Context, order []int, p *progressing, steps int, do func(tx *bbolt.Tx, part []int) error) error {
	for len(order) > 0 {
		part := order[:min(len(order), st.chunk)]
		if err := st.Update(ctx, func(tx *Tx) error { return do(tx.tx, part) }); err != nil {
			return err
		}
		order = order[len(part):]
		p.add(steps * len(part))
	}
	return nil
}

// claim enters material that is news to the store into the machine's ledger.
func (st *Store) claim(ids []keys.Identity, names []string) error {
	taken, err := anchor.Claim(st.fsys, st.opts.AnchorDir, st.store, st.dir, ids)
	if err != nil {
		return fmt.Errorf("keys/bolt: %w", err)
	}
	for i, id := range ids {
		if where, ok := taken[id]; ok {
			return fmt.Errorf("keys/bolt: entry %q cannot be fresh: %w", names[i], &keys.TaintError{
				Reason: "the same keys were declared new on this machine before, in " + where,
			})
		}
	}
	return nil
}

// putIdentities writes the index and, for fresh material that is news, numbers
// and an open window.
func (st *Store) putIdentities(tx *bbolt.Tx, fresh bool, entries []keys.Entry, all []indexed, part []int) error {
	h, err := decodeHead(tx.Bucket(bucketMeta).Get(keyHead))
	if err != nil {
		return err
	}
	type pair struct{ k, v []byte }
	var keysOf, windows []pair
	for _, i := range part {
		x := &all[i]
		if err := st.dropIndex(tx, x.name); err != nil {
			return err
		}
		_ = x.each(func(k, v []byte) error {
			keysOf = append(keysOf, pair{k, v})
			return nil
		})
		if v := tx.Bucket(bucketDerived).Get(x.sender[:]); len(v) >= len(x.sender) {
			// It was here before, and Appendix B.2 ran.
			idContext := bytes.Clone(v[len(x.sender):])
			keysOf = append(keysOf, pair{derivedKey([]byte(x.name)), idContext})
			for _, k := range derivedKeys(entries[i].Params.RecipientID, idContext) {
				keysOf = append(keysOf, pair{k, []byte(x.name)})
			}
		}
		if !fresh || tx.Bucket(bucketNumbers).Get(x.sender[:]) != nil {
			continue
		}
		if err := setNumbers(tx, &h, x.sender, 0); err != nil {
			return err
		}
		w := oscore.Fresh(entries[i].Params.WindowSize)
		s, _ := w.State()
		windows = append(windows, pair{x.recipient[:], encodeWindow(h.windows, s)})
	}
	for _, to := range []struct {
		bucket []byte
		pairs  []pair
	}{{bucketIndex, keysOf}, {bucketWindows, windows}} {
		slices.SortFunc(to.pairs, func(a, b pair) int { return bytes.Compare(a.k, b.k) })
		b := tx.Bucket(to.bucket)
		for _, p := range to.pairs {
			if err := b.Put(p.k, p.v); err != nil {
				return err
			}
		}
	}
	return nil
}

// putEntries seals and writes entries.
func (st *Store) putEntries(tx *bbolt.Tx, entries []keys.Entry, all []indexed, part []int) error {
	b := tx.Bucket(bucketEntries)
	b.FillPercent = 0.9 // they mostly come in order
	places, err := newPlaces(tx)
	if err != nil {
		return err
	}
	for _, i := range part {
		plain, err := vault.MarshalEntry(&entries[i])
		if err != nil {
			return err
		}
		name := []byte(entries[i].Name)
		place, err := places.of(name, b.Get(name))
		if err == nil {
			err = b.Put(name, st.sealEntry(name, place, &all[i], plain))
		}
		clear(plain)
		if err != nil {
			return err
		}
	}
	return places.save()
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

// sealEntry returns the value of an entry: its place, and the rest sealed for name
// and place: the identities of sender and recipient, and the entry.
func (st *Store) sealEntry(name []byte, place uint32, x *indexed, plain []byte) []byte {
	at := binary.BigEndian.AppendUint32(nil, place)
	whole := slices.Concat(x.sender[:], x.recipient[:], plain)
	defer clear(whole)
	return append(at, st.seal(bucketEntries, entryKey(name, at), whole)...)
}

func (st *Store) unsealEntry(name, value []byte) (r keys.Record, err error) {
	const ids = 2 * len(r.Sender)
	if len(value) < placeLen {
		return r, fmt.Errorf("keys/bolt: %s: entry %q: %w", st.name(), name, errDamaged)
	}
	plain, err := st.open(bucketEntries, entryKey(name, value[:placeLen]), value[placeLen:])
	if err == nil && len(plain) < ids {
		err = errDamaged
	}
	if err == nil {
		r.Index = binary.BigEndian.Uint32(value)
		r.Sender, r.Recipient = keys.Identity(plain), keys.Identity(plain[ids/2:])
		r.Entry, err = vault.UnmarshalEntry(plain[ids:])
		clear(plain)
	}
	if err != nil {
		return r, fmt.Errorf("keys/bolt: %s: entry %q: %w", st.name(), name, err)
	}
	return r, nil
}

// entryKey is what an entry is sealed for. No name holds a zero.
func entryKey(name, place []byte) []byte {
	return append(append(bytes.Clone(name), 0), place...)
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
			if err := st.dropIndex(tx.tx, name); err != nil {
				return err
			}
			if err := dropEntry(tx.tx, name); err != nil {
				return err
			}
			for _, of := range [][]byte{bucketObserve, bucketFacts} {
				if err := deletePrefix(tx.tx.Bucket(of), append([]byte(name), 0)); err != nil {
					return err
				}
			}
		}
		return nil
	})
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
