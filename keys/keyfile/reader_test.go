package keyfile

import (
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/oscorelay/oscorelay/keys"
)

// many writes n contexts, of which change replaces the text of some.
func many(f Format, n int, change func(i int, text string) string) string {
	var b strings.Builder
	switch f {
	case CSV:
		b.WriteString("name,master_secret,sender_id,recipient_id,notes\n")
	case JSON:
		b.WriteString("{\"contexts\": [\n")
	}
	for i := range n {
		var text string
		switch f {
		case CSV:
			text = fmt.Sprintf("d%d,hex:%032x,hex:01,hex:%08x,\"\n\"\n", i, i+1, i)
		case JSON:
			text = fmt.Sprintf("{\"name\": \"d%d\",\n \"master_secret\": \"hex:%032x\", \"sender_id\": \"hex:01\", \"recipient_id\": \"hex:%08x\"}", i, i+1, i)
			if i < n-1 {
				text += ",\n"
			}
		case TOML:
			text = fmt.Sprintf("[[context]] # the next\nname = 'd%d'\nmaster_secret = \"hex:%032x\"\nsender_id = \"hex:01\"\n"+
				"recipient_id = \"hex:%08x\"\nnotes = \"\"\"\n[[context]]\n\\\"\"\" \"\"\"\"\n\n", i, i+1, i)
		}
		if change != nil {
			text = change(i, text)
		}
		b.WriteString(text)
	}
	if f == JSON {
		b.WriteString("\n]}\n")
	}
	return b.String()
}

// TestReaderLines: whatever comes before it, an error names its line.
func TestReaderLines(t *testing.T) {
	const n, bad = 3000, 2345
	for f, want := range map[Format]struct{ record, secret int }{
		CSV: {2 + 2*bad, 2 + 2*bad}, JSON: {2 + 2*bad, 3 + 2*bad}, TOML: {1 + 9*bad, 3 + 9*bad},
	} {
		for _, c := range []struct {
			old, new, text string
			line           int
		}{
			{"hex:", "", "is it hexadecimal", want.secret},
			{"hex:", "hex:x", "not hexadecimal", want.secret},
			{"master_secret", "master_secrets", "unknown", want.secret},
			{"d2345", "d17", "stands at line", map[Format]int{CSV: want.record, JSON: want.record, TOML: want.record + 1}[f]},
		} {
			if f == CSV && c.old == "master_secret" {
				continue // it stands in the first line
			}
			doc := many(f, n, func(i int, text string) string {
				if i == bad {
					return strings.Replace(text, c.old, c.new, 1)
				}
				return text
			})
			for _, from := range []io.Reader{strings.NewReader(doc), iotest.HalfReader(strings.NewReader(doc))} {
				r, err := NewReader("x", f, from, nil)
				if err != nil {
					t.Fatal(err)
				}
				got := 0
				for ; err == nil; got++ {
					_, err = r.Next()
				}
				var place *Error
				if !errors.As(err, &place) || !strings.Contains(err.Error(), c.text) {
					t.Errorf("%s, %q for %q: %v", f, c.new, c.old, err)
				} else if d := place.Line - c.line; d < 0 || d > 1 && f == JSON || d != 0 && f != JSON {
					t.Errorf("%s, %q for %q: line %d, want %d: %v", f, c.new, c.old, place.Line, c.line, err)
				}
				if _, again := r.Next(); again != err {
					t.Errorf("%s: %v after %v", f, again, err)
				}
			}
		}
	}
}

// TestReaderWhole: what was written is read, from whatever pieces.
func TestReaderWhole(t *testing.T) {
	const n = 1000
	for _, f := range []Format{CSV, JSON, TOML} {
		doc := many(f, n, nil)
		r, err := NewReader("x", f, iotest.OneByteReader(strings.NewReader(doc)), nil)
		if err != nil {
			t.Fatal(err)
		}
		for i := range n {
			e, err := r.Next()
			if err != nil || e.Name != fmt.Sprint("d", i) || fmt.Sprintf("%x", e.Params.RecipientID) != fmt.Sprintf("%08x", i) {
				t.Fatalf("%s %d: %q, %v", f, i, e.Name, err)
			}
			if f == TOML && e.Notes != "[[context]]\n\"\"\" \"" {
				t.Fatalf("%q", e.Notes)
			}
		}
		if _, err := r.Next(); err != io.EOF {
			t.Errorf("%s: %v at the end", f, err)
		}
	}
}

