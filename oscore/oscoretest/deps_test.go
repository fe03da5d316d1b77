package oscoretest_test

import (
	"testing"

	"github.com/oscorelay/oscorelay/internal/floors"
)

func TestImports(t *testing.T) {
	floors.Imports(t, "std", "./internal/coap", "./internal/endpoint", "./keys", "./oscore")
	floors.Never(t, "net", "os", "log", "sync")
}
