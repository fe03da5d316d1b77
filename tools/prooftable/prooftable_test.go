package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/oscorelay/oscorelay/internal/floors"
)

func TestImports(t *testing.T) { floors.Imports(t, "std") }

const verbose = `=== RUN   TestA
=== RUN   TestA/sub
--- PASS: TestA (0.00s)
    proof.go:42: PROOF requirement rows=E2E-1,E2E-3 path="udp proxy" test=TestA
    proof.go:42: PROOF checklist ids=O-7.4-1 test=TestA
    --- PASS: TestA/sub (0.00s)
        proof.go:42: PROOF interop peer="aiocoap 0.4.17" direction="client → our server" feature="Observe | cancel" test=TestA/sub
--- FAIL: TestB (0.00s)
    proof.go:42: PROOF requirement rows=E2E-2 path="direct" test=TestB
    b_test.go:9: too late
--- PASS: TestC (0.00s)
    c_test.go:7: it says PROOF requirement rows=E2E-4 path="direct" test=TestC
FAIL
FAIL	github.com/oscorelay/oscorelay/oscore	0.01s
ok  	github.com/oscorelay/oscorelay/internal/ccm	0.01s
`

const events = `{"Action":"start","Package":"github.com/oscorelay/oscorelay/keys"}
{"Action":"output","Package":"github.com/oscorelay/oscorelay/keys","Test":"TestK","Output":"    proof.go:42: PROOF requirement rows=MaU-3 "}
{"Action":"output","Package":"github.com/oscorelay/oscorelay/keys","Test":"TestK","Output":"path=\"direct\" test=TestK\n"}
{"Action":"output","Package":"github.com/oscorelay/oscorelay/keys","Test":"TestK","Output":"--- PASS: TestK (0.00s)\n"}
{"Action":"pass","Package":"github.com/oscorelay/oscorelay/keys","Test":"TestK"}
{"Action":"output","Package":"github.com/oscorelay/oscorelay/keys","Test":"TestL","Output":"    proof.go:42: PROOF requirement rows=MaU-2 path=\"direct\" test=TestL\n"}
{"Action":"output","Package":"github.com/oscorelay/oscorelay/keys","Test":"TestL","Output":"--- FAIL: TestL (0.00s)\n"}
`

