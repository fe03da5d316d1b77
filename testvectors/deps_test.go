package testvectors

import (
	"encoding/json"
	"testing"

	"github.com/oscorelay/oscorelay/internal/floors"
)

func TestImports(t *testing.T) { floors.Imports(t, "embed") }

func TestFilesAreJSON(t *testing.T) {
	entries, err := FS.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		raw, err := FS.ReadFile(e.Name())
		if err != nil {
			t.Fatal(err)
		}
		if !json.Valid(raw) {
			t.Errorf("%s is not JSON", e.Name())
		}
	}
}
