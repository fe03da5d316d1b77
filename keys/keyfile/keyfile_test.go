package keyfile

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/oscorelay/oscorelay/keys"
	"github.com/oscorelay/oscorelay/oscore"
)

func sample() []keys.Entry {
	return []keys.Entry{
		{Name: "plain", Params: oscore.Params{
			MasterSecret: []byte("0123456789abcdef"), SenderID: []byte{}, RecipientID: []byte{1},
			AEAD: oscore.AESCCM16_64_128, HKDF: oscore.HKDFSHA256,
		}},
		{Name: `odd "name", with, commas`, Notes: "two\nlines and a tab\t\x7f", Params: oscore.Params{
			MasterSecret: []byte{0xff, 0, 1}, MasterSalt: []byte{9}, IDContext: []byte{}, SenderID: []byte("s"), RecipientID: []byte{},
			AEAD: oscore.ChaCha20Poly1305, HKDF: oscore.HKDFSHA384, WindowSize: 64, OmitKIDContext: true,
		}, Settings: oscore.Settings{
			Rederive: oscore.RoleClient | oscore.RoleServer, RederiveOnStart: true, NoEcho: true, MaxUnfragmented: 512,
		}},
	}
}

func TestRoundTrip(t *testing.T) {
	for _, f := range []Format{TOML, JSON, CSV} {
		t.Run(string(f), func(t *testing.T) {
			b, err := Append(nil, f, sample(), true)
			if err != nil {
				t.Fatal(err)
			}
			got, err := Parse("x."+string(f), f, b)
			if err != nil {
				t.Fatalf("%v\n%s", err, b)
			}
			want := sample()
			// CSV has no word for a note's line end that trimming spares, nor do the
			// formats tell an empty secret's Go type.
			for i := range want {
				if !got[i].Params.MasterSecret.Equal(want[i].Params.MasterSecret) {
					t.Error("the secret changed")
				}
				got[i].Params.MasterSecret, want[i].Params.MasterSecret = nil, nil
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("got  %+v\nwant %+v\n%s", got, want, b)
			}
			f2, err := FormatOf("stdin", b)
			if err != nil || f2 != f {
				t.Errorf("FormatOf = %v, %v", f2, err)
			}
		})
	}
}

func TestExportWithoutSecrets(t *testing.T) {
	for _, f := range []Format{TOML, JSON, CSV} {
		b, err := Append(nil, f, sample(), false)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range []string{"30313233", "ff0001", "0123456789abcdef", "MDEyMzQ1"} {
			if bytes.Contains(b, []byte(s)) {
				t.Errorf("%s shows a secret:\n%s", f, b)
			}
		}
	}
}

func TestParseBytes(t *testing.T) {
	for _, c := range []struct {
		in   string
		want string
		ok   bool
	}{
		{"hex:0a0B", "\x0a\x0b", true},
		{"hex:", "", true},
		{"hex:0a:0b 0c", "\x0a\x0b\x0c", true},
		{"text:0a", "0a", true},
		{"text:a:b", "a:b", true},
		{"base64:Cgs=", "\x0a\x0b", true},
		{"base64:-_8", "\xfb\xff", true},
		{"hex:0", "", false},
		{"hex:xx", "", false},
		{"base64:?", "", false},
		{"text:\xff", "", false},
		{"0a0b", "", false},
		{"secret", "", false},
		{"", "", false},
		{"HEX:00", "", false},
	} {
		got, err := ParseBytes(c.in)
		if (err == nil) != c.ok || c.ok && (got == nil || string(got) != c.want) {
			t.Errorf("ParseBytes(%q) = %x, %v", c.in, got, err)
		}
	}
}

// TestErrorsShowNoSecret: an error may name a field but never what stands there.
func TestErrorsShowNoSecret(t *testing.T) {
	for _, value := range []string{"deadbeefdeadbeef", "hex:deadbeefdeadbee", "hex:xxdeadbeef", "base64:dead?beef", "deadbeef secret"} {
		doc := "[[context]]\nname = \"x\"\nmaster_secret = \"" + value + "\"\nsender_id = \"hex:\"\nrecipient_id = \"hex:01\"\n"
		_, err := Parse("f.toml", TOML, []byte(doc))
		var place *Error
		if !errors.As(err, &place) || place.Line != 3 {
			t.Errorf("%q: %v", value, err)
		}
		if err != nil && strings.Contains(err.Error(), "dead") {
			t.Errorf("the error shows the value: %v", err)
		}
	}
}

