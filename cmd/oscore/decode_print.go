package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/oscorelay/oscorelay/internal/explain"
)

// A report is printed as lines of two columns, folded at 79 characters:
//
//	message 1: datagram, 35 bytes
//	  header    44025d1f
//	            CON, 0.02 POST, message ID 0x5d1f
//	  …
const (
	foldAt  = 79
	labelAt = 2
	textAt  = 14
)

// page prints folded, labelled text.
type page struct{ w io.Writer }

// row prints a label and a text, the text folded under itself. extra indents
// both.
func (p page) row(extra int, label, text string) {
	lines := fold(text, foldAt-textAt-extra)
	if len(lines) == 0 {
		lines = []string{""}
	}
	pad := strings.Repeat(" ", labelAt+extra)
	width := textAt - labelAt
	if utf8.RuneCountInString(label) >= width { // the label gets a line of its own
		fmt.Fprintf(p.w, "%s%s\n", pad, label)
		label = ""
	}
	for i, line := range lines {
		if i > 0 {
			label = ""
		}
		fmt.Fprintln(p.w, strings.TrimRight(fmt.Sprintf("%s%-*s%s", pad, width, label, line), " "))
	}
}

// fold breaks text at blanks so that no line is longer than width; a word that
// is longer itself is cut.
func fold(text string, width int) []string {
	var lines []string
	for paragraph := range strings.SplitSeq(text, "\n") {
		line := ""
		for word := range strings.FieldsSeq(paragraph) {
			for utf8.RuneCountInString(word) > width {
				if line != "" {
					lines = append(lines, line)
					line = ""
				}
				r := []rune(word)
				lines = append(lines, string(r[:width]))
				word = string(r[width:])
			}
			switch {
			case line == "":
				line = word
			case utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) <= width:
				line += " " + word
			default:
				lines = append(lines, line)
				line = word
			}
		}
		if line != "" {
			lines = append(lines, line)
		}
	}
	return lines
}

// printReport prints what is known of one message.
func printReport(w io.Writer, r *explain.Report, gap bool) {
	if gap {
		fmt.Fprintln(w)
	}
	p := page{w}
	framing := "over UDP"
	if r.Framing == explain.Stream {
		framing = "over TCP"
	}
	fmt.Fprintf(w, "message %d: %s, %s\n", r.Index, plural(len(r.Bytes), "byte"), framing)
	if r.Header != nil {
		p.row(0, "header", r.Header.String()+": "+headerText(r))
		p.row(0, "token", hexOr(r.Token, "empty"))
	}
	printOptions(p, 0, r.Options)
	if r.OSCORE != nil {
		printFields(p, r.OSCORE)
	}
	printPayload(p, 0, r)
	if r.Malformed != "" {
		p.row(0, "MALFORMED", r.Malformed)
	}
	if c := r.Crypto; c != nil {
		p.row(0, "aad array", c.AADArray.String())
		p.row(0, "aad", c.EncStructure.String()+" (Enc_structure)")
		p.row(0, "nonce", c.Nonce.String())
	}
	if r.Closed != "" {
		p.row(0, "NOT OPENED", r.Closed)
	}
	if o := r.Opened; o != nil {
		printOpened(p, o)
	}
	for _, n := range r.Notes {
		p.row(0, "note", n)
	}
}

func headerText(r *explain.Report) string {
	if r.Type == "" {
		return r.Code
	}
	return fmt.Sprintf("%s, %s, message ID 0x%04x", r.Type, r.Code, *r.MessageID)
}

func printOptions(p page, extra int, options []explain.Option) {
	for i, o := range options {
		label := ""
		if i == 0 {
			label = "options"
		}
		name := o.Name
		if name == "" {
			name = "(unknown)"
		}
		text := fmt.Sprintf("%d %s", o.Number, name)
		switch {
		case o.Meaning != "" && (o.Name == "" || len(o.Meaning) > 0 && o.Meaning[0] != '"' && needsHex(o)):
			text += fmt.Sprintf(": %s, %s", hexOr(o.Value, "empty"), o.Meaning)
		case o.Meaning != "":
			text += ": " + o.Meaning
		default:
			text += ": " + hexOr(o.Value, "empty")
		}
		p.row(extra, label, text)
		if o.Problem != "" {
			p.row(extra, "", "! "+o.Problem)
		}
	}
}

// needsHex reports whether a meaning leaves the value's bytes unsaid.
func needsHex(o explain.Option) bool {
	m := o.Meaning[0]
	return (m < '0' || m > '9') && len(o.Value) > 0
}

func printFields(p page, o *explain.OSCORE) {
	p.row(0, "option 9", hexOr(o.Value, "empty value"))
	printFieldRows(p, o)
}

func printFieldRows(p page, o *explain.OSCORE) {
	for _, f := range o.Fields {
		text := f.Meaning
		if len(f.Bytes) > 0 {
			text = f.Bytes.String() + ": " + text
		}
		p.row(2, f.Name, text)
	}
	if o.Problem != "" {
		p.row(2, "REFUSED", o.Problem)
	}
}

// printOption9 prints an option value that was given alone.
func printOption9(w io.Writer, o *explain.OSCORE, gap bool) {
	if gap {
		fmt.Fprintln(w)
	}
	fmt.Fprintf(w, "OSCORE option: %s\n", plural(len(o.Value), "byte"))
	p := page{w}
	p.row(0, "value", hexOr(o.Value, "empty"))
	printFieldRows(p, o)
}

func printPayload(p page, extra int, r *explain.Report) {
	if r.Payload == nil {
		return
	}
	if r.OSCORE != nil {
		p.row(extra, "ciphertext", fmt.Sprintf("%s, tag included\n%s", plural(len(r.Payload.Bytes), "byte"), r.Payload.Bytes))
		return
	}
	printPlain(p, extra, r.Payload)
}

func printPlain(p page, extra int, payload *explain.Payload) {
	switch {
	case payload == nil:
		return
	case payload.CBOR != "":
		p.row(extra, "payload", fmt.Sprintf("%s of CBOR: %s", plural(len(payload.Bytes), "byte"), payload.CBOR))
	case payload.Text != "":
		text := payload.Text
		if strings.Join(strings.Fields(text), " ") != text {
			text = strconv.Quote(text) // folding would lose its blanks
		}
		p.row(extra, "payload", fmt.Sprintf("%s: %s", plural(len(payload.Bytes), "byte"), text))
	default:
		p.row(extra, "payload", fmt.Sprintf("%s\n%s", plural(len(payload.Bytes), "byte"), payload.Bytes))
	}
}

func printOpened(p page, o *explain.Opened) {
	text := "sealed by the peer"
	if o.By == "sender" {
		text = "sealed by the keys' owner"
	}
	if o.Request > 0 {
		text += fmt.Sprintf("; answers message %d", o.Request)
	}
	p.row(0, "OPENED", text)
	p.row(2, "code", o.Code)
	printOptions(p, 2, o.Options)
	printPlain(p, 2, o.Payload)
}

func hexOr(b explain.Hex, empty string) string {
	if len(b) == 0 {
		return empty
	}
	return b.String()
}

func plural(n int, unit string) string {
	if n == 1 {
		return "1 " + unit
	}
	return fmt.Sprintf("%d %ss", n, unit)
}
