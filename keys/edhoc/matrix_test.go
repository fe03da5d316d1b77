package edhoc

import (
	"bytes"
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/oscorelay/oscorelay/oscore"
)

var allSuites = []Suite{0, 1, 2, 3, 4, 5, 6, 24}

// TestMatrix runs every method with every suite and every pair of ways to
// present the two credentials, and checks that both sides hold the same keys.
func TestMatrix(t *testing.T) {
	cells := 0
	for m := SignatureSignature; m <= StaticStatic; m++ {
		for _, s := range allSuites {
			t.Run(fmt.Sprintf("method %d suite %d", m, s), func(t *testing.T) {
				for _, kindI := range credentialKinds {
					for _, kindR := range credentialKinds {
						x := newExchange(t, m, s, kindI, kindR)
						x.run(t)
						if x.errI != nil || x.errR != nil {
							t.Errorf("%s, %s: Initiator %v, Responder %v", kindI, kindR, x.errI, x.errR)
							continue
						}
						checkAgreed(t, x)
						cells++
					}
				}
			})
		}
	}
	if want := 4 * len(allSuites) * len(credentialKinds) * len(credentialKinds); cells != want {
		t.Errorf("%d of %d cells ran", cells, want)
	}
}

// checkAgreed checks that the sessions of a handshake are two ends of one.
func checkAgreed(t *testing.T, x *exchange) {
	t.Helper()
	i := must[Exported](t)(x.sessionI.Exported())
	r := must[Exported](t)(x.sessionR.Exported())
	if !bytes.Equal(i.MasterSecret, r.MasterSecret) || !bytes.Equal(i.MasterSalt, r.MasterSalt) {
		t.Error("different OSCORE secrets")
	}
	if !bytes.Equal(i.SenderID, r.RecipientID) || !bytes.Equal(i.RecipientID, r.SenderID) {
		t.Error("identifiers do not mirror")
	}
	if !bytes.Equal(i.SenderID, []byte{0x27}) {
		t.Errorf("Initiator sends as %x, want C_R", i.SenderID)
	}
	if !x.sessionI.Peer().Equal(x.r.Identities[0].Credential) || !x.sessionR.Peer().Equal(x.i.Identities[0].Credential) {
		t.Error("a session names another peer")
	}
	pi := must[oscore.Params](t)(i.Params())
	pr := must[oscore.Params](t)(r.Params())
	ki := must[oscore.Keys](t)(pi.Derive())
	kr := must[oscore.Keys](t)(pr.Derive())
	if !bytes.Equal(ki.SenderKey, kr.RecipientKey) || !bytes.Equal(ki.RecipientKey, kr.SenderKey) || !bytes.Equal(ki.CommonIV, kr.CommonIV) {
		t.Error("OSCORE contexts do not mirror")
	}
}

// TestEAD carries items in all four messages: in order, with and without
// values, padding dropped and yet authenticated.
func TestEAD(t *testing.T) {
	x := newExchange(t, StaticStatic, 2, "ccs by kid", "ccs by kid")
	x.i.CriticalEAD, x.r.CriticalEAD = []uint16{7, 300}, []uint16{7, 300}
	padding := must[EAD](t)(Padding(40))
	want := []EAD{{Label: 1, Value: []byte{1, 2}}, {Label: 300, Critical: true}, {Label: 7, Critical: true, Value: []byte{}}, {Label: 65535, Value: make([]byte, 300)}}
	for n := 1; n <= 4; n++ {
		x.ead[n] = slices.Concat([]EAD{padding}, want, []EAD{{}})
	}
	x.mustRun(t)
	for n := 1; n <= 4; n++ {
		if len(x.gotEAD[n]) != len(want) {
			t.Fatalf("EAD_%d: %d items, want %d", n, len(x.gotEAD[n]), len(want))
		}
		for k, e := range x.gotEAD[n] {
			if e.Label != want[k].Label || e.Critical != want[k].Critical || !bytes.Equal(e.Value, want[k].Value) || (e.Value == nil) != (want[k].Value == nil) {
				t.Errorf("EAD_%d item %d: %+v, want %+v", n, k, e, want[k])
			}
		}
	}
	checkAgreed(t, x)
}

