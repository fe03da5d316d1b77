package file

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/oscorelay/oscorelay/internal/floors"
)

func TestImports(t *testing.T) {
	floors.Imports(t, "std", "./keys", "./keys/internal/anchor", "./keys/internal/disk", "./keys/internal/record", "./keys/internal/vault", "./oscore")
	floors.Never(t, "net", "log", "database/sql")
}

// TestEverythingLinked holds what a device links with this package to the
// standard library, this module, and two small modules of the Go project.
func TestEverythingLinked(t *testing.T) {
	goTool, err := exec.LookPath("go")
	if err != nil {
		t.Skip("needs the go command:", err)
	}
	out, err := exec.Command(goTool, "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	for path := range strings.FieldsSeq(string(out)) {
		ok := false
		for _, prefix := range []string{floors.Module + "/", "golang.org/x/sys/", "golang.org/x/crypto/"} {
			ok = ok || strings.HasPrefix(path, prefix)
		}
		if !ok {
			t.Errorf("%s is linked in", path)
		}
	}
}
