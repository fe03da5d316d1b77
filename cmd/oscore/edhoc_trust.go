package main

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/oscorelay/oscorelay/keys/edhoc"
)

// store returns the credentials that are trusted, and their names.
func (p *partyFlags) store() (*edhoc.Store, []string, error) {
	cfg := edhoc.StoreConfig{}
	if p.roots != "" {
		b, err := os.ReadFile(p.roots)
		if err != nil {
			return nil, nil, err
		}
		cfg.Roots = x509.NewCertPool()
		if !cfg.Roots.AppendCertsFromPEM(b) {
			return nil, nil, fmt.Errorf("%s holds no certificate in PEM", p.roots)
		}
	}
	if len(p.trust) == 0 && p.roots == "" && p.firstUse == "" {
		return nil, nil, usagef("nobody is trusted: give the peer's credential with --trust FILE, roots of certificates with --roots FILE")
	}
	var learned *learned
	if p.firstUse != "" {
		var err error
		if learned, err = openLearned(p.firstUse); err != nil {
			return nil, nil, err
		}
		cfg.TrustOnFirstUse, cfg.OnLearn = true, learned.add
	}
	s := edhoc.NewStore(cfg)
	var names []string
	for _, t := range p.trust {
		name, file, named := strings.Cut(t, "=")
		if !named {
			name, file = "", t
		}
		c, err := readCredential(file)
		if err != nil {
			return nil, nil, err
		}
		if name == "" {
			name = c.Subject()
		}
		if name == "" {
			return nil, nil, fmt.Errorf("%s names nobody: write --trust NAME=%s", file, file)
		}
		if err := s.Pin(name, c); err != nil {
			return nil, nil, fmt.Errorf("%s: %w", file, err)
		}
		names = append(names, name)
	}
	if learned != nil {
		if err := learned.into(s); err != nil {
			return nil, nil, err
		}
	}
	return s, names, nil
}

// learned are the credentials of trust on first use, in a file that a person can
// read.
type learned struct {
	file    string
	entries []edhoc.Entry
}

func openLearned(file string) (*learned, error) {
	l := &learned{file: file}
	b, err := os.ReadFile(file)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return l, nil
	case err != nil:
		return nil, err
	}
	s := edhoc.NewStore(edhoc.StoreConfig{})
	if err := s.Import(b); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	l.entries = s.Entries()
	return l, nil
}

// into adds what was learned to a store.
func (l *learned) into(s *edhoc.Store) error {
	b, err := edhoc.ExportEntries(l.entries)
	if err == nil {
		err = s.Import(b)
	}
	return err
}

// add makes a credential durable before it counts.
func (l *learned) add(e edhoc.Entry) error {
	b, err := edhoc.ExportEntries(append(l.entries[:len(l.entries):len(l.entries)], e))
	if err != nil {
		return err
	}
	if err := replaceFile(l.file, b); err != nil {
		return fmt.Errorf("%s: %w", l.file, err)
	}
	l.entries = append(l.entries, e)
	return nil
}

// replaceFile writes a file as a whole, durably, or leaves it as it was.
func replaceFile(name string, b []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+"-*")
	if err != nil {
		return err
	}
	_, err = bytes.NewReader(b).WriteTo(f)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	dir, err := os.Open(filepath.Dir(name))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
