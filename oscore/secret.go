package oscore

import (
	"crypto/subtle"
	"fmt"
	"io"
)

// Secret is key material. It prints as "[redacted]" in every format, so that
// it reaches no log, error or JSON document by accident.
type Secret []byte

const redacted = "[redacted]"

// String returns "[redacted]".
func (Secret) String() string { return redacted }

// GoString returns "[redacted]".
func (Secret) GoString() string { return redacted }

// Format writes "[redacted]" whatever the verb.
func (Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// MarshalText returns "[redacted]".
func (Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// Equal compares two secrets in constant time.
func (s Secret) Equal(t Secret) bool { return subtle.ConstantTimeCompare(s, t) == 1 }

// Format writes the algorithm and the IDs whatever the verb, no key: fmt looks
// into unexported fields and calls no method there.
func (c Context) Format(f fmt.State, _ rune) {
	if c.keys == nil {
		_, _ = io.WriteString(f, "oscore.Context()")
		return
	}
	_, _ = fmt.Fprintf(f, "oscore.Context(%v, sender %x, recipient %x)", c.Algorithm(), c.SenderID(), c.RecipientID())
}

// Format writes the Partial IV whatever the verb, no key.
func (r *Request) Format(f fmt.State, _ rune) {
	_, _ = fmt.Fprintf(f, "oscore.Request(Partial IV %d, proven %v)", r.piv, r.proven)
}

// Format writes the Partial IV whatever the verb, no key.
func (p *Pending) Format(f fmt.State, _ rune) {
	_, _ = fmt.Fprintf(f, "oscore.Pending(Partial IV %d, done %v)", p.piv, p.done)
}
