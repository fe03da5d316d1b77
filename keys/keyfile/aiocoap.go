package keyfile

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/oscorelay/oscorelay/keys"
	"github.com/oscorelay/oscorelay/oscore"
)

// Aiocoap is a context directory of aiocoap: settings.json and secret.json with
// the parameters, each value in one of the two, and sequence.json with what was
// used of it.
type Aiocoap struct {
	Entry keys.Entry
	// Next is the sequence number that aiocoap would use next; Used is false if
	// it never did.
	Next uint64
	Used bool
}

// IsAiocoap reports whether a directory looks like one of aiocoap's.
func IsAiocoap(dir string) bool {
	for _, f := range []string{"settings.json", "secret.json"} {
		if _, err := os.Stat(filepath.Join(dir, f)); err == nil {
			return true
		}
	}
	return false
}

// ReadAiocoap reads a context directory. The entry takes the directory's name.
func ReadAiocoap(dir string) (Aiocoap, error) {
	var out Aiocoap
	values, from := map[string]any{}, map[string]string{}
	for _, f := range []string{"settings.json", "secret.json"} {
		name := filepath.Join(dir, f)
		b, err := os.ReadFile(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return out, err
		}
		var m map[string]any
		if err := json.Unmarshal(b, &m); err != nil {
			return out, &Error{name, 0, err}
		}
		for _, k := range slices.Sorted(maps.Keys(m)) {
			if other, ok := from[k]; ok {
				return out, &Error{name, 0, fmt.Errorf("%s stands in %s too", k, other)}
			}
			values[k], from[k] = m[k], name
		}
	}
	if len(values) == 0 {
		return out, &Error{dir, 0, errors.New("neither settings.json nor secret.json is there")}
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		return out, err
	}
	out.Entry.Name = filepath.Base(abs)
	for _, k := range slices.Sorted(maps.Keys(values)) {
		if err := setAiocoap(&out.Entry, k, values[k]); err != nil {
			return out, &Error{from[k], 0, err}
		}
	}
	if err := out.Entry.Check(); err != nil {
		return out, &Error{dir, 0, err}
	}
	return out, out.readSequence(filepath.Join(dir, "sequence.json"))
}

func (a *Aiocoap) readSequence(name string) error {
	b, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var s struct {
		Next uint64 `json:"next-to-send"`
	}
	if err := json.Unmarshal(b, &s); err != nil {
		return &Error{name, 0, err}
	}
	a.Next, a.Used = s.Next, true
	return nil
}

func setAiocoap(e *keys.Entry, key string, v any) error {
	p := &e.Params
	field, form := key, ""
	for _, f := range []string{"hex", "ascii"} {
		if rest, ok := strings.CutSuffix(key, "_"+f); ok {
			field, form = rest, f
		}
	}
	if field == "window" {
		n, ok := v.(float64)
		if !ok || n != float64(int(n)) {
			return fmt.Errorf("%s: not a number", key)
		}
		p.WindowSize = int(n)
		return nil
	}
	s, ok := v.(string)
	if !ok {
		return fmt.Errorf("%s: not a string", key)
	}
	var err error
	switch field {
	case "algorithm":
		p.AEAD, err = oscore.ParseAEAD(s)
		return err
	case "kdf-hashfun":
		p.HKDF, err = oscore.ParseHKDF(s)
		return err
	}
	b := []byte(s)
	switch form {
	case "hex":
		if b, err = parseHex(s); err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
	case "":
		return fmt.Errorf("unknown key %q, or one that lacks _hex or _ascii", key)
	}
	switch field {
	case "secret":
		p.MasterSecret = b
	case "salt":
		p.MasterSalt = b
	case "id-context":
		p.IDContext = b
	case "sender-id":
		p.SenderID = b
	case "recipient-id":
		p.RecipientID = b
	default:
		return fmt.Errorf("unknown key %q", key)
	}
	return nil
}

// WriteAiocoap makes a context directory that was never used. It must be the
// other end's, or one that is not used here: aiocoap counts from 0.
func WriteAiocoap(dir string, e *keys.Entry) error {
	p := &e.Params
	hash := map[oscore.HKDF]string{0: "sha256", oscore.HKDFSHA256: "sha256", oscore.HKDFSHA384: "sha384", oscore.HKDFSHA512: "sha512"}[p.HKDF]
	hex := func(b []byte) string { return strings.TrimPrefix(FormatBytes(b), "hex:") }
	settings := map[string]any{
		"sender-id_hex": hex(p.SenderID), "recipient-id_hex": hex(p.RecipientID), "algorithm": p.AEAD.String(), "kdf-hashfun": hash,
	}
	if p.WindowSize != 0 {
		settings["window"] = p.WindowSize
	}
	if p.IDContext != nil {
		settings["id-context_hex"] = hex(p.IDContext)
	}
	secret := map[string]any{"secret_hex": hex(p.MasterSecret)}
	if len(p.MasterSalt) > 0 {
		secret["salt_hex"] = hex(p.MasterSalt)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for _, f := range []string{"settings.json", "secret.json", "sequence.json"} {
		if _, err := os.Stat(filepath.Join(dir, f)); err == nil {
			return fmt.Errorf("%s holds a %s already: name another directory", dir, f)
		}
	}
	for _, f := range []struct {
		name string
		v    any
	}{{"settings.json", settings}, {"secret.json", secret}} {
		b, err := json.MarshalIndent(f.v, "", "  ")
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, f.name), append(b, '\n'), 0o600); err != nil {
			return err
		}
	}
	return nil
}
