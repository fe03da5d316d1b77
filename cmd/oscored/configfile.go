package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
)

// errConfig is wrapped by everything that a person mends in the configuration.
var errConfig = errors.New("configuration")

// mistakes are errors of one file, each with its line.
type mistakes struct {
	file  string
	lines lines
	list  []mistake
}

type mistake struct {
	line int
	text string
}

// add notes what is wrong with a field. The path is "terminate.0.listen".
func (m *mistakes) add(path, format string, args ...any) {
	m.list = append(m.list, mistake{m.lines.of(path), m.title(path) + ": " + fmt.Sprintf(format, args...)})
}

// title is a path as a person finds it: tables are counted from 1.
func (m *mistakes) title(path string) string {
	parts := strings.Split(path, ".")
	out := parts[0]
	sep := "."
	for _, p := range parts[1:] {
		if n, err := strconv.Atoi(p); err == nil {
			out += fmt.Sprintf(" %d", n+1)
			sep = ": "
			continue
		}
		out += sep + p
		sep = "."
	}
	return out
}

func (m *mistakes) err() error {
	if len(m.list) == 0 {
		return nil
	}
	return m
}

// Is makes a mistake a configuration error.
func (m *mistakes) Is(target error) bool { return target == errConfig }

// Error is a line for each mistake, in the order of the file.
func (m *mistakes) Error() string {
	list := slices.Clone(m.list)
	slices.SortStableFunc(list, func(a, b mistake) int { return a.line - b.line })
	var out []string
	for _, x := range list {
		where := m.file
		if x.line > 0 {
			where += ":" + strconv.Itoa(x.line)
		}
		out = append(out, where+": "+x.text)
	}
	return strings.Join(out, "\n")
}

// readConfig reads a configuration file: its syntax, its keys and their types.
// What they may hold is for check.
func readConfig(name string) (*config, lines, error) {
	raw, err := os.ReadFile(name)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", errConfig, err)
	}
	m := &mistakes{file: name}
	c := newConfig()
	err = toml.NewDecoder(bytes.NewReader(raw)).DisallowUnknownFields().Decode(c)
	var unknown *toml.StrictMissingError
	var bad *toml.DecodeError
	switch {
	case errors.As(err, &unknown):
		for i := range unknown.Errors {
			e := &unknown.Errors[i]
			row, _ := e.Position()
			m.list = append(m.list, mistake{row, fmt.Sprintf("unknown key %q%s", strings.Join(e.Key(), "."), nearest(e.Key()))})
		}
	case errors.As(err, &bad):
		row, _ := bad.Position()
		text := plainly(strings.TrimPrefix(bad.Error(), "toml: "))
		if key := bad.Key(); len(key) > 0 && !strings.Contains(text, key[len(key)-1]) {
			text = strings.Join(key, ".") + ": " + text
		}
		m.list = append(m.list, mistake{row, text})
	case err != nil:
		// The library gives a number to what reads a text, and then no place.
		m.list = append(m.list, mistake{lineOfNumber(raw, err), err.Error()})
	}
	if err := m.err(); err != nil {
		return nil, nil, err
	}
	c.fill()
	c.resolve(filepath.Dir(name))
	return c, linesOf(raw), nil
}

// resolve makes paths absolute: the file's directory, and not the one that
// somebody happens to start from, is where relative ones begin. A store that is
// looked for at the wrong place is a store that is missing.
func (c *config) resolve(dir string) {
	paths := []*string{&c.Store.Dir, &c.Store.AnchorDir, &c.Store.RootKey, &c.Admin.TokenFile, &c.Admin.TLSCert, &c.Admin.TLSKey}
	for i := range c.Keys.Files {
		paths = append(paths, &c.Keys.Files[i])
	}
	for _, p := range paths {
		if *p == "" || filepath.IsAbs(*p) {
			continue
		}
		if abs, err := filepath.Abs(filepath.Join(dir, *p)); err == nil {
			*p = abs
		}
	}
}

// wrongType is how the library tells that a value is of another type.
var wrongType = regexp.MustCompile(`^cannot decode TOML (\w+) into (?:a Go value|struct field \S+) of type (\S+)$`)

// typeNames say what a value looks like.
var typeNames = map[string]string{
	"int": "a number without quotes, such as 64", "string": "a text in quotes, such as \"127.0.0.1:5683\"", "bool": "true or false",
	"main.duration": "a duration in quotes, such as \"90s\" or \"2m\"", "[]string": "a list of texts, such as [\"a\", \"b\"]",
	"map[string]string": "a table of texts", "[]main.routeConfig": "a table for each route: [[terminate]]", "[]main.proxyConfig": "a table for each proxy: [[proxy]]",
}

