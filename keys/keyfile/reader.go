package keyfile

import (
	"bufio"
	"errors"
	"fmt"
	"hash/maphash"
	"io"

	"github.com/oscorelay/oscorelay/keys"
)

// Reader reads the contexts of a file one after the other. It holds a few hundred
// records at a time, whatever the size of the file.
type Reader struct {
	name  string
	from  source
	names *Names
	line  int
	n     int
	err   error // sticky
}

// source is what a format's reader does.
type source interface {
	// next returns a record; io.EOF at the end.
	next() (*record, error)
	// line returns the line of a field of the record last returned, or that of the
	// record for "".
	line(field string) int
}

// NewReader returns a Reader of a file in a format; for an empty one it looks at the
// name and at the content, see [FormatOf]. names finds names that come twice, in this
// file and in others; nil stands for this file alone.
func NewReader(name string, f Format, r io.Reader, names *Names) (*Reader, error) {
	b := bufio.NewReaderSize(r, 64<<10)
	if f == "" {
		start, err := b.Peek(512)
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, &Error{name, 0, err}
		}
		if f, err = FormatOf(name, start); err != nil {
			return nil, err
		}
	}
	if names == nil {
		names = NewNames()
	}
	out := &Reader{name: name, names: names}
	var err error
	switch f {
	case TOML:
		out.from = newTOML(name, b)
	case JSON:
		out.from = newJSON(name, b)
	case CSV:
		out.from, err = newCSV(name, b)
	default:
		err = &Error{name, 0, fmt.Errorf("unknown format %q", f)}
	}
	if err != nil {
		return nil, err
	}
	return out, nil
}

// Next returns the next entry, and io.EOF when there are no more. Any other error is
// an [Error] that names the place; there is nothing after it.
func (r *Reader) Next() (keys.Entry, error) {
	if r.err != nil {
		return keys.Entry{}, r.err
	}
	e, err := r.read()
	r.err = err
	return e, err
}

func (r *Reader) read() (e keys.Entry, err error) {
	rec, err := r.from.next()
	if err == io.EOF && r.n == 0 {
		return e, &Error{r.name, 0, errEmpty}
	}
	if err != nil {
		return e, err
	}
	r.n++
	if e, err = rec.entry(); err != nil {
		var field *fieldError
		where := ""
		if errors.As(err, &field) {
			where = field.field
			if rec.Name != "" {
				err = fmt.Errorf("context %q: %w", rec.Name, err)
			}
		}
		return keys.Entry{}, &Error{r.name, r.from.line(where), err}
	}
	r.line = r.from.line("name")
	if err := r.names.add(e.Name, r.name, r.line); err != nil {
		return keys.Entry{}, &Error{r.name, r.line, err}
	}
	return e, nil
}

// Line returns the line of the entry that Next returned last.
func (r *Reader) Line() int { return r.line }

// Names finds names that come twice. It holds a hash of each: among a million
// names two have one hash once in 40 million tries, and another try has other hashes.
type Names struct {
	seed  maphash.Seed
	files []string
	at    map[uint64]nameAt
}

type nameAt struct{ file, line uint32 }

// NewNames returns an empty set.
func NewNames() *Names { return &Names{seed: maphash.MakeSeed(), at: map[uint64]nameAt{}} }

// Len returns how many names there are.
func (n *Names) Len() int { return len(n.at) }

func (n *Names) add(name, file string, line int) error {
	if len(n.files) == 0 || n.files[len(n.files)-1] != file {
		n.files = append(n.files, file)
	}
	h := maphash.String(n.seed, name)
	if other, ok := n.at[h]; ok {
		if f := n.files[other.file]; f != file {
			return fmt.Errorf("context %q stands in %s already, at line %d: give it another name, or remove one", name, f, other.line)
		}
		return fmt.Errorf("context %q: the name stands at line %d already", name, other.line)
	}
	n.at[h] = nameAt{uint32(len(n.files) - 1), uint32(line)}
	return nil
}
