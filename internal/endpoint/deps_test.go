package endpoint

import (
	"testing"

	"github.com/oscorelay/oscorelay/internal/floors"
)

func TestImports(t *testing.T) {
	floors.Imports(t, "std", "./internal/coap", "./internal/rate", "./oscore")
	floors.Never(t, "net", "os", "context", "log", "log/slog")
}
