package main

import (
	"fmt"
	"slices"
	"strings"
)

// none marks a feature that no test shows in a direction.
const none = "–"

func renderInterop(proofs []proof, date string) (string, error) {
	by := map[string]map[string]map[string][]string{} // peer, feature, direction, tests
	n := 0
	for _, p := range proofs {
		if p.kind != "interop" {
			continue
		}
		peer, direction, feature := p.fields["peer"], p.fields["direction"], p.fields["feature"]
		if peer == "" || direction == "" || feature == "" {
			return "", fmt.Errorf("%s shows interop without naming peer, direction and feature", p.test)
		}
		if by[peer] == nil {
			by[peer] = map[string]map[string][]string{}
		}
		if by[peer][feature] == nil {
			by[peer][feature] = map[string][]string{}
		}
		if by[peer][feature][direction] == nil {
			n++
		}
		by[peer][feature][direction] = append(by[peer][feature][direction], topLevel(p.test))
	}
	var b strings.Builder
	b.WriteString("# Interoperability\n\n" + generated)
	b.WriteString("Each entry is a test that drove the peer through a capturing relay and looked at the wire: option 9 in every\n" +
		"message that must have it, no path or payload readable, no nonce used twice. Where there is none (" + none + ") the peer\n" +
		"lacks the feature, or it makes no sense in that direction: interop/README.md says what was seen of each.\n\n")
	fmt.Fprintf(&b, "Last run: %s. %d features with %d peers.\n", date, n, len(by))
	for _, peer := range sortedKeys(by) {
		fmt.Fprintf(&b, "\n## %s\n\n", peer)
		directions := map[string]bool{}
		for _, d := range by[peer] {
			for direction := range d {
				directions[direction] = true
			}
		}
		t := &table{head: append([]string{"feature"}, sortedKeys(directions)...)}
		for _, feature := range sortedKeys(by[peer]) {
			row := []string{feature}
			for _, direction := range t.head[1:] {
				cell := none
				if names := by[peer][feature][direction]; names != nil {
					cell = tests(names)
				}
				row = append(row, cell)
			}
			t.add(row...)
		}
		b.WriteString(t.String())
	}
	return b.String(), nil
}

// topLevel leaves out the package and the subtest: one go test -run of it shows
// the feature again.
func topLevel(test string) string {
	name, _, _ := strings.Cut(test[strings.LastIndex(test, " ")+1:], "/")
	return name
}

func claimsInterop(doc string) []string {
	var all []string
	var peer string
	var directions []string
	for line := range strings.Lines(doc) {
		line = strings.TrimSuffix(line, "\n")
		if name, ok := strings.CutPrefix(line, "## "); ok {
			peer = name
		}
		switch c := cells(line); {
		case len(c) < 2:
		case c[0] == "feature":
			directions = c[1:]
		case len(c) == len(directions)+1:
			for i, direction := range directions {
				if c[i+1] != none {
					all = append(all, peer+", "+direction+": "+c[0])
				}
			}
		}
	}
	slices.Sort(all)
	return all
}
