package keyfile

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/oscorelay/oscorelay/keys"
)

// jsonReader reads the contexts of a JSON file: {"contexts": [{...}, ...]}.
type jsonReader struct {
	name  string
	text  *lineReader
	d     *json.Decoder
	in    bool // the list has begun
	raw   json.RawMessage
	start int64 // of raw
	rec   record
}

func newJSON(name string, r io.Reader) *jsonReader {
	text := &lineReader{r: r}
	return &jsonReader{name: name, text: text, d: json.NewDecoder(text)}
}

func (j *jsonReader) fail(offset int64, err error) error {
	return &Error{j.name, j.text.lineAt(offset), err}
}

// broken is fail for what the decoder of the file found.
func (j *jsonReader) broken(err error) error {
	at := j.d.InputOffset()
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		at = syntax.Offset
	}
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return j.fail(at, err)
}

// delim reads a bracket.
func (j *jsonReader) delim(want json.Delim) error {
	t, err := j.d.Token()
	if err != nil {
		return j.broken(err)
	}
	if t != want {
		return j.fail(j.d.InputOffset(), fmt.Errorf("a %s belongs here: the file is {\"contexts\": [...]}", want))
	}
	return nil
}

func (j *jsonReader) next() (*record, error) {
	if !j.in {
		if err := j.begin(); err != nil {
			return nil, err
		}
	}
	if !j.d.More() {
		return nil, j.end()
	}
	j.raw = j.raw[:0]
	if err := j.d.Decode(&j.raw); err != nil {
		return nil, j.broken(err)
	}
	end := j.d.InputOffset()
	j.start = end - int64(len(j.raw))
	j.rec = record{}
	if offset, err := strictJSON(j.raw, &j.rec); err != nil {
		return nil, j.fail(j.start+int64(offset), err)
	}
	j.text.forget(j.start)
	return &j.rec, nil
}

// begin reads what stands before the list.
func (j *jsonReader) begin() error {
	j.in = true
	if err := j.delim('{'); err != nil {
		return err
	}
	if !j.d.More() {
		return io.EOF // it says nothing
	}
	key, err := j.d.Token()
	if err != nil {
		return j.broken(err)
	}
	if key != "contexts" {
		return j.fail(j.d.InputOffset(), fmt.Errorf("json: unknown field %q", key))
	}
	return j.delim('[')
}

// end reads what stands after it.
func (j *jsonReader) end() error {
	if err := j.delim(']'); err != nil {
		return err
	}
	if j.d.More() {
		key, err := j.d.Token()
		switch {
		case err != nil:
			return j.broken(err)
		case key == "contexts":
			return j.fail(j.d.InputOffset(), errors.New("there is a second \"contexts\": put its contexts into the first"))
		}
		return j.fail(j.d.InputOffset(), fmt.Errorf("json: unknown field %q", key))
	}
	if err := j.delim('}'); err != nil {
		return err
	}
	if _, err := j.d.Token(); !errors.Is(err, io.EOF) {
		return j.fail(j.d.InputOffset(), errors.New("something follows the value"))
	}
	return io.EOF
}

func (j *jsonReader) line(field string) int {
	at := j.start
	if field != "" {
		if i := bytes.Index(j.raw, []byte(`"`+field+`"`)); i >= 0 {
			at += int64(i)
		}
	}
	return j.text.lineAt(at)
}

// lineReader knows the lines of what was read of late.
type lineReader struct {
	r     io.Reader
	kept  []byte // what was read from offset on
	from  int64
	lines int // line ends before it
}

func (l *lineReader) Read(b []byte) (int, error) {
	n, err := l.r.Read(b)
	l.kept = append(l.kept, b[:n]...)
	return n, err
}

// forget gives up what lies before an offset.
func (l *lineReader) forget(offset int64) {
	n := int(offset - l.from)
	if n < 32<<10 || n > len(l.kept) {
		return
	}
	l.lines += bytes.Count(l.kept[:n], []byte{'\n'})
	l.kept = append(l.kept[:0], l.kept[n:]...)
	l.from = offset
}

// lineAt returns the line of an offset that was not forgotten, counted from 1.
func (l *lineReader) lineAt(offset int64) int {
	n := max(0, min(int(offset-l.from), len(l.kept)))
	return 1 + l.lines + bytes.Count(l.kept[:n], []byte{'\n'})
}

// strictJSON decodes one value and nothing else, and refuses unknown keys. It
// returns where an error lies.
func strictJSON(b []byte, v any) (offset int, err error) {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	err = d.Decode(v)
	offset = int(d.InputOffset())
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		return int(syntax.Offset), syntax
	case errors.As(err, &kind):
		return int(kind.Offset), fmt.Errorf("%s: a %s where another kind of value is needed", kind.Field, kind.Value)
	case err != nil:
		return offset, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return offset, errors.New("something follows the value")
	}
	return 0, nil
}

func appendJSON(dst []byte, entries []keys.Entry, secrets bool) ([]byte, error) {
	records := make([]record, len(entries))
	for i := range entries {
		records[i] = toRecord(&entries[i], secrets)
	}
	b, err := json.MarshalIndent(map[string]any{"contexts": records}, "", "  ")
	return append(append(dst, b...), '\n'), err
}
