package explain

import (
	"encoding/hex"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/fxamacker/cbor/v2"
)

// Hex is a byte string that JSON holds in hex.
type Hex []byte

// MarshalText returns lower-case hex.
func (h Hex) MarshalText() ([]byte, error) { return []byte(h.String()), nil }

// String returns lower-case hex.
func (h Hex) String() string { return hex.EncodeToString(h) }

// Payload is what follows the payload marker.
type Payload struct {
	Bytes Hex    `json:"hex"`
	Text  string `json:"text,omitempty"` // when it is printable text
	CBOR  string `json:"cbor,omitempty"` // in diagnostic notation (RFC 8949 §8), when Content-Format says CBOR
}

// contentFormats names the entries of the IANA registry that CoAP, OSCORE and
// LwM2M traffic holds.
var contentFormats = map[uint32]string{
	0: "text/plain; charset=utf-8", 16: "application/cose; cose-type=cose-encrypt0", 17: "application/cose; cose-type=cose-mac0",
	18: "application/cose; cose-type=cose-sign1", 40: "application/link-format", 41: "application/xml", 42: "application/octet-stream",
	47: "application/exi", 50: "application/json", 51: "application/json-patch+json", 52: "application/merge-patch+json",
	60: "application/cbor", 61: "application/cwt", 63: "application/cbor-seq", 64: "application/edhoc+cbor-seq", 65: "application/cid-edhoc+cbor-seq",
	96: "application/cose; cose-type=cose-encrypt", 97: "application/cose; cose-type=cose-mac", 98: "application/cose; cose-type=cose-sign",
	101: "application/cose-key", 102: "application/cose-key-set", 110: "application/senml+json", 111: "application/sensml+json",
	112: "application/senml+cbor", 113: "application/sensml+cbor", 256: "application/coap-group+json", 257: "application/concise-problem-details+cbor",
	310: "application/senml+xml", 320: "application/senml-etch+json", 322: "application/senml-etch+cbor", 1541: "application/vnd.oma.lwm2m+tlv (old number)",
	1542: "application/vnd.oma.lwm2m+tlv (old number)", 1543: "application/vnd.oma.lwm2m+json (old number)", 10001: "application/oscore",
	11542: "application/vnd.oma.lwm2m+tlv", 11543: "application/vnd.oma.lwm2m+json", 11544: "application/vnd.oma.lwm2m+cbor",
}

// isCBOR reports whether a Content-Format is CBOR.
func isCBOR(format uint32) bool {
	return strings.Contains(contentFormats[format], "cbor") || format == 61 || format == 101 || format == 102
}

// newPayload describes a payload; format is its Content-Format, -1 if unknown.
func newPayload(b []byte, format int64) *Payload {
	if len(b) == 0 {
		return nil
	}
	p := &Payload{Bytes: b}
	if format >= 0 && isCBOR(uint32(format)) {
		p.CBOR = diagnoseCBOR(b)
	} else if printable(b) {
		p.Text = string(b)
	}
	return p
}

// diagnoseCBOR writes a sequence of CBOR items in diagnostic notation.
func diagnoseCBOR(b []byte) string {
	var items []string
	for rest := b; len(rest) > 0; {
		text, left, err := cbor.DiagnoseFirst(rest)
		if err != nil {
			return strings.Join(append(items, fmt.Sprintf("(no well-formed CBOR from byte %d on)", len(b)-len(rest))), ", ")
		}
		items, rest = append(items, text), left
	}
	return strings.Join(items, ", ")
}

// printable reports whether b is text that can go to a terminal as it is.
func printable(b []byte) bool {
	return utf8.Valid(b) && !strings.ContainsFunc(string(b), func(r rune) bool {
		return !unicode.IsPrint(r) && r != '\n' && r != '\t'
	})
}
