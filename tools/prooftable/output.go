package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
)

// proof is one PROOF line of a passed test.
type proof struct {
	kind   string // requirement, interop, checklist
	fields map[string]string
	test   string // "oscore TestReplay/late", package relative to the module
}

var (
	proofLine   = regexp.MustCompile(`^\s*[^\s:]+\.go:\d+: PROOF (.*)$`)
	resultLine  = regexp.MustCompile(`^\s*--- (PASS|FAIL|SKIP): (\S+)`)
	packageLine = regexp.MustCompile(`^(?:ok  |FAIL|\?   )\t(\S+)`)
)

const module = "github.com/oscorelay/oscorelay"

// run collects one package's output.
type run struct {
	proofs []proof
	passed map[string]bool
}

func (r *run) line(l string) error {
	if m := resultLine.FindStringSubmatch(l); m != nil {
		if r.passed == nil {
			r.passed = map[string]bool{}
		}
		r.passed[m[2]] = m[1] == "PASS"
	}
	m := proofLine.FindStringSubmatch(l)
	if m == nil {
		return nil
	}
	kind, rest, _ := strings.Cut(m[1], " ")
	fields, err := parseFields(rest)
	if err != nil {
		return fmt.Errorf("%w: %s", err, strings.TrimSpace(l))
	}
	test := fields["test"]
	if test == "" {
		return fmt.Errorf("a proof without its test: %s", strings.TrimSpace(l))
	}
	delete(fields, "test")
	r.proofs = append(r.proofs, proof{kind, fields, test})
	return nil
}

// end gives the proofs whose test passed. A test can say its proof and fail
// after all, in a later cleanup.
func (r *run) end(pkg string) []proof {
	name := strings.TrimPrefix(strings.TrimPrefix(pkg, module), "/")
	if name == "" {
		name = "."
	}
	var kept []proof
	for _, p := range r.proofs {
		if r.passed[p.test] {
			p.test = name + " " + p.test
			kept = append(kept, p)
		}
	}
	return kept
}

// readOutput reads the output of go test -json or go test -v.
func readOutput(in io.Reader) ([]proof, error) {
	var (
		proofs []proof
		text   run                   // of -v: the package's name comes last
		pkgs   = map[string]*run{}   // of -json
		part   = map[string]string{} // of -json: an output line not yet whole
		order  []string
		lines  int
	)
	s := bufio.NewScanner(in)
	s.Buffer(nil, 16<<20)
	for s.Scan() {
		l := s.Text()
		lines++
		var e struct{ Action, Package, Test, Output string }
		if strings.HasPrefix(l, "{") && json.Unmarshal([]byte(l), &e) == nil && e.Action != "" {
			r := pkgs[e.Package]
			if r == nil {
				r = &run{}
				pkgs[e.Package] = r
				order = append(order, e.Package)
			}
			if e.Action != "output" {
				continue
			}
			key := e.Package + " " + e.Test
			whole := part[key] + e.Output
			if !strings.HasSuffix(whole, "\n") {
				part[key] = whole
				continue
			}
			delete(part, key)
			if err := r.line(strings.TrimSuffix(whole, "\n")); err != nil {
				return nil, err
			}
			continue
		}
		if m := packageLine.FindStringSubmatch(l); m != nil {
			proofs = append(proofs, text.end(m[1])...)
			text = run{}
			continue
		}
		if err := text.line(l); err != nil {
			return nil, err
		}
	}
	if err := s.Err(); err != nil {
		return nil, err
	}
	if len(text.proofs) > 0 {
		return nil, errors.New("the output ends before its last package's result: was the run cut short?")
	}
	if lines == 0 {
		return nil, errors.New("no test output: pipe go test -json or go test -v here, or name a file")
	}
	for _, pkg := range order {
		proofs = append(proofs, pkgs[pkg].end(pkg)...)
	}
	return proofs, nil
}

// parseFields reads words key=value, where a value may be a Go string literal.
func parseFields(s string) (map[string]string, error) {
	fields := map[string]string{}
	for s = strings.TrimSpace(s); s != ""; s = strings.TrimLeft(s, " ") {
		key, rest, ok := strings.Cut(s, "=")
		if !ok || key == "" || strings.ContainsAny(key, " \"") {
			return nil, errors.New("not of the form key=value")
		}
		value := rest
		if strings.HasPrefix(rest, `"`) {
			q, err := strconv.QuotedPrefix(rest)
			if err != nil {
				return nil, errors.New("a string without its end")
			}
			if value, err = strconv.Unquote(q); err != nil {
				return nil, err
			}
			s = rest[len(q):]
		} else {
			value, s, _ = strings.Cut(rest, " ")
		}
		fields[key] = value
	}
	return fields, nil
}
