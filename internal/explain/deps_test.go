package explain

import (
	"testing"

	"github.com/oscorelay/oscorelay/internal/floors"
)

func TestImports(t *testing.T) {
	floors.Imports(t, "std", "./internal/coap", "./oscore", "github.com/fxamacker/cbor/v2")
	floors.Never(t, "net", "os", "time", "sync", "context", "log", "log/slog")
}
