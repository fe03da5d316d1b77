package edhoc

import (
	"bytes"
	"crypto/ecdh"
	"crypto/subtle"
	"errors"
	"fmt"
	"slices"
	"testing"
)

// TestInvalidMessages gives each of the invalid messages of RFC 9529 chapter 4
// to the endpoint that would receive it, which must refuse it for the reason
// that the chapter names.
func TestInvalidMessages(t *testing.T) {
	want := map[string]error{
		"Surplus array encoding of message":              ErrMalformed,
		"Surplus bstr encoding of connection identifier": ErrEncoding,
		"Surplus array encoding of ciphersuite":          ErrMalformed,
		"Text string encoding of ephemeral key":          ErrMalformed,
		"Wrong number of CBOR sequence elements":         ErrMalformed,
		"Surplus map encoding of ID_CRED field":          ErrEncoding,
		"Surplus bstr encoding of ID_CRED field":         ErrEncoding,
		"Error in length of ephemeral key":               ErrFieldLength,
		"Error in elliptic curve representation":         ErrPublicKey,
		"Error in elliptic curve point":                  ErrPublicKey,
		"Curve point of low order":                       ErrPublicKey,
		"Error in length of MAC":                         ErrFieldLength,
		"Error in elliptic curve encoding":               ErrFieldLength,
		"Unnecessary long encoding":                      ErrEncoding,
		"Indefinite-length array encoding":               ErrEncoding,
	}
	invalid := loadRFC9529(t).Invalid
	if len(invalid) != len(want) {
		t.Fatalf("%d invalid messages, want %d", len(invalid), len(want))
	}
	a := newAuthority(t, "Authority")
	for _, m := range invalid {
		t.Run(m.Name, func(t *testing.T) {
			raw := unhex(t, m.Hex)
			var err error
			switch m.Kind {
			case "message_1":
				// The suite that the message is about is the one supported.
				suite := Suite(2)
				if m.Name == "Error in length of ephemeral key" {
					suite = 24
				} else if m.Name == "Curve point of low order" {
					suite = 0
				}
				r := newParty(t, a, "responder", suite, true, "ccs by kid")
				responder := must[*Responder](t)(NewResponder(Config{Identities: []Identity{r.Identity}, Suites: []Suite{suite}}))
				var got *ReceivedMessage1
				if got, err = responder.Message1(raw); err == nil {
					_, _, err = got.Message2(Reply{ConnectionID: []byte{0x27}})
				}
			case "message_2":
				_, err = startInitiator(t, a).Message2(raw)
			case "PLAINTEXT_2":
				wait2 := startInitiator(t, a)
				_, err = wait2.Message2(sealPlaintext2(t, peek(t, &wait2.once), raw))
			default:
				t.Fatalf("kind %q", m.Kind)
			}
			if !errors.Is(err, want[m.Name]) {
				t.Fatalf("got %v, want %v", err, want[m.Name])
			}
			reply, perr := ParseErrorMessage(AppendError(nil, err))
			if perr != nil || reply.Code != CodeUnspecified || reply.Diagnostic == "" {
				t.Errorf("error message %+v, %v", reply, perr)
			}
		})
	}
}

// startInitiator returns an Initiator of method 3 and suite 2 that waits.
func startInitiator(t *testing.T, a *authority) *WaitMessage2 {
	t.Helper()
	i := newParty(t, a, "initiator", 2, true, "ccs by kid")
	initiator := must[*Initiator](t)(NewInitiator(Config{Identities: []Identity{i.Identity}, Suites: []Suite{2}}))
	_, wait2, err := initiator.Message1(Start{ConnectionID: []byte{0x0e}})
	if err != nil {
		t.Fatal(err)
	}
	return wait2
}

// sealPlaintext2 makes message_2 out of any plaintext, as any stranger can who
// has seen message_1.
func sealPlaintext2(t testing.TB, i *handshake, plain []byte) []byte {
	t.Helper()
	y := must[*ecdh.PrivateKey](t)(i.suite.curve.generate())
	r := &handshake{endpoint: i.endpoint, suite: i.suite, ephemeral: y, gPeer: i.ephemeral.PublicKey(), hashMessage1: i.hashMessage1}
	r.gy = i.suite.curve.compact(y.PublicKey())
	if err := r.derive2e(); err != nil {
		t.Fatal(err)
	}
	stream := must[[]byte](t)(r.prk2e.keystream2(r.th2, len(plain)))
	subtle.XORBytes(stream, stream, plain)
	return must[[]byte](t)(message(slices.Concat(r.gy, stream)))
}

