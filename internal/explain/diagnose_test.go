package explain

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/oscorelay/oscorelay/internal/coap"
	"github.com/oscorelay/oscorelay/oscore"
)

// written parses values as a person writes them.
func written(t testing.TB, s string) Value {
	t.Helper()
	v, err := ParseValue(s)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// TestDiagnose gives the owner keys that differ from the peer's in ways that
// people get wrong, and wants each named.
func TestDiagnose(t *testing.T) {
	// The peer's keys; the peer sends the request, so its sender ID is the kid.
	peer := oscore.Params{
		MasterSecret: oscore.Secret(unhex(t, "0102030405060708090a0b0c0d0e0f10")), MasterSalt: unhex(t, "9e7ca92223786340"),
		SenderID: []byte{0x0a}, RecipientID: []byte{0x0b},
	}
	right := func() Keys {
		return Keys{Secret: written(t, "0102030405060708090a0b0c0d0e0f10"), Salt: written(t, "9e7ca92223786340"), Sender: written(t, "0b"), Recipient: written(t, "0a")}
	}
	for _, tc := range []struct {
		name   string
		peer   func(*oscore.Params)
		keys   func(*Keys)
		fields []string // of the findings, in order
		wrong  string   // in the first of them
	}{
		{name: "right"},
		{
			name: "swapped IDs", keys: func(k *Keys) { k.Sender, k.Recipient = k.Recipient, k.Sender },
			fields: []string{"sender and recipient ID"}, wrong: "changed places",
		},
		{
			name: "equal IDs", keys: func(k *Keys) { k.Sender = k.Recipient },
			fields: []string{"sender and recipient ID", "sender ID"}, wrong: "are equal",
		},
		{
			name: "recipient ID as text", keys: func(k *Keys) { k.Recipient = written(t, "text:0a") },
			fields: []string{"recipient ID"}, wrong: "only if read as hex",
		},
		{
			name: "another recipient ID", keys: func(k *Keys) { k.Recipient = written(t, "0c") },
			fields: []string{"recipient ID"}, wrong: "the message carries the kid 0a",
		},
		{
			name: "another sender ID", keys: func(k *Keys) { k.Sender = written(t, "77") },
			fields: []string{"sender ID"}, wrong: "the response was sealed by 0b",
		},
		{
			name: "secret is text", peer: func(p *oscore.Params) { p.MasterSecret = oscore.Secret("0123456789abcdef") }, keys: func(k *Keys) { k.Secret = written(t, "0123456789abcdef") },
			fields: []string{"master secret"}, wrong: "only if read as text, not as hex",
		},
		{
			name: "secret is hex", keys: func(k *Keys) { k.Secret = written(t, "text:0102030405060708090a0b0c0d0e0f10") },
			fields: []string{"master secret"}, wrong: "only if read as hex, not as text",
		},
		{
			name: "secret is base64", keys: func(k *Keys) {
				k.Secret = written(t, "text:"+base64.StdEncoding.EncodeToString(unhex(t, "0102030405060708090a0b0c0d0e0f10")))
			},
			fields: []string{"master secret"}, wrong: "only if read as base64, not as text",
		},
		{
			name: "secret in hex twice", keys: func(k *Keys) { k.Secret = HexValue([]byte("0102030405060708090a0b0c0d0e0f10")) },
			fields: []string{"master secret"}, wrong: "in hex twice",
		},
		{
			name: "newline after a text secret", peer: func(p *oscore.Params) { p.MasterSecret = oscore.Secret("open sesame") }, keys: func(k *Keys) { k.Secret = written(t, "text:open sesame\n") },
			fields: []string{"master secret"}, wrong: "newline at its end that the peer's has not",
		},
		{
			name: "newline at the peer", peer: func(p *oscore.Params) { p.MasterSecret = oscore.Secret("open sesame\n") }, keys: func(k *Keys) { k.Secret = written(t, "text:open sesame") },
			fields: []string{"master secret"}, wrong: "lacks a newline",
		},
		{
			name: "quotes around a text secret", peer: func(p *oscore.Params) { p.MasterSecret = oscore.Secret("open sesame") }, keys: func(k *Keys) { k.Secret = written(t, `text:"open sesame"`) },
			fields: []string{"master secret"}, wrong: "quotes",
		},
		{
			name: "salt for secret", keys: func(k *Keys) { k.Secret, k.Salt = k.Salt, k.Secret },
			fields: []string{"master secret"}, wrong: "changed places",
		},
		{
			name: "salt as secret, no salt at the peer", peer: func(p *oscore.Params) { p.MasterSalt = nil }, keys: func(k *Keys) { k.Secret, k.Salt = k.Salt, k.Secret },
			fields: []string{"master secret"}, wrong: "in the place of the salt",
		},
		{
			name: "salt that the peer has not", peer: func(p *oscore.Params) { p.MasterSalt = nil },
			fields: []string{"master salt"}, wrong: "the peer has none",
		},
		{
			name: "salt is text", peer: func(p *oscore.Params) { p.MasterSalt = []byte("9e7ca92223786340") },
			fields: []string{"master salt"}, wrong: "only if read as text",
		},
		{
			name: "kid context without ID Context", peer: func(p *oscore.Params) { p.IDContext = []byte("net") },
			fields: []string{"ID Context"}, wrong: "the message carries another",
		},
		{
			name: "another ID Context", peer: func(p *oscore.Params) { p.IDContext = []byte("net") }, keys: func(k *Keys) { v := written(t, "text:nets"); k.IDContext = &v },
			fields: []string{"ID Context"}, wrong: "the message carries another",
		},
		{
			name: "ID Context that the peer has not", keys: func(k *Keys) { v := written(t, "aa"); k.IDContext = &v },
			fields: []string{"ID Context"}, wrong: "the peer uses none",
		},
		{
			name: "empty ID Context for none", keys: func(k *Keys) { v := written(t, ""); k.IDContext = &v },
			fields: []string{"ID Context"}, wrong: "the peer uses none",
		},
		{
			name: "none for an empty ID Context that is not sent", peer: func(p *oscore.Params) { p.IDContext, p.OmitKIDContext = []byte{}, true },
			fields: []string{"ID Context"}, wrong: "present and empty",
		},
		{
			name: "AEAD", peer: func(p *oscore.Params) { p.AEAD = oscore.AESCCM64_64_128 },
			fields: []string{"AEAD algorithm"}, wrong: "AES-CCM-64-64-128 at the peer",
		},
		{
			name: "HKDF", peer: func(p *oscore.Params) { p.HKDF = oscore.HKDFSHA512 },
			fields: []string{"HKDF algorithm"}, wrong: "HKDF SHA-512 at the peer",
		},
		{
			name: "both algorithms", peer: func(p *oscore.Params) { p.AEAD, p.HKDF = oscore.ChaCha20Poly1305, oscore.HKDFSHA384 },
			fields: []string{"HKDF algorithm", "AEAD algorithm"},
		},
		{
			name: "text secret, a salt too many, swapped IDs", peer: func(p *oscore.Params) { p.MasterSecret, p.MasterSalt = oscore.Secret("0123456789abcdef"), nil },
			keys: func(k *Keys) {
				k.Secret, k.Sender, k.Recipient = written(t, "0123456789abcdef"), k.Recipient, k.Sender
			},
			fields: []string{"sender and recipient ID", "master secret", "master salt"},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p, k := peer.Clone(), right()
			if tc.peer != nil {
				tc.peer(&p)
			}
			if tc.keys != nil {
				tc.keys(&k)
			}
			request, _ := seal(t, p, 3, nil, getTemp)
			response := answer(t, p, nil, request, content)
			d, err := Diagnose(k, Evidence{Request: request, Response: &response, Direction: Received})
			if err != nil {
				t.Fatal(err)
			}
			var fields []string
			for _, f := range d.Findings {
				fields = append(fields, f.Field)
				if f.Mend == "" {
					t.Errorf("%s: no mend", f.Field)
				}
			}
			if strings.Join(fields, "; ") != strings.Join(tc.fields, "; ") {
				t.Fatalf("findings %q, want %q; notes %q", d.Findings, tc.fields, d.Notes)
			}
			want := KeysWrong
			if len(tc.fields) == 0 {
				want = KeysRight
			}
			if d.Verdict != want {
				t.Errorf("verdict %s, want %s", d.Verdict, want)
			}
			if len(tc.fields) > 0 && !strings.Contains(d.Findings[0].Wrong, tc.wrong) {
				t.Errorf("%q, want %q", d.Findings[0].Wrong, tc.wrong)
			}
			noSecret(t, d, k, p)
		})
	}
}

