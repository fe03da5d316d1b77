package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/oscorelay/oscorelay/keys"
	"github.com/oscorelay/oscorelay/keys/file"
	"github.com/oscorelay/oscorelay/keys/keyfile"
)

// endOfFile is io.EOF, for functions in which io is something else.
var endOfFile = io.EOF

func keysImport(ctx context.Context, io stdio, args []string) (err error) {
	f := newKeyFlags("import", "FILE|DIRECTORY...", io.out)
	fresh := f.Bool("fresh", false, "these secrets were never used anywhere, by any program, on any machine")
	goOn := f.Bool("continue", false, "go on where an aiocoap directory stopped; aiocoap must not use it again")
	swap := f.Bool("swap", false, "the file is the other end's: exchange its IDs")
	replace := f.Bool("replace", false, "put other material in the place of entries of the same name")
	name := f.String("name", "", "call the one entry so")
	files, err := f.parse(args)
	if err != nil {
		return err
	}
	if len(files) == 0 {
		return usagef("a file is missing: oscore keys import FILE")
	}
	if *fresh && *goOn {
		return usagef("--fresh and --continue contradict each other")
	}
	var entries []keys.Entry
	var sequences []uint64 // with --continue
	for _, name := range files {
		if info, err := os.Stat(name); err == nil && info.IsDir() {
			a, err := readAiocoap(name, *fresh, *goOn)
			if err != nil {
				return err
			}
			entries, sequences = append(entries, a.Entry), append(sequences, a.Next)
			continue
		}
		if *goOn {
			return usagef("--continue is for aiocoap directories: %s says nothing of numbers", name)
		}
		if entries, err = appendKeyFile(io, entries, name); err != nil {
			return err
		}
	}
	if *name != "" {
		if len(entries) != 1 {
			return usagef("--name is for one entry, and there are %d", len(entries))
		}
		entries[0].Name = *name
	}
	if *swap {
		for i := range entries {
			entries[i] = entries[i].Peer()
		}
	}
	st, err := f.open()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	warnTaint(io, st)
	if err := checkReplace(st.Entries(), entries, *replace); err != nil {
		return err
	}
	if *goOn {
		for i := range entries {
			sender, _, err := keys.Identities(&entries[i].Params)
			if err != nil {
				return err
			}
			if _, err := st.Declare(ctx, sender[:], sequences[i]); err != nil {
				return fmt.Errorf("entry %q: %w", entries[i].Name, err)
			}
		}
	}
	if err := st.Put(ctx, *fresh, entries...); err != nil {
		return err
	}
	return reportImport(ctx, io, f, st, entries)
}

// readKeyFile reads a file in the format that its name or content says.
func readKeyFile(io stdio, name string) ([]keys.Entry, error) {
	return appendKeyFile(io, nil, name)
}

// appendKeyFile adds a file's entries to others, and shows how far it is.
func appendKeyFile(io stdio, entries []keys.Entry, name string) ([]keys.Entry, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // it was only read
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	shown := newProgress(io.err, false)
	defer shown.done()
	read := &shownReader{f: f, p: shown, size: int(info.Size())}
	r, err := keyfile.NewReader(name, "", read, nil)
	for err == nil {
		var e keys.Entry
		if e, err = r.Next(); err == nil {
			entries = append(entries, e)
		}
	}
	if err == endOfFile {
		return entries, nil
	}
	return nil, err
}

// shownReader shows how much of a file is read.
type shownReader struct {
	f       *os.File
	p       *progress
	n, size int
}

func (s *shownReader) Read(b []byte) (int, error) {
	n, err := s.f.Read(b)
	s.n += n
	s.p.update(s.n, s.size)
	return n, err
}

func readAiocoap(dir string, fresh, goOn bool) (keyfile.Aiocoap, error) {
	if !keyfile.IsAiocoap(dir) {
		return keyfile.Aiocoap{}, fmt.Errorf("%s is a directory without settings.json: name a file, or a context directory of aiocoap", dir)
	}
	a, err := keyfile.ReadAiocoap(dir)
	switch {
	case err != nil:
		return a, err
	case fresh && a.Used:
		return a, fmt.Errorf("%s: sequence.json says that the keys were used (next number %d), so they are not fresh: "+
			"--continue goes on there, if aiocoap will not use the directory again; without either they are tainted",
			filepath.Join(dir, "sequence.json"), a.Next)
	case goOn && !a.Used:
		return a, fmt.Errorf("%s: there is no sequence.json to go on from: --fresh, if the keys were never used", dir)
	}
	return a, nil
}

