// Package flash is storage in memory, for the tests of the packages around it.
package flash

import "io"

// Memory is a store that grows; it implements fragment.Store. Bytes that were
// never written and lie before one that was are zero.
type Memory struct{ B []byte }

// ReadAt implements io.ReaderAt.
func (m *Memory) ReadAt(b []byte, off int64) (int, error) {
	if off >= int64(len(m.B)) {
		return 0, io.EOF
	}
	n := copy(b, m.B[off:])
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

// WriteAt implements io.WriterAt.
func (m *Memory) WriteAt(b []byte, off int64) (int, error) {
	if end := int(off) + len(b); end > len(m.B) {
		m.B = append(m.B, make([]byte, end-len(m.B))...)
	}
	return copy(m.B[off:], b), nil
}

// Sync does nothing: what is written is there.
func (m *Memory) Sync() error { return nil }
