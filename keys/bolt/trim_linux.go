package bolt

import (
	"bytes"
	"os"
	"strconv"
	"syscall"
	"time"

	bbolt "go.etcd.io/bbolt"
)

// mostMapped is how much of the file may count as the process's memory for longer than
// trimEvery, in bytes. A page fault maps up to sixteen pages, of which a look-up in a
// large store wants one; to trim more often would make such look-ups twice as dear.
const (
	mostMapped = 64 << 20
	trimEvery  = 10 * time.Second
)

// looked is called when a record was looked up.
func (st *Store) looked() {
	if !st.trims.Load() && !st.trims.Swap(true) {
		time.AfterFunc(trimEvery, func() {
			st.trims.Store(false)
			st.trim(mostMapped)
		})
	}
}

// trim takes the pages of the file out of the process's memory if there are more
// than that. The kernel has them still, as long as it likes, and the next look at one
// takes a microsecond more.
func (st *Store) trim(most int) {
	if mapped, ok := residentFile(); !ok || mapped <= most {
		return
	}
	// A reading transaction holds the mapping where it is.
	_ = st.look(func(tx *bbolt.Tx) error {
		size := uintptr(tx.Size())
		_, _, _ = syscall.Syscall(syscall.SYS_MADVISE, st.db.Info().Data, size, syscall.MADV_DONTNEED)
		return nil
	})
}

// residentFile returns how many bytes of files are resident in the process.
func residentFile() (n int, ok bool) {
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0, false
	}
	f := bytes.Fields(b)
	if len(f) < 3 {
		return 0, false
	}
	pages, err := strconv.Atoi(string(f[2]))
	return pages * os.Getpagesize(), err == nil
}
