package edhoc

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"testing"
)

func TestPrivateKeys(t *testing.T) {
	for c := range curveNames {
		t.Run(c.String(), func(t *testing.T) {
			if back, err := ParseCurve(c.String()); err != nil || back != c {
				t.Errorf("%v, %v", back, err)
			}
			key := must[*PrivateKey](t)(GenerateKey(c))
			stored := key.Append(nil)
			back := must[*PrivateKey](t)(ParsePrivateKey(stored))
			if !bytes.Equal(back.Append(nil), stored) || back.Curve() != c {
				t.Error("another key came back")
			}
			if shown := fmt.Sprintf("%v %+v %#v %x", key, key, key, key); bytes.Contains([]byte(shown), stored[len(stored)-8:]) || bytes.Contains([]byte(shown), fmt.Appendf(nil, "%x", stored[len(stored)-8:])) {
				t.Errorf("shows itself: %s", shown)
			}
			cred := must[*Credential](t)(NewCCS(CCSParams{Public: key.Public()}))
			served := 0
			if s, err := key.Signer(); err == nil {
				if _, err := (Identity{Credential: cred, Signer: s}).checked(); err != nil {
					t.Error(err)
				}
				served++
				// The same key by way of PKCS #8.
				der := must[[]byte](t)(x509.MarshalPKCS8PrivateKey(s))
				again := must[*PrivateKey](t)(NewPrivateKey(must[any](t)(x509.ParsePKCS8PrivateKey(der))))
				if !bytes.Equal(again.Append(nil), stored) {
					t.Error("another key came back from PKCS #8")
				}
			}
			if x, err := key.Exchanger(); err == nil {
				if _, err := (Identity{Credential: cred, Exchanger: x}).checked(); err != nil {
					t.Error(err)
				}
				served++
			}
			if want := map[Curve]int{P256: 2, P384: 2, X25519: 1, Ed25519: 1}[c]; served != want {
				t.Errorf("serves %d uses, want %d", served, want)
			}
			// With its public part, right and wrong.
			own := must[publicKey](t)(newPublicKey(key.Public()))
			with := append([]byte{0xa4}, stored[1:]...)
			if _, err := ParsePrivateKey(appendBytes(appendInt(with, -2), own.x)); err != nil {
				t.Errorf("with its public part: %v", err)
			}
			if _, err := ParsePrivateKey(appendBytes(appendInt(with, -2), make([]byte, len(own.x)))); !errors.Is(err, ErrPublicKey) {
				t.Errorf("with another's public part: %v", err)
			}
			if _, err := ParseCCS(append([]byte{0xa1, 8, 0xa1, 1}, stored...)); !errors.Is(err, ErrMalformed) {
				t.Errorf("a private key in a CCS: %v", err)
			}
			if _, err := ParsePrivateKey(stored[:len(stored)-1]); !errors.Is(err, ErrMalformed) {
				t.Errorf("cut short: %v", err)
			}
		})
	}
	// As aiocoap-keygen writes it.
	if k := must[*PrivateKey](t)(ParsePrivateKey(unhex(t, "a30102200123582072cc4761dbd4c78f758931aa589d348d1ef874a7e303ede2f140dcf3e6aa4aac"))); k.Curve() != P256 {
		t.Error(k.Curve())
	}
	for name, tt := range map[string]struct {
		hex  string
		want error
	}{
		"public only":    {"a3010220012158200000000000000000000000000000000000000000000000000000000000000000", ErrMalformed},
		"zero":           {"a301022001235820" + "0000000000000000000000000000000000000000000000000000000000000000", ErrFieldLength},
		"short":          {"a3010220012341ff", ErrFieldLength},
		"short Ed25519":  {"a3010120062341ff", ErrFieldLength},
		"P-521":          {"a3010220032341ff", ErrCredentialType},
		"Ed25519 as EC2": {"a3010220062341ff", ErrCredentialType},
		"nothing":        {"", ErrMalformed},
		"not a map":      {"01", ErrMalformed},
	} {
		if _, err := ParsePrivateKey(unhex(t, tt.hex)); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", name, err, tt.want)
		}
	}
	if _, err := GenerateKey(5); !errors.Is(err, ErrConfig) {
		t.Error("X448")
	}
	if _, err := ParseCurve("p256"); !errors.Is(err, ErrConfig) {
		t.Error("p256")
	}
}

func TestExplain(t *testing.T) {
	x := newExchange(t, SignatureStatic, 2, "ccs by kid", "ccs by kid")
	x.i.CriticalEAD, x.r.CriticalEAD = []uint16{7}, []uint16{7}
	x.ead[1] = []EAD{{Label: 7, Critical: true, Value: []byte{0xaa}}}
	x.mustRun(t)
	var e Explainer
	for n, want := range map[int][]string{
		1: {"message_1", "METHOD", "1: Initiator with signature key, Responder with static Diffie-Hellman key", "suite 2 (AES-CCM-16-64-128, SHA-256, P-256, ES256)", "C_I", "05", "label 7, critical, value aa"},
	} {
		checkExplained(t, &e, x.messages[n], want...)
	}
	checkExplained(t, &e, append([]byte{0xf5}, x.messages[1]...), "a new session", "message_1")
	checkExplained(t, &e, x.messages[2], "message_2", "G_Y", "CIPHERTEXT_2")
	checkExplained(t, &e, append([]byte{0x27}, x.messages[3]...), "connection identifier 27", "message_3")
	checkExplained(t, &e, x.messages[4], "message_4")
	if _, err := e.Next(x.messages[4]); err == nil {
		t.Error("a fifth message")
	}
	checkExplained(t, new(Explainer), x.messages[2], "G_Y_CIPHERTEXT_2")
	checkExplained(t, &e, ErrorMessage{Code: CodeWrongSuite, Suites: []Suite{2, 3}}.Append(nil), "error", "SUITES_R", "2, 3")
	checkExplained(t, &e, ErrorMessage{Code: CodeWrongSuite, Suites: []Suite{2}}.Append(nil), "SUITES_R")
	checkExplained(t, &e, ErrorMessage{Code: CodeUnknownCredential}.Append([]byte{0x27}), "identifier 27", "unknown credential")
	checkExplained(t, &e, ErrorMessage{Code: CodeUnspecified, Diagnostic: "why"}.Append(nil), `"why"`)
	for _, m := range loadRFC9529(t).Invalid {
		if m.Kind != "message_1" {
			continue
		}
		got, err := new(Explainer).Next(unhex(t, m.Hex))
		if err == nil && !bytes.Contains([]byte(got.String()), []byte("INVALID")) && m.Name != "Curve point of low order" {
			t.Errorf("%s explained as\n%s", m.Name, got)
		}
	}
}

func checkExplained(t *testing.T, e *Explainer, m []byte, want ...string) {
	t.Helper()
	got, err := e.Next(m)
	if err != nil {
		t.Errorf("%x: %v", m, err)
		return
	}
	for _, w := range want {
		if !bytes.Contains([]byte(got.String()), []byte(w)) {
			t.Errorf("no %q in\n%s", w, got)
		}
	}
}

func FuzzExplain(f *testing.F) {
	x := newExchange(f, StaticStatic, 2, "ccs by kid", "ccs by kid")
	x.mustRun(f)
	for _, m := range x.messages[1:] {
		f.Add(m, x.messages[2])
	}
	f.Fuzz(func(t *testing.T, a, b []byte) {
		var e Explainer
		for _, m := range [][]byte{a, b, a} {
			if got, err := e.Next(m); err == nil && got.Name == "" {
				t.Fatalf("%x has no name", m)
			}
		}
	})
}
