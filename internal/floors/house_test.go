package floors

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// pkg is what go list tells of a package.
type pkg struct {
	ImportPath, Name, Dir, Doc string
	Standard                   bool
	Deps                       []string
	Module                     *struct{ Path string }
}

// list runs go list -json at the module's root.
func list(t *testing.T, args ...string) (out []pkg) {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list", "-json=ImportPath,Name,Dir,Doc,Standard,Deps,Module"}, args...)...)
	cmd.Dir = filepath.Join("..", "..")
	raw, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	d := json.NewDecoder(strings.NewReader(string(raw)))
	for d.More() {
		var p pkg
		if err := d.Decode(&p); err != nil {
			t.Fatal(err)
		}
		out = append(out, p)
	}
	return out
}

// TestEveryPackage: each has a package comment, and a test that holds its
// imports.
func TestEveryPackage(t *testing.T) {
	for _, p := range list(t, "./...") {
		if p.Doc == "" {
			t.Errorf("%s has no package comment", p.ImportPath)
		}
		if !holdsImports(t, p.Dir) {
			t.Errorf("%s has no test that holds its imports", p.ImportPath)
		}
	}
}

// holdsImports reports whether a package's tests call into this one.
func holdsImports(t *testing.T, dir string) bool {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		raw, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, call := range []string{"floors.Imports(", "\tImports(t,", "{ Imports(t,", "func TestFloors("} {
			if strings.Contains(string(raw), call) {
				return true
			}
		}
	}
	return false
}

// light is what a device's binary takes in from other modules.
var light = map[string][]string{
	"./oscore": {"golang.org/x/crypto", "golang.org/x/sys"},
	"./oscore/gocoap": {
		"github.com/dsnet/golib/memfile", "github.com/pion/dtls/v3", "github.com/pion/logging", "github.com/pion/transport/v4", "github.com/pion/transport/v5",
		"github.com/plgd-dev/go-coap/v3", "go.uber.org/atomic", "golang.org/x/crypto", "golang.org/x/exp", "golang.org/x/net", "golang.org/x/sync", "golang.org/x/sys",
	},
	"./oscore/oscoretest": {"golang.org/x/crypto", "golang.org/x/sys"},
	"./fragment":          {"github.com/fxamacker/cbor/v2", "github.com/veraison/go-cose", "github.com/x448/float16"},
	"./keys":              {"golang.org/x/crypto", "golang.org/x/sys"},
	"./keys/file":         {"golang.org/x/crypto", "golang.org/x/sys"},
	"./keys/edhoc":        {"github.com/fxamacker/cbor/v2", "github.com/veraison/go-cose", "github.com/x448/float16", "golang.org/x/crypto", "golang.org/x/sys"},
}

// TestDeviceSideIsLight: what people link pulls in the written list and no
// more, and of this module no store, command or laboratory.
func TestDeviceSideIsLight(t *testing.T) {
	for root, allowed := range light {
		for _, p := range list(t, "-deps", root) {
			switch {
			case p.Standard || p.Module == nil:
			case p.Module.Path == Module:
				for _, no := range []string{"/cmd/", "/internal/lab", "/internal/mallory", "/internal/demo", "/interop", "/tools/", "/testvectors"} {
					if strings.Contains(p.ImportPath, no) {
						t.Errorf("%s pulls in %s", root, p.ImportPath)
					}
				}
			case !slices.Contains(allowed, p.Module.Path):
				t.Errorf("%s pulls in %s of %s, which is not on its list", root, p.ImportPath, p.Module.Path)
			}
		}
	}
}

// TestDependenciesAreExplained: every module that go.mod requires directly has
// a line in docs/DEPENDENCIES.md.
func TestDependenciesAreExplained(t *testing.T) {
	doc, err := os.ReadFile(filepath.Join("..", "..", "docs", "DEPENDENCIES.md"))
	if err != nil {
		t.Fatal(err)
	}
	mod, err := os.ReadFile(filepath.Join("..", "..", "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mod)) {
		f := strings.Fields(line)
		if len(f) != 2 || !strings.HasPrefix(f[1], "v") || strings.Contains(line, "indirect") {
			continue
		}
		if !strings.Contains(string(doc), fmt.Sprintf("| `%s` |", f[0])) {
			t.Errorf("docs/DEPENDENCIES.md has no line for %s", f[0])
		}
	}
}

// TestFilesAreConcepts: no program file is longer than a reader can hold.
func TestFilesAreConcepts(t *testing.T) {
	for _, p := range list(t, "./...") {
		names, err := filepath.Glob(filepath.Join(p.Dir, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			raw, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			if n := strings.Count(string(raw), "\n"); n > 700 && !strings.HasSuffix(name, "_test.go") {
				t.Errorf("%s has %d lines: is it one concept?", name, n)
			}
		}
	}
}