func TestObject21Numbers(t *testing.T) {
	for _, c := range []struct {
		aead, hkdf string
		wantAEAD   oscore.AEAD
		wantHKDF   oscore.HKDF
	}{
		{"10", "-10", oscore.AESCCM16_64_128, oscore.HKDFSHA256},
		{"1", "5", oscore.A128GCM, oscore.HKDFSHA256},
		{"24", "-11", oscore.ChaCha20Poly1305, oscore.HKDFSHA512},
		{`"30"`, `"6"`, oscore.AESCCM16_128_128, oscore.HKDFSHA384},
		{`"A256GCM"`, "7", oscore.A256GCM, oscore.HKDFSHA512},
	} {
		toml := "[[context]]\nname='x'\nmaster_secret='hex:00'\nsender_id='hex:'\nrecipient_id='hex:01'\naead=" + c.aead + "\nhkdf=" + c.hkdf + "\n"
		json := `{"contexts":[{"name":"x","master_secret":"hex:00","sender_id":"hex:","recipient_id":"hex:01","aead":` + c.aead + `,"hkdf":` + c.hkdf + `}]}`
		for f, doc := range map[Format]string{TOML: toml, JSON: json} {
			got, err := Parse("f", f, []byte(doc))
			if err != nil || got[0].Params.AEAD != c.wantAEAD || got[0].Params.HKDF != c.wantHKDF {
				t.Errorf("%s %s, %s: %+v, %v", f, c.aead, c.hkdf, got, err)
			}
		}
	}
}

func TestAiocoapErrors(t *testing.T) {
	for _, c := range []struct{ settings, secret, want string }{
		{`{"sender-id_hex": "", "recipient-id_hex": "01", "secret_hex": "00"}`, `{"secret_hex": "00"}`, "secret_hex stands in"},
		{`{"sender-id_hex": "", "recipient-id_hex": "01", "algorithm": 10}`, `{"secret_hex": "00"}`, "algorithm: not a string"},
		{`{"sender-id": "", "recipient-id_hex": "01"}`, `{"secret_hex": "00"}`, "lacks _hex or _ascii"},
		{`{"sender-id_hex": "", "recipient-id_hex": "01"}`, `{"secret_hex": "0"}`, "secret_hex: 1 hexadecimal digits"},
		{`{"sender-id_hex": "", "recipient-id_hex": "01"`, `{}`, "settings.json"},
		{`{"sender-id_hex": "", "recipient-id_hex": "01", "window": "x"}`, `{"secret_hex": "00"}`, "window: not a number"},
		{`{"sender-id_hex": "", "recipient-id_hex": "01", "colour_hex": "00"}`, `{"secret_hex": "00"}`, `unknown key "colour_hex"`},
		{`{"sender-id_hex": "01", "recipient-id_hex": "01"}`, `{"secret_hex": "00"}`, "are equal"},
	} {
		dir := t.TempDir()
		for name, text := range map[string]string{"settings.json": c.settings, "secret.json": c.secret} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := ReadAiocoap(dir); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.settings, err, c.want)
		}
	}
}

func FuzzParse(f *testing.F) {
	for i, format := range []Format{TOML, JSON, CSV} {
		b, err := Append(nil, format, sample(), true)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(uint8(i), b)
	}
	f.Fuzz(func(t *testing.T, n uint8, b []byte) {
		format := []Format{TOML, JSON, CSV}[n%3]
		entries, err := Parse("f", format, b)
		if err != nil {
			var place *Error
			if !errors.As(err, &place) {
				t.Fatalf("an error without a place: %v", err)
			}
			return
		}
		Lint(entries)
		again, err := Append(nil, format, entries, true)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Parse("f", format, again); err != nil {
			t.Fatalf("%v\n%s", err, again)
		}
	})
}
