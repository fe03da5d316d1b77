package edhoc

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"
)

// TestNegotiation is RFC 9528 §6.3.2, with its suites 5 to 9.
func TestNegotiation(t *testing.T) {
	preferred := []Suite{5, 6, 7, 8, 9}
	tests := []struct {
		name     string
		suitesI  []Suite
		supports []Suite
		want     []Suite // SUITES_R; nil: accepted
	}{
		{"example 1, first", []Suite{5}, []Suite{6}, []Suite{6}},
		{"example 1, second", []Suite{5, 6}, []Suite{6}, nil},
		{"example 2, first", []Suite{5, 6}, []Suite{9, 8}, []Suite{9, 8}},
		{"example 2, second", []Suite{5, 6, 7, 8}, []Suite{9, 8}, nil},
		{"note 1: a more preferred one is supported", []Suite{5, 6}, []Suite{6, 5}, []Suite{5}},
		{"selected not supported, another is", []Suite{5, 6}, []Suite{5}, []Suite{5}},
		{"out of order", []Suite{8, 5, 6}, []Suite{6, 8}, []Suite{8}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := acceptSuite(tt.suitesI, func(s Suite) bool { return slices.Contains(tt.supports, s) }, tt.supports)
			var suite *SuiteError
			switch {
			case tt.want == nil && (err != nil || got != tt.suitesI[len(tt.suitesI)-1]):
				t.Errorf("got %v, %v", got, err)
			case tt.want != nil && (!errors.As(err, &suite) || !slices.Equal(suite.SuitesR, tt.want)):
				t.Errorf("got %v, want SUITES_R %v", err, tt.want)
			}
		})
	}
	for _, tt := range []struct {
		peer []Suite
		want Suite
	}{{nil, 5}, {[]Suite{6}, 6}, {[]Suite{9, 8}, 8}} {
		if got, err := selectSuite(preferred, tt.peer); err != nil || got != tt.want {
			t.Errorf("peer %v: got %v, %v", tt.peer, got, err)
		}
	}
	if _, err := selectSuite(preferred, []Suite{2}); !errors.Is(err, ErrWrongSuite) {
		t.Errorf("nothing in common: %v", err)
	}
}