// TestInvalidPlaintexts goes on where the chapter stops: what a stranger can
// put into message_2.
func TestInvalidPlaintexts(t *testing.T) {
	mac := "48fa5efa2ebf920bf3"
	tests := []struct {
		name, hex string
		want      error
	}{
		{"nothing but C_R", "27", ErrMalformed},
		{"no Signature_or_MAC", "2732", ErrMalformed},
		{"C_R as byte string of an integer", "412732" + mac, ErrEncoding},
		{"C_R equal to C_I", "0e32" + mac, ErrConnectionID},
		{"C_R too long for OSCORE", "480102030405060708" + "32" + mac, ErrConnectionID},
		{"C_R as text", "6127" + "32" + mac, ErrMalformed},
		{"empty ID_CRED", "27a0" + mac, ErrMalformed},
		{"label twice", "27a204413204413348fa5efa2ebf920bf3", ErrMalformed},
		{"x5chain of one in an array", "27a118218141ff" + mac, ErrMalformed},
		{"x5t of three", "27a11822832e41ff41ff" + mac, ErrMalformed},
		{"x5t with a named algorithm", "27a118228263666f6f41ff" + mac, ErrCredentialType},
		{"kid as integer in a map", "27a10405" + mac, ErrMalformed},
		{"deep nesting", "27a10e81818181818181818181818101" + mac, ErrMalformed},
		{"map longer than the message", "27bb7fffffffffffffff", ErrMalformed},
		{"array longer than the message", "279b7fffffffffffffff", ErrMalformed},
		{"byte string longer than the message", "27325b7fffffffffffffff", ErrMalformed},
		{"reserved additional information", "27325c", ErrMalformed},
		{"MAC of 16 bytes", "273250" + "00112233445566778899aabbccddeeff", ErrFieldLength},
		{"ead_value without label", "2732" + mac + "4101", ErrMalformed},
		{"ead_label out of range", "2732" + mac + "1a00010000", ErrMalformed},
		{"ead_label far out of range", "2732" + mac + "3bffffffffffffffff", ErrMalformed},
		{"ead_label not shortest", "2732" + mac + "1805", ErrEncoding},
		{"unknown critical item", "2732" + mac + "24", ErrCriticalEAD},
		{"too many items", "2732" + mac + fmt.Sprintf("%066d", 0), ErrMalformed},
	}
	a := newAuthority(t, "Authority")
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			wait2 := startInitiator(t, a)
			h := peek(t, &wait2.once)
			_, err := wait2.Message2(sealPlaintext2(t, h, unhex(t, tt.hex)))
			if !errors.Is(err, tt.want) {
				t.Fatalf("got %v, want %v", err, tt.want)
			}
			if _, err := wait2.Message2(nil); !errors.Is(err, ErrConsumed) {
				t.Errorf("after the failure: %v", err)
			}
			if !zero(h.prk2e.key) || !zero(h.receivedPlain) {
				t.Error("secrets were not wiped")
			}
		})
	}
}

func TestInvalidMessage1(t *testing.T) {
	a := newAuthority(t, "Authority")
	r := newParty(t, a, "responder", 2, true, "ccs by kid")
	responder := must[*Responder](t)(NewResponder(Config{Identities: []Identity{r.Identity}, Suites: []Suite{2, 3}}))
	key := must[*ecdh.PrivateKey](t)(curveP256.generate())
	good := Message1{Method: StaticStatic, SuitesI: []Suite{2}, GX: curveP256.compact(key.PublicKey()), CI: []byte{5}}
	with := func(change func(*Message1)) []byte {
		m := good
		change(&m)
		return m.append(nil)
	}
	tests := []struct {
		name string
		m    []byte
		want error
	}{
		{"empty", nil, ErrMalformed},
		{"too long", with(func(m *Message1) { m.EAD = []EAD{{Label: 1, Value: make([]byte, MaxMessage)}} }), ErrTooLong},
		{"unknown method", with(func(m *Message1) { m.Method = 4 }), ErrMethod},
		{"negative method", with(func(m *Message1) { m.Method = -1 }), ErrMethod},
		{"method that the identity cannot serve", with(func(m *Message1) { m.Method = SignatureSignature }), ErrMethod},
		{"reserved suite", with(func(m *Message1) { m.SuitesI = []Suite{23} }), ErrWrongSuite},
		{"suite 25", with(func(m *Message1) { m.SuitesI = []Suite{25} }), ErrWrongSuite},
		{"supported suite not selected", with(func(m *Message1) { m.SuitesI = []Suite{2, 3} }), ErrWrongSuite},
		{"suite twice", with(func(m *Message1) { m.SuitesI = []Suite{3, 2, 3} }), ErrMalformed},
		{"C_I too long for OSCORE", with(func(m *Message1) { m.CI = make([]byte, 8) }), ErrConnectionID},
		{"unknown critical item", with(func(m *Message1) { m.EAD = []EAD{{Label: 9, Critical: true}} }), ErrCriticalEAD},
		{"half", good.append(nil)[:20], ErrMalformed},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := responder.Message1(tt.m); !errors.Is(err, tt.want) {
				t.Fatalf("got %v, want %v", err, tt.want)
			}
		})
	}
	if _, err := responder.Message1(good.append(nil)); err != nil {
		t.Errorf("the message they were made of: %v", err)
	}
	got := must[*Message1](t)(ParseMessage1(good.append(nil)))
	if !bytes.Equal(got.append(nil), good.append(nil)) || got.Selected() != 2 {
		t.Errorf("parsed %+v", got)
	}
}
