// Command benchtable runs the benchmarks and writes docs/PERFORMANCE.md: medians
// of several runs, their ratios from the same run, and the machine.
//
//	go run ./tools/benchtable [-count 5] [-time 200ms] [-o docs/PERFORMANCE.md]
package main

import (
	"bufio"
	"bytes"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"sort"
	"strconv"
	"strings"
	"time"
)

func main() {
	count := flag.Int("count", 5, "runs of each benchmark; the median counts")
	benchtime := flag.String("time", "200ms", "time of each run")
	out := flag.String("o", "docs/PERFORMANCE.md", "file to write")
	flag.Parse()
	if err := run(*count, *benchtime, *out); err != nil {
		fmt.Fprintln(os.Stderr, "benchtable:", err)
		os.Exit(1)
	}
}

// result is a benchmark's figures by unit, one for each run.
type result map[string][]float64

// median returns the middle of the runs.
func (r result) median(unit string) float64 {
	v := append([]float64(nil), r[unit]...)
	if len(v) == 0 {
		return 0
	}
	sort.Float64s(v)
	return v[len(v)/2]
}

// results are benchmarks by name without "Benchmark".
type results map[string]result

// missing reports whether what the section needs is not there.
func (s *section) missing() bool {
	if s.needs == "" {
		return false
	}
	_, err := os.Stat(s.needs)
	return err != nil
}

// bench runs the benchmarks of the section.
func (s *section) bench(count int, benchtime string) (results, error) {
	if s.count != 0 {
		count, benchtime = s.count, s.time
	}
	cmd := exec.Command("go", "test", s.pkg, "-tags", s.tags, "-run", "^$", "-bench", s.pattern, "-benchmem", "-benchtime", benchtime, "-count", strconv.Itoa(count))
	cmd.Stderr = os.Stderr
	raw, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%s: %w\n%s", s.pkg, err, raw)
	}
	return parse(bytes.NewReader(raw)), nil
}

// write runs the section and writes it, or says why it is left out.
func (s *section) write(w io.Writer, count int, benchtime string) error {
	fmt.Fprintf(w, "\n## %s\n\n", s.title)
	if s.text != "" {
		fmt.Fprintf(w, "%s\n\n", s.text)
	}
	if s.missing() {
		fmt.Fprintf(w, "%s\n", s.absent)
		return nil
	}
	all, err := s.bench(count, benchtime)
	switch {
	case err != nil:
		return err
	case len(all) == 0:
		return fmt.Errorf("%s: no benchmark %s has run", s.pkg, s.pattern)
	}
	s.table(w, all)
	return nil
}

// parse reads the output of go test -bench.
func parse(r io.Reader) results {
	all := results{}
	for s := bufio.NewScanner(r); s.Scan(); {
		f := strings.Fields(s.Text())
		name, ok := "", false
		if len(f) >= 4 {
			name, ok = strings.CutPrefix(f[0], "Benchmark")
		}
		if !ok {
			continue
		}
		if i := strings.LastIndex(name, "-"); i > 0 {
			if _, err := strconv.Atoi(name[i+1:]); err == nil {
				name = name[:i] // the number of processors
			}
		}
		res := all[name]
		if res == nil {
			res = result{}
			all[name] = res
		}
		for i := 2; i+1 < len(f); i += 2 {
			if v, err := strconv.ParseFloat(f[i], 64); err == nil {
				res[f[i+1]] = append(res[f[i+1]], v)
			}
		}
	}
	return all
}

func run(count int, benchtime, out string) error {
	var doc bytes.Buffer
	fmt.Fprintf(&doc, `# Performance

Written by `+"`make bench`"+`. Medians of %d runs of %s each; ratios are of figures of the same run.

Machine: %s, %d processors, %s %s/%s, %s.

The limit for one message is the chain of dependent AES blocks that its CBC-MAC takes: "limit" is that chain alone, on
the same machine in the same run. It leaves out what any implementation must do beside it.
`, count, benchtime, processor(), runtime.NumCPU(), runtime.Version(), runtime.GOOS, runtime.GOARCH, time.Now().Format("2006-01-02"))
	for _, s := range sections {
		fmt.Fprintf(os.Stderr, "%s\n", s.title)
		if err := s.write(&doc, count, benchtime); err != nil {
			return err
		}
	}
	fmt.Fprintf(&doc, "\n%s", footer)
	if _, err := os.Stdout.Write(doc.Bytes()); err != nil {
		return err
	}
	return os.WriteFile(out, doc.Bytes(), 0o644)
}

// processor names the CPU.
func processor() string {
	raw, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return "unknown processor"
	}
	for line := range strings.Lines(string(raw)) {
		if name, ok := strings.CutPrefix(line, "model name"); ok {
			return strings.TrimSpace(strings.TrimLeft(name, "\t :"))
		}
	}
	return "unknown processor"
}
