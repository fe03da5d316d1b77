package edhoc

import (
	"testing"

	"github.com/oscorelay/oscorelay/internal/floors"
)

func TestImports(t *testing.T) {
	floors.Imports(t, "std", "./internal/ccm", "./oscore",
		"github.com/fxamacker/cbor/v2", "github.com/veraison/go-cose", "golang.org/x/crypto/chacha20poly1305")
	floors.Never(t, "net", "os", "context", "log")
}
