package file

import (
	"errors"
	"fmt"

	"github.com/oscorelay/oscorelay/keys"
	"github.com/oscorelay/oscorelay/keys/internal/disk"
)

// A batch is records that become durable together, in one frame. While one is
// being written the next takes in what comes; whoever fills in the first record
// of an idle store writes it, and then leaves the rest to a goroutine.
type batch struct {
	records []byte
	ids     map[keys.Identity]bool // which have numbers in it
	block   uint64                 // the most numbers for one
	apply   []func()               // to the state, once it is durable
	done    chan struct{}
	err     error // valid when done is closed
}

func (b *batch) add(id *keys.Identity, block uint64, records []byte, apply func()) {
	b.records = append(b.records, records...)
	b.block = max(b.block, block)
	if id != nil {
		if b.ids == nil {
			b.ids = map[keys.Identity]bool{}
		}
		b.ids[*id] = true
	}
	if apply != nil {
		b.apply = append(b.apply, apply)
	}
}

// join returns the batch to add to. A frame holds at most one record for an
// identity's numbers, which bounds what a lost frame can cost (anchor.Block).
// The caller holds st.mu, and looks at the state only after join.
func (st *Store) join(id *keys.Identity) (*batch, error) {
	for id != nil && st.waiting != nil && st.waiting.ids[*id] {
		b := st.waiting
		st.mu.Unlock()
		<-b.done
		st.mu.Lock()
	}
	if st.err != nil {
		return nil, st.err
	}
	if st.waiting == nil {
		st.waiting = &batch{done: make(chan struct{})}
	}
	return st.waiting, nil
}

// commit waits until the batch is durable. The caller holds st.mu, which is
// given up meanwhile.
func (st *Store) commit(b *batch) error {
	if st.writing {
		st.mu.Unlock()
		<-b.done
		st.mu.Lock()
		return b.err
	}
	st.writing = true
	st.writeWaiting()
	if st.waiting == nil {
		st.endWriting()
	} else {
		go func() {
			st.mu.Lock()
			defer st.mu.Unlock()
			for st.waiting != nil {
				st.writeWaiting()
			}
			st.endWriting()
		}()
	}
	return b.err
}

func (st *Store) endWriting() {
	st.writing = false
	st.idle.Broadcast()
}

// writeWaiting writes the batch that waits. The caller holds st.mu and has set
// st.writing; st.mu is given up meanwhile.
func (st *Store) writeWaiting() {
	b := st.waiting
	st.waiting = nil
	// Closing waits for what was accepted before it.
	if b.err = st.err; errors.Is(b.err, keys.ErrClosed) {
		b.err = nil
	}
	if b.err == nil && len(b.records) > 0 {
		b.err = st.write(b.records, b.block)
	}
	if b.err == nil {
		for _, f := range b.apply {
			f()
		}
	}
	close(b.done)
	if b.err == nil && st.size > 64<<10 && st.size > 4*st.lean {
		st.compact()
	}
}

// write makes a frame durable.
//
//  1. the anchor allows for it
//  2. it is appended and flushed
//
// A failed flush ends the store: the kernel may have thrown the data away and
// say nothing the next time. The caller holds st.mu, which is given up meanwhile,
// and owns st.writing.
func (st *Store) write(records []byte, block uint64) error {
	frame := beginFrame(make([]byte, 0, frameHead+len(records)), st.s.frames+1)
	frame = append(frame, records...)
	endFrame(frame, 0)
	st.mu.Unlock()
	err, fatal := st.a.Allow(st.fsys, st.anchorName(), st.s.frames+1, block), false
	if err == nil {
		err, fatal = st.append(frame)
	}
	st.mu.Lock()
	switch {
	case err == nil:
		st.s.frames++
		st.size += len(frame)
		return nil
	case fatal || errors.Is(err, disk.ErrFlush):
		err = fmt.Errorf("keys/file: the store %s has stopped, because what the disk holds is not known: %w; mend the disk and start again", st.dir, err)
		st.err = err
		return err
	}
	return fmt.Errorf("keys/file: %w", err)
}

// append writes and flushes a frame. After an error that is not fatal the file
// is as it was.
func (st *Store) append(frame []byte) (err error, fatal bool) {
	if _, err := st.f.Write(frame); err != nil {
		return err, st.f.Truncate(int64(st.size)) != nil
	}
	if err := st.f.Sync(); err != nil {
		return err, true
	}
	return nil, false
}

// compact writes the state as a whole. The caller holds st.mu and owns
// st.writing.
func (st *Store) compact() {
	data := st.s.encode(st.s.frames, func(id keys.Identity) bool { return st.saved[id] })
	if err := disk.Replace(st.fsys, st.stateName(), data); err != nil {
		st.lean = st.size // not with every frame again
		if errors.Is(err, disk.ErrFlush) {
			st.err = fmt.Errorf("keys/file: the store %s has stopped: %w; mend the disk and start again", st.dir, err)
		}
		return
	}
	f, err := st.fsys.Append(st.stateName())
	if err != nil {
		st.err = fmt.Errorf("keys/file: the store %s has stopped: %w", st.dir, err)
		return
	}
	_ = st.f.Close()
	st.f, st.size, st.lean = f, len(data), len(data)
}
