package main

import (
	_ "embed"
	"strings"
)

// checklistText holds a line per item: id, RFC, section, level, role and the
// requirement in our own words, separated by tabs.
//
//go:embed checklist.tsv
var checklistText string

// item is a normative sentence of an RFC.
type item struct{ id, rfc, section, level, role, text string }

var checklist = func() []item {
	var all []item
	for line := range strings.Lines(checklistText) {
		f := strings.Split(strings.TrimSpace(line), "\t")
		if len(f) != 6 {
			panic("prooftable: checklist.tsv: six fields a line, not: " + line)
		}
		all = append(all, item{f[0], f[1], f[2], f[3], f[4], f[5]})
	}
	return all
}()
