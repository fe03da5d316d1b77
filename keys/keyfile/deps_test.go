package keyfile

import (
	"testing"

	"github.com/oscorelay/oscorelay/internal/floors"
)

func TestImports(t *testing.T) {
	floors.Imports(t, "std", "./keys", "./oscore", "github.com/pelletier/go-toml/v2")
	floors.Never(t, "net", "log")
}
