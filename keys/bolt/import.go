package bolt

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"hash/maphash"
	"iter"
	"slices"

	bbolt "go.etcd.io/bbolt"

	"github.com/oscorelay/oscorelay/keys"
	"github.com/oscorelay/oscorelay/oscore"
)

// ImportOptions say what an import is told.
type ImportOptions struct {
	// Fresh says that the material was never used anywhere: see [Store.Put].
	Fresh bool
	// Expected is how many entries come, for Progress; 0 if that is not known.
	Expected int
	// Progress is called now and then with how much of the work is done; of is 0
	// while that is not known.
	Progress func(done, of int)
}

// Import is [Store.Put] for any number of entries: they are sorted on disk, beside
// the store and sealed, and written in the order of their keys, in transactions of
// some ten thousand. Nothing is written before all of them were checked. An
// import that was cut short is complete when it has been run again; until then
// entries that it replaces may not be found.
//
//  1. read: leave out what is there already, check the entries, derive their
//     identities, sort
//  2. find those that go ([Store.Sync])
//  3. check against each other and the store
//  4. claim fresh material for this store
//  5. take out of the keyring what is replaced or goes, and out of the index
//  6. write the index, numbers and windows, and then the entries
func (st *Store) Import(ctx context.Context, entries iter.Seq2[keys.Entry, error], o ImportOptions) error {
	m := importing{st: st, ctx: ctx, o: o}
	return m.run(func(yield func(Sourced, error) bool) {
		for e, err := range entries {
			if !yield(Sourced{Entry: e}, err) {
				return
			}
		}
	})
}

// run takes entries in.
func (m *importing) run(entries iter.Seq2[Sourced, error]) error {
	st := m.st
	st.entriesMu.Lock()
	defer st.entriesMu.Unlock()
	defer st.trim(0)
	m.seed, m.names, m.moves = maphash.MakeSeed(), map[uint64]struct{}{}, map[uint64]struct{}{}
	defer m.close()
	if err := m.begin(); err != nil {
		return m.wrap(err)
	}
	next, stop := iter.Pull2(entries)
	defer stop()
	var some []Sourced
	few := false
	for part := 0; ; part++ {
		var err error
		if some, err = take(next, st.chunk); err != nil {
			return err
		}
		m.n += len(some)
		last := len(some) < st.chunk
		if some, err = m.compare(some); err != nil {
			return m.wrap(err)
		}
		if few = part == 0 && last; few {
			break
		}
		if err := m.read(some); err != nil {
			return m.wrap(err)
		}
		if last {
			break
		}
	}
	stop()
	if m.sync {
		if m.noted = m.mark(); m.noted == nil {
			m.noted = []byte{}
		}
		if err := m.findRemoved(); err != nil {
			return m.wrap(err)
		}
	}
	if few && len(m.removed) < st.chunk {
		return m.putFew(some) // in one transaction
	}
	steps := []func() error{m.checkKeys, m.claim, m.replace, m.writeKeys, m.writeEntries, m.end}
	if few {
		steps = slices.Insert(steps, 0, func() error { return m.read(some) })
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return m.wrap(err)
		}
	}
	return nil
}

// putFew writes entries that one transaction takes.
func (m *importing) putFew(some []Sourced) error {
	c := exchange{fresh: m.o.Fresh, same: m.same, removed: m.removed, mark: m.noted}
	for i := range some {
		c.entries = append(c.entries, some[i].Entry)
		if m.sync {
			c.sources = append(c.sources, some[i].Source)
		}
	}
	if len(c.entries) == 0 && len(c.removed) == 0 && (c.mark == nil || m.marked && bytes.Equal(c.mark, m.before)) {
		m.few(3*m.n, 3*m.n)
		return nil
	}
	return m.st.put(m.ctx, c, func(done, of int) {
		if of == 0 {
			done, of = 1, 1 // nothing but removals
		}
		m.few(3*m.n*done/of, 3*m.n)
	})
}

