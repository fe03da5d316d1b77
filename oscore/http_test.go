package oscore

import (
	"bytes"
	"encoding/base64"
	"testing"

	"github.com/oscorelay/oscorelay/internal/proof"
)

func TestHTTPHeader(t *testing.T) {
	proof.Checklist(t, "O-11.3-1")
	for s, value := range map[string][]byte{
		"AA":              {},           // §11.2
		"CSU":             {0x09, 0x25}, // §11.5, from the request's option
		"CRQ":             {0x09, 0x14}, // C.4
		"GQIIN8vzIQAXotM": {0x19, 0x02, 0x08, 0x37, 0xcb, 0xf3, 0x21, 0x00, 0x17, 0xa2, 0xd3},
		"Af__":            {0x01, 0xff, 0xff},
	} {
		if got := HTTPHeader(value); got != s {
			t.Errorf("HTTPHeader(%x) = %q, want %q", value, got, s)
		}
		if got, err := ParseHTTPHeader(s); err != nil || !bytes.Equal(got, value) || got == nil {
			t.Errorf("ParseHTTPHeader(%q) = %x, %v, want %x", s, got, err, value)
		}
	}
	if HTTPHeader(nil) != "AA" {
		t.Error("an absent value is not AA")
	}
	for _, s := range []string{
		"", "A", "AA==", "AB", "CSU=", "CS U", "CS\nU", "CSU\r\n", "C+U", "C/U", "CSUA\x00", "CSU,CSU", "\u00e4\u00e4",
		base64.RawURLEncoding.EncodeToString(make([]byte, 256)),
	} {
		_, err := ParseHTTPHeader(s)
		wantNamed(t, s, err, ErrDecode)
	}
}
