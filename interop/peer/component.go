package peer

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Component gives the folder of an installed component (aiocoap, californium,
// …). If it is missing the test is skipped with the set-up's reason, or fails
// when INTEROP_STRICT=1.
func Component(t testing.TB, name string) string {
	t.Helper()
	dir := filepath.Join(Root(t), ".interop", name)
	if _, err := os.Stat(filepath.Join(dir, "stamp")); err == nil {
		return dir
	}
	reason := "not installed; run make interop-setup"
	if b, err := os.ReadFile(dir + ".missing"); err == nil {
		reason = "could not be installed: " + strings.TrimSpace(string(b))
	}
	if s := os.Getenv("INTEROP_STRICT"); s != "" && s != "0" {
		t.Fatalf("%s %s (INTEROP_STRICT is set)", name, reason)
	}
	t.Skipf("%s %s", name, reason)
	return ""
}

// Version gives what is installed, for example "aiocoap 0.4.17"; of a
// component with several programs the one that is named.
func Version(t testing.TB, name string, program ...string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(Component(t, name), "VERSION"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if len(program) == 0 || strings.HasPrefix(line, program[0]+" ") {
			return strings.TrimSpace(line)
		}
	}
	t.Fatalf("%s: no version of %v in %q", name, program, b)
	return ""
}

// Root gives the root of the repository.
func Root(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for ; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		if dir == filepath.Dir(dir) {
			t.Fatal("no go.mod above the working directory")
		}
	}
}

// source gives a file or folder of a peer's program in interop/.
func source(t testing.TB, parts ...string) string {
	t.Helper()
	return filepath.Join(append([]string{Root(t), "interop"}, parts...)...)
}
