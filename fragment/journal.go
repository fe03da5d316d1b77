package fragment

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
)

// The journal is a row of 64-byte records. The first names the manifest and
// the tree, the others hold 480 bits of the bitmap each:
//
//	0  "LWJ1" ‖ manifest hash (32) ‖ S (4) ‖ l (1) ‖ zeros ‖ CRC-32 (4)
//	k  bits of leaves 480(k-1) … (60 bytes)               ‖ CRC-32 (4)
//
// The checksum covers the record's number and its 60 bytes. It is there for
// torn writes, not against an attacker, who does not write the journal. A
// record that does not check is one whose leaves are unknown: the flash is
// hashed for them. So nothing here has to be atomic.
const (
	recordSize = 64
	recordBody = 60
	recordBits = recordBody * 8
)

var journalMagic = [4]byte{'L', 'W', 'J', '1'}

type journal struct {
	store  Store
	head   [recordBody]byte
	leaves uint32
	dirty  []bool // by record, from the first bitmap record
	record [recordSize]byte
	number [4]byte // of the record being summed
}

func newJournal(store Store, s *Signed, leaves uint32) *journal {
	j := &journal{store: store, leaves: leaves, dirty: make([]bool, (leaves+recordBits-1)/recordBits)}
	copy(j.head[:], journalMagic[:])
	copy(j.head[4:], s.hash[:])
	binary.BigEndian.PutUint32(j.head[36:], s.manifest.Size)
	j.head[40] = s.manifest.Leaf
	return j
}

// load fills the bitmap from a journal of the same manifest, or starts a new
// one; resumed tells which.
func (j *journal) load(bits []uint64) (resumed bool, err error) {
	if ok, err := j.read(0); err != nil {
		return false, err
	} else if !ok || [recordBody]byte(j.record[:recordBody]) != j.head {
		return false, j.create()
	}
	for k := range j.dirty {
		ok, err := j.read(k + 1)
		if err != nil {
			return false, err
		}
		if !ok {
			continue // torn: its leaves are unknown
		}
		for i := range recordBits {
			leaf := uint32(k*recordBits + i)
			if leaf < j.leaves && j.record[i/8]>>(i%8)&1 == 1 {
				bits[leaf/64] |= 1 << (leaf % 64)
			}
		}
	}
	return true, nil
}

// create writes an empty journal. The head goes away first and comes last, so
// that at no moment an old bitmap stands under a new head.
func (j *journal) create() error {
	clear(j.record[:])
	if _, err := j.store.WriteAt(j.record[:], 0); err != nil {
		return fmt.Errorf("%w: %w", ErrJournal, err)
	}
	if err := j.sync(); err != nil {
		return err
	}
	for k := range j.dirty {
		clear(j.record[:])
		if err := j.put(k + 1); err != nil {
			return err
		}
	}
	if err := j.sync(); err != nil {
		return err
	}
	copy(j.record[:], j.head[:])
	if err := j.put(0); err != nil {
		return err
	}
	return j.sync()
}

func (j *journal) touch(leaf uint32) { j.dirty[leaf/recordBits] = true }

func (j *journal) touchAll() {
	for k := range j.dirty {
		j.dirty[k] = true
	}
}

// write writes the records whose bits have changed.
func (j *journal) write(bits []uint64) error {
	for k, dirty := range j.dirty {
		if !dirty {
			continue
		}
		clear(j.record[:])
		for i := range recordBits {
			leaf := uint32(k*recordBits + i)
			if leaf < j.leaves && bits[leaf/64]>>(leaf%64)&1 == 1 {
				j.record[i/8] |= 1 << (i % 8)
			}
		}
		if err := j.put(k + 1); err != nil {
			return err
		}
		j.dirty[k] = false
	}
	return j.sync()
}

func (j *journal) sync() error {
	if err := j.store.Sync(); err != nil {
		return fmt.Errorf("%w: %w", ErrJournal, err)
	}
	return nil
}

func (j *journal) put(k int) error {
	binary.BigEndian.PutUint32(j.record[recordBody:], j.sum(k))
	if _, err := j.store.WriteAt(j.record[:], int64(k)*recordSize); err != nil {
		return fmt.Errorf("%w: %w", ErrJournal, err)
	}
	return nil
}

// read reads record k; ok is false if it is not there or does not check.
func (j *journal) read(k int) (ok bool, err error) {
	n, err := j.store.ReadAt(j.record[:], int64(k)*recordSize)
	if n < recordSize {
		if err == io.EOF || err == io.ErrUnexpectedEOF || err == nil {
			return false, nil
		}
		return false, fmt.Errorf("%w: %w", ErrJournal, err)
	}
	return binary.BigEndian.Uint32(j.record[recordBody:]) == j.sum(k), nil
}

func (j *journal) sum(k int) uint32 {
	binary.BigEndian.PutUint32(j.number[:], uint32(k))
	return crc32.Update(crc32.ChecksumIEEE(j.number[:]), crc32.IEEETable, j.record[:recordBody])
}
