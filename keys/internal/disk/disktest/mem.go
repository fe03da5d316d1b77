// Package disktest is a file system in memory that fails on command: the n-th
// operation that changes something fails, writes half of its bytes, or is the
// last before the power goes.
//
// It keeps two states, what a process sees and what a power cut leaves: bytes
// become durable by Sync of their file, names by SyncDir of their directory.
// [Mem.Restart] takes one of the outcomes that a real disk may have.
package disktest

import (
	"errors"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"sync"
	"syscall"

	"github.com/oscorelay/oscorelay/keys/internal/disk"
)

// ErrPower is what every operation returns after the power went.
var ErrPower = errors.New("disktest: power cut")

// Fault is what happens to the chosen operation.
type Fault int

// Faults.
const (
	None  Fault = iota
	IO          // it fails without effect
	Full        // a write leaves half of its bytes, anything else but Sync that makes something new fails: no space
	Flush       // a Sync fails, and what it was to write is lost for good; other operations succeed
	Power       // it does not happen, and nothing happens any more
)

// Outcome is what a power cut leaves of what was not made durable.
type Outcome int

// Outcomes.
const (
	Lost     Outcome = iota // nothing
	Kept                    // everything
	Torn                    // names, and half of the bytes of each file
	Zeroed                  // names and lengths, with zeros for content
	Outcomes                // their number
)

// Mem is the file system.
type Mem struct {
	mu      sync.Mutex
	now     map[string]*inode
	durable map[string]*inode
	locks   map[string]bool
	inodes  uint64

	steps int
	at    int
	fault Fault
	dead  bool
}

type inode struct {
	number  uint64
	now     []byte
	durable []byte
	lost    bool // a Sync failed
}

var _ disk.FS = (*Mem)(nil)

// New returns an empty file system.
func New() *Mem {
	return &Mem{now: map[string]*inode{}, durable: map[string]*inode{}, locks: map[string]bool{}}
}

// Arm makes the n-th operation from now on, counted from 1, fail.
func (m *Mem) Arm(n int, f Fault) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.steps, m.at, m.fault = 0, n, f
}

// Steps returns how many operations changed something since Arm.
func (m *Mem) Steps() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.steps
}

// Restart returns what the machine finds when it comes up again. Locks are
// gone, and no fault is armed.
func (m *Mem) Restart(o Outcome) *Mem {
	m.mu.Lock()
	defer m.mu.Unlock()
	names := m.durable
	if o != Lost {
		names = m.now
	}
	n := New()
	n.inodes = m.inodes
	for name, i := range names {
		j := &inode{number: i.number, durable: outcome(i, o)}
		j.now = slices.Clone(j.durable)
		n.now[name], n.durable[name] = j, j
	}
	return n
}

func outcome(i *inode, o Outcome) []byte {
	common := 0
	for common < len(i.now) && common < len(i.durable) && i.now[common] == i.durable[common] {
		common++
	}
	switch {
	case o == Lost || i.lost:
		return slices.Clone(i.durable)
	case o == Kept:
		return slices.Clone(i.now)
	case o == Torn:
		return slices.Clone(i.now[:common+(len(i.now)-common)/2])
	}
	b := make([]byte, len(i.now))
	copy(b, i.now[:common])
	return b
}

// Kill returns what another process finds after this one was killed: everything.
func (m *Mem) Kill() *Mem { return m.Restart(Kept) }

// Clone returns a copy, as a backup or a copied disk is one.
func (m *Mem) Clone() *Mem { return m.Restart(Kept) }

// Dead reports whether the power went.
func (m *Mem) Dead() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.dead
}

// step counts an operation and returns the fault that is to happen.
func (m *Mem) step() (Fault, error) {
	if m.dead {
		return None, ErrPower
	}
	m.steps++
	if m.at == 0 || m.steps != m.at {
		return None, nil
	}
	switch m.fault {
	case Power:
		m.dead = true
		return Power, ErrPower
	case IO:
		return IO, syscall.EIO
	}
	return m.fault, nil
}

// MkdirAll implements [disk.FS]: directories exist as soon as they are named.
func (m *Mem) MkdirAll(string) error { return nil }

// ReadFile implements [disk.FS].
func (m *Mem) ReadFile(name string) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.dead {
		return nil, ErrPower
	}
	i, ok := m.now[name]
	if !ok {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return slices.Clone(i.now), nil
}

