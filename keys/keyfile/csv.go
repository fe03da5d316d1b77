package keyfile

import (
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/oscorelay/oscorelay/keys"
)

// The columns of a CSV file, by the names of the fields. A column of bytes may
// say for all its cells how they are written: master_secret_hex,
// sender_id_text, and so on. An empty cell is an absent value.
var csvColumns = []string{
	"name", "master_secret", "master_salt", "id_context", "sender_id", "recipient_id", "aead", "hkdf", "window",
	"omit_kid_context", "rederive", "rederive_on_start", "no_echo", "max_unfragmented", "notes",
}

// csvReader reads a CSV file.
type csvReader struct {
	name    string
	r       *csv.Reader
	columns []column
	at      int
	rec     record
}

func newCSV(name string, from io.Reader) (*csvReader, error) {
	r := csv.NewReader(from)
	r.ReuseRecord = true
	header, err := r.Read()
	if err != nil {
		return nil, csvError(name, err)
	}
	c := &csvReader{name: name, r: r}
	for _, name := range header {
		column := newColumn(strings.TrimSpace(name))
		if err := (&record{}).set(&column, ""); err != nil {
			return nil, &Error{c.name, 1, err}
		}
		c.columns = append(c.columns, column)
	}
	return c, nil
}

func (c *csvReader) next() (*record, error) {
	cells, err := c.r.Read()
	if err == io.EOF {
		return nil, err
	}
	if err != nil {
		return nil, csvError(c.name, err)
	}
	c.at, _ = c.r.FieldPos(0)
	c.rec = record{}
	for i, cell := range cells {
		if err := c.rec.set(&c.columns[i], strings.TrimSpace(cell)); err != nil {
			return nil, &Error{c.name, c.at, err}
		}
	}
	return &c.rec, nil
}

func (c *csvReader) line(string) int { return c.at }

func csvError(name string, err error) error {
	var bad *csv.ParseError
	switch {
	case errors.As(err, &bad):
		return &Error{name, bad.Line, bad.Err}
	case errors.Is(err, io.EOF):
		return &Error{name, 0, errEmpty}
	}
	return &Error{name, 0, err}
}

// column is one of a CSV file.
type column struct {
	name  string
	field string
	form  string // of bytes, "hex:" say; empty if each cell says it
}

func newColumn(name string) column {
	c := column{name: name, field: name}
	for _, f := range []string{"hex", "base64", "text"} {
		if rest, ok := strings.CutSuffix(name, "_"+f); ok {
			c.field, c.form = rest, f+":"
		}
	}
	return c
}

// set takes a cell into a record.
func (r *record) set(c *column, cell string) error {
	field, form := c.field, c.form
	text := func(to **string) {
		if cell != "" {
			s := form + cell
			*to = &s
		}
	}
	var err error
	switch field {
	case "master_secret":
		text(&r.MasterSecret)
		return nil
	case "master_salt":
		text(&r.MasterSalt)
		return nil
	case "id_context":
		text(&r.IDContext)
		return nil
	case "sender_id":
		// There is no absent ID: with the form in the header an empty cell is
		// the empty one.
		if cell != "" || form != "" {
			s := form + cell
			r.SenderID = &s
		}
		return nil
	case "recipient_id":
		if cell != "" || form != "" {
			s := form + cell
			r.RecipientID = &s
		}
		return nil
	}
	if form != "" {
		field = c.name // the other fields hold no bytes
	}
	number := func(to *int) {
		if cell != "" {
			*to, err = strconv.Atoi(cell)
		}
	}
	boolean := func(to *bool) {
		if cell != "" {
			*to, err = strconv.ParseBool(cell)
		}
	}
	switch field {
	case "name":
		r.Name = cell
	case "aead":
		r.AEAD = cell
	case "hkdf":
		r.HKDF = cell
	case "window":
		number(&r.Window)
	case "omit_kid_context":
		boolean(&r.OmitKIDContext)
	case "rederive":
		r.Rederive = cell
	case "rederive_on_start":
		boolean(&r.RederiveOnStart)
	case "no_echo":
		boolean(&r.NoEcho)
	case "max_unfragmented":
		number(&r.MaxUnfragmented)
	case "notes":
		r.Notes = cell
	default:
		return fmt.Errorf("unknown column %q; the columns are %s", c.name, strings.Join(csvColumns, ", "))
	}
	if err != nil {
		return fmt.Errorf("%s: %q is no such value", c.name, cell)
	}
	return nil
}

func appendCSV(dst []byte, entries []keys.Entry, secrets bool) ([]byte, error) {
	b := bytes.NewBuffer(dst)
	w := csv.NewWriter(b)
	_ = w.Write(csvColumns) // errors are sticky, see Error below
	value := func(s *string) string {
		if s == nil {
			return ""
		}
		return *s
	}
	number := func(n int) string {
		if n == 0 {
			return ""
		}
		return strconv.Itoa(n)
	}
	flag := func(on bool) string {
		if !on {
			return ""
		}
		return "true"
	}
	for i := range entries {
		r := toRecord(&entries[i], secrets)
		_ = w.Write([]string{
			r.Name, value(r.MasterSecret), value(r.MasterSalt), value(r.IDContext), value(r.SenderID), value(r.RecipientID),
			fmt.Sprint(r.AEAD), fmt.Sprint(r.HKDF), number(r.Window), flag(r.OmitKIDContext), r.Rederive, flag(r.RederiveOnStart),
			flag(r.NoEcho), number(r.MaxUnfragmented), r.Notes,
		})
	}
	w.Flush()
	return b.Bytes(), w.Error()
}