// take returns the next n entries, or as many as there are.
func take(next func() (Sourced, error, bool), n int) (some []Sourced, err error) {
	for len(some) < n {
		e, err, ok := next()
		if err != nil {
			return nil, err
		}
		if !ok {
			break
		}
		some = append(some, e)
	}
	return some, nil
}

// importing is an import under way.
type importing struct {
	st  *Store
	ctx context.Context
	o   ImportOptions
	n   int

	index   *spill // key of the index: see indexValue
	entries *spill // name: source (2), what is sealed of the entry
	done    int

	seed     maphash.Seed
	names    map[uint64]struct{} // hashes of the names of all that come
	moves    map[uint64]struct{} // of those whose entry in the store does not stay
	unknown  []keys.Identity     // senders that the store does not know, in order
	replaced []string
	resume   func()

	whole   bool // no import before was cut short, so that the index has every entry
	sync    bool // see Sync
	mark    func() []byte
	noted   []byte // what it returned
	marked  bool   // there was a mark
	before  []byte // and which
	sources []string
	ids     map[string]uint16 // of the sources that the store knows
	same    map[string]bool   // names of the first part that change nothing but their source
	had     uint64            // of those that come, how many had a source
	added   int
	changed []string
	removed []string
}

func (m *importing) close() {
	for _, s := range []*spill{m.index, m.entries} {
		if s != nil {
			s.close()
		}
	}
	if m.resume != nil {
		m.resume()
	}
}

func (m *importing) wrap(err error) error {
	return fmt.Errorf("keys/bolt: import into %s: %w", m.st.dir, err)
}

// Steps that Progress counts for each entry.
const (
	stepsRead  = 4 // derivations, mostly
	stepsCheck = 1
	stepsWrite = 2 // twice
	stepsAll   = stepsRead + stepsCheck + 2*stepsWrite
)

// progress tells that a part of the items of a step is done.
func (m *importing) progress(steps, items, of int) {
	if m.o.Progress == nil {
		return
	}
	now := m.done + int(int64(m.n)*int64(steps)*int64(items)/int64(max(of, 1)))
	if items == of {
		m.done = now
	}
	m.o.Progress(now, m.n*stepsAll)
}

// few is the progress of an import in one transaction.
func (m *importing) few(done, of int) {
	if m.o.Progress != nil {
		m.o.Progress(done*stepsAll/3, of*stepsAll/3)
	}
}

// indexValue is what stands for a key of the index until it is written: the name's
// length and the name; how much of the key several may share; for 's' and 'r' the
// sender's identity and the size of the window.
func indexValue(x *indexed, prefix, window int) []byte {
	b := append([]byte{byte(len(x.name))}, x.name...)
	b = append(b, byte(prefix))
	b = append(b, x.sender[:]...)
	return binary.BigEndian.AppendUint16(b, uint16(window))
}

type indexItem struct {
	name   []byte
	prefix int
	sender keys.Identity
	window int
}

func parseIndexValue(b []byte) (v indexItem) {
	n := 1 + int(b[0])
	return indexItem{b[1:n], int(b[n]), keys.Identity(b[n+1:]), int(binary.BigEndian.Uint16(b[n+17:]))}
}

