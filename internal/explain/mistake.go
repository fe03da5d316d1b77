package explain

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/oscorelay/oscorelay/oscore"
)

// Finding is a field of the keys that is wrong, and the mend.
type Finding struct {
	Field string `json:"field"`
	Wrong string `json:"wrong"`
	Mend  string `json:"mend"`
}

// alternative is another reading of one field.
type alternative struct {
	apply   func(*Keys)
	finding Finding
}

// field is a field of the keys with its other readings.
type field struct {
	name         string
	alternatives []alternative
	readings     string // in words, for when none fits
}

// reading is another way to read a value that was written.
type reading struct {
	bytes []byte
	wrong string // "… is right only if …"
	mend  string // what to write, with … for the value
}

// readings returns the other values that v may stand for, without v itself.
func readings(v Value) []reading {
	r := readingList{seen: [][]byte{v.Bytes}}
	text := v.Written
	if v.Notation != AsText {
		r.add([]byte(text), "is right only if read as text, not as "+v.Notation.String(), "write it as text:…")
		r.add([]byte(strings.TrimSpace(text)), "is right only if read as text, without the blanks around it", "write it as text:… without blanks")
		r.add([]byte(hex.EncodeToString(v.Bytes)), "is right only if its lower-case hex digits are read as text", "write its hex digits, lower case, as text:…")
		r.add([]byte(strings.ToUpper(hex.EncodeToString(v.Bytes))), "is right only if its upper-case hex digits are read as text", "write its hex digits, upper case, as text:…")
	}
	if v.Notation != AsHex {
		if b, bad := parseHex(text); bad == nil {
			r.add(b, "is right only if read as hex, not as "+v.Notation.String(), "write it as hex:…")
		}
	}
	if b, ok := decodeBase64(text); ok && v.Notation != AsBase64 {
		r.add(b, "is right only if read as base64, not as "+v.Notation.String(), "write it as base64:…")
	}
	r.content(v.Bytes)
	return r.list
}

type readingList struct {
	seen [][]byte
	list []reading
}

func (r *readingList) add(b []byte, wrong, mend string) {
	for _, s := range r.seen {
		if bytes.Equal(s, b) {
			return
		}
	}
	r.seen = append(r.seen, b)
	r.list = append(r.list, reading{b, wrong, mend})
}

// content adds the readings of a value's bytes: encoded twice, or with
// something at an end that does not belong there.
func (r *readingList) content(b []byte) {
	if len(b) == 0 {
		return
	}
	if trimmed := bytes.TrimRight(b, "\r\n"); len(trimmed) < len(b) {
		r.add(trimmed, "has a newline at its end that the peer's has not", "take the newline off (printf '%s' in place of echo)")
	}
	if trimmed := bytes.TrimSpace(b); len(trimmed) < len(b) {
		r.add(trimmed, "has blanks around it that the peer's has not", "take the blanks off")
	}
	if trimmed := bytes.TrimRight(b, "\x00"); len(trimmed) < len(b) {
		r.add(trimmed, "has zero bytes at its end that the peer's has not", "take the zero bytes off")
	}
	if n := len(b); n > 2 && (b[0] == '"' || b[0] == '\'') && b[n-1] == b[0] {
		r.add(b[1:n-1], "has quotes around it that the peer's has not", "take the quotes off")
	}
	if inner, bad := parseHex(strings.TrimSpace(string(b))); bad == nil && printable(bytes.TrimSpace(b)) {
		r.add(inner, "was encoded in hex twice", "decode it from hex once, and write the result")
	}
	if inner, ok := decodeBase64(string(b)); ok && printable(bytes.TrimSpace(b)) {
		r.add(inner, "holds base64 that the peer decodes", "write the text that it holds as base64:…")
	}
	r.add(append(bytes.Clone(b), '\n'), "lacks a newline at its end that the peer's has", `take the newline off at the peer (or add 0a to the hex)`)
	r.add(append(bytes.Clone(b), '\r', '\n'), "lacks a line end (CR LF) that the peer's has", "take the line end off at the peer (or add 0d0a to the hex)")
	r.add(append(bytes.Clone(b), 0), "lacks a zero byte at its end that the peer's has", "take the zero byte off at the peer (or add 00 to the hex)")
	r.add([]byte(base64.StdEncoding.EncodeToString(b)), "is right only if its base64 is read as text", "write its base64 as text:…")
}

// valueOf makes the value that a reading is.
func valueOf(b []byte) Value { return HexValue(b) }

// secretField lists how the Master Secret can be wrong.
func secretField(k *Keys) field {
	f := field{name: "master secret", readings: "as hex, text and base64, encoded twice, with and without a newline, blanks, quotes or a zero byte, the salt in its place"}
	f.readingsOf(k.Secret, func(k *Keys, v Value) { k.Secret = v })
	if len(k.Salt.Bytes) > 0 {
		salt, secret := k.Salt, k.Secret
		f.add(func(k *Keys) { k.Secret, k.Salt = salt, secret }, "and the master salt have changed places", "swap the two")
		f.add(func(k *Keys) { k.Secret, k.Salt = salt, Value{} }, "is in the place of the salt, and the peer has no salt", "write the salt's value as the secret, and no salt")
	}
	return f
}

