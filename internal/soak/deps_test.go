package soak

import (
	"testing"

	"github.com/oscorelay/oscorelay/internal/floors"
)

// The witness shares no code with what it judges.
func TestImports(t *testing.T) { floors.Imports(t, "std", "./internal/capture") }
