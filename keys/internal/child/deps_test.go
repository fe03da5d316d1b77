package child

import (
	"testing"

	"github.com/oscorelay/oscorelay/internal/floors"
)

func TestImports(t *testing.T) {
	floors.Imports(t, "std")
	floors.Never(t, "net", "log")
}