// WriteFile puts a file there, durably, as a person does.
func (m *Mem) WriteFile(name string, b []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.inodes++
	i := &inode{number: m.inodes, now: slices.Clone(b), durable: slices.Clone(b)}
	m.now[name], m.durable[name] = i, i
}

// Delete takes a file away, durably, as a person does.
func (m *Mem) Delete(name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.now, name)
	delete(m.durable, name)
}

// Names returns the names of all files.
func (m *Mem) Names() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Sorted(maps.Keys(m.now))
}

// Mode implements [disk.FS].
func (m *Mem) Mode(name string) (fs.FileMode, error) {
	_, err := m.ReadFile(name)
	return 0o600, err
}

// Inode implements [disk.FS]. A directory's number is that of its path.
func (m *Mem) Inode(name string) uint64 {
	var h uint64 = 14695981039346656037
	for _, b := range []byte(name) {
		h = (h ^ uint64(b)) * 1099511628211
	}
	return h
}

// Create implements [disk.FS].
func (m *Mem) Create(name string) (disk.File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f, err := m.step()
	if f == Full {
		err = syscall.ENOSPC
	}
	if err != nil {
		return nil, err
	}
	m.inodes++
	i := &inode{number: m.inodes}
	m.now[name] = i
	return &file{m, i}, nil
}

// Append implements [disk.FS].
func (m *Mem) Append(name string) (disk.File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	i, ok := m.now[name]
	if !ok {
		f, err := m.step()
		if f == Full {
			err = syscall.ENOSPC
		}
		if err != nil {
			return nil, err
		}
		m.inodes++
		i = &inode{number: m.inodes}
		m.now[name] = i
	}
	return &file{m, i}, nil
}

// Rename implements [disk.FS].
func (m *Mem) Rename(from, to string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	f, err := m.step()
	if f == Full {
		err = syscall.ENOSPC
	}
	if err != nil {
		return err
	}
	i, ok := m.now[from]
	if !ok {
		return &fs.PathError{Op: "rename", Path: from, Err: fs.ErrNotExist}
	}
	m.now[to] = i
	delete(m.now, from)
	return nil
}

// Remove implements [disk.FS].
func (m *Mem) Remove(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, err := m.step(); err != nil {
		return err
	}
	delete(m.now, name)
	return nil
}

// SyncDir implements [disk.FS].
func (m *Mem) SyncDir(dir string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	f, err := m.step()
	if f == Flush {
		err = syscall.EIO
	}
	if err != nil {
		return err
	}
	for name := range m.durable {
		if filepath.Dir(name) == dir && m.now[name] == nil {
			delete(m.durable, name)
		}
	}
	for name, i := range m.now {
		if filepath.Dir(name) == dir {
			m.durable[name] = i
		}
	}
	return nil
}

// Lock implements [disk.FS].
func (m *Mem) Lock(name string) (func() error, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.dead {
		return nil, ErrPower
	}
	if m.locks[name] {
		return nil, &disk.LockedError{Name: name, PID: 4711}
	}
	m.locks[name] = true
	return func() error {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.locks[name] = false
		return nil
	}, nil
}

type file struct {
	m *Mem
	i *inode
}

func (f *file) Write(b []byte) (int, error) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	fault, err := f.m.step()
	switch {
	case fault == Full:
		b, err = b[:len(b)/2], syscall.ENOSPC
	case err != nil:
		if fault == Power {
			f.i.now = append(f.i.now, b...) // it was on its way
		}
		return 0, err
	}
	f.i.now = append(f.i.now, b...)
	return len(b), err
}

func (f *file) Truncate(size int64) error {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if _, err := f.m.step(); err != nil {
		return err
	}
	f.i.now = append(f.i.now[:min(int64(len(f.i.now)), size)], make([]byte, max(0, size-int64(len(f.i.now))))...)
	return nil
}

func (f *file) Sync() error {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	fault, err := f.m.step()
	if fault == Flush {
		f.i.lost = true
		err = syscall.EIO
	}
	if err != nil {
		return err
	}
	if !f.i.lost {
		f.i.durable = slices.Clone(f.i.now)
	}
	return nil
}

func (f *file) Close() error { return nil }
