package bolt

import (
	"bufio"
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sort"
)

// spill sorts more than memory is to hold: each part of it is sorted and written to
// a file of its own, and what is read back is merged from all of them. Values are
// sealed under a key that only this process knows.
type spill struct {
	dir  string
	aead cipher.AEAD
	runs []*os.File
	n    int
	seal uint64 // how many values were sealed: the nonce
}

// item is a key and a value.
type item struct{ key, value []byte }

// spillName is what the files of a spill are called, for os.CreateTemp.
const spillName = "import-*.tmp"

func newSpill(dir string) (*spill, error) {
	key := make([]byte, 32)
	_, _ = rand.Read(key) // never fails (crypto/rand)
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	aead, err := cipher.NewGCM(block)
	return &spill{dir: dir, aead: aead}, err
}

// close deletes the files.
func (s *spill) close() {
	for _, f := range s.runs {
		_ = f.Close()
		_ = os.Remove(f.Name())
	}
	s.runs = nil
}

// removeSpills deletes what a process left that died in an import.
func removeSpills(dir string) {
	names, _ := filepath.Glob(filepath.Join(dir, spillName)) // the pattern is right
	for _, name := range names {
		_ = os.Remove(name)
	}
}

// add sorts items and writes them out.
//
//	length of the key (2)  key  length of the value (4)  value, sealed
func (s *spill) add(items []item) (err error) {
	slices.SortFunc(items, func(a, b item) int { return bytes.Compare(a.key, b.key) })
	f, err := os.CreateTemp(s.dir, spillName)
	if err != nil {
		return err
	}
	s.runs = append(s.runs, f)
	w := bufio.NewWriterSize(f, 1<<16)
	var b []byte
	for _, it := range items {
		nonce := make([]byte, s.aead.NonceSize())
		binary.BigEndian.PutUint64(nonce, s.seal)
		s.seal++
		b = binary.BigEndian.AppendUint16(b[:0], uint16(len(it.key)))
		b = append(b, it.key...)
		b = binary.BigEndian.AppendUint32(b, uint32(len(nonce)+len(it.value)+s.aead.Overhead()))
		b = append(b, nonce...)
		b = s.aead.Seal(b, nonce, it.value, it.key)
		if _, err := w.Write(b); err != nil {
			return err
		}
	}
	s.n += len(items)
	return w.Flush()
}

// run is one sorted part, as it is read.
type run struct {
	r    *bufio.Reader
	item item
	box  []byte
}

// next reads an item; ok is false at the end.
func (s *spill) next(r *run) (ok bool, err error) {
	var head [4]byte
	if _, err := io.ReadFull(r.r, head[:2]); err == io.EOF {
		return false, nil
	} else if err != nil {
		return false, err
	}
	r.item.key = slices.Grow(r.item.key[:0], int(binary.BigEndian.Uint16(head[:])))[:binary.BigEndian.Uint16(head[:])]
	if _, err := io.ReadFull(r.r, r.item.key); err != nil {
		return false, err
	}
	if _, err := io.ReadFull(r.r, head[:]); err != nil {
		return false, err
	}
	n := int(binary.BigEndian.Uint32(head[:]))
	r.box = slices.Grow(r.box[:0], n)[:n]
	if _, err := io.ReadFull(r.r, r.box); err != nil {
		return false, err
	}
	at := s.aead.NonceSize()
	if n < at {
		return false, errDamaged
	}
	r.item.value, err = s.aead.Open(r.item.value[:0], r.box[:at], r.box[at:], r.item.key)
	return err == nil, err
}

// merge calls fn for each item, in the order of their keys. It is valid until fn
// returns.
func (s *spill) merge(fn func(item) error) error {
	var heads []*run // in order
	for _, f := range s.runs {
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			return err
		}
		r := &run{r: bufio.NewReaderSize(f, 1<<16)}
		if ok, err := s.next(r); err != nil {
			return fmt.Errorf("%s: %w", f.Name(), err)
		} else if ok {
			heads = append(heads, r)
		}
	}
	slices.SortFunc(heads, func(a, b *run) int { return bytes.Compare(a.item.key, b.item.key) })
	for len(heads) > 0 {
		if err := fn(heads[0].item); err != nil {
			return err
		}
		ok, err := s.next(heads[0])
		if err != nil {
			return err
		}
		if !ok {
			heads = heads[1:]
			continue
		}
		first := heads[0]
		to := sort.Search(len(heads)-1, func(i int) bool { return bytes.Compare(first.item.key, heads[i+1].item.key) <= 0 })
		copy(heads, heads[1:to+1])
		heads[to] = first
	}
	return nil
}

// batches is merge in batches of some items, which fn may keep. The next one is read
// while fn has one.
func (s *spill) batches(n int, fn func([]item) error) error {
	ready, stop := make(chan []item), make(chan struct{})
	var failed error // of the merge, once ready is closed
	go func() {
		defer close(ready)
		some := make([]item, 0, n)
		pass := func() error {
			select {
			case ready <- some:
			case <-stop:
				return errStopped
			}
			some = make([]item, 0, n)
			return nil
		}
		failed = s.merge(func(it item) error {
			both := make([]byte, len(it.key)+len(it.value))
			at := copy(both, it.key)
			copy(both[at:], it.value)
			some = append(some, item{both[:at:at], both[at:]})
			if len(some) < n {
				return nil
			}
			return pass()
		})
		if failed == nil && len(some) > 0 {
			failed = pass()
		}
	}()
	for some := range ready {
		if err := fn(some); err != nil {
			close(stop)
			for range ready { // it ends
			}
			return err
		}
	}
	return failed
}

var errStopped = errors.New("stopped")
