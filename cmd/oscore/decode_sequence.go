package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/oscorelay/oscorelay/internal/explain"
)

// captureView says how a capture is shown.
type captureView struct {
	full, json bool
	keyed      bool // keys were given
}

// printCapture shows a capture, and what of it is not shown. It is an error if
// keys were given and open nothing of what is sealed.
func printCapture(w io.Writer, reports []*explain.Report, left []string, view captureView) error {
	sealed, opened := 0, 0
	for _, r := range reports {
		if r.OSCORE != nil {
			sealed++
		}
		if r.Opened != nil {
			opened++
		}
	}
	switch {
	case view.json:
		if reports == nil {
			reports = []*explain.Report{}
		}
		if err := printJSON(w, reports); err != nil {
			return err
		}
	case len(reports) == 0:
		printLeft(w, left)
		return fmt.Errorf("no CoAP in the capture")
	default:
		printSequence(w, reports, view)
		fmt.Fprintf(w, "\n%s, %d sealed", plural(len(reports), "message"), sealed)
		if view.keyed {
			fmt.Fprintf(w, ", %d opened", opened)
		}
		fmt.Fprintln(w)
		printLeft(w, left)
	}
	if view.keyed && sealed > 0 && opened == 0 {
		return fmt.Errorf("the keys open none of %s", plural(sealed, "sealed message"))
	}
	return nil
}

func printLeft(w io.Writer, left []string) {
	for _, l := range left {
		for i, part := range fold("left out: "+l, foldAt-2) {
			if i > 0 {
				part = "  " + part
			}
			fmt.Fprintln(w, part)
		}
	}
}

// parties names addresses by letters in the order of their appearance.
type parties struct {
	names map[string]string
	order []string
}

func (p *parties) name(address string) string {
	if name, ok := p.names[address]; ok {
		return name
	}
	name := string(rune('A' + len(p.order)%26))
	if n := len(p.order) / 26; n > 0 {
		name += fmt.Sprint(n)
	}
	p.names[address] = name
	p.order = append(p.order, address)
	return name
}

// printSequence prints a line or more a message, between parties named by
// letters:
//
//	1   0.000000  A → B  CON 0.02 POST, id 5d1f, token 00003974
//	                     sealed: kid empty, number 20, 13 bytes
//	                     inside: 0.01 GET /tv1
//	2   0.001210  B → A  ACK 2.04 Changed, id 5d1f: answers 1 after 1.2 ms
func printSequence(w io.Writer, reports []*explain.Report, view captureView) {
	p := parties{names: map[string]string{}}
	for _, r := range reports {
		p.name(r.Links.From)
		p.name(r.Links.To)
	}
	for _, address := range p.order {
		fmt.Fprintf(w, "  %s  %s\n", p.name(address), address)
	}
	fmt.Fprintln(w)
	start := reports[0].Links.At
	for _, r := range reports {
		head := fmt.Sprintf("%4d %11.6f  %s → %s  ", r.Index, time.Duration(r.Links.At-start).Seconds(), p.name(r.Links.From), p.name(r.Links.To))
		if view.full {
			fmt.Fprintln(w, strings.TrimRight(head, " "))
			printReport(w, r, false)
			if l := linkText(r.Links); l != "" {
				page{w}.row(0, "", l)
			}
			fmt.Fprintln(w)
			continue
		}
		indent := len([]rune(head))
		for _, line := range sequenceLines(r) {
			for i, part := range fold(line, foldAt-indent-2) {
				if i > 0 {
					part = "  " + part
				}
				fmt.Fprintln(w, strings.TrimRight(head+part, " "))
				head = strings.Repeat(" ", indent)
			}
		}
	}
}

