package explain

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
)

func TestParseText(t *testing.T) {
	for _, tc := range []struct {
		name, text string
		want       []string // hex; nil: an error
		line       int
		column     int
	}{
		{name: "hex", text: "44025d1f", want: []string{"44025d1f"}},
		{name: "upper case, blanks, colons", text: "44:02:5D 1F\t00", want: []string{"44025d1f00"}},
		{name: "0x in front of all", text: "0x44025d1f", want: []string{"44025d1f"}},
		{name: "0x in front of each", text: "0x44, 0x2,0x5d, 0x1f", want: []string{"44025d1f"}},
		{name: "two lines, a comment, a blank line", text: "# request\n4402 # C.4\n\n// response\r\n6444\r\n", want: []string{"4402", "6444"}},
		{name: "Go list", text: "var m = []byte{0x44, 2, 0x5d,\n\t0x1f, // Message ID\n}\n6444", want: []string{"44025d1f", "6444"}},
		{name: "C list", text: "const uint8_t m[4] = { 0x44, 0x02, 93, 0x1f };", want: []string{"44025d1f"}},
		{name: "printed byte slice", text: "[68 2 93 31]", want: []string{"44025d1f"}},
		{name: "Python literal", text: `b'D\x02]\x1f\'\\'`, want: []string{"44025d1f275c"}},
		{name: "C literals", text: `"\x44\x02" "]\x1f"`, want: []string{"44025d1f"}},
		{name: "hash inside a literal", text: `"a #b"`, want: []string{"61202362"}},
		{name: "hexdump -C", text: "00000000  44 02 5d 1f 00 00 39 74  39 6c 6f 63 61 6c 68 6f  |D.]...9t9localho|\n00000010  73 74                                             |st|\n00000012\n6444", want: []string{"44025d1f00003974396c6f63616c686f7374", "6444"}},
		{name: "xxd", text: "00000000: 4402 5d1f 0000 3974 396c 6f63 616c 686f  D.]...9t9localho\n00000010: 7374                                     st", want: []string{"44025d1f00003974396c6f63616c686f7374"}},
		{name: "Wireshark", text: "0000  44 02 5d 1f 00 00 39 74 39 6c 6f 63 61 6c 68 6f   D.]...9t9localho\n0010  73 74                                             st", want: []string{"44025d1f00003974396c6f63616c686f7374"}},
		{name: "nothing", text: " \n# only a comment\n", want: []string{}},

		{name: "no hex digit", text: "4402\n44zz", line: 2, column: 3},
		{name: "odd digits", text: "440", line: 1, column: 3},
		{name: "0x alone", text: "44 0x", line: 1, column: 4},
		{name: "no byte in a list", text: "{0x44,\n  256}", line: 2, column: 3},
		{name: "list without end", text: "{0x44, 1", line: 1, column: 1},
		{name: "literal without end", text: `b'abc`, line: 1, column: 2},
		{name: "unknown escape", text: `"\q"`, line: 1, column: 2},
		{name: "a URI", text: "coap://host", line: 1, column: 2},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := ParseText(tc.text)
			if tc.want == nil {
				var bad *InputError
				if !errors.As(err, &bad) || bad.Line != tc.line || bad.Column != tc.column {
					t.Fatalf("error %v, want one at %d:%d", err, tc.line, tc.column)
				}
				return
			}
			if err != nil || len(got) != len(tc.want) {
				t.Fatalf("got %x, %v", got, err)
			}
			for i, m := range got {
				if hex.EncodeToString(m.Bytes) != tc.want[i] {
					t.Errorf("message %d is %x, want %s", i+1, m.Bytes, tc.want[i])
				}
			}
		})
	}
}

// FuzzParseText holds that whatever parses has a place in the text, and that
// writing it in hex and parsing again gives the same bytes.
func FuzzParseText(f *testing.F) {
	for _, s := range []string{"44025d1f", "0x44, 2", "[]byte{0x44, 2}", `b'D\x02'`, "00000000: 4402 5d1f  D.].\n", "0000  44 02   D.\n0002", "# x\n{1,\n2}", "[1 2"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got, err := ParseText(text)
		if err != nil {
			var bad *InputError
			if !errors.As(err, &bad) || bad.Line < 1 || bad.Column < 1 {
				t.Fatalf("error without a place: %v", err)
			}
			return
		}
		for _, m := range got {
			if m.Line < 1 || m.Line > strings.Count(text, "\n")+1 {
				t.Fatalf("line %d", m.Line)
			}
			again, err := ParseText(hex.EncodeToString(m.Bytes))
			if err != nil || len(m.Bytes) > 0 && (len(again) != 1 || !bytes.Equal(again[0].Bytes, m.Bytes)) {
				t.Fatalf("%x became %v, %v", m.Bytes, again, err)
			}
		}
	})
}

func TestParseValue(t *testing.T) {
	for _, tc := range []struct {
		in       string
		want     string
		notation Notation
	}{
		{"", "", AsHex},
		{"01:02 0x3", "010203", AsHex},
		{"hex:0102", "0102", AsHex},
		{"text:0102", "30313032", AsText},
		{"text:", "", AsText},
		{"text:a:b", "613a62", AsText},
		{"base64:AQI=", "0102", AsBase64},
		{"base64:-_8", "fbff", AsBase64},
	} {
		v, err := ParseValue(tc.in)
		if err != nil || hex.EncodeToString(v.Bytes) != tc.want || v.Notation != tc.notation {
			t.Errorf("%q: %x as %v, %v", tc.in, v.Bytes, v.Notation, err)
		}
	}
	for in, want := range map[string]string{
		"012":             "odd number",
		"my secret":       "character 1 is no hex digit",
		"base64:*":        "no base64",
		"01hunter2hunter": "character 3 is no hex digit",
	} {
		_, err := ParseValue(in)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hunter") {
			t.Errorf("%q: %v, want %q", in, err, want)
		}
	}
}

func TestValueRedacts(t *testing.T) {
	k := Keys{Secret: Value{AsText, "hunter2", []byte("hunter2")}}
	b, err := json.Marshal(k)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{string(b), k.Secret.String(), fmt.Sprintf("%v %+v %#v %s %x %q", k, k, k, k.Secret, k.Secret, &k.Secret)} {
		if strings.Contains(s, "hunter2") || strings.Contains(s, hex.EncodeToString([]byte("hunter2"))) || strings.Contains(s, "104 117") {
			t.Errorf("the secret shows in %s", s)
		}
	}
}
