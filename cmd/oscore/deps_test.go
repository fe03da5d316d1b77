package main

import (
	"os/exec"
	"strings"
	"testing"
)

// TestFloors: the tool stands on top; what it must not take in are test
// harnesses.
func TestFloors(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	for path := range strings.Lines(string(out)) {
		for _, no := range []string{"/interop", "/internal/proof", "/keys/keystest", "go-internal/testscript"} {
			if strings.Contains(path, "oscorelay"+no) || strings.Contains(path, "rogpeppe"+no) {
				t.Errorf("the tool takes in %s", strings.TrimSpace(path))
			}
		}
	}
}
