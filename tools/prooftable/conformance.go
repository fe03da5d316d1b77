package main

import (
	"fmt"
	"strings"
)

func renderConformance(proofs []proof, _ string) (string, error) {
	by := map[string][]string{}
	known := map[string]bool{}
	for _, i := range checklist {
		known[i.id] = true
	}
	for _, p := range proofs {
		if p.kind != "checklist" {
			continue
		}
		for _, id := range strings.Split(p.fields["ids"], ",") {
			if !known[id] {
				return "", fmt.Errorf("%s shows item %q, which is not in tools/prooftable/checklist.tsv", p.test, id)
			}
			by[id] = append(by[id], p.test)
		}
	}
	var b strings.Builder
	b.WriteString("# Conformance\n\n" + generated)
	b.WriteString("Every normative sentence of RFC 8613, and those of RFC 9175 and RFC 9668 that concern an OSCORE endpoint or a\n" +
		"proxy, in our own words, with the tests that show it.\n\n")
	fmt.Fprintf(&b, "%d items: %d shown, %d open.\n", len(checklist), len(by), len(checklist)-len(by))
	var t *table
	for i, it := range checklist {
		if i == 0 || checklist[i-1].rfc != it.rfc {
			if t != nil {
				b.WriteString(t.String())
			}
			fmt.Fprintf(&b, "\n## %s\n\n", it.rfc)
			t = &table{head: []string{"id", "section", "level", "role", "requirement", "shown by"}}
		}
		shown := open
		if len(by[it.id]) > 0 {
			shown = tests(by[it.id])
		}
		t.add(it.id, it.section, it.level, it.role, it.text, shown)
	}
	b.WriteString(t.String())
	return b.String(), nil
}

func claimsConformance(doc string) []string {
	return claims(doc, func(c []string) string {
		if len(c) != 6 || c[0] == "id" || c[5] == open {
			return ""
		}
		return "item " + c[0]
	})
}
