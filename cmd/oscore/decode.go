package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"

	"github.com/oscorelay/oscorelay/internal/explain"
	"github.com/oscorelay/oscorelay/oscore"
)

// decode is the command that explains captured messages.
func decode(_ context.Context, io stdio, args []string) error {
	f := flag.NewFlagSet("decode", flag.ContinueOnError)
	f.SetOutput(io.err)
	f.Usage = func() { decodeUsage(io.err, f) }
	var keys keysFlags
	keys.register(f)
	tcp := f.Bool("tcp", false, "messages in the stream framing of RFC 8323 (TCP, TLS, WebSocket)")
	option := f.Bool("option", false, "values of the OSCORE option alone, in place of messages")
	verbose := f.Bool("verbose", false, "show AAD and nonce")
	asJSON := f.Bool("json", false, "print JSON")
	if err := parseFlags(f, args); err != nil {
		return err
	}
	if *option {
		return decodeOptions(io, f.Args(), *asJSON)
	}
	messages, err := readCaptured(io.in, f.Args())
	if err != nil {
		return err
	}
	var params *oscore.Params
	if keys.given() {
		k, err := keys.keys()
		if err != nil {
			return err
		}
		p := k.Params()
		params = &p
	}
	session, err := explain.NewSession(params, *verbose)
	if err != nil {
		return fmt.Errorf("keys: %w", err)
	}
	var reports []*explain.Report
	for _, b := range messages {
		if *tcp {
			reports = append(reports, session.Stream(b)...)
		} else {
			reports = append(reports, session.Datagram(b))
		}
	}
	if *asJSON {
		if err := printJSON(io.out, reports); err != nil {
			return err
		}
	} else {
		for i, r := range reports {
			printReport(io.out, r, i > 0)
		}
	}
	return verdict(reports)
}

// verdict is an error when something was asked for that did not come about.
func verdict(reports []*explain.Report) error {
	malformed, closed := 0, 0
	for _, r := range reports {
		switch {
		case r.Malformed != "":
			malformed++
		case r.Closed != "":
			closed++
		}
	}
	switch {
	case malformed > 0:
		return fmt.Errorf("%d of %d messages malformed", malformed, len(reports))
	case closed > 0:
		return fmt.Errorf("%d of %d messages not decrypted", closed, len(reports))
	}
	return nil
}

// decodeOptions explains OSCORE option values.
func decodeOptions(io stdio, args []string, asJSON bool) error {
	var values [][]byte
	if len(args) == 1 && args[0] == "" {
		values = [][]byte{{}} // the empty value is a value
	} else {
		var err error
		if values, err = readCaptured(io.in, args); err != nil {
			return err
		}
	}
	var all []*explain.OSCORE
	bad := 0
	for _, v := range values {
		o := explain.OptionValue(v)
		all = append(all, o)
		if o.Problem != "" {
			bad++
		}
	}
	if asJSON {
		if err := printJSON(io.out, all); err != nil {
			return err
		}
	} else {
		for i, o := range all {
			printOption9(io.out, o, i > 0)
		}
	}
	if bad > 0 {
		return fmt.Errorf("%d of %d values do not decode", bad, len(all))
	}
	return nil
}

func decodeUsage(w io.Writer, f *flag.FlagSet) {
	fmt.Fprint(w, `Usage: oscore decode [flags] MESSAGE...

Explains captured CoAP and OSCORE messages: header, token, every option, option
9 field by field. With keys it decrypts them, whichever end the keys are from,
and says why where it cannot. A response opens only after its request.

MESSAGE is hex, a file, or - for standard input: a message a line, in hex, as a
list of bytes in Go or C, as a string literal, or as a hex dump.

  oscore decode 44025d1f00003974396c6f63616c686f7374620914ff612f1092f1776f1c1668b3825e
  oscore decode --secret 0102…10 --sender 01 --recipient "" capture.txt
  oscore decode --option 1914080102030405060708

`)
	f.PrintDefaults()
}

// parseFlags parses a command's flags; what is wrong with them is a usageError.
func parseFlags(f *flag.FlagSet, args []string) error {
	out := f.Output()
	f.SetOutput(io.Discard) // the error is printed by run, once
	usage := f.Usage
	f.Usage = func() {}
	err := f.Parse(args)
	f.SetOutput(out)
	f.Usage = usage
	switch {
	case err == nil:
		return nil
	case errors.Is(err, flag.ErrHelp):
		f.Usage()
		return err
	}
	return usageError{err.Error()}
}

func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}
