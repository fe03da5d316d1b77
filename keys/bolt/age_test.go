package bolt

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/oscorelay/oscorelay/keys"
	"github.com/oscorelay/oscorelay/oscore"
)

// TestAgeing: of many peers that are ready those rest that are not used, and go on
// with their state when they are; a few never rest.
func TestAgeing(t *testing.T) {
	const rest, n = 8192, 8192 + 2000
	base := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		st := mustOpen(t, base)
		if err := st.Import(ctx, fleet(n), ImportOptions{Fresh: true}); err != nil {
			t.Fatal(err)
		}
		ring, err := st.Keyring(ctx)
		if err != nil {
			t.Fatal(err)
		}
		seal := func(p *keys.Peer) (piv uint64) {
			var q oscore.Pending
			if _, err := p.SealRequest(nil, &q, oscore.Message{Code: 1}); err != nil {
				t.Fatal(err)
			}
			return q.PartialIV()
		}
		var all []*keys.Peer
		for i := range n {
			p, ok := ring.Get(meter(i).Name)
			if !ok {
				t.Fatal(i)
			}
			if piv := seal(p); piv != 0 {
				t.Fatal(piv)
			}
			all = append(all, p)
		}
		synctest.Wait()
		if got := len(ring.Hot()); got != n {
			t.Fatalf("%d peers are ready, want %d", got, n)
		}
		for range 150 { // seconds
			for _, p := range all[:100] {
				seal(p)
			}
			time.Sleep(time.Second)
		}
		synctest.Wait()
		hot := map[*keys.Peer]bool{}
		for _, p := range ring.Hot() {
			hot[p] = true
		}
		if len(hot) != rest {
			t.Errorf("%d peers are ready after a rest, want %d", len(hot), rest)
		}
		for i, p := range all[:100] {
			if !hot[p] {
				t.Errorf("%d is in use, and rests", i)
			}
		}
		for i, p := range all[100:] {
			if piv := seal(p); piv != 1 {
				t.Fatalf("%d: number %d after 0", i, piv)
			}
			if !p.Status().WindowOpen {
				t.Fatalf("%d lost its window", i)
			}
		}
		if err := ring.Close(ctx); err != nil {
			t.Fatal(err)
		}
		mustClose(t, st)
	})
}
