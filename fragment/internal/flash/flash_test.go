package flash

import (
	"bytes"
	"errors"
	"io"
	"testing"
)

func TestMemory(t *testing.T) {
	var m Memory
	if n, err := m.WriteAt([]byte("late"), 4); n != 4 || err != nil {
		t.Fatal(n, err)
	}
	b := make([]byte, 6)
	if n, err := m.ReadAt(b, 1); n != 6 || err != nil || !bytes.Equal(b, []byte("\x00\x00\x00lat")) {
		t.Errorf("%d, %v, %q", n, err, b)
	}
	if n, err := m.ReadAt(b, 6); n != 2 || !errors.Is(err, io.EOF) {
		t.Errorf("%d, %v at the end", n, err)
	}
	if n, err := m.ReadAt(b, 8); n != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("%d, %v beyond it", n, err)
	}
}
