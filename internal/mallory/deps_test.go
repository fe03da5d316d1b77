package mallory

import (
	"testing"

	"github.com/oscorelay/oscorelay/internal/floors"
)

// A hostile intermediary holds no key: it may not even import what could use one.
func TestImports(t *testing.T) { floors.Imports(t, "std", "./internal/coap") }
