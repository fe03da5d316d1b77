package limit

import (
	"testing"

	"github.com/oscorelay/oscorelay/internal/floors"
)

func TestImports(t *testing.T) { floors.Imports(t, "crypto/aes", "golang.org/x/sys/cpu") }

// The chain is real AES: it ends where crypto/aes ends.
func TestChainIsAES(t *testing.T) {
	for n := range 70 {
		got, want := [16]byte{1, 2, 3}, [16]byte{1, 2, 3}
		Chain(&got, n)
		portable(&want, n)
		if got != want {
			t.Fatalf("chain of %d = %x, want %x", n, got, want)
		}
	}
}

func TestBlocks(t *testing.T) {
	for _, c := range []struct{ n, aad, want int }{
		{0, 0, 1},
		{1, 0, 2},
		{16, 0, 2},
		{17, 0, 3},
		{0, 14, 2},
		{0, 15, 3},
		{0, 24, 3},
		{16, 24, 4},
		{1024, 24, 67},
	} {
		if got := Blocks(c.n, c.aad); got != c.want {
			t.Errorf("Blocks(%d, %d) = %d, want %d", c.n, c.aad, got, c.want)
		}
	}
}
