package lwm2m

import (
	"testing"

	"github.com/oscorelay/oscorelay/internal/floors"
)

func TestImports(t *testing.T) {
	floors.Imports(t, "std", "github.com/fxamacker/cbor/v2")
	floors.Never(t, "net", "os", "context", "time/tzdata", "log", "log/slog")
}
