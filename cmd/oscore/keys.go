package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/oscorelay/oscorelay/keys"
	"github.com/oscorelay/oscorelay/keys/file"
)

const keysUsage = `Usage: oscore keys <verb> [flags] [arguments]

  new NAME          make keys for a peer; print both ends, or write the peer's
  import FILE...    take keys from TOML, JSON, CSV or an aiocoap directory
  export [NAME...]  write keys as TOML, JSON, CSV or an aiocoap directory
  show [NAME...]    list what is there and what is known of its past
  lint [FILE...]    find weak, shared, duplicated and mistaken keys
  rm NAME...        remove keys; their numbers stay known

The directory is --dir, else $OSCORE_HOME, else oscore in the user's
configuration directory. 'oscore keys <verb> -h' shows a verb's flags.
`

// keysVerbs are the verbs of oscore keys.
var keysVerbs = map[string]func(context.Context, stdio, []string) error{
	"new": keysNew, "import": keysImport, "export": keysExport, "show": keysShow, "list": keysShow, "lint": keysLint, "rm": keysRemove,
}

func runKeys(ctx context.Context, io stdio, args []string) error {
	if len(args) == 0 {
		return usagef("a verb is missing: new, import, export, show, lint, rm")
	}
	if args[0] == "-h" || args[0] == "--help" || args[0] == "help" {
		fmt.Fprint(io.out, keysUsage)
		return nil
	}
	verb, ok := keysVerbs[args[0]]
	if !ok {
		return usagef("unknown verb %q: new, import, export, show, lint, rm", args[0])
	}
	return verb(ctx, io, args[1:])
}

// keyFlags are the flags that every verb has.
type keyFlags struct {
	*flag.FlagSet
	dir     string
	anchors string
	json    bool
}

func newKeyFlags(verb, arguments string, out io.Writer) *keyFlags {
	f := &keyFlags{FlagSet: flag.NewFlagSet(verb, flag.ContinueOnError)}
	f.SetOutput(io.Discard) // errors are printed by run
	f.Usage = func() {
		fmt.Fprintf(out, "Usage: oscore keys %s [flags] %s\n\n", verb, arguments)
		f.SetOutput(out)
		f.PrintDefaults()
		f.SetOutput(io.Discard)
	}
	f.StringVar(&f.dir, "dir", "", "directory of the keys")
	f.StringVar(&f.dir, "keys", "", "the same as --dir, as the other commands call it")
	f.StringVar(&f.anchors, "anchors", "", "directory of the anchors; it must not be copied or backed up with the keys")
	f.BoolVar(&f.json, "json", false, "print JSON")
	return f
}

// parse reads flags that may stand before, between and after the arguments,
// which it returns.
func (f *keyFlags) parse(args []string) ([]string, error) {
	var rest []string
	for {
		if err := f.Parse(args); err != nil {
			if errors.Is(err, flag.ErrHelp) {
				return nil, err
			}
			return nil, usageError{err.Error()}
		}
		if args = f.Args(); len(args) == 0 {
			return rest, nil
		}
		rest, args = append(rest, args[0]), args[1:]
	}
}

func (f *keyFlags) open() (*file.Store, error) {
	dir, o, err := keyPlaces(f.dir, f.anchors)
	if err != nil {
		return nil, err
	}
	return file.Open(dir, o)
}

func (f *keyFlags) read() (*file.View, string, error) {
	dir, o, err := keyPlaces(f.dir, f.anchors)
	if err != nil {
		return nil, "", err
	}
	v, err := file.Read(dir, o)
	return v, dir, err
}

// keyPlaces returns the directory of the keys and where its anchor and root key
// are: flags, then $OSCORE_HOME, $OSCORE_ANCHORS and $OSCORE_ROOT_KEY, then the
// user's configuration directory.
func keyPlaces(dir, anchors string) (string, file.Options, error) {
	o := file.Options{AnchorDir: anchors, RootKey: os.Getenv("OSCORE_ROOT_KEY")}
	if o.AnchorDir == "" {
		o.AnchorDir = os.Getenv("OSCORE_ANCHORS")
	}
	if dir == "" {
		dir = os.Getenv("OSCORE_HOME")
	}
	if dir == "" {
		config, err := os.UserConfigDir()
		if err != nil {
			return "", o, fmt.Errorf("no directory for the keys (%w): say --dir or set OSCORE_HOME", err)
		}
		dir = filepath.Join(config, "oscore")
	}
	return dir, o, nil
}

// warnTaint tells that a directory's past is unknown.
func warnTaint(io stdio, st *file.Store) {
	if reason := st.Taint(); reason != "" {
		fmt.Fprintf(io.err, "warning: %s: %s. Nothing goes out under its keys: %s.\n", st.Dir(), reason, keys.Mend)
	}
}

// pick returns the entries of the given names, all if there are none.
func pick[E any](entries []E, name func(*E) string, names []string) ([]E, error) {
	if len(names) == 0 {
		return entries, nil
	}
	var out []E
	for _, n := range names {
		i := slices.IndexFunc(entries, func(e E) bool { return name(&e) == n })
		if i < 0 {
			return nil, fmt.Errorf("there is no entry %q: see oscore keys show", n)
		}
		out = append(out, entries[i])
	}
	return out, nil
}

// writeSecret writes a file that only its owner can read and that did not exist.
func writeSecret(name string, b []byte) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, os.ErrExist) {
		return fmt.Errorf("%s exists already: name another file", name)
	}
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	return errors.Join(err, f.Close())
}
