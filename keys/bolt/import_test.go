package bolt

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"testing"

	"github.com/oscorelay/oscorelay/keys"
	"github.com/oscorelay/oscorelay/oscore"
)

// fleet returns entries as an import of a fleet has them.
func fleet(n int) []keys.Entry {
	out := make([]keys.Entry, n)
	for i := range out {
		out[i] = meter(i)
	}
	return out
}

// meter is one of a fleet.
func meter(i int) keys.Entry {
	secret := make([]byte, 16)
	binary.BigEndian.PutUint64(secret, uint64(i)+1)
	return keys.Entry{Name: fmt.Sprintf("urn:dev:os:32473-%07d", i), Params: oscore.Params{
		MasterSecret: secret, MasterSalt: secret[:8], SenderID: []byte{1}, RecipientID: binary.BigEndian.AppendUint32(nil, uint32(i)),
	}}
}

// TestImportCutShort: an import that ends in the middle of its transactions leaves
// a store that opens, and is complete when it has been run again.
func TestImportCutShort(t *testing.T) {
	const n = 250
	entries := fleet(n)
	for step := 0; ; step++ {
		base := t.TempDir()
		st := mustOpen(t, base)
		st.chunk = 30
		ctx, cancel := context.WithCancel(ctx)
		steps, last := 0, 0
		err := st.Import(ctx, true, entries, func(done, of int) {
			if done <= last || done > of || of != 3*n {
				t.Errorf("progress %d of %d after %d", done, of, last)
			}
			last = done
			if steps++; steps > step {
				cancel()
			}
		})
		cancel()
		if err == nil && step > 10 {
			mustClose(t, st)
			return // it got through
		}
		if !errors.Is(err, context.Canceled) {
			t.Fatalf("step %d: %v", step, err)
		}
		st.die()
		st = mustOpen(t, base)
		if _, err := st.Keyring(context.Background()); err != nil {
			t.Fatalf("step %d: %v", step, err)
		}
		st.chunk = 30
		if err := st.Import(context.Background(), true, entries, nil); err != nil {
			t.Fatalf("step %d: %v", step, err)
		}
		ring, err := st.Keyring(context.Background())
		if err != nil || ring.Len() != n {
			t.Fatalf("step %d: %d peers, %v", step, ring.Len(), err)
		}
		for p := range ring.Peers() {
			if p.Tainted() {
				t.Fatalf("step %d: %s is tainted: %v", step, p.Name(), p.Taint())
			}
		}
		mustClose(t, st)
	}
}