// checkReplace refuses to put other material under a name that is taken.
func checkReplace(have, entries []keys.Entry, replace bool) error {
	at := make(map[string]int, len(have))
	for i := range have {
		at[have[i].Name] = i
	}
	for _, e := range entries {
		i, ok := at[e.Name]
		if !ok || replace {
			continue
		}
		s1, r1, err1 := keys.Identities(&have[i].Params)
		s2, r2, err2 := keys.Identities(&e.Params)
		if err := errors.Join(err1, err2); err != nil {
			return err
		}
		if s1 != s2 || r1 != r2 {
			return fmt.Errorf("there is an entry %q with other keys: import with --replace, or with --name NEW", e.Name)
		}
	}
	return nil
}

func reportImport(ctx context.Context, io stdio, f *keyFlags, st *file.Store, entries []keys.Entry) error {
	type result struct {
		Name    string `json:"name"`
		Tainted string `json:"tainted,omitempty"`
	}
	var results []result
	tainted := 0
	for i := range entries {
		sender, _, err := keys.Identities(&entries[i].Params)
		if err != nil {
			return err
		}
		r := result{Name: entries[i].Name}
		if err := st.Known(ctx, sender[:]); err != nil {
			r.Tainted = err.Error()
			tainted++
		}
		results = append(results, r)
	}
	findings := keyfile.Lint(st.Entries())
	if f.json {
		return printJSON(io.out, map[string]any{"dir": st.Dir(), "entries": results, "findings": findings})
	}
	fmt.Fprintf(io.out, "%d imported into %s\n", len(results), st.Dir())
	if tainted > 0 {
		fmt.Fprintf(io.err, "warning: %d of them are tainted: they may have been used before, so they open messages but send none.\n"+
			"  Import with --fresh if the secrets were never used anywhere; else %s.\n", tainted, keys.Mend)
	}
	if len(findings) > 0 {
		fmt.Fprintf(io.err, "warning: oscore keys lint has %d remarks on what is there now\n", len(findings))
	}
	return nil
}

func keysExport(_ context.Context, io stdio, args []string) error {
	f := newKeyFlags("export", "[NAME...]", io.out)
	secrets := f.Bool("secrets", false, "write the master secrets too")
	peer := f.Bool("peer", false, "write the other end's view: the IDs exchanged")
	format := f.String("format", "toml", "toml, json, csv, or aiocoap (a directory for one entry, with --peer, --secrets and --out)")
	out := f.String("out", "", "write to this new file instead of the output")
	names, err := f.parse(args)
	if err != nil {
		return err
	}
	v, _, err := f.read()
	if err != nil {
		return err
	}
	if f.json {
		*format = "json"
	}
	views, err := pick(v.Entries, func(e *file.EntryView) string { return e.Name }, names)
	if err != nil {
		return err
	}
	entries := make([]keys.Entry, len(views))
	for i := range views {
		if entries[i] = views[i].Entry; *peer {
			entries[i] = entries[i].Peer()
		}
	}
	if *format == "aiocoap" {
		if !*secrets || !*peer || *out == "" || len(entries) != 1 {
			return usagef("aiocoap's format is for one entry, with --secrets, --out DIRECTORY and --peer: aiocoap counts from 0, which would repeat this end's numbers")
		}
		if err := keyfile.WriteAiocoap(*out, &entries[0]); err != nil {
			return err
		}
		fmt.Fprintf(io.out, "%s is the other end of %s, for aiocoap, counted from 0: it must not have been used before\n", *out, entries[0].Name)
		return nil
	}
	b, err := keyfile.Append(nil, keyfile.Format(*format), entries, *secrets)
	if err != nil {
		return usagef("--format: %v", err)
	}
	if *out == "" {
		_, err = io.out.Write(b)
		return err
	}
	return writeSecret(*out, b)
}

// entryJSON returns an entry as the JSON format has it, with its secret.
func entryJSON(e keys.Entry) (any, error) {
	b, err := keyfile.Append(nil, keyfile.JSON, []keys.Entry{e}, true)
	if err != nil {
		return nil, err
	}
	var doc struct {
		Contexts []any `json:"contexts"`
	}
	if err := json.Unmarshal(b, &doc); err != nil {
		return nil, err
	}
	return doc.Contexts[0], nil
}
