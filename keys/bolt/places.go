package bolt

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"math"

	bbolt "go.etcd.io/bbolt"
)

// ErrFull: a store gives 2^32 places and none of them twice.
var ErrFull = errors.New("keys/bolt: the store has given out every index")

// An entry's value begins with its place and its source.
const (
	placeLen = 4
	headLen  = placeLen + 2
)

// places gives entries their places: numbers from 0 on, in the order in which
// entries are first written.
type places struct {
	tx    *bbolt.Tx
	names *bbolt.Bucket
	next  uint64
	n     uint64 // entries that there are
	from  uint64 // those of them with a source
}

func newPlaces(tx *bbolt.Tx) (*places, error) {
	p := &places{tx: tx, names: tx.Bucket(bucketPlaces)}
	p.names.FillPercent = 1 // they come in order
	switch v := tx.Bucket(bucketMeta).Get(keyNext); len(v) {
	case 0:
	case 24:
		p.next, p.n, p.from = binary.BigEndian.Uint64(v), binary.BigEndian.Uint64(v[8:]), binary.BigEndian.Uint64(v[16:])
	default:
		return nil, errDamaged
	}
	return p, nil
}

// sourceOf returns the source in an entry's value, 0 if it has none.
func sourceOf(value []byte) uint16 {
	if len(value) < headLen {
		return 0
	}
	return binary.BigEndian.Uint16(value[placeLen:])
}

// of returns the place of an entry: the one that its value has, if it was there
// before, and else the next.
func (p *places) of(name, value []byte) (uint32, error) {
	if len(value) >= placeLen {
		return binary.BigEndian.Uint32(value), nil
	}
	if p.next > math.MaxUint32 {
		return 0, ErrFull
	}
	place := uint32(p.next)
	p.next++
	p.n++
	return place, p.names.Put(binary.BigEndian.AppendUint32(nil, place), name)
}

// drop takes back the place of an entry for good.
func (p *places) drop(value []byte) error {
	if len(value) < headLen {
		return nil
	}
	p.n--
	if sourceOf(value) != 0 {
		p.from--
	}
	return p.names.Delete(bytes.Clone(value[:placeLen]))
}

func (p *places) save() error {
	b := make([]byte, 0, 24)
	for _, v := range []uint64{p.next, p.n, p.from} {
		b = binary.BigEndian.AppendUint64(b, v)
	}
	return p.tx.Bucket(bucketMeta).Put(keyNext, b)
}

// Index returns the index of an entry: a number from 0 on that it has from the time
// it is first written until it is removed, whatever is put in its place under its
// name, over restarts and crashes. A store gives none twice: an entry that is
// removed and put again has another. ok is false if there is no such entry.
func (st *Store) Index(ctx context.Context, name string) (index uint32, ok bool, err error) {
	err = st.View(ctx, func(tx *Tx) error {
		index, ok = tx.Index(name)
		return nil
	})
	return index, ok, err
}

// ByIndex returns the name of the entry that has an index.
func (st *Store) ByIndex(ctx context.Context, index uint32) (name string, ok bool, err error) {
	err = st.View(ctx, func(tx *Tx) error {
		name, ok = tx.ByIndex(index)
		return nil
	})
	return name, ok, err
}

// Index is [Store.Index].
func (tx *Tx) Index(name string) (index uint32, ok bool) {
	v := tx.tx.Bucket(bucketEntries).Get([]byte(name))
	if len(v) < placeLen {
		return 0, false
	}
	return binary.BigEndian.Uint32(v), true
}

// ByIndex is [Store.ByIndex].
func (tx *Tx) ByIndex(index uint32) (name string, ok bool) {
	v := tx.tx.Bucket(bucketPlaces).Get(binary.BigEndian.AppendUint32(nil, index))
	return string(v), v != nil
}