// noSecret fails if the diagnosis holds key material in any notation.
func noSecret(t *testing.T, d *Diagnosis, k Keys, p oscore.Params) {
	t.Helper()
	out, err := json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range [][]byte{k.Secret.Bytes, []byte(k.Secret.Written), p.MasterSecret, k.Salt.Bytes, p.MasterSalt} {
		if len(secret) < 4 {
			continue
		}
		for _, s := range []string{string(secret), hex.EncodeToString(secret), base64.StdEncoding.EncodeToString(secret)} {
			if bytes.Contains(bytes.ToLower(out), bytes.ToLower([]byte(s))) {
				t.Errorf("the diagnosis holds a secret: %s", out)
			}
		}
	}
}

// TestDiagnoseForeign says what was tried when the secret is another.
func TestDiagnoseForeign(t *testing.T) {
	request, _ := seal(t, testParams, 3, nil, getTemp)
	k := KeysOf(testParams.Swap())
	k.Secret = written(t, "text:some other device")
	d, err := Diagnose(k, Evidence{Request: request, Direction: Received})
	if err != nil {
		t.Fatal(err)
	}
	if d.Verdict != KeysForeign || len(d.Findings) != 0 || len(d.Tried) != 5 || d.Trials < 1000 {
		t.Errorf("%+v", d)
	}
	d, err = Diagnose(k, Evidence{Request: request, MaxTrials: 7})
	if err != nil || d.Trials != 7 {
		t.Errorf("%d trials, %v; want 7", d.Trials, err)
	}
}

