package edhoc

import (
	"fmt"
	"io"
	"log/slog"
)

// Secret is keying material. It shows its length, never its bytes, in every
// format of fmt and in log/slog.
type Secret []byte

// Format implements fmt.Formatter for all verbs alike.
func (s Secret) Format(f fmt.State, _ rune) { fmt.Fprintf(f, "[secret, %d bytes]", len(s)) }

// LogValue implements slog.LogValuer.
func (s Secret) LogValue() slog.Value {
	return slog.StringValue(fmt.Sprintf("[secret, %d bytes]", len(s)))
}

// Wipe overwrites the secret with zeros.
func (s Secret) Wipe() { clear(s) }

// opaque, embedded, keeps a type that holds secrets in unexported fields from
// showing them: fmt would print unexported fields without asking their type.
type opaque struct{}

// Format implements fmt.Formatter for all verbs alike.
func (opaque) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "[edhoc state]") }

// LogValue implements slog.LogValuer.
func (opaque) LogValue() slog.Value { return slog.StringValue("[edhoc state]") }

// wipe overwrites keying material with zeros.
func wipe(secrets ...[]byte) {
	for _, s := range secrets {
		clear(s)
	}
}
