package main

import (
	"errors"
	"flag"
	"fmt"
	"sort"

	"github.com/oscorelay/oscorelay/internal/explain"
	"github.com/oscorelay/oscorelay/keys/file"
	"github.com/oscorelay/oscorelay/oscore"
)

// keysFlags are the flags that give a security context's parameters to a
// command that changes no state: decode and diagnose.
type keysFlags struct {
	secret, salt, sender, recipient, idContext *string // nil: not given
	aead, hkdf                                 *string
	dir, peer                                  string // in place of the others: a key directory
}

// register adds the flags to a set.
func (k *keysFlags) register(f *flag.FlagSet) {
	text := func(to **string, name, usage string) {
		f.Func(name, usage, func(s string) error {
			*to = &s
			return nil
		})
	}
	f.StringVar(&k.dir, "keys", "", "take the keys from this key `DIR` in place of the flags below")
	f.StringVar(&k.peer, "peer", "", "`NAME` of the entry in the key directory (default: the only one)")
	text(&k.secret, "secret", "Master Secret, in `HEX`, or text:… or base64:…")
	text(&k.salt, "salt", "Master Salt, likewise `HEX`")
	text(&k.sender, "sender", "Sender ID of the keys' owner, `HEX`; \"\" is the empty ID")
	text(&k.recipient, "recipient", "Recipient ID of the keys' owner, `HEX`")
	text(&k.idContext, "id-context", "ID Context, `HEX`; \"\" is present and empty")
	text(&k.aead, "aead", "AEAD algorithm, `NAME` or COSE number (default AES-CCM-16-64-128)")
	text(&k.hkdf, "hkdf", "HKDF algorithm, `NAME` or COSE number (default HKDF SHA-256)")
}

// given reports whether any of the flags was used.
func (k *keysFlags) given() bool {
	if k.dir != "" || k.peer != "" {
		return true
	}
	for _, s := range []*string{k.secret, k.salt, k.sender, k.recipient, k.idContext, k.aead, k.hkdf} {
		if s != nil {
			return true
		}
	}
	return false
}

// keys reads the flags' values. Errors name the flag and the mend, and hold no
// secret.
func (k *keysFlags) keys() (explain.Keys, error) {
	var out explain.Keys
	if k.dir != "" || k.peer != "" || k.secret == nil {
		p, err := k.stored()
		return explain.KeysOf(p), err
	}
	if k.sender == nil && k.recipient == nil {
		return out, usagef("--sender and --recipient are missing: give at least the one that is not empty")
	}
	var errs []error
	value := func(name string, s *string) (v explain.Value) {
		if s == nil {
			return v
		}
		v, err := explain.ParseValue(*s)
		if err != nil {
			errs = append(errs, usagef("--%s: %v", name, err))
		}
		return v
	}
	out.Secret = value("secret", k.secret)
	out.Salt = value("salt", k.salt)
	out.Sender = value("sender", k.sender)
	out.Recipient = value("recipient", k.recipient)
	if k.idContext != nil {
		v := value("id-context", k.idContext)
		out.IDContext = &v
	}
	var err error
	if k.aead != nil {
		if out.AEAD, err = oscore.ParseAEAD(*k.aead); err != nil {
			errs = append(errs, usagef("--aead: unknown algorithm %q; known are %s", *k.aead, aeadNames()))
		}
	}
	if k.hkdf != nil {
		if out.HKDF, err = oscore.ParseHKDF(*k.hkdf); err != nil {
			errs = append(errs, usagef("--hkdf: unknown algorithm %q; known are SHA-256, SHA-384, SHA-512", *k.hkdf))
		}
	}
	return out, errors.Join(errs...)
}

// all reads the flags' values; a key directory without the name of an entry
// gives all of them.
func (k *keysFlags) all() ([]oscore.Params, error) {
	if k.dir == "" || k.peer != "" {
		one, err := k.keys()
		return []oscore.Params{one.Params()}, err
	}
	if k.secret != nil || k.sender != nil || k.recipient != nil {
		_, err := k.stored() // names the mistake
		return nil, err
	}
	dir, o, err := keyPlaces(k.dir, "")
	if err != nil {
		return nil, err
	}
	v, err := file.Read(dir, o)
	if err != nil {
		return nil, err
	}
	if len(v.Entries) == 0 {
		return nil, fmt.Errorf("%s has no keys", dir)
	}
	var all []oscore.Params
	for i := range v.Entries {
		all = append(all, v.Entries[i].Params)
	}
	return all, nil
}

func aeadNames() string {
	names := ""
	for i, a := range oscore.AEADs() {
		if i > 0 {
			names += ", "
		}
		names += fmt.Sprintf("%s (%d)", a, int(a))
	}
	return names
}

// stored reads an entry of the key directory, without opening it for use.
func (k *keysFlags) stored() (oscore.Params, error) {
	if k.secret != nil || k.sender != nil || k.recipient != nil {
		return oscore.Params{}, usagef("keys come from a key directory or from --secret, --sender and --recipient, not from both")
	}
	dir, o, err := keyPlaces(k.dir, "")
	if err != nil {
		return oscore.Params{}, err
	}
	v, err := file.Read(dir, o)
	if err != nil {
		return oscore.Params{}, fmt.Errorf("no --secret is given, and the key directory cannot be read: %w", err)
	}
	names := make([]string, 0, len(v.Entries))
	for i := range v.Entries {
		if e := &v.Entries[i]; e.Name == k.peer || k.peer == "" && len(v.Entries) == 1 {
			return e.Params, nil
		}
		names = append(names, v.Entries[i].Name)
	}
	sort.Strings(names)
	if k.peer == "" {
		return oscore.Params{}, usagef("whose keys? give --secret, --sender and --recipient, or name an entry with --peer: %s has %s", dir, list(names))
	}
	return oscore.Params{}, fmt.Errorf("%s has no entry %q; it has %s", dir, k.peer, list(names))
}