// sequenceLines says what matters of one message.
func sequenceLines(r *explain.Report) (lines []string) {
	say := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	what := r.Code
	if r.Type != "" {
		what = strings.TrimSpace(r.Type + " " + r.Code)
	}
	if r.MessageID != nil {
		what += fmt.Sprintf(", id %04x", *r.MessageID)
	}
	if len(r.Token) > 0 {
		what += ", token " + r.Token.String()
	}
	if l := linkText(r.Links); l != "" {
		what += ": " + l
	}
	if what == "" {
		what = plural(len(r.Bytes), "byte")
	}
	say("%s", what)
	if r.Malformed != "" {
		say("MALFORMED: %s", r.Malformed)
		return lines
	}
	if r.Links.Copy > 0 {
		return lines
	}
	if o := r.OSCORE; o != nil {
		say("sealed: %s", sealedText(r))
		if o.Problem != "" {
			say("REFUSED: %s", o.Problem)
		}
	} else if text := contentText(r.Options, r.Payload); text != "" {
		say("plain: %s", text)
	}
	if o := r.Opened; o != nil {
		say("inside: %s", strings.TrimSuffix(o.Code+": "+contentText(o.Options, o.Payload), ": "))
	}
	if r.Closed != "" && r.OSCORE != nil && r.OSCORE.Problem == "" {
		say("NOT OPENED: %s", r.Closed)
	}
	for _, n := range r.Notes {
		say("note: %s", n)
	}
	return lines
}

// linkText says to what message another one belongs.
func linkText(l *explain.Links) string {
	if l == nil {
		return ""
	}
	after := time.Duration(l.After).Round(time.Microsecond)
	switch {
	case l.Copy > 0:
		return fmt.Sprintf("%d once more", l.Copy)
	case l.Answers > 0:
		return fmt.Sprintf("answers %d after %v", l.Answers, after)
	case l.Acks > 0:
		return fmt.Sprintf("for %d after %v", l.Acks, after)
	}
	return ""
}

func sealedText(r *explain.Report) string {
	var parts []string
	o := r.OSCORE
	if o.KID != nil {
		parts = append(parts, "kid "+hexOr(*o.KID, "empty"))
	}
	if o.KIDContext != nil {
		parts = append(parts, "kid context "+hexOr(*o.KIDContext, "empty"))
	}
	if o.Sequence != nil {
		parts = append(parts, fmt.Sprintf("number %d", *o.Sequence))
	}
	for _, option := range r.Options {
		if option.Name != "OSCORE" {
			parts = append(parts, option.Name+" "+valueText(option))
		}
	}
	if r.Payload != nil {
		parts = append(parts, plural(len(r.Payload.Bytes), "byte"))
	}
	return strings.Join(parts, ", ")
}

// contentText is options and payload in a line: the path as people write it,
// the others by name.
func contentText(options []explain.Option, payload *explain.Payload) string {
	path, query := "", ""
	var parts []string
	for _, o := range options {
		switch o.Name {
		case "Uri-Path":
			path += "/" + strings.Trim(o.Meaning, `"`)
		case "Uri-Query":
			mark := "&"
			if query == "" {
				mark = "?"
			}
			query += mark + strings.Trim(o.Meaning, `"`)
		case "":
			parts = append(parts, fmt.Sprintf("option %d %s", o.Number, hexOr(o.Value, "empty")))
		default:
			parts = append(parts, o.Name+" "+valueText(o))
		}
	}
	if path+query != "" {
		parts = append([]string{path + query}, parts...)
	}
	if payload != nil {
		parts = append(parts, payloadText(payload))
	}
	return strings.Join(parts, ", ")
}

func valueText(o explain.Option) string {
	if o.Meaning != "" && !needsHex(o) || o.Name == "Uri-Host" || o.Name == "Proxy-Uri" || o.Name == "Proxy-Scheme" {
		return o.Meaning
	}
	return hexOr(o.Value, "empty")
}

// shownPayload bounds the payload in a sequence, in characters.
const shownPayload = 40

func payloadText(p *explain.Payload) string {
	text := p.CBOR
	if text == "" {
		text = strings.ReplaceAll(strings.ReplaceAll(p.Text, "\n", " "), "\t", " ")
	}
	n := plural(len(p.Bytes), "byte")
	if text == "" {
		return n
	}
	if r := []rune(text); len(r) > shownPayload {
		text = string(r[:shownPayload]) + "…"
	}
	return n + ": " + text
}
