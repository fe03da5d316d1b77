package oscore

import (
	"encoding/base64"
	"strings"
)

// MediaType is the payload type of an OSCORE message over HTTP (§11.2).
const MediaType = "application/oscore"

// HTTPHeader returns an OSCORE option's value as the value of the HTTP header
// field "OSCORE" (§11.1): base64url without padding; the empty value is "AA",
// the encoding of one zero byte.
func HTTPHeader(value []byte) string {
	if len(value) == 0 {
		return "AA"
	}
	return base64.RawURLEncoding.EncodeToString(value)
}

// ParseHTTPHeader is the inverse of [HTTPHeader]. It returns ErrDecode for
// what is not base64url without padding.
func ParseHTTPHeader(s string) ([]byte, error) {
	// The decoder passes over line breaks; §11.1 has no place for them.
	value, err := base64.RawURLEncoding.Strict().DecodeString(s)
	if err != nil || strings.ContainsAny(s, "\r\n") || len(value) == 0 || len(value) > maxOption {
		return nil, ErrDecode
	}
	if len(value) == 1 && value[0] == 0 {
		return []byte{}, nil
	}
	return value, nil
}
