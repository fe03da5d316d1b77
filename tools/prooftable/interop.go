package main

import (
	"fmt"
	"strings"
)

func renderInterop(proofs []proof, date string) (string, error) {
	by := map[string]map[string]map[string][]string{} // peer, direction, feature, tests
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
		if by[peer][direction] == nil {
			by[peer][direction] = map[string][]string{}
		}
		if by[peer][direction][feature] == nil {
			n++
		}
		by[peer][direction][feature] = append(by[peer][direction][feature], p.test)
	}
	var b strings.Builder
	b.WriteString("# Interoperability\n\n" + generated)
	b.WriteString("Each line is a test that drove the peer through a capturing relay and looked at the wire: option 9 in every\n" +
		"message that must have it, no path or payload readable, no nonce used twice.\n\n")
	fmt.Fprintf(&b, "Last run: %s. %d features with %d peers.\n", date, n, len(by))
	for _, peer := range sortedKeys(by) {
		fmt.Fprintf(&b, "\n## %s\n\n", peer)
		t := &table{head: []string{"peer", "direction", "feature", "shown by"}}
		for _, direction := range sortedKeys(by[peer]) {
			for _, feature := range sortedKeys(by[peer][direction]) {
				t.add(peer, direction, feature, tests(by[peer][direction][feature]))
			}
		}
		b.WriteString(t.String())
	}
	return b.String(), nil
}

func claimsInterop(doc string) []string {
	return claims(doc, func(c []string) string {
		if len(c) != 4 || c[0] == "peer" {
			return ""
		}
		return c[0] + ", " + c[1] + ": " + c[2]
	})
}
