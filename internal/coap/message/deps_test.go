package message

import (
	"testing"

	"github.com/oscorelay/oscorelay/internal/floors"
)

func TestImports(t *testing.T) {
	floors.Imports(t, "std", "./internal/coap")
	floors.Never(t, "net", "os", "sync", "context", "log", "log/slog")
}
