package mallory

import (
	"bufio"
	"encoding/hex"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/oscorelay/oscorelay/internal/coap"
)

// ParseRules reads a script, a statement a line:
//
//	on WHICH [CONDITION ...] do ACTION
//	replay FILE [to server|client] [after TIME] [every TIME] [fresh]
//	seed NUMBER
//
// Blank lines and what follows # is skipped. name stands in errors, which have
// the form "name:line: reason".
func ParseRules(name string, r io.Reader) (*Rules, error) {
	out := newRules()
	lines := bufio.NewScanner(r)
	for n := 1; lines.Scan(); n++ {
		if err := out.parseLine(n, lines.Text()); err != nil {
			return nil, fmt.Errorf("%s:%d: %w", name, n, err)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return out, nil
}

func (r *Rules) parseLine(n int, text string) error {
	w, err := splitWords(text)
	if err != nil || len(w) == 0 {
		return err
	}
	p := &words{all: w[1:]}
	switch w[0].text {
	case "on":
		one := &rule{line: n, r: r}
		if err := one.parse(p); err != nil {
			return err
		}
		if len(p.all) > 0 {
			return fmt.Errorf("%q is too much after the action", p.all[0].text)
		}
		r.rules = append(r.rules, one)
		return nil
	case "replay":
		one, err := parseReplay(p)
		one.Line = n
		r.Replays = append(r.Replays, one)
		return err
	case "seed":
		v, err := p.number("seed", 0, 1<<31)
		r.seed(uint64(v))
		if err == nil && len(p.all) > 0 {
			err = fmt.Errorf("%q is too much", p.all[0].text)
		}
		return err
	}
	return fmt.Errorf("unknown statement %q: there are on, replay and seed", w[0].text)
}

// word is a word of a line, or a quoted string.
type word struct {
	text   string
	quoted bool
}

// splitWords splits a line at blanks outside of quotes, and ends it at a #.
func splitWords(s string) (out []word, err error) {
	for {
		s = strings.TrimLeft(s, " \t\r")
		if s == "" || s[0] == '#' {
			return out, nil
		}
		if s[0] == '"' {
			q, err := strconv.QuotedPrefix(s)
			if err != nil {
				return nil, fmt.Errorf("the quote has no end")
			}
			text, err := strconv.Unquote(q)
			if err != nil {
				return nil, fmt.Errorf("%s is no string", q)
			}
			out, s = append(out, word{text, true}), s[len(q):]
			continue
		}
		n := strings.IndexAny(s, " \t\r")
		if n < 0 {
			n = len(s)
		}
		out, s = append(out, word{s[:n], false}), s[n:]
	}
}

// words are those of a line that are still to be read.
type words struct{ all []word }

func (p *words) next() (word, bool) {
	if len(p.all) == 0 {
		return word{}, false
	}
	w := p.all[0]
	p.all = p.all[1:]
	return w, true
}

// optional reads the word if it stands next.
func (p *words) optional(text string) bool {
	if len(p.all) > 0 && p.all[0].text == text && !p.all[0].quoted {
		p.all = p.all[1:]
		return true
	}
	return false
}

func (p *words) want(what, of string) (word, error) {
	w, ok := p.next()
	if !ok {
		return w, fmt.Errorf("%s needs %s", of, what)
	}
	return w, nil
}

func (p *words) number(of string, least, most int64) (int, error) {
	w, err := p.want("a number", of)
	if err != nil {
		return 0, err
	}
	v, err := strconv.ParseInt(w.text, 10, 64)
	if err != nil || v < least || v > most {
		return 0, fmt.Errorf("%s: %q is no number from %d to %d", of, w.text, least, most)
	}
	return int(v), nil
}

// maxDelay bounds what is kept for later.
const maxDelay = time.Hour

func (p *words) duration(of string) (time.Duration, error) {
	w, err := p.want("a time such as 500ms or 2s", of)
	if err != nil {
		return 0, err
	}
	d, err := time.ParseDuration(w.text)
	if err != nil || d < 0 || d > maxDelay {
		return 0, fmt.Errorf("%s: %q is no time from 0s to 1h: write 500ms or 2s", of, w.text)
	}
	return d, nil
}

func (p *words) hex(of string) ([]byte, error) {
	w, err := p.want("hex", of)
	if err != nil {
		return nil, err
	}
	if w.text == "empty" {
		return []byte{}, nil
	}
	b, err := hex.DecodeString(w.text)
	if err != nil {
		return nil, fmt.Errorf("%s: %q is no hex: write pairs of digits such as 0a1b, or empty", of, w.text)
	}
	return b, nil
}

// value reads bytes: hex, "text", or uint:5 in the option format of RFC 7252 §3.2.
func (p *words) value(of string) ([]byte, error) {
	w, err := p.want("a value: hex, \"text\", uint:5 or empty", of)
	if err != nil {
		return nil, err
	}
	if w.quoted {
		return []byte(w.text), nil
	}
	if number, ok := strings.CutPrefix(w.text, "uint:"); ok {
		v, err := strconv.ParseUint(number, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("%s: %q is no number up to 4294967295", of, number)
		}
		return coap.AppendUint(nil, uint32(v)), nil
	}
	p.all = append([]word{w}, p.all...)
	return p.hex(of)
}

// code reads "2.05".
func (p *words) code(of string) (coap.Code, error) {
	w, err := p.want("a code such as 2.05", of)
	if err != nil {
		return 0, err
	}
	class, detail, ok := strings.Cut(w.text, ".")
	c, err1 := strconv.ParseUint(class, 10, 8)
	d, err2 := strconv.ParseUint(detail, 10, 8)
	if !ok || err1 != nil || err2 != nil || c > 7 || d > 31 || len(detail) != 2 {
		return 0, fmt.Errorf("%s: %q is no code: write 0.02 or 2.05", of, w.text)
	}
	return coap.Code(c<<5 | d), nil
}

var types = map[string]coap.Type{
	"CON": coap.Confirmable, "NON": coap.NonConfirmable, "ACK": coap.Acknowledgement, "RST": coap.Reset,
}

func (p *words) messageType(of string) (coap.Type, error) {
	w, err := p.want("CON, NON, ACK or RST", of)
	if err != nil {
		return 0, err
	}
	t, ok := types[w.text]
	if !ok {
		return 0, fmt.Errorf("%s: %q is no type: CON, NON, ACK, RST", of, w.text)
	}
	return t, nil
}

// optionNumbers are the registered names in lower case.
var optionNumbers = func() map[string]uint16 {
	m := map[string]uint16{}
	for n := range uint16(2049) {
		if d, ok := coap.Define(n); ok {
			m[strings.ToLower(d.Name)] = n
		}
	}
	return m
}()

// option reads an option's name or number.
func (p *words) option(of string) (uint16, error) {
	w, err := p.want("an option's name or number", of)
	if err != nil {
		return 0, err
	}
	if n, ok := optionNumbers[strings.ToLower(w.text)]; ok {
		return n, nil
	}
	n, err := strconv.ParseUint(w.text, 10, 16)
	if err != nil {
		names := make([]string, 0, len(optionNumbers))
		for _, n := range optionNumbers {
			names = append(names, coap.OptionName(n))
		}
		slices.Sort(names)
		return 0, fmt.Errorf("%s: %q is no option: give a number or one of %s", of, w.text, strings.Join(names, ", "))
	}
	return uint16(n), nil
}

// Replay is a statement that sends an old capture once more.
type Replay struct {
	Line     int
	File     string
	ToClient bool
	After    time.Duration
	Every    time.Duration // between two messages
	Fresh    bool          // with message IDs and tokens of their own
}

func parseReplay(p *words) (r Replay, err error) {
	file, err := p.want("a packet capture's file", "replay")
	if err != nil {
		return r, err
	}
	r.File, r.Every = file.text, 10*time.Millisecond
	for len(p.all) > 0 && err == nil {
		w, _ := p.next()
		switch w.text {
		case "to":
			side, _ := p.next()
			if side.text != "server" && side.text != "client" {
				return r, fmt.Errorf("replay to: %q is neither server nor client", side.text)
			}
			r.ToClient = side.text == "client"
		case "after":
			r.After, err = p.duration("replay after")
		case "every":
			r.Every, err = p.duration("replay every")
		case "fresh":
			r.Fresh = true
		default:
			return r, fmt.Errorf("replay: unknown word %q: there are to, after, every and fresh", w.text)
		}
	}
	return r, err
}
