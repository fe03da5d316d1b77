package object5

import (
	"testing"

	"github.com/oscorelay/oscorelay/internal/floors"
)

func TestImports(t *testing.T) {
	floors.Imports(t, "std", "./fragment")
	floors.Never(t, "net", "os", "time")
}
