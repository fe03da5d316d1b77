package oscore

import (
	"testing"

	"github.com/oscorelay/oscorelay/internal/floors"
)

func TestImports(t *testing.T) {
	floors.Imports(t, "std", "./internal/ccm", "./internal/coap", "golang.org/x/crypto/chacha20poly1305")
	floors.Never(t, "net", "os", "time", "sync", "context", "log", "log/slog")
}
