package gocoap_test

import (
	"context"
	"slices"
	"testing"

	"github.com/oscorelay/oscorelay/oscore/gocoap"
	"github.com/plgd-dev/go-coap/v3/message"
	"github.com/plgd-dev/go-coap/v3/message/codes"
	"github.com/plgd-dev/go-coap/v3/mux"
)

// A handler learns who sent a request and under which number.
func TestHandlerNamesTheRequest(t *testing.T) {
	numbers := make(chan uint64, 10)
	w := newWorld(t, setup{handler: mux.HandlerFunc(func(rw mux.ResponseWriter, m *mux.Message) {
		if peer, ok := gocoap.Peer(m.Context()); !ok || peer != "client" {
			t.Errorf("peer %q, %v", peer, ok)
		}
		n, ok := gocoap.PartialIV(m.Context())
		if !ok {
			t.Error("no Partial IV")
		}
		numbers <- n
		_ = rw.SetResponse(codes.Content, message.TextPlain, nil)
	})})
	var got []uint64
	for range 3 {
		resp, err := w.client.Get(w.ctx, "/x")
		if err != nil {
			t.Fatal(err)
		}
		w.client.ReleaseMessage(resp)
		got = append(got, <-numbers)
	}
	if !slices.Equal(got, []uint64{0, 1, 2}) {
		t.Errorf("Partial IVs %v", got)
	}
	if _, ok := gocoap.PartialIV(context.Background()); ok {
		t.Error("a Partial IV where there is no request")
	}
	if _, ok := gocoap.Peer(context.Background()); ok {
		t.Error("a peer where there is no request")
	}
}
