package main

import (
	"errors"
	"flag"
	"fmt"

	"github.com/oscorelay/oscorelay/internal/explain"
	"github.com/oscorelay/oscorelay/oscore"
)

// keysFlags are the flags that give a security context's parameters to a
// command that keeps no state: decode and diagnose.
type keysFlags struct {
	secret, salt, sender, recipient, idContext *string // nil: not given
	aead, hkdf                                 *string
}

// register adds the flags to a set.
func (k *keysFlags) register(f *flag.FlagSet) {
	text := func(to **string, name, usage string) {
		f.Func(name, usage, func(s string) error {
			*to = &s
			return nil
		})
	}
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
	if k.secret == nil {
		return out, usagef("--secret is missing: without the Master Secret nothing is decrypted")
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
