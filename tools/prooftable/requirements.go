package main

import (
	"fmt"
	"slices"
	"strings"
)

func renderRequirements(proofs []proof, _ string) (string, error) {
	by := map[string]map[string][]string{} // row, path, tests
	known := map[string]bool{}
	for _, r := range rows {
		known[r.id] = true
	}
	for _, p := range proofs {
		if p.kind != "requirement" {
			continue
		}
		for _, id := range strings.Split(p.fields["rows"], ",") {
			if !known[id] {
				return "", fmt.Errorf("%s proves row %q, which is not in tools/prooftable/rows.go", p.test, id)
			}
			if by[id] == nil {
				by[id] = map[string][]string{}
			}
			path := p.fields["path"]
			by[id][path] = append(by[id][path], p.test)
		}
	}
	t := &table{head: []string{"row", "requirement", "path", "proven by"}}
	proven, openRows, out := 0, 0, 0
	for _, r := range rows {
		switch paths := sortedKeys(by[r.id]); {
		case len(paths) > 0:
			proven++
			for _, path := range paths {
				t.add(r.id, r.title, path, tests(by[r.id][path]))
			}
		case r.outside:
			out++
			t.add(r.id, r.title, "", outside)
		default:
			openRows++
			t.add(r.id, r.title, "", open)
		}
	}
	return "# Requirements\n\n" + generated +
		"The rows are those of OMA's LwM2M Requirements 1.1, in our own words. A row is proven on a path when a test\n" +
		"between real parties on that path has passed; *outside* are rows of the client's data model and timers, which\n" +
		"need nothing of this layer but to be carried.\n\n" +
		fmt.Sprintf("%d rows: %d proven on some path, %d open, %d outside.\n\n", len(rows), proven, openRows, out) +
		t.String(), nil
}

// claimsRequirements reads row and path of every proven line.
func claimsRequirements(doc string) []string {
	return claims(doc, func(c []string) string {
		if len(c) != 4 || c[0] == "row" || c[3] == open || c[3] == outside {
			return ""
		}
		return "row " + c[0] + " on path " + c[2]
	})
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
