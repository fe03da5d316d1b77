package oscoretest_test

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/oscorelay/oscorelay/oscore/gocoap"
	"github.com/oscorelay/oscorelay/oscore/oscoretest"
	"github.com/plgd-dev/go-coap/v3/message"
	"github.com/plgd-dev/go-coap/v3/message/codes"
	"github.com/plgd-dev/go-coap/v3/mux"
	coapnet "github.com/plgd-dev/go-coap/v3/net"
	"github.com/plgd-dev/go-coap/v3/udp"
)

// A program on go-coap takes the keys alone and puts its own sockets between.
func ExampleKeyrings() {
	client, server := oscoretest.Keyrings(t)
	l, err := coapnet.NewListenUDP("udp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	defer l.Close()
	s := udp.NewServer(gocoap.New(gocoap.Config{Keyring: server}).UDPServer(mux.HandlerFunc(func(w mux.ResponseWriter, r *mux.Message) {
		peer, _ := gocoap.Peer(r.Context())
		_ = w.SetResponse(codes.Content, message.TextPlain, strings.NewReader("hello, "+peer))
	}))...)
	defer s.Stop()
	go func() { _ = s.Serve(l) }()

	c, err := gocoap.New(gocoap.Config{Keyring: client}).DialUDP(l.LocalAddr().String(), "server", nil)
	if err != nil {
		panic(err)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	answer, err := c.Get(ctx, "/")
	if err != nil {
		panic(err)
	}
	body, err := answer.ReadBody()
	fmt.Printf("%s %v\n", body, err)
	// Output: hello, client <nil>
}