// read checks a part of the entries and spills what is to be written of it.
func (m *importing) read(all []Sourced) (err error) {
	if m.index == nil {
		if m.index, err = newSpill(m.st.dir); err != nil {
			return err
		}
		if m.entries, err = newSpill(m.st.dir); err != nil {
			return err
		}
	}
	some := make([]keys.Entry, len(all))
	for i := range all {
		some[i] = all[i].Entry
	}
	xs, err := indexAll(m.ctx, some)
	if err != nil {
		return err
	}
	if err := m.st.conflicts(some); err != nil {
		return err
	}
	inIndex := make([]item, 0, 4*len(xs))
	records := make([]item, len(xs))
	for i := range xs {
		x, e := &xs[i], &some[i]
		for _, k := range x.keys {
			inIndex = append(inIndex, item{k, indexValue(x, 0, e.Params.WindowSize)})
		}
		for _, k := range x.shared {
			inIndex = append(inIndex, item{append(bytes.Clone(k), x.name...), indexValue(x, len(k), 0)})
		}
		source := binary.BigEndian.AppendUint16(make([]byte, 0, 192), m.sourceIndex(all[i].Source))
		records[i] = item{[]byte(x.name), plainEntry(source, x.sender, x.recipient, e)}
	}
	if len(xs) > 0 {
		if err := m.index.add(inIndex); err != nil {
			return err
		}
		err = m.entries.add(records)
		wipe(records)
	}
	if m.o.Progress != nil {
		m.done = m.n * stepsRead
		m.o.Progress(m.done, max(m.o.Expected, m.n*min(m.o.Expected, 1))*stepsAll)
	}
	return err
}

// stays reports whether there is an entry of that name that is neither replaced nor
// goes.
func (m *importing) stays(tx *bbolt.Tx, name []byte) bool {
	if !live(tx, name) {
		return false
	}
	_, moves := m.moves[maphash.Bytes(m.seed, name)]
	return !moves
}

// checkKeys finds entries that stand in each other's way, and in that of those in
// the store, and which material is news.
func (m *importing) checkKeys() error {
	var last item
	var lastName []byte
	sharing := 0
	done := 0
	return m.index.batches(m.st.part, func(some []item) error {
		if err := m.ctx.Err(); err != nil {
			return err
		}
		err := m.st.View(m.ctx, func(tx *Tx) error {
			h, err := decodeHead(tx.tx.Bucket(bucketMeta).Get(keyHead))
			if err != nil {
				return err
			}
			b := tx.tx.Bucket(bucketIndex)
			for _, it := range some {
				v := parseIndexValue(it.value)
				switch {
				case v.prefix > 0:
					prefix := it.key[:v.prefix]
					if !bytes.HasPrefix(last.key, prefix) {
						sharing = m.sharing(tx.tx, prefix)
					}
					if sharing++; sharing > oscore.MaxCandidates {
						return tooMany(prefix, sharing)
					}
				case bytes.Equal(last.key, it.key) && bytes.Equal(lastName, v.name):
					return twice(v.name)
				case bytes.Equal(last.key, it.key):
					return clash(it.key, string(lastName), string(v.name))
				default:
					if err := m.checkOwner(tx.tx, b, &h, it.key, v); err != nil {
						return err
					}
				}
				last, lastName = it, v.name
			}
			return nil
		})
		done += len(some)
		m.progress(stepsCheck, done, m.index.n)
		return err
	})
}

// sharing counts the entries that stay of those with a prefix.
func (m *importing) sharing(tx *bbolt.Tx, prefix []byte) (n int) {
	c := tx.Bucket(bucketIndex).Cursor()
	for k, _ := c.Seek(prefix); bytes.HasPrefix(k, prefix) && k != nil; k, _ = c.Next() {
		if m.stays(tx, k[len(prefix):]) {
			n++
		}
	}
	return n
}

func (m *importing) checkOwner(tx *bbolt.Tx, b *bbolt.Bucket, h *head, key []byte, v indexItem) error {
	for _, kind := range owners(key) {
		if other := b.Get(kind); other != nil && !bytes.Equal(other, v.name) && m.stays(tx, other) {
			return clash(key, string(other), string(v.name))
		}
	}
	if key[0] != 's' || !m.o.Fresh {
		return nil
	}
	if tx.Bucket(bucketNumbers).Get(v.sender[:]) == nil {
		m.unknown = append(m.unknown, v.sender)
	} else if _, err := known(tx, h, v.sender); err != nil {
		return fmt.Errorf("entry %q cannot be fresh: %w", v.name, err)
	}
	return nil
}

