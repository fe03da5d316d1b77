package disk

import (
	"errors"
	"os"

	"golang.org/x/sys/windows"
)

// The lock stands far behind the text, which others may then read.
const lockAt = 1 << 30

func tryLock(f *os.File) (bool, error) {
	at := windows.Overlapped{Offset: lockAt}
	err := windows.LockFileEx(windows.Handle(f.Fd()), windows.LOCKFILE_EXCLUSIVE_LOCK|windows.LOCKFILE_FAIL_IMMEDIATELY, 0, 1, 0, &at)
	if errors.Is(err, windows.ERROR_LOCK_VIOLATION) {
		return false, nil
	}
	return err == nil, err
}

// Inode implements [FS].
func (OS) Inode(string) uint64 { return 0 }

// syncDir does nothing: NTFS journals names, and a directory cannot be flushed.
func syncDir(*os.File) error { return nil }
