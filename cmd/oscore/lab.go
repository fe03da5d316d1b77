package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/oscorelay/oscorelay/internal/lab"
)

const labHelp = `Usage: oscore lab [-v | --json]

Shows what sealed traffic withstands, in a minute, with real processes over real
sockets and nothing to prepare:

  a device with OSCORE ⇄ a hostile proxy ⇄ oscore-proxy, which has no key
    ⇄ oscored, which has it ⇄ an LwM2M server that has no OSCORE

then a device and a server that have the library inside, and EDHOC. The exit
status is 0 if every row is OK. oscored and oscore-proxy are looked for beside
this program: 'make build' puts all three into bin/.

`

// labParts are the headings of a run's parts: of the steps, and of what the
// hostile relay saw.
var labParts = []struct{ part, title, heading, saw string }{
	{lab.PartChain, "SEALED DEVICE ⇄ hostile proxy ⇄ oscore-proxy ⇄ oscored ⇄ PLAIN LwM2M SERVER: five parties, four processes", "what must work", "hostile proxy saw"},
	{lab.PartKill, "", "what must go on over kill -9 (of oscored, if not said otherwise)", "hostile proxy saw"},
	{lab.PartHostile, "", "what the hostile proxy must not achieve", "it saw"},
	{lab.PartSight, "", "what each hop could see, and what came of it", ""},
	{lab.PartTraffic, "SEALED DEVICE ⇄ hostile relay ⇄ SEALED SERVER: the library at both ends", "what must work", "hostile relay saw"},
	{lab.PartAttack, "", "what must not", "hostile relay saw"},
	{lab.PartHandshake, "NO SHARED SECRET: EDHOC through the hostile relay", "handshakes", "hostile relay saw"},
}

// runLab is the command that shows sealed traffic through hostile hands.
func runLab(ctx context.Context, io stdio, args []string) (err error) {
	f := flag.NewFlagSet("lab", flag.ContinueOnError)
	f.SetOutput(io.err)
	asJSON := f.Bool("json", false, "print one JSON line for each step")
	verbose := f.Bool("v", false, "print the commands, the daemons' logs and every datagram as the hostile proxy saw it, too")
	f.Usage = func() {
		fmt.Fprint(io.err, labHelp)
		f.PrintDefaults()
	}
	if err := parseFlags(f, args); err != nil {
		return err
	}
	if f.NArg() != 0 {
		return usagef("no arguments are expected")
	}
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	dir, err := lab.TempDir()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	p := &labPrinter{out: io.out}
	cfg := lab.Config{Exe: exe, Dir: dir, Row: p.row}
	if *verbose {
		cfg.Trace = func(s string) { fmt.Fprintln(io.out, "      "+s) }
	}
	if *asJSON {
		enc := json.NewEncoder(io.out)
		cfg.Row = func(r lab.Row) { _ = enc.Encode(r) } // a closed pipe ends the lab by its signal
		cfg.Trace = nil
	}
	if !lab.HasChain() {
		fmt.Fprintln(io.err, "oscore lab: the chain through oscored is left out: oscored serves devices on Linux alone")
	}
	began := time.Now()
	ok, err := lab.Run(ctx, cfg)
	if err != nil {
		return err
	}
	if !*asJSON {
		p.closing(time.Since(began))
	}
	if !ok {
		return errors.New("a property did not hold: see the rows marked FAIL; -v shows every datagram")
	}
	return nil
}

// labPrinter prints rows as a table for people.
type labPrinter struct {
	out    io.Writer
	part   string
	failed []lab.Row
	counts map[string]int // by part
}

func (p *labPrinter) row(r lab.Row) {
	if r.Part != p.part {
		p.part = r.Part
		i := slices.IndexFunc(labParts, func(x struct{ part, title, heading, saw string }) bool { return x.part == r.Part })
		if t := labParts[i].title; t != "" {
			fmt.Fprintf(p.out, "\n%s\n", t)
		}
		fmt.Fprintf(p.out, "\n         %-64s %s\n", labParts[i].heading, labParts[i].saw)
	}
	mark := "OK  "
	if !r.OK {
		mark = "FAIL"
		p.failed = append(p.failed, r)
	}
	if p.counts == nil {
		p.counts = map[string]int{}
	}
	p.counts[r.Part]++
	fmt.Fprintf(p.out, "%s\n", strings.TrimRight(fmt.Sprintf("%3d %s %-27s %-36s %s", r.N, mark, r.Step, r.Verdict, r.Saw), " "))
}

// closing is the table at the end.
func (p *labPrinter) closing(took time.Duration) {
	rows := 0
	for _, n := range p.counts {
		rows += n
	}
	if p.counts[lab.PartSight] > 0 {
		fmt.Fprint(p.out, labSight)
	}
	if len(p.failed) == 0 {
		fmt.Fprintf(p.out, "\n%d of %d rows OK, in %.1f s.\n", rows, rows, took.Seconds())
		return
	}
	fmt.Fprintf(p.out, "\n%d of %d rows FAIL, in %.1f s:\n", len(p.failed), rows, took.Seconds())
	for _, r := range p.failed {
		fmt.Fprintf(p.out, "%3d %s: %s\n", r.N, r.Step, r.Verdict)
	}
}

// labSight says what the rows of lab.PartSight and lab.PartHostile show.
const labSight = `
WHO COULD SEE WHAT          path, query, payload, format   kid, number, size, time   could change it unnoticed
the hostile proxy           no                             yes                       no
oscore-proxy (no key)       no                             yes                       no
oscored (has the key)       yes: the seal ends here        yes                       yes
the plain server            yes                            no                        yes, it is the end
`
