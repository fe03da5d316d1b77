// Command unaware is a go-coap server that knows nothing of OSCORE: whoever
// imports oscore/gocoap has none such in the same process, since go-coap's
// table of options is global.
//
//	unaware 127.0.0.1:5683
//
// It serves /oscore/hello/1 and prints READY when it listens.
package main

import (
	"bytes"
	"fmt"
	"os"

	"github.com/plgd-dev/go-coap/v3/message"
	"github.com/plgd-dev/go-coap/v3/message/codes"
	"github.com/plgd-dev/go-coap/v3/mux"
	coapnet "github.com/plgd-dev/go-coap/v3/net"
	"github.com/plgd-dev/go-coap/v3/options"
	"github.com/plgd-dev/go-coap/v3/udp"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "unaware:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("usage: unaware HOST:PORT")
	}
	r := mux.NewRouter()
	err := r.Handle("/oscore/hello/1", mux.HandlerFunc(func(w mux.ResponseWriter, m *mux.Message) {
		fmt.Println("HANDLED", m.Code(), "/oscore/hello/1 sealed=false")
		_ = w.SetResponse(codes.Content, message.TextPlain, bytes.NewReader([]byte("Hello World!")))
	}))
	if err != nil {
		return err
	}
	l, err := coapnet.NewListenUDP("udp4", args[0])
	if err != nil {
		return err
	}
	defer l.Close()
	fmt.Println("READY")
	return udp.NewServer(options.WithMux(r)).Serve(l)
}
