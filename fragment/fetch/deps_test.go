package fetch

import (
	"testing"

	"github.com/oscorelay/oscorelay/internal/floors"
)

func TestImports(t *testing.T) {
	floors.Imports(t, "std", "./fragment", "./internal/coap")
	floors.Never(t, "os", "log", "log/slog")
}
