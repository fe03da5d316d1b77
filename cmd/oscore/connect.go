package main

import (
	"github.com/plgd-dev/go-coap/v3/mux"
	"github.com/plgd-dev/go-coap/v3/tcp"
	"github.com/plgd-dev/go-coap/v3/udp"
)

// dialUDP and dialTCP return go-coap's connections as what the binding takes.
func dialUDP(address string, opts ...udp.Option) (mux.Conn, error) { return udp.Dial(address, opts...) }

func dialTCP(address string, opts ...tcp.Option) (mux.Conn, error) { return tcp.Dial(address, opts...) }
