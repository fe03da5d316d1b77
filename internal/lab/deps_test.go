package lab

import (
	"testing"

	"github.com/oscorelay/oscorelay/internal/floors"
)

func TestImports(t *testing.T) {
	floors.Imports(t, "std", "./internal/coap", "./internal/demo", "./internal/mallory", "./internal/sim", "./internal/sim/lwm2m", "./keys", "./keys/edhoc", "./keys/file", "./keys/handshake", "./keys/keyfile", "./oscore", "./oscore/gocoap",
		"github.com/plgd-dev/go-coap/v3/net", "github.com/plgd-dev/go-coap/v3/options", "github.com/plgd-dev/go-coap/v3/udp")
}
