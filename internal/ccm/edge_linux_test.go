package ccm

import (
	"bytes"
	"os"
	"syscall"
	"testing"
)

// The assembly reads partial blocks sixteen bytes at a time. Between two pages
// that may not be touched, with every buffer flush against either, a byte read
// or written too far would end the process.
func TestPageEdges(t *testing.T) {
	size := os.Getpagesize()
	region := func() []byte {
		m, err := syscall.Mmap(-1, 0, 3*size, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = syscall.Munmap(m) })
		for _, guard := range [][]byte{m[:size], m[2*size:]} {
			if err := syscall.Mprotect(guard, syscall.PROT_NONE); err != nil {
				t.Fatal(err)
			}
		}
		return m[size : 2*size : 2*size]
	}
	pages := [...][]byte{region(), region(), region(), region()}
	place := func(i int, b []byte, end bool) []byte {
		at := 0
		if end {
			at = size - len(b)
		}
		p := pages[i][at : at+len(b) : at+len(b)]
		copy(p, b)
		return p
	}
	each(t, func(t *testing.T, im implementation) {
		for n := range 50 {
			for aadLen := range 50 {
				nonceSize, tagSize := nonceSizes[n%len(nonceSizes)], tagSizes[aadLen%len(tagSizes)]
				k := im.key(t, noise(1, 16), nonceSize, tagSize)
				nonce, plaintext, aad := noise(2, nonceSize), noise(3, n), noise(4, aadLen)
				want, err := k.Seal(nil, nonce, plaintext, aad)
				if err != nil {
					t.Fatal(err)
				}
				for _, end := range []bool{false, true} {
					out := place(3, make([]byte, n+tagSize), end)
					sealed, err := k.Seal(out[:0], place(0, nonce, end), place(1, plaintext, end), place(2, aad, end))
					if err != nil || !bytes.Equal(sealed, want) {
						t.Fatalf("Seal of %d bytes, %d additional: %x, %v, want %x", n, aadLen, sealed, err, want)
					}
					sealed = place(1, want, end)
					opened, err := k.Open(out[:0], place(0, nonce, end), sealed, place(2, aad, end))
					if err != nil || !bytes.Equal(opened, plaintext) {
						t.Fatalf("Open of %d bytes, %d additional: %x, %v", n, aadLen, opened, err)
					}
				}
			}
		}
	})
}
