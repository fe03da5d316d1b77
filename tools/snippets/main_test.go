package main

import (
	"slices"
	"testing"
)

func TestBlocks(t *testing.T) {
	scripts, programs := blocks("a\n```sh\none\ntwo\n```\n```go\nx := 1\n```\n```go\npackage main\n```\n<!-- not run: why -->\n```sh\nthree\n```\n```\nfour\n```\n```sh\nfive\n```\n")
	if !slices.Equal(scripts, []string{"one\ntwo", "five"}) || !slices.Equal(programs, []string{"package main\n"}) {
		t.Errorf("%q %q", scripts, programs)
	}
}
