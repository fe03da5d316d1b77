package sim

import (
	"testing"

	"github.com/oscorelay/oscorelay/internal/floors"
)

func TestImports(t *testing.T) {
	const gocoap = "github.com/plgd-dev/go-coap/v3"
	floors.Imports(t, "std", "./internal/coap", "./internal/sim/lwm2m", "./oscore/gocoap",
		gocoap+"/message", gocoap+"/message/codes", gocoap+"/message/pool", gocoap+"/mux", gocoap+"/net", gocoap+"/net/blockwise",
		gocoap+"/options", gocoap+"/udp", gocoap+"/udp/client", gocoap+"/udp/server")
}
