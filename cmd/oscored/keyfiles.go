package main

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/oscorelay/oscorelay/keys"
	"github.com/oscorelay/oscorelay/keys/keyfile"
)

// keyFiles are the entries of all key files.
type keyFiles struct {
	names   []string
	entries []keys.Entry
	source  map[string]string // file by context
	seen    seenFiles

	// unchanged says that the files are as they were when the store took them in,
	// so that they were not read; seen tells when that was.
	unchanged bool
}

// readKeyFiles reads key files. Every error names its file, and its line where
// there is one.
func readKeyFiles(names []string) (*keyFiles, error) {
	out := &keyFiles{names: names, source: map[string]string{}, seen: seenFiles{Salt: random(16), Files: map[string][]byte{}}}
	for _, name := range names {
		if err := keyFileMode(name); err != nil {
			return nil, err
		}
		b, err := os.ReadFile(name)
		if err != nil {
			return nil, fmt.Errorf("%w: keys.files: %w", errConfig, err)
		}
		entries, err := parseKeyFile(name, b)
		if err != nil {
			return nil, fmt.Errorf("%w: keys.files: %w", errConfig, err)
		}
		for _, e := range entries {
			if other, taken := out.source[e.Name]; taken {
				return nil, fmt.Errorf("%w: keys.files: %s: context %q stands in %s already: give it another name, or remove one", errConfig, name, e.Name, other)
			}
			out.source[e.Name] = name
		}
		out.entries = append(out.entries, entries...)
		out.seen.Files[name], _ = out.seen.mark(bytes.NewReader(b)) // reading memory does not fail
		clear(b)
	}
	return out, nil
}

// changedKeyFiles is readKeyFiles, but that it reads none of them if all are as
// they were when the store in a directory took them in.
func changedKeyFiles(names []string, dir string) (*keyFiles, error) {
	seen, err := readSeen(dir)
	if err != nil || !seen.matches(names) {
		return readKeyFiles(names)
	}
	for _, name := range names {
		if err := keyFileMode(name); err != nil {
			return nil, err
		}
	}
	return &keyFiles{names: names, seen: seen, unchanged: true}, nil
}

// keyFileMode refuses a key file that everybody can read.
func keyFileMode(name string) error {
	info, err := os.Stat(name)
	if err != nil {
		return fmt.Errorf("%w: keys.files: %w", errConfig, err)
	}
	if info.Mode().Perm()&0o007 != 0 {
		return fmt.Errorf("%w: keys.files: %s can be read by everybody (mode %04o): chmod o= %s", errConfig, name, info.Mode().Perm(), name)
	}
	return nil
}

func parseKeyFile(name string, b []byte) ([]keys.Entry, error) {
	format, err := keyfile.FormatOf(name, b)
	if err != nil {
		return nil, err
	}
	return keyfile.Parse(name, format, b)
}

// seenFiles tells key files that a store has taken in whole from those that
// changed since.
type seenFiles struct {
	Epoch uint64            `json:"epoch"` // of the store
	Salt  []byte            `json:"salt"`
	Files map[string][]byte `json:"files"` // HMAC-SHA-256 of the content
}

func seenName(dir string) string { return filepath.Join(dir, "key-files.json") }

func readSeen(dir string) (s seenFiles, err error) {
	b, err := os.ReadFile(seenName(dir))
	if err == nil {
		err = json.Unmarshal(b, &s)
	}
	return s, err
}

func (s *seenFiles) mark(r io.Reader) ([]byte, error) {
	h := hmac.New(sha256.New, s.Salt)
	_, err := io.Copy(h, r)
	return h.Sum(nil), err
}

// matches reports whether the files are those that were seen, as they were.
func (s *seenFiles) matches(names []string) bool {
	if len(names) != len(s.Files) {
		return false
	}
	for _, name := range names {
		f, err := os.Open(name)
		if err != nil {
			return false // reading it tells why
		}
		mark, err := s.mark(f)
		_ = f.Close()
		if err != nil || !bytes.Equal(mark, s.Files[name]) {
			return false
		}
	}
	return true
}

// writeFile puts a file in the place of another, as a whole.
func writeFile(name string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if err := os.WriteFile(name+".new", b, 0o600); err != nil {
		return err
	}
	return os.Rename(name+".new", name)
}

// begin notes that the store is about to be changed: a start after one that did
// not come to its end looks at the files anew.
func (r *registry) begin(sources map[string]string) error {
	if err := os.Remove(seenName(r.store.Dir())); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return writeFile(r.sourcesName(), sources)
}

// end notes that the store holds what the files do.
func (r *registry) end(s seenFiles) error {
	s.Epoch = r.store.Epoch()
	return writeFile(seenName(r.store.Dir()), s)
}

// sourcesName is the file that tells which contexts came from key files.
// Sequence numbers are no part of it: a wrong one removes a context too many or
// too few, and its numbers stay.
func (r *registry) sourcesName() string { return filepath.Join(r.store.Dir(), "key-contexts.json") }

func (r *registry) loadSources() error {
	b, err := os.ReadFile(r.sourcesName())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		if err = json.Unmarshal(b, &r.sources); err == nil && r.sources == nil {
			r.sources = map[string]string{}
		}
		if err != nil {
			err = fmt.Errorf("%s: %w: delete the file; contexts that left the key files meanwhile are then to be removed by oscored ctl", r.sourcesName(), err)
		}
	}
	return err
}
