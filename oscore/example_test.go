package oscore_test

import (
	"fmt"

	"github.com/oscorelay/oscorelay/oscore"
)

// A request and its response, byte for byte. A body is a CoAP message from the
// options on; transport, token and message type are the caller's.
func Example() {
	params := oscore.Params{
		MasterSecret: oscore.Secret("a secret of sixteen bytes or more"),
		SenderID:     []byte{0x01},
		RecipientID:  []byte{0x02},
	}
	client, err := oscore.New(params)
	if err != nil {
		panic(err)
	}
	server, err := oscore.New(params.Swap())
	if err != nil {
		panic(err)
	}
	// Both are new: no number was ever used, no message ever received.
	client.Begin()
	server.Begin()

	// GET /temp
	var pending oscore.Pending
	sealed, err := client.SealRequest(nil, &pending, oscore.Message{Code: 0x01, Body: []byte("\xb4temp")})
	if err != nil {
		panic(err)
	}
	fmt.Printf("on the wire: code %x, %d bytes\n", sealed.Code, len(sealed.Body))

	var request oscore.Request
	opened, err := server.OpenRequest(nil, &request, sealed)
	if err != nil {
		panic(err)
	}
	fmt.Printf("server: code %x, body %q\n", opened.Code, opened.Body)

	// 2.05 Content, "20.5"
	answer, err := request.Seal(nil, oscore.Message{Code: 0x45, Body: []byte("\xff20.5")})
	if err != nil {
		panic(err)
	}
	opened, err = pending.Open(nil, answer)
	if err != nil {
		panic(err)
	}
	fmt.Printf("client: code %x, body %q\n", opened.Code, opened.Body)

	_, err = server.OpenRequest(nil, &request, sealed)
	fmt.Println("again:", err)
	// Output:
	// on the wire: code 2, 19 bytes
	// server: code 1, body "\xb4temp"
	// client: code 45, body "\xff20.5"
	// again: oscore: replay detected
}
