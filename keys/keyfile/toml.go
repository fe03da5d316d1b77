package keyfile

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/oscorelay/oscorelay/keys"
	"github.com/pelletier/go-toml/v2"
)

type tomlFile struct {
	Context []record `toml:"context"`
}

// tomlReader reads a TOML file in parts of some [[context]] tables.
type tomlReader struct {
	name    string
	text    *bufio.Reader
	part    []byte
	first   int    // line at which it begins
	head    []byte // a line that was read and belongs to the next part
	ended   bool
	records []record
	at      int // the record last returned
	lines   [][]byte
	tables  []int // lines of the part's [[context]], of records in order
}

const (
	tomlTables = 256      // in a part
	tomlMost   = 16 << 20 // bytes of a part
)

func newTOML(name string, r *bufio.Reader) *tomlReader {
	return &tomlReader{name: name, text: r, first: 1}
}

func (t *tomlReader) next() (*record, error) {
	for t.at++; t.at >= len(t.records); t.at = 0 {
		if t.ended {
			return nil, io.EOF
		}
		if err := t.read(); err != nil {
			return nil, err
		}
		if err := t.decode(); err != nil {
			return nil, err
		}
	}
	return &t.records[t.at], nil
}

// read reads a part: up to a [[context]], which no string or list holds, or the end.
func (t *tomlReader) read() error {
	t.first += bytes.Count(t.part, []byte{'\n'})
	clear(t.part)
	t.part = append(t.part[:0], t.head...)
	t.head = t.head[:0]
	tables := 0
	if len(t.part) > 0 {
		tables++
	}
	var s tomlState
	begin := len(t.part) // of the line
	for {
		b, err := t.text.ReadSlice('\n')
		t.part = append(t.part, b...)
		if len(t.part) > tomlMost {
			return &Error{t.name, t.first, fmt.Errorf("from here on %d MiB stand without a [[context]] of a line's own: write one for each context, and see that no string lacks its end", tomlMost>>20)}
		}
		if err == bufio.ErrBufferFull {
			continue
		}
		if err != nil && err != io.EOF {
			return &Error{t.name, 0, err}
		}
		line := t.part[begin:]
		if !s.inside() && isContext(line) {
			if tables++; tables > tomlTables {
				t.head = append(t.head[:0], line...)
				t.part = t.part[:begin]
				return nil
			}
		}
		s.line(line)
		begin = len(t.part)
		if err == io.EOF {
			t.ended = true
			return nil
		}
	}
}

// isContext reports whether a line begins a context.
func isContext(line []byte) bool {
	line = bytes.TrimSpace(line)
	if len(line) < 2 || line[0] != '[' {
		return false
	}
	head, _, _ := bytes.Cut(line, []byte{'#'})
	return string(bytes.ReplaceAll(bytes.TrimSpace(head), []byte(" "), nil)) == "[[context]]"
}

// tomlState is what goes on over the end of a line: a string or a list.
type tomlState struct {
	quote byte // of a string of several lines
	depth int  // of lists and tables in line
}

func (s *tomlState) inside() bool { return s.quote != 0 || s.depth > 0 }

// line looks at a line. What is wrong with it is found by who decodes it.
func (s *tomlState) line(b []byte) {
	if !s.inside() && bytes.IndexByte(b, '=') < 0 {
		return // a table's head, a comment, nothing
	}
	for i := 0; i < len(b); i++ {
		c := b[i]
		if s.quote != 0 {
			switch {
			case c == '\\' && s.quote == '"':
				i++
			case c == s.quote && triple(b[i:], c):
				s.quote = 0
				for i += 2; i+1 < len(b) && b[i+1] == c; i++ { // quotes that belong to the string
				}
			}
			continue
		}
		switch c {
		case '#':
			return
		case '"', '\'':
			if triple(b[i:], c) {
				s.quote = c
				i += 2
				continue
			}
			for i++; i < len(b) && b[i] != c; i++ {
				if b[i] == '\\' && c == '"' {
					i++
				}
			}
		case '[', '{':
			s.depth++
		case ']', '}':
			s.depth = max(0, s.depth-1)
		}
	}
}

