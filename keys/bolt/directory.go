package bolt

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"

	bbolt "go.etcd.io/bbolt"

	"github.com/oscorelay/oscorelay/keys"
	"github.com/oscorelay/oscorelay/oscore"
)

// Keyring returns a keyring on the store, which finds the entries as they are at
// each moment. Close it before the store. A store has one keyring at a time.
func (st *Store) Keyring(ctx context.Context) (*keys.Keyring, error) {
	if err := st.View(ctx, func(*Tx) error { return nil }); err != nil {
		return nil, err
	}
	r := keys.NewDirectory(st, keys.DirectoryOptions{Hot: st.opts.Hot, OnError: st.opts.OnError})
	st.entriesMu.Lock()
	st.ring = r
	st.entriesMu.Unlock()
	return r, nil
}

// live reports whether the index may be believed that there is an entry.
func live(tx *bbolt.Tx, name []byte) bool {
	return name != nil && tx.Bucket(bucketEntries).Get(name) != nil
}

// Lookup implements [keys.Directory].
func (st *Store) Lookup(ctx context.Context, kid, kidContext []byte) (c keys.Candidates, err error) {
	if len(kid) > 255 || len(kidContext) > 255 {
		return c, nil // none is as long
	}
	err = st.View(ctx, func(tx *Tx) error {
		if kidContext == nil {
			c.KID = sharing(tx.tx, kid)
			return nil
		}
		b := tx.tx.Bucket(bucketIndex)
		if name := b.Get(kidKey('q', kid, kidContext)); live(tx.tx, name) {
			c.Exact = string(name)
		} else if name := b.Get(kidKey('p', kid, kidContext)); live(tx.tx, name) && b.Get(derivedKey(name)) == nil {
			c.Exact = string(name)
		}
		c.Rederive = named(tx.tx, kidKey('d', kid, nil), nil)
		return nil
	})
	return c, err
}

// sharing returns entries with a kid, those that send no kid context first.
func sharing(tx *bbolt.Tx, kid []byte) []string {
	return named(tx, kidKey('p', kid, nil), named(tx, kidKey('b', kid, nil), nil))
}

// named adds to names, up to oscore.MaxCandidates, those of the entries that keys
// of the index with a prefix name: in the value, or else in the rest of the key.
func named(tx *bbolt.Tx, prefix []byte, names []string) []string {
	bare := len(names) // they are under both prefixes
	c := tx.Bucket(bucketIndex).Cursor()
	for k, v := c.Seek(prefix); bytes.HasPrefix(k, prefix) && len(names) < oscore.MaxCandidates; k, v = c.Next() {
		name := v
		if len(v) == 0 {
			name = k[len(prefix):]
		}
		known := false
		for _, other := range names[:bare] {
			known = known || other == string(name)
		}
		if !known && live(tx, name) {
			names = append(names, string(name))
		}
	}
	return names
}

// HasKID implements [keys.Directory].
func (st *Store) HasKID(ctx context.Context, kid []byte) (has bool, err error) {
	err = st.View(ctx, func(tx *Tx) error {
		has = len(sharing(tx.tx, kid)) > 0
		return nil
	})
	return has, err
}

// Load implements [keys.Directory].
func (st *Store) Load(ctx context.Context, name string) (r keys.Record, ok bool, err error) {
	st.mu.Lock()
	h := st.h
	st.mu.Unlock()
	defer st.looked()
	err = st.View(ctx, func(tx *Tx) (err error) {
		if r, ok, err = st.record(tx.tx, name); err != nil || !ok {
			return err
		}
		id := r.Sender
		if v := tx.tx.Bucket(bucketDerived).Get(id[:]); len(v) >= len(id) {
			id, r.Derived = keys.Identity(v[:len(id)]), append([]byte{}, v[len(id):]...)
		}
		_, r.Taint = known(tx.tx, &h, id)
		r.Encrypted, err = used(tx.tx, id[:])
		return err
	})
	return r, ok && err == nil, err
}

// Clash implements [keys.Directory].
func (st *Store) Clash(ctx context.Context, e *keys.Entry) error {
	x, err := index(e)
	if err != nil {
		return err
	}
	return st.View(ctx, func(tx *Tx) error { return clashes(tx.tx, []indexed{x}, nil) })
}

