package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"

	"github.com/oscorelay/oscorelay/internal/coap"
	"github.com/oscorelay/oscorelay/internal/explain"
	"github.com/oscorelay/oscorelay/keys"
	"github.com/oscorelay/oscorelay/oscore"
)

// diagnose is the command that finds out which field of a key is wrong.
func diagnose(_ context.Context, io stdio, args []string) error {
	f := flag.NewFlagSet("diagnose", flag.ContinueOnError)
	f.SetOutput(io.err)
	f.Usage = func() { diagnoseUsage(io.err, f) }
	var given keysFlags
	given.register(f)
	tcp := f.Bool("tcp", false, "messages in the stream framing of RFC 8323 (TCP, TLS, WebSocket)")
	sent := f.Bool("sent", false, "the keys' owner sent the request")
	received := f.Bool("received", false, "the keys' owner received the request")
	other := f.String("against", "", "compare with the other end's settings: a key `FILE`, or a context directory of aiocoap")
	asJSON := f.Bool("json", false, "print JSON")
	if err := parseFlags(f, args); err != nil {
		return err
	}
	if *sent && *received {
		return usagef("--sent and --received exclude each other")
	}
	k, err := given.keys()
	if err != nil {
		return err
	}
	if *other != "" {
		if f.NArg() != 0 {
			return usagef("--against takes the place of a captured message")
		}
		return diagnoseAgainst(io, k, *other, *asJSON)
	}
	messages, err := readCaptured(io.in, f.Args())
	if err != nil {
		return err
	}
	e, err := evidence(messages, *tcp)
	if err != nil {
		return err
	}
	switch {
	case *sent:
		e.Direction = explain.Sent
	case *received:
		e.Direction = explain.Received
	}
	d, err := explain.Diagnose(k, e)
	switch {
	case errors.Is(err, explain.ErrNotSealed):
		return errors.New("the message has no option 9: it is plain CoAP, which no key opens. The sender is not set up for OSCORE")
	case errors.Is(err, explain.ErrNotRequest):
		return errors.New("no sealed request among the messages: a response does not open without its request")
	case err != nil:
		return err
	}
	if *asJSON {
		err = printJSON(io.out, d)
	} else {
		printDiagnosis(io.out, d)
	}
	if err == nil && d.Verdict == explain.KeysForeign {
		err = errors.New("no reading of the keys opens the message")
	}
	return err
}

// diagnoseAgainst compares keys with what the other end has.
func diagnoseAgainst(io stdio, k explain.Keys, path string, asJSON bool) error {
	entry, err := readOtherEnd(path)
	if err != nil {
		return err
	}
	want, err := entry.Params.Derive()
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	d, err := explain.Diagnose(k, explain.Evidence{Trial: func(p oscore.Params) (bool, error) {
		mine := p.Swap()
		got, err := mine.Derive()
		if err != nil {
			return false, nil // not even a context: another reading may be one
		}
		fits := got.SenderKey.Equal(want.SenderKey) && got.RecipientKey.Equal(want.RecipientKey) && bytes.Equal(got.CommonIV, want.CommonIV) &&
			bytes.Equal(mine.SenderID, entry.Params.SenderID) && bytes.Equal(mine.RecipientID, entry.Params.RecipientID) && mine.AEAD.String() == entry.Params.AEAD.String()
		return fits, nil
	}})
	if err != nil {
		return err
	}
	if asJSON {
		err = printJSON(io.out, d)
	} else {
		printDiagnosis(io.out, d)
	}
	if err == nil && d.Verdict == explain.KeysForeign {
		err = errors.New("no reading of the keys gives those of the other end")
	}
	return err
}

// readOtherEnd reads the one entry of a key file or of an aiocoap directory.
func readOtherEnd(path string) (keys.Entry, error) {
	info, err := os.Stat(path)
	if err != nil {
		return keys.Entry{}, err
	}
	if info.IsDir() {
		a, err := readAiocoap(path, false, false)
		return a.Entry, err
	}
	entries, err := readKeyFile(stdio{}, path)
	if err != nil {
		return keys.Entry{}, err
	}
	if len(entries) != 1 {
		return keys.Entry{}, fmt.Errorf("%s has %d entries: give a file with the one of this peer", path, len(entries))
	}
	return entries[0], nil
}

// evidence picks the first sealed request and the response to it.
func evidence(messages [][]byte, tcp bool) (e explain.Evidence, err error) {
	var token []byte
	for i, b := range messages {
		code, t, body, err := unframe(b, tcp)
		if err != nil {
			return e, fmt.Errorf("message %d: %w; see 'oscore decode'", i+1, err)
		}
		m := oscore.Message{Code: byte(code), Body: body}
		_, sealed := coap.Find(body, coap.OSCORE)
		switch {
		case e.Request.Code == 0 && code.IsRequest() && (sealed || i == len(messages)-1):
			e.Request, token = m, t
		case e.Request.Code != 0 && e.Response == nil && code.IsResponse() && sealed && string(t) == string(token):
			e.Response = &m
		}
	}
	return e, nil
}

// unframe takes the transport header off.
func unframe(b []byte, tcp bool) (coap.Code, []byte, []byte, error) {
	if tcp {
		f, _, err := coap.ParseFrame(b, len(b))
		return f.Code, f.Token, f.Body, err
	}
	d, err := coap.ParseDatagram(b)
	return d.Code, d.Token, d.Body, err
}

func printDiagnosis(w io.Writer, d *explain.Diagnosis) {
	p := page{w}
	switch d.Verdict {
	case explain.KeysRight:
		fmt.Fprintln(w, "The keys are right: it fits.")
	case explain.KeysWrong:
		fmt.Fprintf(w, "Found: with %s mended, it fits.\n", plural(len(d.Findings), "field"))
	default:
		fmt.Fprintf(w, "Not found: %d readings of the keys do not fit.\n", d.Trials)
	}
	for _, f := range d.Findings {
		fmt.Fprintln(w)
		p.row(0, "wrong", f.Wrong)
		p.row(0, "mend", f.Mend)
	}
	if d.Verdict == explain.KeysForeign {
		fmt.Fprintln(w)
		for i, t := range d.Tried {
			label := ""
			if i == 0 {
				label = "tried"
			}
			p.row(0, label, t)
		}
		p.row(0, "", "up to four of them wrong at once")
		p.row(0, "means", "the master secret is another one (another device's, an older one), or the salt or ID Context is not among the values above, or the message was changed on its way. Compare both ends' secrets by a hash of the bytes, not by eye.")
	}
	for _, n := range d.Notes {
		fmt.Fprintln(w)
		p.row(0, "note", n)
	}
}

func diagnoseUsage(w io.Writer, f *flag.FlagSet) {
	fmt.Fprint(w, `Usage: oscore diagnose [flags] MESSAGE...
       oscore diagnose [flags] --against FILE

Finds out which field of a key is wrong. MESSAGE is a captured sealed request,
as 'oscore decode' takes it, and better the response to it too. Each field is
read in the ways that people get wrong: hex as text, the salt as the secret, the
IDs swapped, another algorithm and so on, until the message opens.

  oscore diagnose --keys DIR --peer NAME --against other-end.toml
  oscore diagnose --received --secret 0102…10 --sender 00 --recipient 01 44025d1f…

`)
	f.PrintDefaults()
}