func TestReadOutput(t *testing.T) {
	for name, c := range map[string]struct {
		in   string
		want []string
	}{
		"verbose": {verbose, []string{"requirement oscore TestA", "checklist oscore TestA", "interop oscore TestA/sub"}},
		"json":    {events, []string{"requirement keys TestK"}},
		"both":    {verbose + events, []string{"requirement oscore TestA", "checklist oscore TestA", "interop oscore TestA/sub", "requirement keys TestK"}},
	} {
		t.Run(name, func(t *testing.T) {
			proofs, err := readOutput(strings.NewReader(c.in))
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, p := range proofs {
				got = append(got, p.kind+" "+p.test)
			}
			if strings.Join(got, "; ") != strings.Join(c.want, "; ") {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestReadOutputRefuses(t *testing.T) {
	for name, c := range map[string]struct{ in, want string }{
		"nothing":        {"", "no test output"},
		"cut short":      {strings.SplitAfter(verbose, "test=TestA\n")[0], "cut short"},
		"no test":        {"    p.go:1: PROOF checklist ids=O-2-1\nok  \tx\t0s\n", "without its test"},
		"no key":         {"    p.go:1: PROOF checklist O-2-1 test=T\nok  \tx\t0s\n", "key=value"},
		"string unended": {"    p.go:1: PROOF interop peer=\"a test=T\nok  \tx\t0s\n", "without its end"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := readOutput(strings.NewReader(c.in))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
}

// command runs the command on one input and gives status and error text.
func command(t *testing.T, docs, in string, args ...string) (int, string) {
	t.Helper()
	var out, errs bytes.Buffer
	status := execute(append([]string{"-docs", docs, "-date", "2026-11-23"}, args...), strings.NewReader(in), &out, &errs)
	return status, errs.String()
}

func TestDocuments(t *testing.T) {
	dir := t.TempDir()
	if status, text := command(t, dir, verbose+events); status != 0 {
		t.Fatalf("status %d: %s", status, text)
	}
	for file, lines := range map[string][]string{
		"REQUIREMENTS.md": {
			"| E2E-1 | integrity between client and server through LwM2M-unaware nodes | udp proxy | `oscore TestA` |",
			"| E2E-2 | confidentiality through LwM2M-unaware nodes |  | open |",
			"| MaU-3 | " + upgrade + " | direct | `keys TestK` |",
			"| ENC-4 | " + clientsOwn + " |  | outside |",
		},
		"INTEROP.md":     {"Last run: 2026-11-23. 1 features with 1 peers.", "## aiocoap 0.4.17\n\n| feature | client → our server |\n|---|---|\n" + `| Observe \| cancel | ` + "`TestA` |"},
		"CONFORMANCE.md": {"| O-7.4-1 | 7.4 | SHALL | server | Check PIV was not received before | `oscore TestA` |", "170 items: 1 shown, 169 open."},
	} {
		b, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range lines {
			if !strings.Contains(string(b), l+"\n") {
				t.Errorf("%s lacks the line %s", file, l)
			}
		}
	}
}

func TestSameOutputSameBytes(t *testing.T) {
	a, b := t.TempDir(), t.TempDir()
	command(t, a, verbose+events)
	command(t, b, events+verbose)
	for _, d := range documents {
		x, _ := os.ReadFile(filepath.Join(a, d.file))
		y, _ := os.ReadFile(filepath.Join(b, d.file))
		if len(x) == 0 || !bytes.Equal(x, y) {
			t.Errorf("%s depends on the order of the packages", d.file)
		}
	}
}

func TestCheck(t *testing.T) {
	dir := t.TempDir()
	command(t, dir, verbose+events)
	renamed := strings.ReplaceAll(verbose, "TestA", "TestRenamed")
	for _, c := range []struct {
		name, in, tables string
		faults           []string
	}{
		{"the same", verbose + events, "", nil},
		{"another test proves it", renamed + events, "", nil},
		{"nobody proves a row any more", verbose, "requirements", []string{"claims what no passed test shows: row MaU-3 on path direct"}},
		{"nor a peer's feature", events, "interop", []string{"claims what no passed test shows: aiocoap 0.4.17, client → our server: Observe | cancel"}},
		{"nor an item", events, "conformance", []string{"claims what no passed test shows: item O-7.4-1"}},
		{"what only a failing test proves", strings.ReplaceAll(verbose, "--- PASS: TestA (", "--- FAIL: TestA (") + events, "conformance", []string{"item O-7.4-1"}},
		{"a new proof", verbose + strings.ReplaceAll(events, "MaU-3", "MaU-3,MaU-1"), "", []string{"lacks what a test shows: row MaU-1 on path direct"}},
		{"only one table looked at", events, "requirements", []string{"row E2E-1 on path udp proxy"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			args := []string{"-check"}
			if c.tables != "" {
				args = append(args, "-tables", c.tables)
			}
			status, text := command(t, dir, c.in, args...)
			if want := min(len(c.faults), 1); status != want {
				t.Errorf("status %d, want %d: %s", status, want, text)
			}
			for _, f := range c.faults {
				if !strings.Contains(text, f) {
					t.Errorf("said %q, want %q", text, f)
				}
			}
		})
	}
}

func TestMisspelled(t *testing.T) {
	for in, want := range map[string]string{
		strings.ReplaceAll(verbose, "E2E-3", "E2E-99"):               `oscore TestA proves row "E2E-99"`,
		strings.ReplaceAll(verbose, "O-7.4-1", "O-99"):               `oscore TestA shows item "O-99"`,
		strings.ReplaceAll(verbose, `peer="aiocoap 0.4.17" `, "x= "): "without naming peer",
	} {
		if status, text := command(t, t.TempDir(), in); status != 1 || !strings.Contains(text, want) {
			t.Errorf("status %d, said %q, want %q", status, text, want)
		}
	}
	if status, text := command(t, t.TempDir(), verbose, "-tables", "all"); status != 2 || !strings.Contains(text, `no table "all"`) {
		t.Errorf("status %d, said %q", status, text)
	}
}

func TestFailed(t *testing.T) {
	in := events + `{"Action":"fail","Package":"github.com/oscorelay/oscorelay/keys","Test":"TestL"}` + "\n"
	var out bytes.Buffer
	if status := execute([]string{"-failed"}, strings.NewReader(in), &out, &out); status != 0 {
		t.Errorf("status %d", status)
	}
	if got := out.String(); !strings.Contains(got, "keys TestL\n") || !strings.Contains(got, "--- FAIL: TestL") || strings.Contains(got, "TestK") {
		t.Errorf("it says %q", got)
	}
}

// TestLists looks that the lists name nothing twice.
func TestLists(t *testing.T) {
	seen := map[string]bool{}
	for _, r := range rows {
		if seen[r.id] || r.title == "" {
			t.Errorf("row %q twice or without a title", r.id)
		}
		seen[r.id] = true
	}
	for _, i := range checklist {
		if seen[i.id] {
			t.Errorf("item %q twice", i.id)
		}
		seen[i.id] = true
	}
	if len(checklist) != 118+35+17 {
		t.Errorf("%d items, want 170", len(checklist))
	}
}

func FuzzReadOutput(f *testing.F) {
	f.Add(verbose)
	f.Add(events)
	f.Fuzz(func(t *testing.T, s string) {
		proofs, err := readOutput(strings.NewReader(s))
		if err != nil {
			return
		}
		for _, d := range documents {
			_, _ = d.render(proofs, "")
		}
	})
}
