// Package disk is the little of a file system that a store of keys needs, as an
// interface, so that a test can put a failing one in its place.
//
// The promises a store builds on: what was written before [File.Sync] returned
// nil is there after a power cut; a name made or changed is there after
// [FS.SyncDir]; [FS.Rename] puts the new file in the place of the old one, or
// does nothing.
//
//	disk.go      the interface, and a file replaced as a whole
//	os.go        the real one
//	lock_*.go    locks between processes
//	disktest/    one in memory that fails on command
package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
)

// FS is a file system. Files are made with mode 0600, directories with 0700.
type FS interface {
	MkdirAll(dir string) error
	ReadFile(name string) ([]byte, error)
	Mode(name string) (fs.FileMode, error)
	// Inode returns a number that stays with a file or directory when it is
	// renamed; 0 if there is none.
	Inode(name string) uint64
	Create(name string) (File, error) // empty, whatever was there
	Append(name string) (File, error) // made if it is not there
	Rename(from, to string) error
	Remove(name string) error
	SyncDir(dir string) error
	// Lock takes a lock that ends with the process, and writes the process's
	// number into the file. It returns a *LockedError if another has it.
	Lock(name string) (unlock func() error, err error)
}

// File is a file open for writing at its end.
type File interface {
	Write(b []byte) (int, error)
	Truncate(size int64) error
	Sync() error
	Close() error
}

// LockedError says that another process has a lock.
type LockedError struct {
	Name string
	PID  int // 0 if it is not known
}

// Error names the other process if it is known.
func (e *LockedError) Error() string {
	if e.PID > 0 {
		return fmt.Sprintf("%s is held by process %d", e.Name, e.PID)
	}
	return e.Name + " is held by another process"
}

// ErrFlush says that a flush failed: what the disk holds is not known.
var ErrFlush = errors.New("flush failed")

// Replace writes a file as a whole, durably: after a crash there is either the
// old content or the new. An error that is ErrFlush may have left either.
func Replace(fsys FS, name string, data []byte) error {
	tmp := name + ".new"
	f, err := fsys.Create(tmp)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = flushed(f.Sync())
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = fsys.Rename(tmp, name)
	}
	if err != nil {
		_ = fsys.Remove(tmp)
		return err
	}
	return flushed(fsys.SyncDir(filepath.Dir(name)))
}

func flushed(err error) error {
	if err != nil {
		return fmt.Errorf("%w: %w", ErrFlush, err)
	}
	return nil
}
