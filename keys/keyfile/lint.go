package keyfile

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"

	"github.com/oscorelay/oscorelay/keys"
	"github.com/oscorelay/oscorelay/oscore"
)

// Finding is something about an entry that endangers it or keeps it from
// working.
type Finding struct {
	Entry string `json:"entry"`
	Code  string `json:"code"` // weak, published, shared, duplicate, both-ends, mistaken, salt, kid
	Why   string `json:"why"`
	Mend  string `json:"mend"`
}

// Lint checks entries, each by itself and against the others. It shows no
// secret.
func Lint(entries []keys.Entry) []Finding {
	var out []Finding
	for i := range entries {
		e := &entries[i]
		add := func(code, why, mend string) { out = append(out, Finding{e.Name, code, why, mend}) }
		lintSecret(e, add)
		lintForm(e, add)
		lintIDs(e, add)
	}
	return append(out, lintPairs(entries)...)
}

const (
	mendNew = "make new keys: oscore keys new"
	// minSecret is what RFC 8613 Appendix B takes for granted: 128 random bits.
	minSecret = 16
)

// published are secrets that stand in specifications and examples.
var published = []struct {
	secret string
	where  string
}{
	{"\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f\x10", "RFC 8613 Appendix C and the interop specification"},
	{"\x2b\x7e\x15\x16\x28\xae\xd2\xa6\xab\xf7\x15\x88\x09\xcf\x4f\x3c", "FIPS 197 and this tool's documentation"},
	{"\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f", "many examples"},
	{"\x11\x22\x33\x44\x55\x66\x77\x88\x99\xaa\xbb\xcc\xdd\xee\xff\x00", "many examples"},
	{"\x00\x11\x22\x33\x44\x55\x66\x77\x88\x99\xaa\xbb\xcc\xdd\xee\xff", "many examples"},
}

func lintSecret(e *keys.Entry, add func(code, why, mend string)) {
	s := []byte(e.Params.MasterSecret)
	for _, p := range published {
		if string(s) == p.secret {
			add("published", "the master secret is published in "+p.where, mendNew)
			return
		}
	}
	switch {
	case len(s) == 0:
	case allEqual(s):
		add("weak", "all bytes of the master secret are equal", mendNew)
	case counts(s):
		add("weak", "the master secret counts up or down", mendNew)
	case period(s) <= len(s)/2:
		add("weak", fmt.Sprintf("the master secret repeats every %d bytes", period(s)), mendNew)
	case len(s) < minSecret:
		add("weak", fmt.Sprintf("the master secret has %d bytes; 16 random ones are needed", len(s)), mendNew)
	case len(e.Name) >= 4 && bytes.Contains(bytes.ToLower(s), []byte(strings.ToLower(e.Name))):
		add("weak", "the master secret contains the entry's name", mendNew)
	case guessable(s):
		add("weak", "the master secret looks like a password, not like random bytes", mendNew)
	case distinct(s) < len(s)/3:
		add("weak", fmt.Sprintf("the master secret has only %d different bytes", distinct(s)), mendNew)
	}
	if k := e.Params.AEAD.KeyLen(); len(s) >= minSecret && len(s) < k {
		add("weak", fmt.Sprintf("the master secret has %d bytes, the key of %s %d: it is no stronger than a shorter key", len(s), e.Params.AEAD, k),
			fmt.Sprintf("use %d random bytes", k))
	}
	if len(s) > 0 && bytes.Equal(s, e.Params.MasterSalt) {
		add("salt", "the master salt is the master secret; a salt need not be secret, and may be told to others", "use another salt, or none")
	}
}

// lintForm finds bytes that were probably meant to be read otherwise.
func lintForm(e *keys.Entry, add func(code, why, mend string)) {
	for _, f := range []struct {
		name string
		b    []byte
		n    int // shortest that says anything
	}{
		{"master_secret", e.Params.MasterSecret, 16},
		{"master_salt", e.Params.MasterSalt, 8},
		{"id_context", e.Params.IDContext, 8},
		{"sender_id", e.Params.SenderID, 4},
		{"recipient_id", e.Params.RecipientID, 4},
	} {
		switch {
		case len(f.b) < f.n:
		case isHexText(f.b) && len(f.b)%2 == 0:
			add("mistaken", fmt.Sprintf("%s is %d characters that are all hexadecimal digits", f.name, len(f.b)),
				fmt.Sprintf("if the other end reads them as %d bytes, write hex: instead of text:", len(f.b)/2))
		case isBase64Text(f.b):
			add("mistaken", fmt.Sprintf("%s is %d characters that look like base64", f.name, len(f.b)),
				"if the other end decodes them, write base64: instead of text:")
		}
	}
}

func isBase64Text(b []byte) bool {
	return len(b)%4 == 0 && len(b) >= 16 && b[len(b)-1] == '=' && isText(b) && !bytes.ContainsAny(bytes.TrimRight(b, "="), " =,.;:!?-_")
}

