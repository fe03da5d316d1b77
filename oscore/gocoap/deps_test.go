package gocoap

import (
	"testing"

	"github.com/oscorelay/oscorelay/internal/floors"
)

func TestImports(t *testing.T) {
	const gocoap = "github.com/plgd-dev/go-coap/v3"
	floors.Imports(t, "std", "./internal/coap", "./internal/endpoint", "./oscore",
		gocoap+"/dtls/server", gocoap+"/message", gocoap+"/message/codes", gocoap+"/message/pool", gocoap+"/mux",
		gocoap+"/net", gocoap+"/net/blockwise", gocoap+"/pkg/errors", gocoap+"/options", gocoap+"/options/config",
		gocoap+"/tcp", gocoap+"/tcp/client", gocoap+"/tcp/server", gocoap+"/udp", gocoap+"/udp/client", gocoap+"/udp/server")
}
