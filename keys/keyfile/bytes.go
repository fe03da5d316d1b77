package keyfile

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// ParseBytes reads bytes that say how they are written: "hex:0a0b",
// "base64:Cgs=" or "text:abc". The result is not nil.
func ParseBytes(s string) ([]byte, error) {
	kind, value, ok := strings.Cut(s, ":")
	if !ok {
		return nil, errUnclear(s)
	}
	switch kind {
	case "hex":
		b, err := parseHex(value)
		if err != nil {
			return nil, err
		}
		return b, nil
	case "base64":
		b, err := base64.StdEncoding.DecodeString(value)
		if err != nil {
			b, err = base64.RawURLEncoding.DecodeString(value)
		}
		if err != nil {
			return nil, errors.New("what follows base64: is not base64")
		}
		return b, nil
	case "text":
		if !utf8.ValidString(value) {
			return nil, errors.New("what follows text: is not UTF-8")
		}
		return []byte(value), nil
	}
	return nil, errUnclear(s)
}

var apart = strings.NewReplacer(" ", "", ":", "")

// parseHex reads hexadecimal digits, which may be set apart by spaces or colons.
func parseHex(s string) ([]byte, error) {
	digits := s
	if strings.ContainsAny(s, " :") {
		digits = apart.Replace(s)
	}
	b, err := hex.DecodeString(digits)
	switch {
	case errors.Is(err, hex.ErrLength):
		return nil, fmt.Errorf("%d hexadecimal digits where an even number is needed", len(digits))
	case err != nil:
		return nil, errors.New("what follows hex: is not hexadecimal")
	}
	return b, nil
}

// errUnclear does not repeat the value, which may be a secret.
func errUnclear(s string) error {
	n := len(s)
	if isHexText([]byte(s)) && n%2 == 0 {
		return fmt.Errorf("is it hexadecimal or text? write \"hex:...\" for %d bytes or \"text:...\" for %d characters", n/2, n)
	}
	return fmt.Errorf("how are these %d characters written? put \"hex:\", \"base64:\" or \"text:\" before them", n)
}

// FormatBytes writes bytes in the form that ParseBytes reads.
func FormatBytes(b []byte) string { return "hex:" + hex.EncodeToString(b) }

// isHexText reports whether b consists of hexadecimal digits.
func isHexText(b []byte) bool {
	for _, c := range b {
		if !('0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F') {
			return false
		}
	}
	return len(b) > 0
}

// isText reports whether b consists of printable ASCII characters.
func isText(b []byte) bool {
	for _, c := range b {
		if c < 0x20 || c > 0x7e {
			return false
		}
	}
	return len(b) > 0
}