func wipe(some []item) {
	for _, it := range some {
		clear(it.value)
	}
}

// claim enters the news into the machine's ledger.
func (m *importing) claim() error {
	id, err := m.st.claim(m.unknown)
	if err == nil || id == nil {
		return err
	}
	name := []byte("?")
	_ = m.index.merge(func(it item) error {
		if v := parseIndexValue(it.value); it.key[0] == 's' && v.sender == *id {
			name = bytes.Clone(v.name)
		}
		return nil
	})
	return fmt.Errorf("entry %q cannot be fresh: %w", name, err)
}

// replace takes entries that are replaced out of the keyring and out of the index,
// and deletes those that go. From here on the store is not whole until the end.
func (m *importing) replace() (err error) {
	if m.resume, err = m.st.suspend(m.ctx, append(slices.Clone(m.removed), m.replaced...)); err != nil {
		return err
	}
	if err := m.st.Update(m.ctx, func(tx *Tx) error { return m.st.putMark(tx.tx, nil) }); err != nil {
		return err
	}
	for names := range slices.Chunk(m.removed, m.st.part/4) {
		err := m.st.Update(m.ctx, func(tx *Tx) error {
			for _, name := range names {
				if err := m.st.dropWhole(tx.tx, name); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	for names := range slices.Chunk(m.replaced, m.st.part) {
		err := m.st.Update(m.ctx, func(tx *Tx) error {
			for _, name := range names {
				if err := m.st.dropIndex(tx.tx, name); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// writeKeys writes the index and, for fresh material that is news, numbers and open
// windows.
func (m *importing) writeKeys() error {
	done := 0
	return m.index.batches(m.st.part, func(some []item) error {
		err := m.st.Update(m.ctx, func(tx *Tx) error {
			h, err := decodeHead(tx.tx.Bucket(bucketMeta).Get(keyHead))
			if err != nil {
				return err
			}
			for _, of := range [][]byte{bucketIndex, bucketNumbers, bucketWindows} {
				tx.tx.Bucket(of).FillPercent = 0.9 // it comes in order
			}
			for _, it := range some {
				if err := m.writeKey(tx.tx, &h, it); err != nil {
					return err
				}
			}
			return nil
		})
		done += len(some)
		m.progress(stepsWrite, done, m.index.n)
		return err
	})
}

func (m *importing) writeKey(tx *bbolt.Tx, h *head, it item) error {
	v := parseIndexValue(it.value)
	b := tx.Bucket(bucketIndex)
	if v.prefix > 0 {
		return b.Put(it.key, nil)
	}
	if err := b.Put(it.key, v.name); err != nil {
		return err
	}
	_, news := slices.BinarySearchFunc(m.unknown, v.sender, func(a, b keys.Identity) int { return cmp.Compare(string(a[:]), string(b[:])) })
	switch {
	case it.key[0] == 's':
		if err := m.st.indexFound(tx, v.sender, v.name); err != nil || !news {
			return err
		}
		return setNumbers(tx, h, v.sender, 0)
	case it.key[0] == 'r' && news:
		w := oscore.Fresh(v.window)
		s, _ := w.State()
		return tx.Bucket(bucketWindows).Put(it.key[1:], encodeWindow(h.windows, s))
	}
	return nil
}

// writeEntries seals and writes the entries.
func (m *importing) writeEntries() error {
	done := 0
	return m.entries.batches(m.st.part/2, func(some []item) error {
		err := m.st.Update(m.ctx, func(tx *Tx) error {
			w, err := m.st.newWriter(tx.tx)
			for i := 0; i < len(some) && err == nil; i++ {
				err = w.put(some[i].key, some[i].value[2:], m.sourceAt(binary.BigEndian.Uint16(some[i].value)))
			}
			if err != nil {
				return err
			}
			return w.places.save()
		})
		wipe(some)
		done += len(some)
		m.progress(stepsWrite, done, m.entries.n)
		return err
	})
}
