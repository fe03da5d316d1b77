package peer

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// GoCoapServer starts go-coap's server in a process of its own, where nothing
// has taught it OSCORE, and gives its version.
func GoCoapServer(t testing.TB, port uint16) (version string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "unaware")
	build := exec.Command("go", "build", "-o", file, "./interop/unaware")
	build.Dir = Root(t)
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build ./interop/unaware: %v\n%s", err, out)
	}
	list := exec.Command("go", "list", "-m", "-f", "{{.Version}}", "github.com/plgd-dev/go-coap/v3")
	list.Dir = Root(t)
	out, err := list.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	Start(t, Spec{Name: "go-coap server", Path: file, Args: []string{Loopback(port).String()}}).AwaitPing(port)
	return "go-coap " + strings.TrimPrefix(strings.TrimSpace(string(out)), "v")
}
