package file_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/oscorelay/oscorelay/keys"
	"github.com/oscorelay/oscorelay/keys/file"
	"github.com/oscorelay/oscorelay/oscore"
)

// A device makes its keys once and goes on with them after each start.
func Example() {
	ctx := context.Background()
	base, err := os.MkdirTemp("", "")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(base)
	// The anchors stay outside of what is backed up with the keys.
	options := file.Options{AnchorDir: filepath.Join(base, "anchors")}

	for start := range 2 {
		store, err := file.Open(filepath.Join(base, "keys"), options)
		if err != nil {
			panic(err)
		}
		if start == 0 {
			err := store.Put(ctx, true, keys.Entry{Name: "server", Params: oscore.Params{
				MasterSecret: []byte("sixteen random b"), SenderID: []byte{1}, RecipientID: []byte{2},
			}})
			if err != nil {
				panic(err)
			}
		}
		ring, err := store.Keyring(ctx)
		if err != nil {
			panic(err)
		}
		peer, _ := ring.Peer("server")
		var pending oscore.Pending
		if _, err := peer.SealRequest(nil, &pending, oscore.Message{Code: 1}); err != nil {
			panic(err)
		}
		fmt.Println(pending.PartialIV())
		if err := ring.Close(ctx); err != nil {
			panic(err)
		}
		if err := store.Close(); err != nil {
			panic(err)
		}
	}
	// Output:
	// 0
	// 64
}
