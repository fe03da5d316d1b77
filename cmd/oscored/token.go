package main

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// tokenName is the file with the administration's token.
func tokenName(c *config) string {
	if c.Admin.TokenFile != "" {
		return c.Admin.TokenFile
	}
	return filepath.Join(c.Store.Dir, "admin.token")
}

// minToken is the shortest token that is taken from a file, in characters.
const minToken = 20

// token is what the administration asks for. It shows in no log.
type token struct{ sum [sha256.Size]byte }

// String hides the token.
func (token) String() string { return "(token)" }

// is compares in a time that tells nothing of the token.
func (t *token) is(s string) bool {
	sum := sha256.Sum256([]byte(s))
	return subtle.ConstantTimeCompare(t.sum[:], sum[:]) == 1
}

// readToken reads the token's file.
func readToken(name string) (string, error) {
	if err := secretFile(name); err != nil {
		return "", err
	}
	b, err := os.ReadFile(name)
	if err != nil {
		return "", err
	}
	s := strings.TrimSpace(string(b))
	if len(s) < minToken {
		return "", fmt.Errorf("%s holds a token of %d characters, which can be guessed: delete the file, and oscored makes a new one", name, len(s))
	}
	return s, nil
}

// loadToken reads the token, and makes one if there is none.
func loadToken(name string) (*token, error) {
	s, err := readToken(name)
	if errors.Is(err, fs.ErrNotExist) {
		b := make([]byte, 32)
		_, _ = rand.Read(b) // never fails (crypto/rand)
		s = base64.RawURLEncoding.EncodeToString(b)
		if err = os.MkdirAll(filepath.Dir(name), 0o700); err == nil {
			err = writeNew(name, []byte(s+"\n"))
		}
	}
	if err != nil {
		return nil, fmt.Errorf("the administration's token: %w", err)
	}
	return &token{sha256.Sum256([]byte(s))}, nil
}

// writeNew writes a file for its owner alone, which must not be there.
func writeNew(name string, b []byte) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Close()); err != nil {
		err = errors.Join(err, os.Remove(name)) // half of it would be taken for it
	}
	return err
}
