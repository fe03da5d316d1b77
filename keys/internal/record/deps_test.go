package record

import (
	"testing"

	"github.com/oscorelay/oscorelay/internal/floors"
)

func TestImports(t *testing.T) {
	floors.Imports(t, "std", "./keys", "./oscore")
	floors.Never(t, "net", "log")
}