// TestCriticalEAD puts an item that the other side does not know into each
// message: critical, it ends the session; else it is passed on.
func TestCriticalEAD(t *testing.T) {
	for n := 1; n <= 4; n++ {
		x := newExchange(t, StaticStatic, 2, "ccs by kid", "ccs by kid")
		x.ead[n] = []EAD{{Label: 9, Critical: true}}
		x.run(t)
		err := x.errR
		if n%2 == 0 {
			err = x.errI
		}
		if !errors.Is(err, ErrCriticalEAD) {
			t.Errorf("EAD_%d: Initiator %v, Responder %v", n, x.errI, x.errR)
		}
		if m, err := ParseErrorMessage(AppendError(nil, err)); err != nil || m.Code != CodeUnspecified {
			t.Errorf("EAD_%d: error message %+v, %v", n, m, err)
		}
		x = newExchange(t, StaticStatic, 2, "ccs by kid", "ccs by kid")
		x.ead[n] = []EAD{{Label: 9}}
		x.mustRun(t)
		if len(x.gotEAD[n]) != 1 {
			t.Errorf("EAD_%d: %v", n, x.gotEAD[n])
		}
	}
}

func TestPaddingLength(t *testing.T) {
	for n := range 600 {
		p, err := Padding(n)
		if n == 0 || n == 26 || n == 259 {
			if err == nil {
				t.Errorf("padding of %d bytes in one item", n)
			}
			continue
		}
		if err != nil {
			t.Errorf("%d: %v", n, err)
			continue
		}
		if got := len(appendEADs(nil, []EAD{p})); got != n {
			t.Errorf("padding of %d bytes is %d long", n, got)
		}
	}
}

// TestLongPlaintext2 carries more in message_2 than one HKDF-Expand gives
// (RFC 9528 Appendix G).
func TestLongPlaintext2(t *testing.T) {
	x := newExchange(t, SignatureSignature, 0, "x5chain", "x5chain")
	x.ead[2] = []EAD{{Label: 5, Value: make([]byte, 255*32+100)}}
	x.mustRun(t)
	checkAgreed(t, x)
}

// TestKeystream2 computes a keystream of three pieces from RFC 5869 and the
// info of each piece written out (RFC 9528 Appendix G).
func TestKeystream2(t *testing.T) {
	key, th2 := bytes.Repeat([]byte{1}, 32), bytes.Repeat([]byte{2}, 32)
	piece := func(label byte, length int) []byte {
		info := append([]byte{label, 0x58, 32}, th2...)
		if length < 256 {
			info = append(info, 0x18, byte(length))
		} else {
			info = append(info, 0x19, byte(length>>8), byte(length))
		}
		return must[[]byte](t)(hkdf.Expand(sha256.New, key, string(info), length))
	}
	want := slices.Concat(piece(0x00, 8160), piece(0x20, 8160), piece(0x21, 40))
	got := must[[]byte](t)(newPRK(hashSHA256, key).keystream2(th2, len(want)))
	if !bytes.Equal(got, want) {
		t.Error("another keystream")
	}
}

// TestSeveralIdentities lets one endpoint serve every method and suite family.
func TestSeveralIdentities(t *testing.T) {
	a := newAuthority(t, "Authority")
	store := newTestStore(a)
	var identities []Identity
	for n, s := range []Suite{0, 2, 24} {
		for _, static := range []bool{true, false} {
			p := newParty(t, a, fmt.Sprintf("%d-%v", n, static), s, static, "kccs")
			p.pin(store)
			identities = append(identities, p.Identity)
		}
	}
	for m := SignatureSignature; m <= StaticStatic; m++ {
		for _, s := range allSuites {
			i := newParty(t, a, "initiator", s, m.Static(RoleInitiator), "kcwt")
			x := &exchange{
				i:      Config{Identities: []Identity{i.Identity}, Methods: []Method{m}, Suites: []Suite{s}},
				r:      Config{Identities: identities},
				trustI: store.Anyone(), trustR: store.Anyone(),
			}
			x.run(t)
			// The order of preference puts others first only in the Initiator's list.
			if x.errI != nil || x.errR != nil {
				t.Errorf("method %d suite %d: Initiator %v, Responder %v", m, s, x.errI, x.errR)
			}
		}
	}
}
