package ccm

import "testing"

// Nothing is allocated on a call, and nothing of the caller's is forced to the
// heap: key, nonce, additional data and buffer all live on the stack here.
func TestNoAllocation(t *testing.T) {
	if longestWithoutAllocation < 0 {
		t.Skip("this build or processor allocates on every call")
	}
	k := new(Key)
	if err := k.Init(noise(1, 16), 13, 8); err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{0, 1, 16, 30, 127, 128, 1000} {
		if n > longestWithoutAllocation {
			continue
		}
		allocs := testing.AllocsPerRun(200, func() {
			var nonce [13]byte
			var aad [24]byte
			var buf [1024]byte
			sealed, err := k.Seal(buf[:0], nonce[:], buf[:n], aad[:])
			if err != nil {
				t.Fatal(err)
			}
			if _, err := k.Open(sealed[:0], nonce[:], sealed, aad[:]); err != nil {
				t.Fatal(err)
			}
		})
		if allocs != 0 {
			t.Errorf("%d bytes sealed and opened: %v allocations", n, allocs)
		}
	}
	if longestWithoutAllocation < bulk {
		return
	}
	allocs := testing.AllocsPerRun(200, func() {
		var key [16]byte
		var k Key
		if err := k.Init(key[:], 13, 8); err != nil {
			t.Fatal(err)
		}
	})
	if allocs != 0 {
		t.Errorf("Init: %v allocations", allocs)
	}
}
