package ours

import (
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"github.com/oscorelay/oscorelay/interop/peer"
)

// Program starts one of this repository's commands, such as "oscore-proxy".
func Program(t testing.TB, name string, args ...string) *peer.Process {
	t.Helper()
	return peer.Start(t, peer.Spec{Name: name, Path: built(t, name), Args: args})
}

var programs struct {
	sync.Mutex
	dir string
}

// built gives the command's file; it is built once for each test process.
func built(t testing.TB, name string) string {
	t.Helper()
	programs.Lock()
	defer programs.Unlock()
	if programs.dir == "" {
		dir, err := os.MkdirTemp("", "oscorelay-interop-")
		if err != nil {
			t.Fatal(err)
		}
		programs.dir = dir
	}
	file := filepath.Join(programs.dir, name)
	if _, err := os.Stat(file); err == nil {
		return file
	}
	build := exec.Command("go", "build", "-o", file, "./cmd/"+name)
	build.Dir = peer.Root(t)
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build ./cmd/%s: %v\n%s", name, err, out)
	}
	return file
}

// RemovePrograms removes what Program built, at the end of all tests.
func RemovePrograms() {
	programs.Lock()
	defer programs.Unlock()
	if programs.dir != "" {
		_ = os.RemoveAll(programs.dir)
	}
}
