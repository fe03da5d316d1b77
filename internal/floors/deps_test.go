package floors

import "testing"

func TestImports(t *testing.T) { Imports(t, "std") }
