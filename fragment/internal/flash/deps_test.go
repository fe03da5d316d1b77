package flash

import (
	"testing"

	"github.com/oscorelay/oscorelay/internal/floors"
)

func TestImports(t *testing.T) { floors.Imports(t, "io") }
