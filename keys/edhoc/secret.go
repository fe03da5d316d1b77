package edhoc

import (
	"fmt"
	"io"
	"log/slog"
)

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
