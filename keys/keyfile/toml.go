package keyfile

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/oscorelay/oscorelay/keys"
	"github.com/pelletier/go-toml/v2"
)

type tomlFile struct {
	Context []record `toml:"context"`
}

func parseTOML(name string, content []byte) ([]record, locator, error) {
	d := toml.NewDecoder(bytes.NewReader(content))
	d.DisallowUnknownFields()
	var file tomlFile
	err := d.Decode(&file)
	var unknown *toml.StrictMissingError
	var bad *toml.DecodeError
	switch {
	case errors.As(err, &unknown) && len(unknown.Errors) > 0:
		first := &unknown.Errors[0]
		row, _ := first.Position()
		return nil, nil, &Error{name, row, fmt.Errorf("unknown key %q", strings.Join(first.Key(), "."))}
	case errors.As(err, &bad):
		row, _ := bad.Position()
		what := bad.Error()
		if key := bad.Key(); len(key) > 0 {
			what = key[len(key)-1] + ": " + strings.TrimPrefix(what, "toml: ")
		}
		return nil, nil, &Error{name, row, errors.New(what)}
	case err != nil:
		return nil, nil, &Error{name, 0, err}
	}
	return file.Context, tomlLines(content), nil
}

// tomlLines finds lines by their beginnings: the n-th [[context]], and the key
// at the start of a line below it.
func tomlLines(content []byte) locator {
	lines := strings.Split(string(content), "\n")
	return func(record int, field string) int {
		at, n := 0, -1
		for i, line := range lines {
			line = strings.TrimSpace(line)
			if strings.HasPrefix(line, "[") {
				if strings.HasPrefix(strings.ReplaceAll(line, " ", ""), "[[context]]") {
					n++
				}
				if n == record {
					at = i + 1
				}
				continue
			}
			key, _, ok := strings.Cut(line, "=")
			if n == record && ok && strings.Trim(strings.TrimSpace(key), `"'`) == field {
				return i + 1
			}
		}
		return at
	}
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
