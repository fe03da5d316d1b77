package main

import (
	"bytes"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/oscorelay/oscorelay/internal/explain"
)

// FuzzPrintReport holds that whatever a peer sent is printed in 80 columns and
// without control characters, which could fool a terminal.
func FuzzPrintReport(f *testing.F) {
	f.Add([]byte("\x44\x02\x5d\x1f\x00\x00\x39\x74\x39localhost\x62\x09\x14\xff\x61\x2f\x10\x92\xf1\x77\x6f\x1c\x16\x68\xb3\x82\x5e"))
	f.Add([]byte("\x40\x45\x00\x00\xc1\x3c\xffhello \x1b[31m"))
	f.Add([]byte("\x40\x45\x00\x00\xff" + strings.Repeat("wide 漢字 ", 30)))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := explain.NewSession(nil, false)
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		printReport(&out, s.Datagram(b), true)
		printOption9(&out, explain.OptionValue(b), true)
		for line := range strings.SplitSeq(out.String(), "\n") {
			if utf8.RuneCountInString(line) > 80 {
				t.Fatalf("%d characters: %q", utf8.RuneCountInString(line), line)
			}
			if strings.ContainsFunc(line, func(r rune) bool { return r < ' ' || r == 0x7f }) {
				t.Fatalf("control character in %q", line)
			}
		}
	})
}
