package keyfile

import (
	"errors"
	"fmt"
	"strconv"

	"github.com/oscorelay/oscorelay/keys"
	"github.com/oscorelay/oscorelay/oscore"
)

// record is an entry as it stands in a file. Pointers tell absent from empty.
type record struct {
	Name            string  `toml:"name" json:"name"`
	MasterSecret    *string `toml:"master_secret" json:"master_secret,omitempty"`
	MasterSalt      *string `toml:"master_salt" json:"master_salt,omitempty"`
	IDContext       *string `toml:"id_context" json:"id_context,omitempty"`
	SenderID        *string `toml:"sender_id" json:"sender_id,omitempty"`
	RecipientID     *string `toml:"recipient_id" json:"recipient_id,omitempty"`
	AEAD            any     `toml:"aead" json:"aead,omitempty"` // a name or a number
	HKDF            any     `toml:"hkdf" json:"hkdf,omitempty"`
	Window          int     `toml:"window" json:"window,omitempty"`
	OmitKIDContext  bool    `toml:"omit_kid_context" json:"omit_kid_context,omitempty"`
	Rederive        string  `toml:"rederive" json:"rederive,omitempty"`
	RederiveOnStart bool    `toml:"rederive_on_start" json:"rederive_on_start,omitempty"`
	NoEcho          bool    `toml:"no_echo" json:"no_echo,omitempty"`
	MaxUnfragmented int     `toml:"max_unfragmented" json:"max_unfragmented,omitempty"`
	Notes           string  `toml:"notes" json:"notes,omitempty"`
}

// fieldError is a field that cannot be taken as it stands.
type fieldError struct {
	field string
	err   error
}

func (e *fieldError) Error() string { return e.field + ": " + e.err.Error() }
func (e *fieldError) Unwrap() error { return e.err }

// entry checks a record. An error is a *fieldError where a field is to blame.
func (r *record) entry() (keys.Entry, error) {
	e := keys.Entry{Name: r.Name, Notes: r.Notes}
	if r.Name == "" {
		return e, &fieldError{"name", errors.New("is missing")}
	}
	p := &e.Params
	var secret []byte
	for _, f := range []struct {
		name     string
		from     *string
		to       *[]byte
		required bool
	}{
		{"master_secret", r.MasterSecret, &secret, true},
		{"master_salt", r.MasterSalt, &p.MasterSalt, false},
		{"id_context", r.IDContext, &p.IDContext, false},
		{"sender_id", r.SenderID, &p.SenderID, true},
		{"recipient_id", r.RecipientID, &p.RecipientID, true},
	} {
		if f.from == nil {
			if f.required {
				return e, &fieldError{f.name, errors.New("is missing")}
			}
			continue
		}
		b, err := ParseBytes(*f.from)
		if err != nil {
			return e, &fieldError{f.name, err}
		}
		*f.to = b
	}
	p.MasterSecret = secret
	var err error
	if p.AEAD, err = algorithm(r.AEAD, oscore.ParseAEAD); err != nil {
		return e, &fieldError{"aead", err}
	}
	if p.HKDF, err = algorithm(r.HKDF, oscore.ParseHKDF); err != nil {
		return e, &fieldError{"hkdf", err}
	}
	p.WindowSize, p.OmitKIDContext = r.Window, r.OmitKIDContext
	role, ok := roles[r.Rederive]
	if !ok {
		return e, &fieldError{"rederive", fmt.Errorf("%q is none of \"client\" (starts Appendix B.2), \"server\" (answers it), \"both\", \"none\"", r.Rederive)}
	}
	if r.MaxUnfragmented < 0 {
		return e, &fieldError{"max_unfragmented", errors.New("is negative")}
	}
	e.Settings = oscore.Settings{Rederive: role, RederiveOnStart: r.RederiveOnStart, NoEcho: r.NoEcho, MaxUnfragmented: r.MaxUnfragmented}
	return e, e.Check()
}

var roles = map[string]oscore.Role{
	"": oscore.RoleNone, "none": oscore.RoleNone, "client": oscore.RoleClient, "server": oscore.RoleServer,
	"both": oscore.RoleClient | oscore.RoleServer,
}

func roleName(r oscore.Role) string {
	for _, name := range []string{"", "client", "server", "both"} {
		if roles[name] == r {
			return name
		}
	}
	return strconv.Itoa(int(r))
}

// algorithm reads a name or a number, as the formats deliver them.
func algorithm[T ~int](v any, parse func(string) (T, error)) (T, error) {
	switch v := v.(type) {
	case nil:
		return 0, nil
	case string:
		if v == "" {
			return 0, nil
		}
		return parse(v)
	case int64:
		return parse(strconv.FormatInt(v, 10))
	case float64:
		if v == float64(int(v)) {
			return parse(strconv.Itoa(int(v)))
		}
	}
	return 0, errors.New("neither a name nor a number")
}

// toRecord is the inverse of entry; without secrets the master secret is left
// out.
func toRecord(e *keys.Entry, secrets bool) record {
	p, s := &e.Params, &e.Settings
	r := record{
		Name: e.Name, MasterSalt: optional(p.MasterSalt, len(p.MasterSalt) > 0), IDContext: optional(p.IDContext, p.IDContext != nil),
		SenderID: optional(p.SenderID, true), RecipientID: optional(p.RecipientID, true),
		AEAD: p.AEAD.String(), HKDF: p.HKDF.String(), Window: p.WindowSize, OmitKIDContext: p.OmitKIDContext,
		Rederive: roleName(s.Rederive), RederiveOnStart: s.RederiveOnStart, NoEcho: s.NoEcho, MaxUnfragmented: s.MaxUnfragmented,
		Notes: e.Notes,
	}
	if secrets {
		r.MasterSecret = optional(p.MasterSecret, true)
	}
	return r
}

func optional(b []byte, present bool) *string {
	if !present {
		return nil
	}
	s := FormatBytes(b)
	return &s
}
