package explain

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"strings"

	"github.com/oscorelay/oscorelay/oscore"
)

// Notation is how a person wrote a value.
type Notation int

// The notations, by the prefix that asks for them; hex needs none.
const (
	AsHex    Notation = iota // hex:
	AsText                   // text:
	AsBase64                 // base64:
)

// String returns the prefix without its colon.
func (n Notation) String() string { return [...]string{"hex", "text", "base64"}[n] }

// Value is one value of a key as it was written. It may be a secret, so it
// prints as "[redacted]" in every format.
type Value struct {
	Notation Notation
	Written  string // without the prefix
	Bytes    []byte
}

// String returns "[redacted]".
func (Value) String() string { return "[redacted]" }

// Format writes "[redacted]" whatever the verb.
func (Value) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "[redacted]") }

// MarshalText returns "[redacted]".
func (Value) MarshalText() ([]byte, error) { return []byte("[redacted]"), nil }

// ParseValue reads a value: hex, in which blanks, colons and 0x are skipped, or
// what a prefix says ("text:…", "base64:…"). Errors name the place and the
// mend, and never the value.
func ParseValue(s string) (Value, error) {
	prefix, rest, found := strings.Cut(s, ":")
	switch {
	case found && prefix == "text":
		return Value{AsText, rest, []byte(rest)}, nil
	case found && prefix == "base64":
		b, ok := decodeBase64(rest)
		if !ok {
			return Value{}, fmt.Errorf("what follows base64: is no base64")
		}
		return Value{AsBase64, rest, b}, nil
	case found && prefix == "hex":
		s = rest
	}
	b, bad := parseHex(s)
	if bad != nil {
		// The value may be a secret: only its shape is told.
		reason := "it holds an odd number of hex digits"
		if strings.ContainsFunc(s, func(r rune) bool { return r > 0x7f || !isHex(byte(r)) && !strings.ContainsRune(" \t:,;-xX\\", r) }) {
			reason = fmt.Sprintf("character %d is no hex digit", bad.Column)
		}
		return Value{}, fmt.Errorf("%s; put text: before a value that is text, base64: before base64", reason)
	}
	return Value{AsHex, s, b}, nil
}

// HexValue returns bytes as a value written in hex.
func HexValue(b []byte) Value { return Value{AsHex, hex.EncodeToString(b), bytes.Clone(b)} }

// decodeBase64 reads base64 of either alphabet, padded or not.
func decodeBase64(s string) ([]byte, bool) {
	s = strings.TrimRight(strings.TrimSpace(s), "=")
	s = strings.NewReplacer("-", "+", "_", "/").Replace(s)
	b, err := base64.RawStdEncoding.DecodeString(s)
	return b, err == nil
}

// Keys are the input parameters of a security context as a person wrote them
// (RFC 8613 §3.2), seen from the endpoint that owns them.
type Keys struct {
	Secret    Value
	Salt      Value // no bytes: absent, which is the same as empty (§3.2)
	Sender    Value
	Recipient Value
	IDContext *Value // nil: absent
	AEAD      oscore.AEAD
	HKDF      oscore.HKDF
}

// Params returns the keys as the library takes them.
func (k *Keys) Params() oscore.Params {
	p := oscore.Params{
		MasterSecret: oscore.Secret(k.Secret.Bytes), MasterSalt: k.Salt.Bytes,
		SenderID: k.Sender.Bytes, RecipientID: k.Recipient.Bytes, AEAD: k.AEAD, HKDF: k.HKDF,
	}
	if k.IDContext != nil {
		p.IDContext = k.IDContext.Bytes
		if p.IDContext == nil {
			p.IDContext = []byte{}
		}
	}
	return p
}

// KeysOf returns the keys that parameters from a key store are, as if written
// in hex.
func KeysOf(p oscore.Params) Keys {
	k := Keys{
		Secret: HexValue(p.MasterSecret), Salt: HexValue(p.MasterSalt),
		Sender: HexValue(p.SenderID), Recipient: HexValue(p.RecipientID), AEAD: p.AEAD, HKDF: p.HKDF,
	}
	if p.IDContext != nil {
		v := HexValue(p.IDContext)
		k.IDContext = &v
	}
	return k
}