// saltField lists how the Master Salt can be wrong.
func saltField(k *Keys, kidContext []byte) field {
	f := field{name: "master salt", readings: "as hex, text and base64, absent (the same as empty), the secret or the ID Context in its place"}
	set := func(k *Keys, v Value) { k.Salt = v }
	secret := k.Secret
	if len(k.Salt.Bytes) > 0 {
		f.readingsOf(k.Salt, set)
		f.add(func(k *Keys) { k.Salt = Value{} }, "is given, but the peer has none", "leave the salt out")
	}
	f.add(func(k *Keys) { k.Salt = secret }, "must be the same as the secret: the peer has it so", "give the peer a salt of its own, or write the secret's value as salt")
	if c := k.IDContext; c != nil && len(c.Bytes) > 0 {
		v := *c
		f.add(func(k *Keys) { k.Salt = v }, "is at the peer what here is the ID Context", "write the ID Context's value as salt")
	}
	if len(kidContext) > 0 {
		f.add(func(k *Keys) { k.Salt = valueOf(kidContext) }, "is at the peer what the message carries as kid context", fmt.Sprintf("write %x as salt", kidContext))
	}
	return f
}

// contextField lists how the ID Context can be wrong.
func contextField(k *Keys, kidContext []byte) field {
	f := field{name: "ID Context", readings: "as given, absent, empty, as hex, text and base64, and as the message's kid context"}
	set := func(v *Value) func(*Keys) { return func(k *Keys) { k.IDContext = v } }
	given := k.IDContext
	if kidContext != nil && (given == nil || !bytes.Equal(given.Bytes, kidContext)) {
		v := valueOf(kidContext)
		f.add(set(&v), "is not the peer's: the message carries another as kid context", fmt.Sprintf("write %s as ID Context", idOrEmpty(kidContext)))
	}
	if content, err := oscore.UnwrapBstr(kidContext); err == nil && (given == nil || !bytes.Equal(given.Bytes, content)) {
		v := valueOf(content)
		f.add(set(&v), "was agreed anew: the kid context is of Appendix B.2", fmt.Sprintf("nothing, if both ends do Appendix B.2; to read this message write %s as ID Context", idOrEmpty(content)))
	}
	if given != nil {
		f.add(set(nil), "is given, but the peer uses none", "leave the ID Context out")
		f.readingsOf(*given, func(k *Keys, v Value) { k.IDContext = &v })
	}
	if given == nil || len(given.Bytes) > 0 {
		wrong := "is absent, but the peer has one that is present and empty, which derives other keys"
		if given != nil {
			wrong = "is given, but the peer has one that is present and empty"
		}
		f.add(set(&Value{}), wrong, "leave it out at the peer, or write an empty ID Context here")
	}
	return f
}

// algorithmFields list the other algorithms.
func algorithmFields(k *Keys) (aead, hkdf field) {
	aead = field{name: "AEAD algorithm", readings: "all that OSCORE can use"}
	for _, a := range oscore.AEADs() {
		if a.String() != k.AEAD.String() {
			aead.add(func(k *Keys) { k.AEAD = a }, fmt.Sprintf("is %s here, but %s at the peer", k.AEAD, a), fmt.Sprintf("write %s (COSE number %d)", a, int(a)))
		}
	}
	hkdf = field{name: "HKDF algorithm", readings: "SHA-256, SHA-384, SHA-512"}
	for _, h := range oscore.HKDFs() {
		if h.String() != k.HKDF.String() {
			hkdf.add(func(k *Keys) { k.HKDF = h }, fmt.Sprintf("is %s here, but %s at the peer", k.HKDF, h), fmt.Sprintf("write %s (COSE number %d)", strings.TrimPrefix(h.String(), "HKDF "), int(h)))
		}
	}
	return aead, hkdf
}

// idsField lists how the two IDs can be wrong where no message shows a kid.
func idsField(k *Keys) field {
	f := field{name: "sender and recipient ID", readings: "swapped, and each as hex and as text"}
	sender, recipient := k.Sender, k.Recipient
	f.add(func(k *Keys) { k.Sender, k.Recipient = recipient, sender }, "have changed places", "swap the two: the sender ID is the one that this end sends with")
	for _, side := range []struct {
		name string
		v    Value
		set  func(*Keys, Value)
	}{
		{"sender ID", sender, func(k *Keys, v Value) { k.Sender = v }},
		{"recipient ID", recipient, func(k *Keys, v Value) { k.Recipient = v }},
	} {
		for _, r := range readings(side.v) {
			f.alternatives = append(f.alternatives, alternative{
				func(k *Keys) { side.set(k, valueOf(r.bytes)) },
				Finding{side.name, "the " + side.name + " " + r.wrong, fmt.Sprintf("write %s", idOrEmpty(r.bytes))},
			})
		}
	}
	return f
}

func (f *field) add(apply func(*Keys), wrong, mend string) {
	f.alternatives = append(f.alternatives, alternative{apply, Finding{f.name, "the " + f.name + " " + wrong, mend}})
}

func (f *field) readingsOf(v Value, set func(*Keys, Value)) {
	for _, r := range readings(v) {
		f.add(func(k *Keys) { set(k, valueOf(r.bytes)) }, r.wrong, r.mend)
	}
}

// idOrEmpty writes an ID as a flag takes it.
func idOrEmpty(id []byte) string {
	if len(id) == 0 {
		return `"" (empty)`
	}
	return hex.EncodeToString(id)
}
