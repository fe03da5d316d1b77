package bolt

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"
	"iter"
	"math"

	bbolt "go.etcd.io/bbolt"

	"github.com/oscorelay/oscorelay/keys"
)

// Sourced is an entry and the name of what it comes from, such as a file.
type Sourced struct {
	keys.Entry
	Source string
}

// Synced says what [Store.Sync] changed.
type Synced struct {
	Added            int
	Changed, Removed []string
}

// ErrForeign is of an entry that comes from a source, while there is one of its name
// with other keys that came from none.
var ErrForeign = errors.New("keys/bolt: an entry of that name, with other keys, did not come from there")

// ForeignError says which entry it is; errors.Is finds [ErrForeign].
type ForeignError struct{ Name, Source string }

// Error names the entry and where it comes from.
func (e *ForeignError) Error() string {
	return fmt.Sprintf("%v: %q of %s", ErrForeign, e.Name, e.Source)
}

// Is reports whether target is ErrForeign.
func (e *ForeignError) Is(target error) bool { return target == ErrForeign }

// Sync is [Store.Import] of all that sources have: entries that came from a source
// before, by Sync, and that do not come now are removed, as [Store.Remove] does.
// Those that are there as they come are not written. Memory does not grow with the
// entries, but for 40 bytes of each.
//
// mark is called when all were read. What it returns [Store.Mark] returns from the
// end of the Sync on. While it is not known that the store has what the sources do,
// because a Sync was cut short, there is no mark.
func (st *Store) Sync(ctx context.Context, entries iter.Seq2[Sourced, error], mark func() []byte, o ImportOptions) (Synced, error) {
	m := importing{st: st, ctx: ctx, o: o, sync: true, mark: mark}
	if err := m.run(entries); err != nil {
		return Synced{}, err
	}
	return Synced{m.added, m.changed, m.removed}, nil
}

// Mark returns what the last [Store.Sync] noted; ok is false if there was none, or
// if it was cut short.
func (st *Store) Mark(ctx context.Context) (mark []byte, ok bool, err error) {
	err = st.View(ctx, func(tx *Tx) (err error) {
		mark, ok, err = st.getMark(tx.tx)
		return err
	})
	return mark, ok, err
}

func (st *Store) getMark(tx *bbolt.Tx) (mark []byte, ok bool, err error) {
	v := tx.Bucket(bucketMeta).Get(keyMark)
	if v == nil {
		return nil, false, nil
	}
	mark, err = st.open(bucketMeta, keyMark, v)
	if err != nil {
		err = fmt.Errorf("keys/bolt: %s: the mark: %w", st.name(), err)
	}
	return mark, err == nil, err
}

// putMark sets the mark, or deletes it.
func (st *Store) putMark(tx *bbolt.Tx, mark []byte) error {
	if mark == nil {
		return tx.Bucket(bucketMeta).Delete(keyMark)
	}
	return tx.Bucket(bucketMeta).Put(keyMark, st.seal(bucketMeta, keyMark, mark))
}

// Source returns what an entry came from, by [Store.Sync]; it is empty if it came
// otherwise, or is not there.
func (st *Store) Source(ctx context.Context, name string) (source string, err error) {
	err = st.View(ctx, func(tx *Tx) error {
		if id := sourceOf(tx.tx.Bucket(bucketEntries).Get([]byte(name))); id != 0 {
			source = string(tx.tx.Bucket(bucketSources).Get(binary.BigEndian.AppendUint16(nil, id)))
		}
		return nil
	})
	return source, err
}

// sources returns the numbers of the sources.
func sources(tx *bbolt.Tx) map[string]uint16 {
	ids := map[string]uint16{}
	_ = tx.Bucket(bucketSources).ForEach(func(k, v []byte) error {
		ids[string(v)] = binary.BigEndian.Uint16(k)
		return nil
	})
	return ids
}

// source returns a source's number, 0 for the empty one. Numbers are not given twice.
func (w *writer) source(name string) (uint16, error) {
	if name == "" {
		return 0, nil
	}
	if id, ok := w.sources[name]; ok {
		return id, nil
	}
	b := w.tx.Bucket(bucketSources)
	id, ok := sources(w.tx)[name]
	if !ok {
		if k, _ := b.Cursor().Last(); k != nil {
			id = binary.BigEndian.Uint16(k)
		}
		if id == math.MaxUint16 {
			return 0, ErrFull
		}
		id++
		if err := b.Put(binary.BigEndian.AppendUint16(nil, id), []byte(name)); err != nil {
			return 0, err
		}
	}
	w.sources[name] = id
	return id, nil
}

// keepSource stands for the source that an entry has.
const keepSource = math.MaxUint16

