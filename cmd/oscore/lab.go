package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"time"

	"github.com/oscorelay/oscorelay/internal/lab"
)

// runLab is the command that shows sealed traffic through a hostile relay.
func runLab(ctx context.Context, io stdio, args []string) (err error) {
	f := flag.NewFlagSet("lab", flag.ContinueOnError)
	f.SetOutput(io.err)
	asJSON := f.Bool("json", false, "print one JSON line for each step")
	f.Usage = func() {
		fmt.Fprint(io.err, "Usage: oscore lab [--json]\n\nStarts a sealed server and a sealed device as processes of their own, with a\n"+
			"hostile relay between them, and shows what works, what does not, and what the\nrelay could see.\n\n")
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
	began := time.Now()
	if !*asJSON {
		fmt.Fprint(io.out, "device ⇄ hostile relay ⇄ server: three processes, UDP on loopback\n")
	}
	part := ""
	enc := json.NewEncoder(io.out)
	ok, err := lab.Run(ctx, lab.Config{Exe: exe, Dir: dir, Row: func(r lab.Row) {
		if *asJSON {
			_ = enc.Encode(r) // a closed pipe ends the lab by its signal
			return
		}
		if r.Part != part {
			part = r.Part
			fmt.Fprintf(io.out, "\n%-26s %-6s %-27s %s\n", map[string]string{"traffic": "WHAT MUST WORK", "attack": "WHAT MUST NOT", "handshake": "NO SHARED SECRET: EDHOC"}[part], "", "verdict", "relay saw (datagrams)")
		}
		mark := "ok"
		if !r.OK {
			mark = "FAILED"
		}
		fmt.Fprintf(io.out, "%-26s %-6s %-27s %s\n", r.Step, mark, r.Verdict, r.Saw)
	}})
	if err != nil {
		return err
	}
	if !ok {
		return errors.New("a property did not hold: see the steps marked FAILED")
	}
	if !*asJSON {
		fmt.Fprintf(io.out, "\nEverything held, in %.1f s. The relay saw addresses, sizes, timing, tokens, the\nkey identifiers and sequence numbers of option 9, and message_1; nothing else.\n", time.Since(began).Seconds())
	}
	return nil
}