func triple(b []byte, c byte) bool { return len(b) >= 3 && b[0] == c && b[1] == c && b[2] == c }

func (t *tomlReader) decode() error {
	d := toml.NewDecoder(bytes.NewReader(t.part))
	d.DisallowUnknownFields()
	file := tomlFile{t.records[:0]}
	clear(t.records)
	err := d.Decode(&file)
	t.records, t.lines = file.Context, nil
	fail := func(row int, err error) error { return &Error{t.name, t.first + row - 1, err} }
	var unknown *toml.StrictMissingError
	var bad *toml.DecodeError
	switch {
	case errors.As(err, &unknown) && len(unknown.Errors) > 0:
		first := &unknown.Errors[0]
		row, _ := first.Position()
		return fail(row, fmt.Errorf("unknown key %q", strings.Join(first.Key(), ".")))
	case errors.As(err, &bad):
		row, _ := bad.Position()
		what := bad.Error()
		if key := bad.Key(); len(key) > 0 {
			what = key[len(key)-1] + ": " + strings.TrimPrefix(what, "toml: ")
		}
		return fail(row, errors.New(what))
	case err != nil:
		return &Error{t.name, 0, err}
	}
	return nil
}

// line finds lines by their beginnings: the n-th [[context]], and the key at the
// start of a line below it.
func (t *tomlReader) line(field string) int {
	if t.lines == nil {
		t.lines, t.tables = bytes.Split(t.part, []byte{'\n'}), t.tables[:0]
		var s tomlState
		for i, line := range t.lines {
			if !s.inside() && isContext(line) {
				t.tables = append(t.tables, i)
			}
			s.line(line)
		}
	}
	if t.at >= len(t.tables) {
		return 0
	}
	end := len(t.lines)
	if t.at+1 < len(t.tables) {
		end = t.tables[t.at+1]
	}
	for i := t.tables[t.at] + 1; i < end; i++ {
		key, _, ok := bytes.Cut(t.lines[i], []byte{'='})
		if ok && string(bytes.Trim(bytes.TrimSpace(key), `"'`)) == field {
			return t.first + i
		}
	}
	return t.first + t.tables[t.at]
}

func appendTOML(dst []byte, entries []keys.Entry, secrets bool) []byte {
	b := bytes.NewBuffer(dst)
	for i := range entries {
		r := toRecord(&entries[i], secrets)
		if i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString("[[context]]\n")
		line := func(key string, v any) { fmt.Fprintf(b, "%s = %s\n", key, tomlValue(v)) }
		text := func(key string, v *string) {
			if v != nil {
				line(key, *v)
			}
		}
		line("name", r.Name)
		if secrets {
			text("master_secret", r.MasterSecret)
		} else {
			b.WriteString("# master_secret is left out\n")
		}
		text("master_salt", r.MasterSalt)
		text("id_context", r.IDContext)
		text("sender_id", r.SenderID)
		text("recipient_id", r.RecipientID)
		line("aead", r.AEAD)
		line("hkdf", r.HKDF)
		if r.Window != 0 {
			line("window", r.Window)
		}
		if r.OmitKIDContext {
			line("omit_kid_context", true)
		}
		if r.Rederive != "" {
			line("rederive", r.Rederive)
		}
		if r.RederiveOnStart {
			line("rederive_on_start", true)
		}
		if r.NoEcho {
			line("no_echo", true)
		}
		if r.MaxUnfragmented != 0 {
			line("max_unfragmented", r.MaxUnfragmented)
		}
		if r.Notes != "" {
			line("notes", r.Notes)
		}
	}
	return b.Bytes()
}

// tomlValue writes a string, an integer or a boolean. JSON's escapes in strings
// are among TOML's.
func tomlValue(v any) string {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic("keyfile: " + err.Error()) // strings, integers and booleans encode
	}
	// DEL is the one control character that JSON leaves as it is.
	return strings.ReplaceAll(strings.TrimSpace(b.String()), "\x7f", `\u007f`)
}
