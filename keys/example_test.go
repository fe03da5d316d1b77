package keys_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/oscorelay/oscorelay/keys"
	"github.com/oscorelay/oscorelay/oscore"
)

// Two ends of a key that was just agreed on. A program that has to survive its
// process takes a store of package keys/file in place of the one in memory.
func Example() {
	ctx := context.Background()
	entry := keys.Entry{Name: "boiler", Params: oscore.Params{
		MasterSecret: []byte("sixteen random b"), SenderID: []byte{1}, RecipientID: []byte{2},
	}}
	here, there := keys.New(keys.NewMemory()), keys.New(keys.NewMemory())
	client, err := here.AddNew(ctx, entry)
	if err != nil {
		panic(err)
	}
	if _, err := there.AddNew(ctx, entry.Peer()); err != nil {
		panic(err)
	}

	var pending oscore.Pending
	sealed, err := client.SealRequest(nil, &pending, oscore.Message{Code: 1, Body: []byte("\xb4temp")})
	if err != nil {
		panic(err)
	}
	peers, match := there.Find(nil, []byte{1}, nil)
	fmt.Println(match, peers[0].Name())
	var request oscore.Request
	opened, err := peers[0].OpenRequest(nil, &request, sealed)
	fmt.Printf("%q %v\n", opened.Body, err)
	_, err = peers[0].OpenRequest(nil, &request, sealed)
	fmt.Println(err)
	// Output:
	// kid boiler
	// "\xb4temp" <nil>
	// oscore: replay detected
}

// Material of which nobody knows where it was used opens messages but seals
// none, until both ends agree on a new context.
func ExampleTaintError() {
	ring := keys.New(keys.NewMemory())
	peer, err := ring.Add(context.Background(), keys.Entry{Name: "copied", Params: oscore.Params{
		MasterSecret: []byte("sixteen random b"), SenderID: []byte{1}, RecipientID: []byte{2},
	}})
	if err != nil {
		panic(err)
	}
	var pending oscore.Pending
	_, err = peer.SealRequest(nil, &pending, oscore.Message{Code: 1})
	fmt.Println(errors.Is(err, keys.ErrTainted))
	// Output: true
}
