package main

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"strings"

	"github.com/oscorelay/oscorelay/keys"
	"github.com/oscorelay/oscorelay/keys/bolt"
	"github.com/oscorelay/oscorelay/keys/keyfile"
)

// keyFiles are the key files of a configuration. They are read a context at a time:
// a file of a million takes no memory.
type keyFiles struct {
	names []string
	read  seenFiles // what was read, once all was
}

// seenFiles tells key files that a store has taken in whole from those that changed
// since. The store keeps it, sealed.
type seenFiles struct {
	Salt  []byte              `json:"salt"`
	Files map[string]seenFile `json:"files"`
}

type seenFile struct {
	Size   int64  `json:"size"`
	Digest []byte `json:"digest"` // HMAC-SHA-256 of the content
}

// checkKeyFiles refuses key files that are not there or that everybody can read.
func checkKeyFiles(names []string) (*keyFiles, error) {
	for _, name := range names {
		info, err := os.Stat(name)
		if err != nil {
			return nil, fmt.Errorf("%w: keys.files: %w", errConfig, err)
		}
		if info.Mode().Perm()&0o007 != 0 {
			return nil, fmt.Errorf("%w: keys.files: %s can be read by everybody (mode %04o): chmod o= %s", errConfig, name, info.Mode().Perm(), name)
		}
	}
	return &keyFiles{names: names}, nil
}

// errEnough ends reading without an error.
var errEnough = errors.New("enough")

// all reads the key files. Every error names its file, and its line where there is
// one; there is nothing after it.
func (k *keyFiles) all() iter.Seq2[bolt.Sourced, error] {
	return func(yield func(bolt.Sourced, error) bool) {
		seen := seenFiles{Salt: random(16), Files: map[string]seenFile{}}
		names := keyfile.NewNames()
		for _, name := range k.names {
			x, err := seen.read(name, names, func(e keys.Entry) error {
				if !yield(bolt.Sourced{Entry: e, Source: name}, nil) {
					return errEnough
				}
				return nil
			})
			if errors.Is(err, errEnough) {
				return
			}
			if err != nil {
				yield(bolt.Sourced{}, fmt.Errorf("%w: keys.files: %w", errConfig, err))
				return
			}
			seen.Files[name] = x
		}
		k.read = seen
	}
}

// read calls fn for each entry of a file, and returns what the file was.
func (s *seenFiles) read(name string, names *keyfile.Names, fn func(keys.Entry) error) (x seenFile, err error) {
	f, err := os.Open(name)
	if err != nil {
		return x, err
	}
	defer func() { _ = f.Close() }() // it was only read
	h := hmac.New(sha256.New, s.Salt)
	counted := &countedReader{r: io.TeeReader(f, h)}
	r, err := keyfile.NewReader(name, "", counted, names)
	if err != nil {
		return x, err
	}
	for {
		e, err := r.Next()
		if err == nil {
			err = fn(e)
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return x, err
		}
	}
	return seenFile{counted.n, h.Sum(nil)}, nil
}

// countedReader counts what it reads.
type countedReader struct {
	r io.Reader
	n int64
}

func (c *countedReader) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	c.n += int64(n)
	return n, err
}

// mark is what the store keeps of the files that all has read.
func (k *keyFiles) mark() []byte {
	b, err := json.Marshal(k.read)
	if err != nil {
		panic("cmd/oscored: " + err.Error()) // bytes and numbers encode
	}
	return b
}

// unchanged reports whether the store has what the files say, because they are as
// they were when it took them in: their content decides.
func (k *keyFiles) unchanged(ctx context.Context, store *bolt.Store) (bool, error) {
	mark, ok, err := store.Mark(ctx)
	var s seenFiles
	if err != nil || !ok || json.Unmarshal(mark, &s) != nil || len(s.Files) != len(k.names) {
		return false, err
	}
	for _, name := range k.names {
		if info, err := os.Stat(name); err != nil || info.Size() != s.Files[name].Size {
			return false, nil // reading it tells why
		}
	}
	for _, name := range k.names {
		f, err := os.Open(name)
		if err != nil {
			return false, nil
		}
		h := hmac.New(sha256.New, s.Salt)
		_, err = io.Copy(h, contextReader{ctx, f})
		_ = f.Close()
		if ctx.Err() != nil {
			return false, ctx.Err()
		}
		if err != nil || !hmac.Equal(h.Sum(nil), s.Files[name].Digest) {
			return false, nil
		}
	}
	return true, nil
}

// contextReader ends with a context.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c contextReader) Read(b []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(b)
}

// estimate returns about how many contexts there are, for people who wait.
func (k *keyFiles) estimate() (n int) {
	for _, name := range k.names {
		f, err := os.Open(name)
		if err != nil {
			continue // reading it tells
		}
		each := []byte("master_secret") // once in each
		if strings.EqualFold(filepath.Ext(name), ".csv") {
			each = []byte("\n")
		}
		b := make([]byte, 256<<10)
		for err == nil {
			var got int
			got, err = f.Read(b)
			n += bytes.Count(b[:got], each)
		}
		clear(b)
		_ = f.Close()
	}
	return n
}