// TestReaderCutShort: a file that lacks its end is an error, in JSON and in quotes.
func TestReaderCutShort(t *testing.T) {
	for f, cut := range map[Format]int{JSON: 5, TOML: 40, CSV: 2} {
		doc := many(f, 600, nil)
		_, err := Parse("x", f, []byte(doc[:len(doc)-cut]))
		var place *Error
		if !errors.As(err, &place) || place.Line == 0 {
			t.Errorf("%s: %v", f, err)
		}
	}
	for _, c := range []struct{ doc, want string }{
		{`{"contexts": []}`, "holds no context"},
		{`{}`, "holds no context"},
		{`[]`, "belongs here"},
		{`{"contexts": {}}`, "belongs here"},
		{`{"context": []}`, `unknown field "context"`},
		{strings.TrimSuffix(many(JSON, 1, nil), "}\n") + `, "contexts": []}`, "second"},
		{strings.TrimSuffix(many(JSON, 1, nil), "}\n") + `, "more": 1}`, `unknown field "more"`},
		{many(JSON, 1, nil) + "{}", "something follows"},
	} {
		if _, err := Parse("x.json", JSON, []byte(c.doc)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.doc, err, c.want)
		}
	}
}

// TestNames: a name in two files names both.
func TestNames(t *testing.T) {
	names := NewNames()
	read := func(file string) error {
		r, err := NewReader(file, CSV, strings.NewReader(many(CSV, 3, nil)), names)
		for err == nil {
			_, err = r.Next()
		}
		return err
	}
	if err := read("a.csv"); err != io.EOF || names.Len() != 3 {
		t.Fatal(err)
	}
	if err := read("b.csv"); err == nil || err.Error() != `b.csv:2: context "d0" stands in a.csv already, at line 2: give it another name, or remove one` {
		t.Error(err)
	}
}

// endless is a file of n contexts that is nowhere as a whole.
type endless struct {
	f    Format
	n, i int
	left string
}

func (e *endless) Read(b []byte) (int, error) {
	if e.left == "" {
		if e.i > e.n {
			return 0, io.EOF
		}
		text := many(e.f, 1, nil)
		text = strings.NewReplacer("d0", fmt.Sprint("d", e.i), "000001\"", fmt.Sprintf("%06x\"", e.i+1)).Replace(text)
		switch e.f {
		case CSV:
			if e.i > 0 {
				_, text, _ = strings.Cut(text, "\n")
			}
		case JSON:
			head, tail := "{\"contexts\": [\n", "\n]}\n"
			text = strings.TrimSuffix(strings.TrimPrefix(text, head), tail)
			if e.i == 0 {
				text = head + text
			} else {
				text = ",\n" + text
			}
			if e.i == e.n {
				text += tail
			}
		}
		e.left = text
		e.i++
	}
	n := copy(b, e.left)
	e.left = e.left[n:]
	return n, nil
}

// TestReaderMemory: memory does not grow with the file.
func TestReaderMemory(t *testing.T) {
	const n = 40_000 // 5 MB and more
	for _, f := range []Format{CSV, JSON, TOML} {
		r, err := NewReader("x", f, &endless{f: f, n: n}, nil)
		if err != nil {
			t.Fatal(err)
		}
		var before, after runtime.MemStats
		var e keys.Entry
		for i := 0; ; i++ {
			if i == 2000 || i == n {
				m := map[bool]*runtime.MemStats{true: &before, false: &after}[i == 2000]
				runtime.GC()
				runtime.ReadMemStats(m)
			}
			if e, err = r.Next(); err != nil {
				break
			}
		}
		if err != io.EOF {
			t.Fatalf("%s: %v after %s", f, err, e.Name)
		}
		// 48 bytes a name, and not the 120 and more of its text.
		if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 48*n {
			t.Errorf("%s: %d bytes more after %d contexts", f, grown, n)
		}
		runtime.KeepAlive(r)
	}
}
