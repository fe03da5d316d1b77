package ours

import (
	"testing"

	"github.com/oscorelay/oscorelay/internal/floors"
)

func TestImports(t *testing.T) {
	const gocoap = "github.com/plgd-dev/go-coap/v3"
	floors.Imports(t, "std", "./internal/sim", "./internal/sim/lwm2m", "./interop/peer", "./keys", "./keys/keyfile", "./oscore", "./oscore/gocoap",
		gocoap+"/message", gocoap+"/message/codes", gocoap+"/message/pool", gocoap+"/mux", gocoap+"/net",
		gocoap+"/options", gocoap+"/tcp", gocoap+"/udp")
}
