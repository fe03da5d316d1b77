package main

import (
	"fmt"
	"slices"
	"strings"
)

// open marks what no test proves, outside what needs no proof here.
const (
	open    = "open"
	outside = "outside"
)

// table is a Markdown table.
type table struct {
	head []string
	rows [][]string
}

func (t *table) add(cells ...string) { t.rows = append(t.rows, cells) }

func (t *table) String() string {
	var b strings.Builder
	line := func(cells []string) {
		escaped := make([]string, len(cells))
		for i, c := range cells {
			escaped[i] = strings.ReplaceAll(c, "|", `\|`)
		}
		fmt.Fprintf(&b, "| %s |\n", strings.Join(escaped, " | "))
	}
	line(t.head)
	b.WriteString(strings.Repeat("|---", len(t.head)) + "|\n")
	for _, r := range t.rows {
		line(r)
	}
	return b.String()
}

// cells reads a table row back; nil for any other line.
func cells(line string) []string {
	if !strings.HasPrefix(line, "| ") || !strings.HasSuffix(line, " |") {
		return nil
	}
	line = strings.ReplaceAll(line[2:len(line)-2], `\|`, "\x00")
	c := strings.Split(line, " | ")
	for i := range c {
		c[i] = strings.ReplaceAll(c[i], "\x00", "|")
	}
	return c
}

// named bounds how many tests a cell names.
const named = 3

// tests writes a cell of tests: sorted, once each, the first few by name.
func tests(names []string) string {
	names = slices.Clone(names)
	slices.Sort(names)
	names = slices.Compact(names)
	more := ""
	if n := len(names) - named; n > 0 {
		more = fmt.Sprintf(" and %d more", n)
		names = names[:named]
	}
	return "`" + strings.Join(names, "`, `") + "`" + more
}
