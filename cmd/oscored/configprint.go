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
	files, err := checkKeyFiles(c.Keys.Files)
	if err != nil {
		return err
	}
	found, err := surveyFiles(ctx, files, c)
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "%s is in order: %d to terminate, %d to proxy, %d contexts in %d key files.\n",
		f.config, len(c.Terminate), len(c.Proxy), found.n, len(c.Keys.Files))
	for _, s := range remarks(c, found) {
		fmt.Fprintln(w, "remark:", s)
	}
	return nil
}

// fileSurvey is what key files hold as a whole.
type fileSurvey struct {
	n       int
	entries []keys.Entry      // the first lintMost
	source  map[string]string // their files

	nowhere  []string        // the first contexts that fit no route
	homeless int             // and how many there are
	fits     map[string]bool // patterns of routes that a context fits
	named    map[string]bool // contexts that have an endpoint name and are there
}

// How many contexts are tried beside each other, and how many are looked at for what
// is weak or mistaken: in memory. A store compares all that it takes in, on disk.
const (
	tryMost  = 10_000
	lintMost = 100_000
)

// surveyFiles reads all key files, and returns an error if there is something wrong
// with them or if the contexts stand in each other's way; of more than tryMost the
// import finds that, before it writes. c is nil if no more is asked for.
func surveyFiles(ctx context.Context, files *keyFiles, c *config) (*fileSurvey, error) {
	v := &fileSurvey{source: map[string]string{}, fits: map[string]bool{}, named: map[string]bool{}}
	for e, err := range files.all() {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return nil, err
		}
		if v.n++; v.n <= tryMost || c != nil && v.n <= lintMost {
			v.entries, v.source[e.Name] = append(v.entries, e.Entry), e.Source
		}
		if c != nil {
			v.place(c, e.Name)
		}
	}
	ring := keys.New(keys.NewMemory())
	for i := range v.entries[:min(len(v.entries), tryMost)] {
		e := &v.entries[i]
		if _, err := ring.Add(ctx, *e); err != nil {
			return nil, fmt.Errorf("%w: keys.files: %s: context %q: %w", errConfig, v.source[e.Name], e.Name, err)
		}
	}
	return v, nil
}

// place finds where a context belongs.
func (v *fileSurvey) place(c *config, name string) {
	somewhere := false
	for i := range c.Terminate {
		for _, p := range c.Terminate[i].Contexts {
			if accepts([]string{p}, name) {
				somewhere, v.fits[p] = true, true
			}
		}
		if _, ok := c.Terminate[i].Endpoints[name]; ok {
			v.named[name] = true
		}
	}
	if !somewhere {
		if v.homeless++; len(v.nowhere) < 9 {
			v.nowhere = append(v.nowhere, name)
		}
	}
}

// remarks are what is no mistake, and yet perhaps not meant.
func remarks(c *config, files *fileSurvey) (out []string) {
	if len(c.Terminate) > 0 {
		name := filepath.Join(c.Store.Dir, "store.db")
		if _, err := os.Stat(name); errors.Is(err, fs.ErrNotExist) {
			out = append(out, fmt.Sprintf("there is no store at %s: the first start, and only that one, needs -init", name))
		} else if err != nil {
			out = append(out, err.Error())
		}
	}
	if files.homeless > 0 {
		slices.Sort(files.nowhere)
		some := strings.Join(files.nowhere[:min(len(files.nowhere), 8)], ", ")
		if more := files.homeless - 8; more > 0 {
			some += fmt.Sprintf(" and %d more", more)
		}
		out = append(out, fmt.Sprintf("%d contexts fit no route's contexts: %s", files.homeless, some))
	}
	for i := range c.Terminate {
		r := &c.Terminate[i]
		for _, p := range r.Contexts {
			if files.n > 0 && !files.fits[p] {
				out = append(out, fmt.Sprintf("route %q: no context of the key files fits %q", r.Name, p))
			}
		}
		for context := range r.Endpoints {
			if files.n > 0 && !files.named[context] {
				out = append(out, fmt.Sprintf("route %q: endpoints: the key files have no context %q", r.Name, context))
			}
		}
		if r.Plain != "refuse" {
			out = append(out, fmt.Sprintf("route %q takes requests without OSCORE (plain = %q): whoever reaches %s can send them", r.Name, r.Plain, r.Listen))
		}
	}
	if more := files.n - len(files.entries); more > 0 {
		out = append(out, fmt.Sprintf("%d contexts after the first %d were not looked at for weak and mistaken keys: oscore keys lint FILE does that", more, lintMost))
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
