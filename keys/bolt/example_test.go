package bolt_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/oscorelay/oscorelay/keys"
	"github.com/oscorelay/oscorelay/keys/bolt"
	"github.com/oscorelay/oscorelay/oscore"
)

func Example() {
	base, err := os.MkdirTemp("", "bolt")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(base)
	ctx := context.Background()

	// The first start makes the store; later ones refuse to, should it be gone.
	st, err := bolt.Open(filepath.Join(base, "store"), bolt.Options{Init: true, AnchorDir: filepath.Join(base, "anchors")})
	if err != nil {
		panic(err)
	}
	defer st.Close()
	device := keys.Entry{Name: "urn:dev:os:1", Params: oscore.Params{
		MasterSecret: []byte("0123456789abcdef"), SenderID: []byte{1}, RecipientID: []byte{2},
	}}
	if err := st.Put(ctx, true, device); err != nil {
		panic(err)
	}
	ring, err := st.Keyring(ctx)
	if err != nil {
		panic(err)
	}
	defer ring.Close(ctx)

	// An unsafe request is entered before it goes on.
	x := bolt.Exchange{Peer: "server", MessageID: 0x1234, Token: []byte{7}}
	for range 2 {
		_, repeated, err := st.Begin(ctx, x, nil, time.Now())
		if err != nil {
			panic(err)
		}
		fmt.Println("repeated:", repeated)
	}
	// Output:
	// repeated: false
	// repeated: true
}
