package fragment

import (
	"testing"

	"github.com/oscorelay/oscorelay/internal/floors"
)

func TestImports(t *testing.T) {
	floors.Imports(t, "std", "./internal/sha256x2", "github.com/veraison/go-cose", "github.com/fxamacker/cbor/v2")
	floors.Never(t, "net", "os", "time", "context", "log", "log/slog", "crypto/x509")
}