func lintIDs(e *keys.Entry, add func(code, why, mend string)) {
	p := &e.Params
	if p.OmitKIDContext && p.IDContext == nil {
		add("kid", "omit_kid_context is set, but there is no ID context to omit", "remove it")
	}
	if len(p.IDContext) == 0 && p.IDContext != nil {
		add("mistaken", "the ID context is present and empty, which derives other keys than an absent one", "remove id_context unless the other end has an empty one")
	}
	if e.Settings.RederiveOnStart && e.Settings.Rederive&oscore.RoleClient == 0 {
		add("kid", "rederive_on_start is set, but the entry does not start Appendix B.2", `set rederive = "client" or "both"`)
	}
}

// lintPairs compares entries with each other.
func lintPairs(entries []keys.Entry) []Finding {
	var out []Finding
	secrets, secretsTold := map[[32]byte]string{}, map[[32]byte]bool{}
	senders, recipients := map[keys.Identity]string{}, map[keys.Identity]string{}
	pairs := map[string]string{}
	kids := map[string][]string{}
	for i := range entries {
		e := &entries[i]
		add := func(code, why, mend string) { out = append(out, Finding{e.Name, code, why, mend}) }
		s, r, err := keys.Identities(&e.Params)
		if err != nil {
			continue // Parse refuses it
		}
		other, ends := recipients[s], false
		if other != "" && senders[r] == other {
			ends = true
			add("both-ends", fmt.Sprintf("with %q it is both ends of one context: sender ID and recipient ID are exchanged", other),
				"keep one of them here and the other on the other machine")
		}
		switch {
		case senders[s] != "":
			add("duplicate", fmt.Sprintf("it has the sender key of %q: same master secret, salt, ID context and sender ID", senders[s]), "remove one of the two")
		case recipients[r] != "":
			add("duplicate", fmt.Sprintf("it has the recipient key of %q: same master secret, salt, ID context and recipient ID", recipients[r]), "remove one of the two")
		}
		h := sha256.Sum256(e.Params.MasterSecret)
		if first, ok := secrets[h]; !ok {
			secrets[h] = e.Name
		} else if !ends && !secretsTold[h] {
			secretsTold[h] = true
			add("shared", fmt.Sprintf("it has the master secret of %q: whoever holds it can speak as either", first), "give each peer a secret of its own")
		}
		kid := string(e.Params.RecipientID)
		if e.Params.IDContext == nil || e.Params.OmitKIDContext {
			kids[kid] = append(kids[kid], e.Name)
			switch n := len(kids[kid]); {
			case n == oscore.MaxCandidates+1:
				add("duplicate", fmt.Sprintf("recipient ID %x is shared with %s: only %d can be tried", kid, quoted(kids[kid][:n-1]), oscore.MaxCandidates),
					"give it another recipient ID, or an ID context")
			case n == 2:
				add("kid", fmt.Sprintf("recipient ID %x is shared with %q: each message is tried against both", kid, kids[kid][0]),
					"give each peer a recipient ID of its own if the devices allow it")
			}
		} else {
			pair := kid + "\x00" + string(e.Params.IDContext)
			if first, ok := pairs[pair]; ok {
				add("duplicate", fmt.Sprintf("recipient ID %x and ID context %x are those of %q too", kid, e.Params.IDContext, first), "give it another recipient ID")
			} else {
				pairs[pair] = e.Name
			}
		}
		senders[s], recipients[r] = e.Name, e.Name
	}
	slices.SortStableFunc(out, func(a, b Finding) int { return strings.Compare(a.Entry, b.Entry) })
	return out
}

func quoted(names []string) string {
	q := make([]string, len(names))
	for i, n := range names {
		q[i] = fmt.Sprintf("%q", n)
	}
	return strings.Join(q, ", ")
}

func allEqual(b []byte) bool { return len(b) > 0 && bytes.Count(b, b[:1]) == len(b) }

// counts reports whether each byte is the one before it plus or minus the same
// step.
func counts(b []byte) bool {
	if len(b) < 4 {
		return false
	}
	for i := 2; i < len(b); i++ {
		if b[i]-b[i-1] != b[1]-b[0] {
			return false
		}
	}
	return true
}

// period returns the shortest length after which b repeats.
func period(b []byte) int {
	for n := 1; n < len(b); n++ {
		if bytes.Equal(b[n:], b[:len(b)-n]) {
			return n
		}
	}
	return len(b)
}

func distinct(b []byte) int {
	var seen [256]bool
	n := 0
	for _, c := range b {
		if !seen[c] {
			seen[c] = true
			n++
		}
	}
	return n
}

// guessable reports whether a secret is text that is no encoding of random
// bytes: hexadecimal and base64 are treated elsewhere.
func guessable(b []byte) bool {
	return isText(b) && !isHexText(b) && !isBase64Text(b)
}
