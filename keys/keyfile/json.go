package keyfile

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/oscorelay/oscorelay/keys"
)

type jsonFile struct {
	Contexts []json.RawMessage `json:"contexts"`
}

func parseJSON(name string, content []byte) ([]record, locator, error) {
	fail := func(offset int, err error) ([]record, locator, error) {
		return nil, nil, &Error{name, lineAt(content, offset), err}
	}
	var file jsonFile
	if offset, err := strictJSON(content, &file); err != nil {
		return fail(offset, err)
	}
	records := make([]record, len(file.Contexts))
	starts := make([]int, len(file.Contexts))
	at := 0
	for i, raw := range file.Contexts {
		// Raw messages are verbatim and in order.
		at += max(bytes.Index(content[at:], raw), 0)
		starts[i] = at
		if offset, err := strictJSON(raw, &records[i]); err != nil {
			return fail(at+offset, err)
		}
		at += len(raw)
	}
	return records, func(record int, field string) int {
		start := starts[record]
		if field != "" {
			if i := bytes.Index(file.Contexts[record], []byte(`"`+field+`"`)); i >= 0 {
				start += i
			}
		}
		return lineAt(content, start)
	}, nil
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
