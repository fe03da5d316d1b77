package main

import (
	"testing"

	"github.com/oscorelay/oscorelay/internal/floors"
)

func TestImports(t *testing.T) {
	const gocoap = "github.com/plgd-dev/go-coap/v3"
	floors.Imports(t, "std", gocoap+"/message", gocoap+"/message/codes", gocoap+"/mux", gocoap+"/net", gocoap+"/options", gocoap+"/udp")
}
