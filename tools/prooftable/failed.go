package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"strings"
)

// printFailed writes, of go test -json's output, what the failed tests and
// packages said, so that a run whose output went to a file can be read.
func printFailed(in io.Reader, out io.Writer) error {
	said := map[string]*strings.Builder{}
	s := bufio.NewScanner(in)
	s.Buffer(nil, 16<<20)
	for s.Scan() {
		var e struct{ Action, Package, ImportPath, Test, Output string }
		if json.Unmarshal(s.Bytes(), &e) != nil {
			fmt.Fprintln(out, s.Text()) // not an event: go's own complaint
			continue
		}
		key := e.Package + e.ImportPath + " " + e.Test
		switch e.Action {
		case "output", "build-output":
			if said[key] == nil {
				said[key] = &strings.Builder{}
			}
			said[key].WriteString(e.Output)
		case "fail", "build-fail":
			if b := said[key]; b != nil {
				fmt.Fprintf(out, "%s\n%s", key, b)
			}
		}
	}
	return s.Err()
}
