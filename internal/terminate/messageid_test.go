package terminate

import (
	"fmt"
	"net/netip"
	"testing"
)

// Message IDs of one life do not come upon those of hundreds of lives before, and
// a peer has the same place in every process.
func TestFirstIDs(t *testing.T) {
	var seed [32]byte
	at := hop{netip.MustParseAddrPort("192.0.2.7:40001"), netip.MustParseAddr("192.0.2.1")}
	if got := fmt.Sprint(at); got != "192.0.2.7:40001 192.0.2.1" {
		t.Errorf("a hop is %q: a pointer in it differs in each process", got)
	}
	if got := firstID(seed, 1, at); got != 17685 {
		t.Errorf("%d: the place of a peer has changed: a restart by an upgrade comes upon message IDs in use", got)
	}
	for _, c := range []struct{ lives, apart uint64 }{{10, 3000}, {100, 300}, {600, 60}} {
		var used [1 << 16]bool
		for epoch := range c.lives {
			first := firstID(seed, 1000+epoch, uint32(7))
			for i := range c.apart {
				if used[first+uint16(i)] {
					t.Fatalf("of %d lives, %d message IDs each, two share one", c.lives, c.apart)
				}
				used[first+uint16(i)] = true
			}
		}
	}
}
