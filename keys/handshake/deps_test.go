package handshake

import (
	"testing"

	"github.com/oscorelay/oscorelay/internal/floors"
)

func TestImports(t *testing.T) {
	floors.Imports(t, "std", "./internal/coap", "./internal/endpoint", "./internal/rate", "./keys", "./keys/edhoc", "./oscore")
	floors.Never(t, "net", "os", "log", "log/slog")
}