// plainly says in a person's words what the library says in a programmer's.
func plainly(text string) string {
	if m := wrongType.FindStringSubmatch(text); m != nil {
		want, ok := typeNames[m[2]]
		if !ok {
			want = "a table"
		}
		return fmt.Sprintf("there is a value of type %s: write %s", m[1], want)
	}
	return text
}

// lines says where a file has what: "terminate.0.listen" and, for a table, its
// header.
type lines map[string]int

// of returns the line of a key, of the table that it should be in if it is not
// there, 0 if there is not even that.
func (l lines) of(path string) int {
	for path != "" {
		if n, ok := l[path]; ok {
			return n
		}
		i := strings.LastIndexByte(path, '.')
		path = path[:max(i, 0)]
	}
	return 0
}

// linesOf finds the keys of a document that is known to be good.
func linesOf(raw []byte) lines {
	out := lines{}
	var p unstable.Parser
	p.Reset(raw)
	counts := map[string]int{} // elements of each array of tables so far
	var table []string
	for p.NextExpression() {
		e := p.Expression()
		switch e.Kind {
		case unstable.Table, unstable.ArrayTable:
			var line int
			table, line = table[:0], 0
			it := e.Key()
			for it.Next() {
				n := it.Node()
				if line == 0 {
					line = p.Shape(n.Raw).Start.Line
				}
				table = append(table, string(n.Data))
				path := strings.Join(table, ".")
				if it.IsLast() && e.Kind == unstable.ArrayTable {
					counts[path]++
				}
				if c := counts[path]; c > 0 {
					table = append(table, strconv.Itoa(c-1))
				}
			}
			out[strings.Join(table, ".")] = line
		case unstable.KeyValue:
			path := slices.Clone(table)
			line := 0
			it := e.Key()
			for it.Next() {
				if line == 0 {
					line = p.Shape(it.Node().Raw).Start.Line
				}
				path = append(path, string(it.Node().Data))
			}
			key := strings.Join(path, ".")
			out[key] = line
			if v := e.Value(); v.Kind == unstable.Array {
				i := 0
				for el := v.Children(); el.Next(); i++ {
					if raw := el.Node().Raw; raw.Length > 0 {
						out[key+"."+strconv.Itoa(i)] = p.Shape(raw).Start.Line
					}
				}
			}
		}
	}
	return out
}

// lineOfNumber finds the number that an error quotes, 0 if there is none.
func lineOfNumber(raw []byte, err error) int {
	var p unstable.Parser
	p.Reset(raw)
	for p.NextExpression() {
		if e := p.Expression(); e.Kind == unstable.KeyValue {
			if v := e.Value(); v.Kind != unstable.String && len(v.Data) > 0 && strings.Contains(err.Error(), strconv.Quote(string(v.Data))) {
				it := e.Key()
				it.Next()
				return p.Shape(it.Node().Raw).Start.Line
			}
		}
	}
	return 0
}

// keyNames are all keys that there are, for a hint at a mistyped one.
var keyNames = func() (names []string) {
	full := newConfig()
	full.Terminate = []routeConfig{{Endpoints: map[string]string{"": ""}}}
	full.Proxy = []proxyConfig{{Route: []proxyRoute{{}}}}
	b, err := toml.Marshal(full)
	if err != nil {
		panic("cmd/oscored: the defaults cannot be written: " + err.Error()) // a type that TOML has not
	}
	for path := range linesOf(b) {
		for _, part := range strings.Split(path, ".") {
			if _, err := strconv.Atoi(part); err != nil && part != "" {
				names = append(names, part)
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}()

// nearest proposes the key that was probably meant.
func nearest(key []string) string {
	last := key[len(key)-1]
	best, most := "", 3
	for _, n := range keyNames {
		if d := distance(last, n); d < most {
			best, most = n, d
		}
	}
	if best == "" {
		return ": 'oscored -print-config' shows the keys that there are"
	}
	return fmt.Sprintf(": is %q meant?", best)
}

// distance is how many letters are to be changed (Levenshtein).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		prev := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := prev
			if a[i] != b[j] {
				cost = 1 + min(prev, row[j], row[j+1])
			}
			prev, row[j+1] = row[j+1], cost
		}
	}
	return row[len(b)]
}
