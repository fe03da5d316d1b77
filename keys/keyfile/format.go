package keyfile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"github.com/oscorelay/oscorelay/keys"
)

// Format is a file format.
type Format string

// The formats of files. An aiocoap context is a directory: see [ReadAiocoap].
const (
	TOML Format = "toml"
	JSON Format = "json"
	CSV  Format = "csv"
)

// FormatOf tells the format by a file's name, and by its first byte where the
// name does not say.
func FormatOf(name string, content []byte) (Format, error) {
	switch f := Format(strings.TrimPrefix(strings.ToLower(filepath.Ext(name)), ".")); f {
	case TOML, JSON, CSV:
		return f, nil
	}
	start := bytes.TrimSpace(content)
	switch {
	case bytes.HasPrefix(start, []byte("{")):
		return JSON, nil
	case bytes.HasPrefix(start, []byte("[")), bytes.HasPrefix(start, []byte("#")):
		return TOML, nil
	case bytes.HasPrefix(start, []byte("name,")):
		return CSV, nil
	}
	return "", fmt.Errorf("%s: is it TOML, JSON or CSV? name it .toml, .json or .csv", name)
}

// Error is a place in a file and what is wrong there.
type Error struct {
	File string
	Line int // 0 if it is not one line's fault
	Err  error
}

// Error returns "file:line: what".
func (e *Error) Error() string {
	if e.Line == 0 {
		return fmt.Sprintf("%s: %v", e.File, e.Err)
	}
	return fmt.Sprintf("%s:%d: %v", e.File, e.Line, e.Err)
}

// Unwrap returns what is wrong.
func (e *Error) Unwrap() error { return e.Err }

var errEmpty = errors.New("holds no context")

// Parse reads a file's content. Unknown fields are errors; every error is an
// [Error] that names the place. For files that may be large there is [Reader].
func Parse(name string, f Format, content []byte) ([]keys.Entry, error) {
	r, err := NewReader(name, f, bytes.NewReader(content), nil)
	if err != nil {
		return nil, err
	}
	var entries []keys.Entry
	for {
		e, err := r.Next()
		if err == io.EOF {
			return entries, nil
		}
		if err != nil {
			return nil, err
		}
		entries = append(entries, e)
	}
}

// Append writes entries in a format. Without secrets the master secrets are
// left out, and the file cannot be read again.
func Append(dst []byte, f Format, entries []keys.Entry, secrets bool) ([]byte, error) {
	switch f {
	case TOML:
		return appendTOML(dst, entries, secrets), nil
	case JSON:
		return appendJSON(dst, entries, secrets)
	case CSV:
		return appendCSV(dst, entries, secrets)
	}
	return nil, fmt.Errorf("keyfile: unknown format %q", f)
}
