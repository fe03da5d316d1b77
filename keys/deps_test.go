package keys

import (
	"testing"

	"github.com/oscorelay/oscorelay/internal/floors"
)

func TestImports(t *testing.T) {
	floors.Imports(t, "std", "./oscore")
	floors.Never(t, "os", "net", "log")
}
