package explain

import (
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
)

// Input is one message as it stood in a text.
type Input struct {
	Line  int // where it begins, from 1
	Bytes []byte
}

// InputError is text that is no message, with its place.
type InputError struct {
	Line, Column int // from 1
	Reason       string
}

func (e *InputError) Error() string {
	return fmt.Sprintf("line %d, column %d: %s", e.Line, e.Column, e.Reason)
}

// ParseText reads messages as people paste them, one a line:
//
//	44025d1f00003974              hex; blanks, colons, commas and 0x are skipped
//	[]byte{0x44, 2, 0x5d, 0x1f}   a list in Go or C, also over several lines
//	[68 2 93 31]                  a byte slice as Go prints it
//	b'D\x02]\x1f'                 a string literal of Python, Go or C
//	0000  44 02 5d 1f  D.].       a dump of hexdump -C, xxd or Wireshark
//
// Blank lines and what follows # or // is skipped. Errors are an [*InputError].
func ParseText(text string) ([]Input, error) {
	lines := strings.Split(strings.ReplaceAll(text, "\r\n", "\n"), "\n")
	var out []Input
	for i := 0; i < len(lines); {
		if strings.TrimSpace(uncomment(lines[i])) == "" {
			i++
			continue
		}
		at := i
		b, taken, err := parseLines(lines[i:])
		if err != nil {
			err.Line += at + 1
			return nil, err
		}
		out = append(out, Input{at + 1, b})
		i += taken
	}
	return out, nil
}

// parseLines reads the message at the start of lines and returns how many
// lines it took. Lines and columns of an error count from 0 and 1.
func parseLines(lines []string) ([]byte, int, *InputError) {
	if b, n := parseDump(lines); n > 0 {
		return b, n, nil
	}
	line := uncomment(lines[0])
	switch {
	case strings.Contains(line, "{"):
		return parseList(lines, '{', '}')
	case strings.ContainsAny(line, `"'`):
		b, err := parseLiteral(line)
		return b, 1, err
	case strings.Contains(line, "["):
		return parseList(lines, '[', ']')
	}
	b, err := parseHex(line)
	return b, 1, err
}

// uncomment cuts a comment off a line. A # or // begins one at the start of the
// line or after a blank, and outside of a string literal.
func uncomment(line string) string {
	for _, mark := range []string{"#", "//"} {
		for from := 0; ; {
			i := strings.Index(line[from:], mark)
			if i < 0 {
				break
			}
			i += from
			if (i == 0 || line[i-1] == ' ' || line[i-1] == '\t') && strings.Count(line[:i], `"`)%2 == 0 && strings.Count(line[:i], `'`)%2 == 0 {
				line = line[:i]
				break
			}
			from = i + len(mark)
		}
	}
	return line
}

// parseHex reads hex digits, skipping what people put between them.
func parseHex(line string) ([]byte, *InputError) {
	var digits []byte
	last := 0 // column of the last digit, for an odd count
	for i := 0; i < len(line); {
		rest := line[i:]
		switch c := line[i]; {
		case c == ' ' || c == '\t' || c == ':' || c == ',' || c == ';' || c == '-':
			i++
		case strings.HasPrefix(rest, "0x") || strings.HasPrefix(rest, "0X") || strings.HasPrefix(rest, `\x`):
			i += 2
			n := hexRun(line[i:])
			if n == 0 {
				return nil, &InputError{0, i - 1, fmt.Sprintf("%q is not followed by hex digits", rest[:2])}
			}
			if n == 1 {
				digits = append(digits, '0') // 0x5
			}
			digits = append(digits, line[i:i+n]...)
			i += n
			last = i
		case isHex(c):
			digits = append(digits, c)
			i++
			last = i
		default:
			return nil, &InputError{0, i + 1, fmt.Sprintf("%s is no hex digit%s", quoteAt(rest), hintFor(line))}
		}
	}
	if len(digits)%2 != 0 {
		return nil, &InputError{0, last, fmt.Sprintf("%d hex digits make no whole number of bytes: one is missing or too many", len(digits))}
	}
	b := make([]byte, len(digits)/2)
	if _, err := hex.Decode(b, digits); err != nil {
		return nil, &InputError{0, 1, err.Error()} // excluded: all are digits
	}
	return b, nil
}

// hintFor says what a line that is not hex may be.
func hintFor(line string) string {
	line = strings.TrimSpace(line)
	switch {
	case strings.HasPrefix(line, "coap://"), strings.HasPrefix(line, "coaps://"):
		return " (this is a URI, not a captured message)"
	case len(line) >= 8 && strings.Trim(line, base64Alphabet) == "":
		return " (base64? convert it first: base64 -d | xxd -p)"
	}
	return ""
}

const base64Alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/-_="

