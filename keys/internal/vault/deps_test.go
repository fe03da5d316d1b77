package vault

import (
	"testing"

	"github.com/oscorelay/oscorelay/internal/floors"
)

func TestImports(t *testing.T) {
	floors.Imports(t, "std", "./keys", "./keys/internal/disk", "./oscore")
	floors.Never(t, "net", "log")
}
