package gocoap_test

import (
	"context"
	"testing"
	"time"

	"github.com/oscorelay/oscorelay/oscore/gocoap"
	"github.com/plgd-dev/go-coap/v3/options"
	"github.com/plgd-dev/go-coap/v3/udp"
)

// go-coap comes back upon message IDs of its own that are under way; a request
// takes the next one then, and is not lost.
func TestMessageIDUnderWay(t *testing.T) {
	w := newWorld(t, setup{client: gocoap.Config{}})
	conn, err := udp.Dial(w.relay.addr(), append(w.cep.UDPClient(nil), options.WithTransmission(8, 10*time.Second, 4))...)
	if err != nil {
		t.Fatal(err)
	}
	client := w.cep.Client(conn, "server")
	t.Cleanup(func() {
		client.Close()
		<-client.Done()
	})
	ctx, cancel := context.WithTimeout(w.ctx, 5*time.Second)
	defer cancel()
	get := func() {
		t.Helper()
		resp, err := client.Get(ctx, "/one")
		if err != nil {
			t.Fatal(err)
		}
		client.ReleaseMessage(resp)
	}
	get()
	w.relay.set(func(datagram) [][]byte { return nil })
	// What is under way beside requests: here a ping, with devices a notification.
	cancelPing, err := conn.AsyncPing(func() {})
	if err != nil {
		t.Fatal(err)
	}
	defer cancelPing()
	under := w.relay.await(1, func(d datagram) bool { return d.from == fromClient && d.empty() })[0].MessageID
	w.relay.set(nil)
	for conn.GetMessageID() != (under-1)&0xffff { // all the way around
	}
	get()
}