// parseList reads the numbers between two brackets, which may stand lines
// apart. Numbers without 0x are decimal, as in the languages that write them.
func parseList(lines []string, open, closing byte) ([]byte, int, *InputError) {
	b := []byte{}
	inside := false
	for n, raw := range lines {
		line := uncomment(raw)
		i := 0
		if !inside {
			i = strings.IndexByte(line, open) + 1
			inside = true
		}
		for i < len(line) {
			switch c := line[i]; {
			case c == closing:
				return b, n + 1, nil
			case c == ' ' || c == '\t' || c == ',' || c == ';':
				i++
			default:
				end := i
				for end < len(line) && !strings.ContainsRune(" \t,;", rune(line[end])) && line[end] != closing {
					end++
				}
				v, err := strconv.ParseUint(line[i:end], 0, 8)
				if err != nil {
					return nil, 0, &InputError{n, i + 1, fmt.Sprintf("%q is no byte (0 to 255, or 0x00 to 0xff)", clip(line[i:end]))}
				}
				b = append(b, byte(v))
				i = end
			}
		}
	}
	return nil, 0, &InputError{0, strings.IndexByte(lines[0], open) + 1, fmt.Sprintf("the list that %q begins has no %q", open, closing)}
}

// parseLiteral reads string literals with escapes; several on a line are one.
func parseLiteral(line string) ([]byte, *InputError) {
	b := []byte{}
	for i := 0; i < len(line); {
		quote := line[i]
		if quote != '"' && quote != '\'' {
			i++
			continue
		}
		start := i
		for i++; ; {
			if i >= len(line) {
				return nil, &InputError{0, start + 1, "the string that begins here has no closing quote"}
			}
			if line[i] == quote {
				i++
				break
			}
			if line[i] != '\\' {
				b = append(b, line[i])
				i++
				continue
			}
			c, n, ok := unescape(line[i:])
			if !ok {
				return nil, &InputError{0, i + 1, "unknown escape: \\xNN, \\n, \\r, \\t, \\0, \\a, \\b, \\f, \\v, \\\\ and quotes are understood"}
			}
			b = append(b, c)
			i += n
		}
	}
	return b, nil
}

// unescape reads one escape sequence.
func unescape(s string) (c byte, n int, ok bool) {
	if len(s) < 2 {
		return 0, 0, false
	}
	if s[1] == 'x' {
		if len(s) < 4 || hexRun(s[2:4]) != 2 {
			return 0, 0, false
		}
		v, err := strconv.ParseUint(s[2:4], 16, 8)
		return byte(v), 4, err == nil
	}
	const names, values = `abfnrtv0\'"`, "\a\b\f\n\r\t\v\x00\\'\""
	if i := strings.IndexByte(names, s[1]); i >= 0 {
		return values[i], 2, true
	}
	return 0, 0, false
}

// parseDump reads a dump whose lines begin with offsets and returns how many
// lines it took, 0 if lines begin with none.
func parseDump(lines []string) ([]byte, int) {
	b := []byte{}
	for n, line := range lines {
		offset, rest, ok := dumpLine(line)
		if !ok || offset != uint64(len(b)) {
			return b, n
		}
		if len(rest) == 0 { // hexdump -C ends with the length alone
			return b, n + 1
		}
		b = append(b, rest...)
	}
	return b, len(lines)
}

// dumpLine reads "offset bytes text".
func dumpLine(line string) (offset uint64, b []byte, ok bool) {
	line = strings.TrimRight(strings.TrimLeft(line, " \t"), " \t")
	line = strings.TrimPrefix(line, "0x")
	n := hexRun(line)
	if n < 4 || n > 8 {
		return 0, nil, false
	}
	offset, err := strconv.ParseUint(line[:n], 16, 32)
	if err != nil {
		return 0, nil, false
	}
	rest := line[n:]
	gap := "   " // Wireshark: three blanks before the text
	switch {
	case strings.HasPrefix(rest, ":"): // xxd, tcpdump -x
		rest, gap = strings.TrimLeft(rest[1:], " \t"), "  "
	case strings.HasPrefix(rest, "  "):
		rest = strings.TrimLeft(rest, " ")
	case rest == "" && offset > 0:
		return offset, nil, true
	default:
		return 0, nil, false
	}
	if i := strings.IndexByte(rest, '|'); i >= 0 {
		rest = rest[:i] // hexdump -C
	} else if i := strings.Index(rest, gap); i >= 0 {
		rest = rest[:i]
	}
	b, bad := parseHex(rest)
	return offset, b, bad == nil && len(b) > 0
}

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}

// hexRun returns how many hex digits s begins with.
func hexRun(s string) (n int) {
	for n < len(s) && isHex(s[n]) {
		n++
	}
	return n
}

// quoteAt quotes the first character of s.
func quoteAt(s string) string {
	for _, r := range s {
		return strconv.QuoteRune(r)
	}
	return "the end"
}

// clip bounds a piece of foreign text in an error.
func clip(s string) string {
	if len(s) > 20 {
		return s[:20] + "…"
	}
	return s
}