// TestNegotiationRun lets two endpoints find their suite by error messages.
func TestNegotiationRun(t *testing.T) {
	a := newAuthority(t, "Authority")
	i := Config{Suites: []Suite{24, 6, 2}}
	for _, s := range i.Suites {
		p := newParty(t, a, fmt.Sprintf("initiator %d", s), s, true, "kcwt")
		i.Identities = append(i.Identities, p.Identity)
	}
	p := newParty(t, a, "responder", 2, true, "kcwt")
	r := Config{Identities: []Identity{p.Identity}, Suites: []Suite{3, 2}}
	initiator, responder := must[*Initiator](t)(NewInitiator(i)), must[*Responder](t)(NewResponder(r))
	m1, wait2, err := initiator.Message1(Start{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = responder.Message1(m1)
	if !errors.Is(err, ErrWrongSuite) {
		t.Fatal(err)
	}
	_, err = wait2.Message2(AppendError(nil, err))
	var peer *PeerError
	if !errors.As(err, &peer) || !slices.Equal(peer.Message.Suites, []Suite{3, 2}) {
		t.Fatalf("Initiator heard %v", err)
	}
	if len(AppendError(nil, err)) != 0 {
		t.Error("an error message was answered with one")
	}
	m1, _, err = initiator.Message1(Start{PeerSuites: peer.Message.Suites})
	if err != nil {
		t.Fatal(err)
	}
	if got := must[*Message1](t)(ParseMessage1(m1)); !slices.Equal(got.SuitesI, []Suite{24, 6, 2}) {
		t.Errorf("SUITES_I %v", got.SuitesI)
	}
	if _, err := responder.Message1(m1); err != nil {
		t.Error(err)
	}
}

func TestErrorMessages(t *testing.T) {
	tests := []struct {
		m    ErrorMessage
		want string
	}{
		{ErrorMessage{Code: CodeUnspecified, Diagnostic: "Method not supported"}, "01744d6574686f64206e6f7420737570706f72746564"},
		{ErrorMessage{Code: CodeWrongSuite, Suites: []Suite{6}}, "0206"},
		{ErrorMessage{Code: CodeWrongSuite, Suites: []Suite{9, 8}}, "02820908"},
		{ErrorMessage{Code: CodeUnknownCredential}, "03f5"},
		{ErrorMessage{Code: -7, Info: []byte{0x82, 0x01, 0x02}}, "26820102"},
	}
	for _, tt := range tests {
		enc := tt.m.Append(nil)
		if !bytes.Equal(enc, unhex(t, tt.want)) {
			t.Errorf("%+v: %x, want %s", tt.m, enc, tt.want)
		}
		back, err := ParseErrorMessage(enc)
		if err != nil || !bytes.Equal(back.Append(nil), enc) || (&PeerError{back, nil}).Error() == "" {
			t.Errorf("%s: %+v, %v", tt.want, back, err)
		}
	}
	for _, bad := range []string{"", "00f5", "01", "0101", "0161ff", "028102", "0280", "03f4", "03f5f5", "0161", "1801f5", "05", "40", "0c9f01ff"} {
		if m, err := ParseErrorMessage(unhex(t, bad)); err == nil {
			t.Errorf("%s parsed as %+v", bad, m)
		}
	}
}

// TestErrorNotAnswered: no error message answers one, be it malformed or of
// code 0 (RFC 9528 §6.1).
func TestErrorNotAnswered(t *testing.T) {
	x := newExchange(t, StaticStatic, 2, "ccs by kid", "ccs by kid")
	for _, m := range []string{"00f5", "01", "0101", "03f4", "0206", "20", "17a0"} {
		s := half(t, x, []byte{1}, []byte{2})
		done := half(t, x, []byte{1}, []byte{2})
		for name, err := range map[string]error{
			"message_2": func() error { _, err := s.wait2.Message2(unhex(t, m)); return err }(),
			"message_3": func() error { _, err := s.wait3.Message3(unhex(t, m)); return err }(),
			"message_4": func() error { _, err := done.third(t, x).Message4(unhex(t, m)); return err }(),
		} {
			var peer *PeerError
			if !errors.As(err, &peer) || len(AppendError(nil, err)) != 0 || err.Error() == "" {
				t.Errorf("%s for %s: %v", m, name, err)
			}
		}
	}
}

// TestDiagnostics: every error that a step can end with has a text of its own
// for the peer, and none of the detail reaches it.
func TestDiagnostics(t *testing.T) {
	for _, e := range []error{
		ErrMalformed, ErrEncoding, ErrTooLong, ErrMethod, ErrFieldLength, ErrPublicKey, ErrConnectionID, ErrCriticalEAD,
		ErrDecrypt, ErrAuthentication, ErrReflected, ErrCredentialType, ErrCredentialKey, ErrUntrusted, ErrExpired, ErrChangedCredential, ErrStoreFull,
	} {
		m, err := ParseErrorMessage(AppendError(nil, fmt.Errorf("%w: private detail", e)))
		if err != nil || m.Code != CodeUnspecified || m.Diagnostic == "Internal error" || bytes.Contains([]byte(m.Diagnostic), []byte("detail")) {
			t.Errorf("%v: %+v, %v", e, m, err)
		}
	}
	if m, _ := ParseErrorMessage(AppendError(nil, errors.New("disk on fire"))); m.Diagnostic != "Internal error" {
		t.Errorf("own failure: %q", m.Diagnostic)
	}
}

func TestConfig(t *testing.T) {
	a := newAuthority(t, "Authority")
	static := newParty(t, a, "static", 2, true, "kccs").Identity
	sign := newParty(t, a, "sign", 2, false, "kccs").Identity
	wrongKey := static
	wrongKey.Exchanger = newParty(t, a, "other", 2, true, "kccs").Exchanger
	both := static
	both.Signer = sign.Signer
	neither := Identity{Credential: static.Credential}
	tests := []struct {
		name string
		cfg  Config
	}{
		{"no identity", Config{}},
		{"no credential", Config{Identities: []Identity{{Signer: sign.Signer}}}},
		{"no key", Config{Identities: []Identity{neither}}},
		{"two keys", Config{Identities: []Identity{both}}},
		{"key of another credential", Config{Identities: []Identity{wrongKey}}},
		{"unknown method", Config{Identities: []Identity{static}, Methods: []Method{4}}},
		{"suite 25", Config{Identities: []Identity{static}, Suites: []Suite{25}}},
		{"suite twice", Config{Identities: []Identity{static}, Suites: []Suite{2, 2}}},
		{"no suite", Config{Identities: []Identity{static}, Suites: []Suite{}}},
		{"suite of another curve", Config{Identities: []Identity{static}, Suites: []Suite{2, 0}}},
		{"method of another key", Config{Identities: []Identity{static}, Methods: []Method{SignatureSignature}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := NewInitiator(tt.cfg); !errors.Is(err, ErrConfig) {
				t.Errorf("Initiator: %v", err)
			}
			if _, err := NewResponder(tt.cfg); !errors.Is(err, ErrConfig) {
				t.Errorf("Responder: %v", err)
			}
			if got := AppendError(nil, ErrConfig); !bytes.Contains(got, []byte("Internal error")) {
				t.Errorf("the peer is told %q", got)
			}
		})
	}
	i := must[*Initiator](t)(NewInitiator(Config{Identities: []Identity{static}}))
	if !slices.Equal(i.e.Suites, []Suite{2, 3, 5}) || !slices.Equal(i.e.Methods, []Method{StaticStatic}) {
		t.Errorf("defaults of a static P-256 key: suites %v, methods %v", i.e.Suites, i.e.Methods)
	}
	r := must[*Responder](t)(NewResponder(Config{Identities: []Identity{sign}}))
	if !slices.Equal(r.e.Suites, []Suite{2, 3, 5, 6}) || !slices.Equal(r.e.Methods, []Method{SignatureSignature, StaticSignature}) {
		t.Errorf("defaults of an ES256 key: suites %v, methods %v", r.e.Suites, r.e.Methods)
	}
	tooMany := make([]EAD, maxEADs+1)
	if _, _, err := i.Message1(Start{EAD: tooMany}); !errors.Is(err, ErrConfig) {
		t.Errorf("too many EAD items: %v", err)
	}
	if _, _, err := i.Message1(Start{EAD: []EAD{{Critical: true}}}); !errors.Is(err, ErrConfig) {
		t.Errorf("critical padding: %v", err)
	}
	if _, _, err := i.Message1(Start{ConnectionID: make([]byte, 8)}); !errors.Is(err, ErrConnectionID) {
		t.Errorf("C_I of 8 bytes: %v", err)
	}
	if _, _, err := i.Message1(Start{EAD: []EAD{{Label: 1, Value: make([]byte, MaxMessage)}}}); !errors.Is(err, ErrTooLong) {
		t.Errorf("message_1 too long: %v", err)
	}
}

func TestConnectionIDs(t *testing.T) {
	// The examples of RFC 9528 §3.3.2, and the empty string.
	for id, want := range map[string]string{"21": "21", "0d": "0d", "18": "4118", "38": "4138", "abcd": "42abcd", "": "40", "17": "17", "37": "37", "ff": "41ff"} {
		got := AppendConnectionID(nil, unhex(t, id))
		if !bytes.Equal(got, unhex(t, want)) {
			t.Errorf("%s travels as %x, want %s", id, got, want)
		}
		back, rest, err := CutConnectionID(append(got, 0xaa))
		if err != nil || !bytes.Equal(back, unhex(t, id)) || !bytes.Equal(rest, []byte{0xaa}) {
			t.Errorf("%s came back as %x, %x, %v", id, back, rest, err)
		}
	}
	for bad, want := range map[string]error{"": ErrMalformed, "f5": ErrMalformed, "4121": ErrEncoding, "1818": ErrMalformed, "580121": ErrEncoding, "42ab": ErrMalformed} {
		if _, _, err := CutConnectionID(unhex(t, bad)); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", bad, err, want)
		}
	}
	taken := map[string]bool{}
	used := func(id []byte) bool { return taken[string(id)] }
	for n := range 48 + 200 {
		id := must[[]byte](t)(FreeConnectionID(used))
		if taken[string(id)] {
			t.Fatalf("%x given twice", id)
		}
		if n < 48 && len(AppendConnectionID(nil, id)) != 1 || n >= 48 && len(id) != 2 {
			t.Errorf("identifier %d is %x", n, id)
		}
		taken[string(id)] = true
	}
	if _, err := FreeConnectionID(func([]byte) bool { return true }); !errors.Is(err, ErrConnectionID) {
		t.Errorf("all taken: %v", err)
	}
}
