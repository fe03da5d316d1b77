package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/oscorelay/oscorelay/internal/lab"
)

// TestLabPrinter: every part has a heading, a failure stands out and again at the
// end.
func TestLabPrinter(t *testing.T) {
	var out bytes.Buffer
	p := &labPrinter{out: &out}
	for i, x := range labParts {
		p.row(lab.Row{N: i + 1, Part: x.part, Step: "step", Verdict: "1 time", Saw: "2 of 3-4 B", OK: x.part != lab.PartKill})
		if !strings.Contains(out.String(), x.heading) || !strings.Contains(out.String(), x.title) {
			t.Errorf("no heading of %s", x.part)
		}
	}
	p.closing(1500 * time.Millisecond)
	for _, want := range []string{
		"\n  1 OK   step                        1 time                               2 of 3-4 B\n", "\n  2 FAIL step ", "WHO COULD SEE WHAT",
		"\n1 of 7 rows FAIL, in 1.5 s:\n  2 step: 1 time\n",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
}
