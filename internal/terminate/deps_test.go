package terminate

import (
	"testing"

	"github.com/oscorelay/oscorelay/internal/floors"
)

func TestImports(t *testing.T) {
	floors.Imports(t, "std", "github.com/fxamacker/cbor/v2", "./internal/coap", "./internal/coap/message", "./internal/endpoint", "./internal/udp", "./keys", "./keys/bolt", "./oscore")
}
