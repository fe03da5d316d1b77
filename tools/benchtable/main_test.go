package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/oscorelay/oscorelay/internal/floors"
)

func TestImports(t *testing.T) { floors.Imports(t, "std") }

const output = `goos: linux
BenchmarkSeal/16-2   100  30 ns/op  0 B/op  0 allocs/op
BenchmarkSeal/16-2   100  50 ns/op  0 B/op  0 allocs/op
BenchmarkSeal/16-2   100  40 ns/op  0 B/op  0 allocs/op
BenchmarkSerialLimit/16-2   100  20 ns/op
BenchmarkOther-2   100  20000 ns/op  91.5 %pk
PASS
`

func TestTables(t *testing.T) {
	all := parse(strings.NewReader(output))
	var b bytes.Buffer
	bySize([]string{"Seal"}, "SerialLimit")(&b, all)
	if !strings.Contains(b.String(), "| 16 | 20 | 40 (2.00×) | 0 |\n") {
		t.Error(b.String())
	}
	b.Reset()
	plainTable(&b, all)
	if !strings.Contains(b.String(), "| Other | 20.0 µs | 0 | 91.5 %pk |\n") {
		t.Error(b.String())
	}
}

// A section whose means are not there says so, and runs nothing.
func TestAbsent(t *testing.T) {
	s := section{title: "Beside a peer", text: "In one run.", needs: t.TempDir() + "/peer", absent: "Not measured: no peer here."}
	var b bytes.Buffer
	if err := s.write(&b, 1, "1x"); err != nil || b.String() != "\n## Beside a peer\n\nIn one run.\n\nNot measured: no peer here.\n" {
		t.Errorf("%v %q", err, b.String())
	}
}
