package fragment

import (
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/oscorelay/oscorelay/internal/floors"
)

func TestImports(t *testing.T) {
	floors.Imports(t, "std", "./internal/sha256x2", "github.com/veraison/go-cose", "github.com/fxamacker/cbor/v2")
	floors.Never(t, "net", "os", "time", "context", "log", "log/slog", "crypto/x509")
}

// TestEverythingLinked holds what a device links with this package to the
// standard library, this module and the field's COSE and CBOR.
func TestEverythingLinked(t *testing.T) {
	goTool, err := exec.LookPath("go")
	if err != nil {
		t.Skip("needs the go command:", err)
	}
	out, err := exec.Command(goTool, "list", "-deps", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	allowed := []string{
		floors.Module + "/fragment", floors.Module + "/internal/sha256x2",
		"github.com/veraison/go-cose", "github.com/fxamacker/cbor/v2", "github.com/x448/float16",
	}
	for path := range strings.FieldsSeq(string(out)) {
		std := !strings.Contains(strings.Split(path, "/")[0], ".")
		if !std && !slices.Contains(allowed, path) || path == "net" || path == "crypto/x509" {
			t.Errorf("%s is linked in", path)
		}
	}
}