// Names implements [keys.Directory].
func (st *Store) Names(ctx context.Context, after string, n int) (names []string, err error) {
	err = st.View(ctx, func(tx *Tx) error {
		c := tx.tx.Bucket(bucketEntries).Cursor()
		k, _ := c.Seek([]byte(after))
		if string(k) == after {
			k, _ = c.Next()
		}
		for ; k != nil && len(names) < n; k, _ = c.Next() {
			names = append(names, string(k))
		}
		return nil
	})
	return names, err
}

// Len returns the number of entries; it is 0 when the store has stopped.
func (st *Store) Len() (n int) {
	_ = st.View(context.Background(), func(tx *Tx) error {
		p, err := newPlaces(tx.tx)
		if err == nil {
			n = int(p.n)
		}
		return err
	})
	return n
}

// PutUsed implements [keys.UsageStore].
func (st *Store) PutUsed(ctx context.Context, used []keys.Used) error {
	return st.Update(ctx, func(tx *Tx) error {
		b := tx.tx.Bucket(bucketUsed)
		if len(used) > 1000 {
			b.FillPercent = 0.9 // they come in order
		}
		for _, u := range used {
			if v := b.Get(u.ID[:]); len(v) == 8 && binary.BigEndian.Uint64(v) >= u.Encrypted {
				continue
			}
			if err := b.Put(u.ID[:], binary.BigEndian.AppendUint64(nil, u.Encrypted)); err != nil {
				return err
			}
		}
		return nil
	})
}

// Used implements [keys.UsageStore].
func (st *Store) Used(ctx context.Context, id []byte) (n uint64, err error) {
	err = st.View(ctx, func(tx *Tx) (err error) {
		n, err = used(tx.tx, id)
		return err
	})
	return n, err
}

func used(tx *bbolt.Tx, id []byte) (uint64, error) {
	switch v := tx.Bucket(bucketUsed).Get(id); len(v) {
	case 0:
		return 0, nil
	case 8:
		return binary.BigEndian.Uint64(v), nil
	}
	return 0, fmt.Errorf("keys/bolt: the count of %x: %w", id, errDamaged)
}

// derivedKey is where the index says that the context of an entry comes from
// Appendix B.2.
func derivedKey(name []byte) []byte { return append([]byte{'n'}, name...) }

// indexDerived makes a derived context found, in place of the last one; nil only
// deletes that. Material without an entry has no place in the index.
func (st *Store) indexDerived(tx *bbolt.Tx, base keys.Identity, idContext []byte) error {
	b := tx.Bucket(bucketIndex)
	name := b.Get(append([]byte{'s'}, base[:]...))
	if !live(tx, name) {
		return nil
	}
	name = bytes.Clone(name)
	r, ok, err := st.record(tx, string(name))
	if err != nil || !ok || r.Sender != base {
		return err
	}
	kid := r.Entry.Params.RecipientID
	if err := dropDerived(b, name, kid); err != nil || idContext == nil {
		return err
	}
	for _, k := range derivedKeys(kid, idContext) {
		for _, kind := range []byte{'p', 'q'} {
			other := b.Get(append([]byte{kind}, k[1:]...))
			if !bytes.Equal(other, name) && live(tx, other) {
				return fmt.Errorf("%w: entries %q and %q would have one ID context", keys.ErrDuplicate, other, name)
			}
		}
		if err := b.Put(k, name); err != nil {
			return err
		}
	}
	return b.Put(derivedKey(name), idContext)
}

// derivedKeys are the keys under which a derived context is found: as its ID
// Context, and wrapped as Appendix B.2 has it.
func derivedKeys(kid, idContext []byte) [][]byte {
	return [][]byte{kidKey('q', kid, idContext), kidKey('q', kid, oscore.WrapBstr(idContext))}
}

// dropDerived deletes what the index has of an entry's derived context.
func dropDerived(b *bbolt.Bucket, name, kid []byte) error {
	v := b.Get(derivedKey(name))
	if v == nil {
		return nil
	}
	for _, k := range derivedKeys(kid, bytes.Clone(v)) {
		if bytes.Equal(b.Get(k), name) {
			if err := b.Delete(k); err != nil {
				return err
			}
		}
	}
	return b.Delete(derivedKey(name))
}
