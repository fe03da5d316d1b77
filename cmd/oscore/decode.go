package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"strconv"

	"github.com/oscorelay/oscorelay/internal/explain"
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
	full := f.Bool("full", false, "explain each message of a packet capture field by field")
	var ports []uint16
	f.Func("port", "`PORT` of CoAP in a packet capture, beside 5683; may be repeated", func(s string) error {
		n, err := strconv.ParseUint(s, 10, 16)
		if err != nil || n == 0 {
			return fmt.Errorf("%q is no port: 1 to 65535", s)
		}
		ports = append(ports, uint16(n))
		return nil
	})
	if err := parseFlags(f, args); err != nil {
		return err
	}
	if *option {
		return decodeOptions(io, f.Args(), *asJSON)
	}
	packets, left, isCapture, in, err := captured(io.in, f.Args())
	if err != nil {
		return err
	}
	var messages [][]byte
	if !isCapture {
		if messages, err = readCaptured(in, f.Args()); err != nil {
			return err
		}
	}
	session, err := newSession(&keys, *verbose)
	if err != nil {
		return err
	}
	if isCapture {
		c := choose(packets, ports)
		return printCapture(io.out, explainCapture(session, c.packets), leftText(c, left), captureView{full: *full || *verbose, json: *asJSON, keyed: keys.given()})
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

// newSession makes a session of the keys that the flags give, if they do. A key
// directory without a peer's name gives the keys of all its entries.
func newSession(keys *keysFlags, verbose bool) (*explain.Session, error) {
	session, err := explain.NewSession(nil, verbose)
	if err != nil || !keys.given() {
		return session, err
	}
	all, err := keys.all()
	if err != nil {
		return nil, err
	}
	for _, p := range all {
		if err := session.AddContext(p); err != nil {
			return nil, fmt.Errorf("keys: %w", err)
		}
	}
	return session, nil
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
list of bytes in Go or C, as a string literal, or as a hex dump. A packet capture
(pcap, pcapng) is shown as a sequence, each response with its request; --full
explains its messages one by one.

  oscore decode 44025d1f00003974396c6f63616c686f7374620914ff612f1092f1776f1c1668b3825e
  oscore decode --secret 0102…10 --sender 01 --recipient "" capture.txt
  oscore decode --option 1914080102030405060708
  oscore decode capture.pcapng
  oscore decode --keys DIR capture.pcap      opens what any entry of DIR opens
  tcpdump -i any -s 0 -U -w - port 5683 | oscore decode -

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
