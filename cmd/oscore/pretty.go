package main

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/fxamacker/cbor/v2"
	"github.com/oscorelay/oscorelay/internal/coap"
	"github.com/plgd-dev/go-coap/v3/message"
	"github.com/plgd-dev/go-coap/v3/message/pool"
)

// answer is a verified response as --json shows it.
type answer struct {
	Code      string            `json:"code"`
	Name      string            `json:"name,omitempty"`
	Format    *int              `json:"content_format,omitempty"`
	Options   map[string]string `json:"options,omitempty"` // name → hex
	Bytes     int               `json:"bytes"`
	Text      string            `json:"text,omitempty"`
	JSON      json.RawMessage   `json:"json,omitempty"`
	Diagnosis string            `json:"cbor_diagnostic,omitempty"`
	Base64    string            `json:"base64,omitempty"`
}

// print writes a response as the flags want it. A response of class 4 or 5 is
// an error.
func (r *requestFlags) print(io stdio, m *pool.Message) error {
	payload, err := m.ReadBody()
	if err != nil {
		return err
	}
	code := coap.Code(m.Code())
	var failure error
	if !code.IsSuccess() {
		failure = fmt.Errorf("%d.%02d %s (protected)%s", code.Class(), code.Detail(), code.Name(), diagnostic(payload))
	}
	switch {
	case r.output != "" && failure == nil:
		if err := os.WriteFile(r.output, payload, 0o644); err != nil {
			return err
		}
	case r.raw:
		if _, err := io.out.Write(payload); err != nil {
			return err
		}
	case r.json:
		return r.printJSON(io, m, code, payload, failure)
	case failure == nil:
		if format, err := m.ContentFormat(); err == nil {
			fmt.Fprint(io.out, pretty(format, payload))
		} else if len(payload) > 0 {
			fmt.Fprint(io.out, pretty(message.TextPlain, payload))
		} else {
			fmt.Fprintf(io.out, "%d.%02d %s\n", code.Class(), code.Detail(), code.Name())
		}
	}
	return failure
}

func diagnostic(payload []byte) string {
	if len(payload) == 0 || !printable(payload) {
		return ""
	}
	return ": " + string(payload)
}

func (r *requestFlags) printJSON(io stdio, m *pool.Message, code coap.Code, payload []byte, failure error) error {
	a := answer{Code: fmt.Sprintf("%d.%02d", code.Class(), code.Detail()), Name: code.Name(), Bytes: len(payload)}
	for _, o := range m.Options() {
		if a.Options == nil {
			a.Options = map[string]string{}
		}
		a.Options[coap.OptionName(uint16(o.ID))] = hex.EncodeToString(o.Value)
	}
	format, err := m.ContentFormat()
	if err == nil {
		n := int(format)
		a.Format = &n
	}
	switch {
	case len(payload) == 0:
	case isJSON(format) && json.Valid(payload):
		a.JSON = payload
	case isCBOR(format):
		if d, err := cbor.Diagnose(payload); err == nil {
			a.Diagnosis = d
			break
		}
		fallthrough
	case !printable(payload):
		a.Base64 = base64.StdEncoding.EncodeToString(payload)
	default:
		a.Text = string(payload)
	}
	if err := printJSON(io.out, a); err != nil {
		return err
	}
	return failure
}

// Content-Formats by what they are made of.
func isJSON(f message.MediaType) bool {
	return f == message.AppJSON || f == message.AppSenmlJSON || f == message.AppLwm2mJSON
}

func isCBOR(f message.MediaType) bool {
	return f == message.AppCBOR || f == message.AppSenmlCbor || f == 11544
}

// pretty renders a payload for a person, ending with a line break.
func pretty(format message.MediaType, payload []byte) string {
	switch {
	case len(payload) == 0:
		return "(empty)\n"
	case isJSON(format):
		var out bytes.Buffer
		if json.Indent(&out, payload, "", "  ") == nil {
			return line(out.String())
		}
	case isCBOR(format):
		if d, err := cbor.Diagnose(payload); err == nil {
			return line(d)
		}
	case format == message.AppLinkFormat && printable(payload):
		return line(strings.ReplaceAll(string(payload), ",<", "\n<"))
	}
	if printable(payload) {
		return line(string(payload))
	}
	return hex.Dump(payload)
}

func line(s string) string {
	if strings.HasSuffix(s, "\n") {
		return s
	}
	return s + "\n"
}

// printable reports whether a terminal can show the bytes without being
// commanded by them.
func printable(b []byte) bool {
	if !utf8.Valid(b) {
		return false
	}
	for _, r := range string(b) {
		if !unicode.IsPrint(r) && r != '\n' && r != '\t' && r != '\r' {
			return false
		}
	}
	return true
}