func (m *importing) sourceIndex(name string) uint16 {
	if !m.sync {
		return keepSource
	}
	if n := len(m.sources); n > 0 && m.sources[n-1] == name {
		return uint16(n - 1) // they come one after the other
	}
	for i, s := range m.sources {
		if s == name {
			return uint16(i)
		}
	}
	m.sources = append(m.sources, name)
	return uint16(len(m.sources) - 1)
}

func (m *importing) sourceAt(i uint16) *string {
	if i == keepSource {
		return nil
	}
	return &m.sources[i]
}

// begin looks at the store before anything is read.
func (m *importing) begin() error {
	return m.st.View(m.ctx, func(tx *Tx) (err error) {
		m.before, m.marked, err = m.st.getMark(tx.tx)
		m.whole = m.sync && m.marked
		m.ids = sources(tx.tx)
		return err
	})
}

// compare returns those of the entries that are not in the store as they come.
func (m *importing) compare(some []Sourced) (out []Sourced, err error) {
	out = some[:0]
	var b []byte
	err = m.st.View(m.ctx, func(tx *Tx) error {
		h, err := decodeHead(tx.tx.Bucket(bucketMeta).Get(keyHead))
		if err != nil {
			return err
		}
		entries, index := tx.tx.Bucket(bucketEntries), tx.tx.Bucket(bucketIndex)
		for i := range some {
			e := some[i]
			hash := maphash.String(m.seed, e.Name)
			if _, twiceSeen := m.names[hash]; twiceSeen {
				return twice([]byte(e.Name))
			}
			m.names[hash] = struct{}{}
			name := []byte(e.Name)
			value := entries.Get(name)
			if value == nil {
				m.added++
				out = append(out, e)
				continue
			}
			from := sourceOf(value)
			if from != 0 {
				m.had++
			}
			const ids = 2 * len(keys.Identity{})
			var plain []byte
			if len(value) >= headLen {
				plain, _ = m.st.open(bucketEntries, entryKey(name, value[:headLen]), value[headLen:])
			}
			same := false
			if len(plain) > ids {
				b = plainEntry(b[:0], keys.Identity(plain), keys.Identity(plain[ids/2:]), &e.Entry)
				same = bytes.Equal(plain, b)
			}
			switch {
			case !same && m.sync && from == 0 && foreign(&e.Entry, plain):
				return &ForeignError{e.Name, e.Source}
			case !same:
				m.changed = append(m.changed, e.Name)
				m.replaced = append(m.replaced, e.Name)
			case m.st.ring != nil && m.st.ring.Hides(e.Name), m.o.Fresh && !isKnown(tx.tx, &h, keys.Identity(plain)):
				m.replaced = append(m.replaced, e.Name)
			case m.sync && (from == 0 || m.ids[e.Source] != from):
				if m.index == nil {
					if m.same == nil {
						m.same = map[string]bool{}
					}
					m.same[e.Name] = true
				}
			case !m.whole && string(index.Get(append([]byte{'s'}, plain[:ids/2]...))) != e.Name:
				// 's' is the last that an import writes of a context.
			default:
				clear(plain)
				continue
			}
			clear(plain)
			m.moves[hash] = struct{}{}
			out = append(out, e)
		}
		return nil
	})
	clear(b)
	return out, err
}

// foreign reports whether an entry has other keys than what the store has sealed.
func foreign(e *keys.Entry, plain []byte) bool {
	sender, recipient, err := keys.Identities(&e.Params)
	n := len(sender)
	return err == nil && (len(plain) < 2*n || keys.Identity(plain) != sender || keys.Identity(plain[n:]) != recipient)
}

func isKnown(tx *bbolt.Tx, h *head, id keys.Identity) bool {
	_, err := known(tx, h, id)
	return err == nil
}

// findRemoved finds the entries that came from a source and do not come any more.
func (m *importing) findRemoved() error {
	var last []byte
	for more := true; more; {
		err := m.st.View(m.ctx, func(tx *Tx) error {
			if p, err := newPlaces(tx.tx); err != nil || p.from == m.had {
				more = false
				return err
			}
			c := tx.tx.Bucket(bucketEntries).Cursor()
			k, v := c.Seek(last)
			if last != nil && bytes.Equal(k, last) {
				k, v = c.Next()
			}
			n := 0
			for ; k != nil && n < m.st.chunk; k, v = c.Next() {
				n++
				last = append(last[:0], k...)
				if sourceOf(v) == 0 {
					continue
				}
				hash := maphash.Bytes(m.seed, k)
				if _, comes := m.names[hash]; !comes {
					m.removed = append(m.removed, string(k))
					m.moves[hash] = struct{}{}
				}
			}
			more = k != nil
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// end notes that the store has what the sources do.
func (m *importing) end() error {
	if !m.sync {
		return nil
	}
	return m.st.Update(m.ctx, func(tx *Tx) error { return m.st.putMark(tx.tx, m.noted) })
}
