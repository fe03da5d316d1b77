package oscoretest

import (
	"context"
	"testing"

	"github.com/oscorelay/oscorelay/keys"
	"github.com/oscorelay/oscorelay/oscore"
)

// defaultParams is the client's view of the context that pairs share unless
// their Config has another.
func defaultParams() oscore.Params {
	return oscore.Params{
		MasterSecret: oscore.Secret("oscoretest, no secret at all"), MasterSalt: []byte("salt"),
		SenderID: []byte("c"), RecipientID: []byte("s"),
	}
}

// Keyrings returns the keyrings of a client and of a server that share a
// context which nobody used before: the client's peer is "server", the server's
// is "client". They are closed when the test ends.
func Keyrings(t testing.TB) (client, server oscore.Keyring) {
	t.Helper()
	p := defaultParams()
	return newRing(t, keys.NewMemory(), keys.Entry{Name: "server", Params: p}, (*keys.Keyring).AddNew),
		newRing(t, keys.NewMemory(), keys.Entry{Name: "client", Params: p.Swap()}, (*keys.Keyring).AddNew)
}

// newRing makes a keyring of one entry on a store.
func newRing(t testing.TB, store *keys.Memory, e keys.Entry, add func(*keys.Keyring, context.Context, keys.Entry) (*keys.Peer, error)) *keys.Keyring {
	t.Helper()
	ring := keys.New(store)
	if _, err := add(ring, context.Background(), e); err != nil {
		t.Fatalf("oscoretest: %v", err)
	}
	t.Cleanup(func() {
		if err := ring.Close(context.Background()); err != nil {
			t.Errorf("oscoretest: %v", err)
		}
	})
	return ring
}
