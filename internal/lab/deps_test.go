package lab

import (
	"testing"

	"github.com/oscorelay/oscorelay/internal/floors"
)

func TestImports(t *testing.T) {
	floors.Imports(t, "std", "./internal/coap", "./internal/demo", "./internal/mallory", "./keys", "./keys/file", "./oscore")
}