// TestDiagnoseDirection does not call IDs swapped where nothing tells it.
func TestDiagnoseDirection(t *testing.T) {
	request, _ := seal(t, testParams, 3, nil, getTemp)
	for _, tc := range []struct {
		direction Direction
		verdict   Verdict
		by, note  string
	}{
		{Unknown, KeysRight, "sender", "their owner sent the message"},
		{Sent, KeysRight, "sender", "says nothing about the other ID (the recipient ID"},
		{Received, KeysWrong, "recipient", "says nothing about the other ID (the sender ID"},
	} {
		d, err := Diagnose(KeysOf(testParams), Evidence{Request: request, Direction: tc.direction})
		if err != nil {
			t.Fatal(err)
		}
		if d.Verdict != tc.verdict || d.By != tc.by || !strings.Contains(strings.Join(d.Notes, "\n"), tc.note) {
			t.Errorf("direction %d: %+v", tc.direction, d)
		}
	}
}

// TestDiagnoseLive judges guesses by a peer in place of a capture.
func TestDiagnoseLive(t *testing.T) {
	peer := testParams.Swap()
	peer.HKDF = oscore.HKDFSHA512
	trial := func(p oscore.Params) (bool, error) {
		request, _ := seal(t, p, 3, nil, getTemp)
		_, _, err := openRequest(peer, nil, request)
		return err == nil, nil
	}
	k := KeysOf(testParams)
	k.Sender, k.Recipient = k.Recipient, k.Sender
	d, err := Diagnose(k, Evidence{Trial: trial})
	if err != nil {
		t.Fatal(err)
	}
	if d.Verdict != KeysWrong || len(d.Findings) != 2 || d.Findings[0].Field != "sender and recipient ID" || d.Findings[1].Field != "HKDF algorithm" {
		t.Errorf("%+v", d)
	}
	broken := errors.New("peer is gone")
	if _, err := Diagnose(k, Evidence{Trial: func(oscore.Params) (bool, error) { return false, broken }}); !errors.Is(err, broken) {
		t.Errorf("error %v, want the trial's", err)
	}
}

// TestDiagnoseNothing refuses what no guess can be judged by.
func TestDiagnoseNothing(t *testing.T) {
	k := KeysOf(testParams)
	if _, err := Diagnose(k, Evidence{Request: getTemp}); !errors.Is(err, ErrNotSealed) {
		t.Errorf("plain request: %v", err)
	}
	if _, err := Diagnose(k, Evidence{Request: content}); !errors.Is(err, ErrNotRequest) {
		t.Errorf("response: %v", err)
	}
	if _, err := Diagnose(k, Evidence{Request: oscore.Message{Code: byte(coap.POST), Body: unhex(t, "910aff00")}}); err == nil {
		t.Error("option 9 that does not decode: no error")
	}
}
