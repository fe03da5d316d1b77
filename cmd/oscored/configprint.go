package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"

	"github.com/oscorelay/oscorelay/keys"
	"github.com/oscorelay/oscorelay/keys/keyfile"
)

// printConfig writes the configuration as it takes effect, with comments.
func printConfig(w io.Writer, f *flags) error {
	var c *config
	if f.config != "" {
		var l lines
		var err error
		if c, l, err = readConfig(f.config); err != nil {
			return err
		}
		if err := checkConfig(f.config, c, l); err != nil {
			return err
		}
		fmt.Fprintf(w, "# %s as it takes effect.\n\n", f.config)
	} else {
		c = exampleConfig()
		fmt.Fprint(w, "# Every setting, its default, and an example of each route.\n\n")
	}
	enc := toml.NewEncoder(w)
	enc.SetIndentTables(false)
	return enc.Encode(c)
}

// exampleConfig is the default, with a route of each kind.
func exampleConfig() *config {
	c := newConfig()
	c.Terminate = []routeConfig{{
		Name: "leshan", Listen: "0.0.0.0:5683", Backend: "127.0.0.1:5683", Upstream: defaultUpstream,
		Endpoints: map[string]string{"boiler-7": "urn:imei:004999010640000"},
	}}
	c.Terminate[0].Backend = "127.0.0.1:5783"
	kid := "0a"
	c.Proxy = []proxyConfig{{
		Name: "outer", Listen: "0.0.0.0:5693", Forward: []string{}, PerClient: true,
		Route: []proxyRoute{{KID: &kid, To: "192.0.2.7:5683"}, {To: "192.0.2.8:5683"}},
	}}
	c.fill()
	return c
}

// check looks at the configuration and at all that it names, and changes nothing.
func check(ctx context.Context, w io.Writer, f *flags) error {
	c, l, err := readConfig(f.config)
	if err != nil {
		return err
	}
	if err := checkConfig(f.config, c, l); err != nil {
		return err
	}
	files, err := readKeyFiles(c.Keys.Files)
	if err != nil {
		return err
	}
	if err := trial(ctx, files); err != nil {
		return err
	}
	fmt.Fprintf(w, "%s is in order: %d to terminate, %d to proxy, %d contexts in %d key files.\n",
		f.config, len(c.Terminate), len(c.Proxy), len(files.entries), len(c.Keys.Files))
	for _, s := range remarks(c, files) {
		fmt.Fprintln(w, "remark:", s)
	}
	return nil
}

// trial returns an error if the key files' contexts stand in each other's way. Of
// many it looks at what takes little memory: the rest is found by the import,
// before it writes.
func trial(ctx context.Context, files *keyFiles) error {
	bad := func(name string, err error) error {
		return fmt.Errorf("%w: keys.files: %s: context %q: %w", errConfig, files.source[name], name, err)
	}
	if len(files.entries) <= manyEntries {
		ring := keys.New(keys.NewMemory())
		for _, e := range files.entries {
			if _, err := ring.Add(ctx, e); err != nil {
				return bad(e.Name, err)
			}
		}
		return nil
	}
	type pair struct {
		kid, idContext string
		has            bool
	}
	pairs := make(map[pair]int32, len(files.entries))
	for i := range files.entries {
		e := &files.entries[i]
		if err := e.Check(); err != nil {
			return bad(e.Name, err)
		}
		p := pair{string(e.Params.RecipientID), string(e.Params.IDContext), e.Params.IDContext != nil}
		if other, taken := pairs[p]; taken && p.has {
			return bad(e.Name, fmt.Errorf("%w: kid and kid context are those of %q", keys.ErrDuplicate, files.entries[other].Name))
		}
		pairs[p] = int32(i)
	}
	return nil
}

// remarks are what is no mistake, and yet perhaps not meant.
func remarks(c *config, files *keyFiles) (out []string) {
	if len(c.Terminate) > 0 {
		name := filepath.Join(c.Store.Dir, "store.db")
		if _, err := os.Stat(name); errors.Is(err, fs.ErrNotExist) {
			out = append(out, fmt.Sprintf("there is no store at %s: the first start, and only that one, needs -init", name))
		} else if err != nil {
			out = append(out, err.Error())
		}
	}
	names := make([]string, 0, len(files.source))
	for name := range files.source {
		names = append(names, name)
	}
	slices.Sort(names)
	var nowhere []string
	for _, name := range names {
		if !slices.ContainsFunc(c.Terminate, func(r routeConfig) bool { return accepts(r.Contexts, name) }) {
			nowhere = append(nowhere, name)
		}
	}
	if len(nowhere) > 0 {
		out = append(out, fmt.Sprintf("%d contexts fit no route's contexts: %s", len(nowhere), few(nowhere)))
	}
	for i := range c.Terminate {
		r := &c.Terminate[i]
		for _, p := range r.Contexts {
			if len(names) > 0 && !slices.ContainsFunc(names, func(n string) bool { return accepts([]string{p}, n) }) {
				out = append(out, fmt.Sprintf("route %q: no context of the key files fits %q", r.Name, p))
			}
		}
		for context := range r.Endpoints {
			if _, ok := files.source[context]; len(names) > 0 && !ok {
				out = append(out, fmt.Sprintf("route %q: endpoints: the key files have no context %q", r.Name, context))
			}
		}
		if r.Plain != "refuse" {
			out = append(out, fmt.Sprintf("route %q takes requests without OSCORE (plain = %q): whoever reaches %s can send them", r.Name, r.Plain, r.Listen))
		}
	}
	if findings := keyfile.Lint(files.entries); len(findings) > 0 {
		for _, x := range findings[:min(len(findings), 10)] {
			out = append(out, fmt.Sprintf("context %q: %s: %s", x.Entry, x.Why, x.Mend))
		}
		if len(findings) > 10 {
			out = append(out, fmt.Sprintf("%d more remarks on keys: oscore keys lint", len(findings)-10))
		}
	}
	return out
}

// accepts reports whether a context's name fits one of the patterns.
func accepts(patterns []string, name string) bool {
	for _, p := range patterns {
		if p == "*" {
			return true // path.Match takes no slash for it
		}
		if ok, err := path.Match(p, name); ok && err == nil || p == name {
			return true
		}
	}
	return false
}

// few joins some names.
func few(names []string) string {
	if len(names) > 8 {
		return strings.Join(names[:8], ", ") + fmt.Sprintf(" and %d more", len(names)-8)
	}
	return strings.Join(names, ", ")
}
