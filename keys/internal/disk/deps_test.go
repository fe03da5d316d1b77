package disk

import (
	"testing"

	"github.com/oscorelay/oscorelay/internal/floors"
)

func TestImports(t *testing.T) {
	floors.Imports(t, "std", "golang.org/x/sys/unix", "golang.org/x/sys/windows")
	floors.Never(t, "net", "log")
}
