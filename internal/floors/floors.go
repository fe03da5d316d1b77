// Package floors holds a package's imports to the floors of the house.
//
// Every package has a deps_test.go of a few lines that names what it may
// import of this module and of others; an import that is not named fails the
// test, so the one-way flow of docs/ARCHITECTURE.md stays a fact of the build.
package floors

import (
	"go/parser"
	"go/token"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// Module is this module's path.
const Module = "github.com/oscorelay/oscorelay"

// Imports fails the test if a non-test file of the package in the current
// directory imports anything beyond the allowed list. An entry is an import
// path, or one relative to this module when it starts with "./". The entry
// "std" allows the whole standard library; without it each standard package
// must be named too.
func Imports(t *testing.T, allowed ...string) {
	t.Helper()
	ok := map[string]bool{}
	for _, a := range allowed {
		if rest, found := strings.CutPrefix(a, "./"); found {
			a = Module + "/" + rest
		}
		ok[a] = true
	}
	for path, file := range imports(t) {
		std := !strings.Contains(strings.Split(path, "/")[0], ".")
		if ok[path] || std && ok["std"] {
			continue
		}
		t.Errorf("%s imports %s, which its floor does not allow", file, path)
	}
}

// Never fails the test if the package imports one of the given standard
// packages; it is the complement of "std" in [Imports].
func Never(t *testing.T, banned ...string) {
	t.Helper()
	for path, file := range imports(t) {
		if slices.Contains(banned, path) {
			t.Errorf("%s imports %s, which this package must do without", file, path)
		}
	}
}

// imports returns the import paths of the package's non-test files, each with
// one file that holds it.
func imports(t *testing.T) map[string]string {
	t.Helper()
	entries, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	for _, e := range entries {
		name := e.Name()
		if !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ImportsOnly)
		if err != nil {
			t.Fatal(err)
		}
		for _, spec := range f.Imports {
			path, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				t.Fatal(err)
			}
			found[path] = name
		}
	}
	return found
}
