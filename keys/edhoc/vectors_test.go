package edhoc

import (
	"bytes"
	"crypto/ecdh"
	"crypto/ed25519"
	"encoding/hex"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/oscorelay/oscorelay/testvectors"
)

// trace is a chapter of RFC 9529: its values by their names.
type trace struct {
	t      *testing.T
	values map[string]json.RawMessage
	seen   map[string]bool
}

type rfc9529 struct {
	Trace1  map[string]json.RawMessage `json:"trace_1"`
	Trace2  map[string]json.RawMessage `json:"trace_2"`
	Invalid []struct{ Name, Kind, Hex string }
}

func loadRFC9529(t *testing.T) rfc9529 {
	t.Helper()
	raw, err := testvectors.FS.ReadFile("rfc9529.json")
	if err != nil {
		t.Fatal(err)
	}
	var v rfc9529
	if err := json.Unmarshal(raw, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

// get returns the value of the name.
func (tr *trace) get(name string) []byte {
	tr.t.Helper()
	tr.seen[name] = true
	var s string
	if err := json.Unmarshal(tr.values[name], &s); err != nil {
		tr.t.Fatalf("trace has no %q: %v", name, err)
	}
	b, err := hex.DecodeString(s)
	if err != nil {
		tr.t.Fatal(err)
	}
	return b
}

func (tr *trace) check(name string, got []byte) {
	tr.t.Helper()
	if want := tr.get(name); !bytes.Equal(got, want) {
		tr.t.Errorf("%s:\n got %x\nwant %x", name, got, want)
	}
}

// checkBoth checks a value and its encoding as byte string.
func (tr *trace) checkBoth(name string, got []byte) {
	tr.t.Helper()
	tr.check(name, got)
	tr.check(name+".cbor", appendBytes(nil, got))
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func must[T any](t testing.TB) func(T, error) T {
	t.Helper()
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// fixed makes a test's ephemeral key the trace's.
func fixed(t *testing.T, scalar []byte) func(*curveParams) (*ecdh.PrivateKey, error) {
	t.Helper()
	return func(c *curveParams) (*ecdh.PrivateKey, error) { return c.ecdh.NewPrivateKey(scalar) }
}

// peek returns the handshake of a state and leaves it there.
func peek(t *testing.T, o *once) *handshake {
	t.Helper()
	h := o.p.Load()
	if h == nil {
		t.Fatal("state was consumed")
	}
	return h
}

// TestTraces runs chapters 2 and 3 of RFC 9529 with both roles and checks
// every intermediate value that they print.
func TestTraces(t *testing.T) {
	v := loadRFC9529(t)
	t.Run("chapter 2: signatures, X.509 by x5t", func(t *testing.T) {
		tr := &trace{t, v.Trace1, map[string]bool{}}
		identity := func(x string) Identity {
			cred := must[*Credential](t)(ParseCertificate(tr.get("CRED_" + x)))
			id := must[CredentialID](t)(ByHash(cred))
			key := ed25519.NewKeyFromSeed(tr.get("SK_" + x))
			tr.check("PK_"+x, key.Public().(ed25519.PublicKey))
			return Identity{Credential: cred, ID: id, Signer: key}
		}
		tr.run(identity("I"), identity("R"), []Suite{0})
	})
	t.Run("chapter 3: static keys, CCS by kid", func(t *testing.T) {
		tr := &trace{t, v.Trace2, map[string]bool{}}
		identity := func(x string) Identity {
			cred := must[*Credential](t)(ParseCCS(tr.get("CRED_" + x)))
			key := must[*ecdh.PrivateKey](t)(ecdh.P256().NewPrivateKey(tr.get("SK_" + x)))
			tr.check("PK_"+x+"_x", key.PublicKey().Bytes()[1:33])
			tr.check("PK_"+x+"_y", key.PublicKey().Bytes()[33:])
			return Identity{Credential: cred, Exchanger: key}
		}
		tr.negotiate(identity("R"))
		tr.run(identity("I"), identity("R"), []Suite{6, 2})
	})
}

// negotiate is the first attempt of chapter 3, with suite 6.
func (tr *trace) negotiate(r Identity) {
	t := tr.t
	// The trace makes this G_X on P-256, although suite 6 has X25519 and the
	// Responder never looks at it: so its message_1 is put together by hand.
	x := must[*ecdh.PrivateKey](t)(ecdh.P256().NewPrivateKey(tr.get("first.X")))
	gx := curveP256.compact(x.PublicKey())
	tr.checkBoth("first.G_X", gx)
	m1 := (&Message1{Method: StaticStatic, SuitesI: []Suite{6}, GX: gx, CI: tr.get("first.C_I")}).append(nil)
	tr.check("first.message_1", m1)
	tr.check("first.C_I.cbor", AppendConnectionID(nil, tr.get("first.C_I")))
	tr.check("first.METHOD", []byte{byte(StaticStatic)})
	tr.check("first.SUITES_I", appendSuites(nil, []Suite{6}))
	responder := must[*Responder](t)(NewResponder(Config{Identities: []Identity{r}, Suites: []Suite{2}}))
	_, err := responder.Message1(m1)
	if !errors.Is(err, ErrWrongSuite) {
		t.Fatalf("suite 6 gave %v", err)
	}
	tr.check("error", AppendError(nil, err))
	tr.check("suites_r", appendSuites(nil, []Suite{2}))
}

// x25519Identity is an identity for suites with X25519, of no trace.
func x25519Identity(t testing.TB) Identity {
	key := must[*ecdh.PrivateKey](t)(curveX25519.generate())
	return Identity{Credential: must[*Credential](t)(NewCCS(CCSParams{Public: key.PublicKey()})), Exchanger: key}
}

func (tr *trace) run(i, r Identity, suitesI []Suite) {
	t := tr.t
	identities := []Identity{i}
	if len(suitesI) > 1 {
		identities = append(identities, x25519Identity(t))
	}
	initiator := must[*Initiator](t)(NewInitiator(Config{Identities: identities, Suites: suitesI, ephemeral: fixed(t, tr.get("X"))}))
	responder := must[*Responder](t)(NewResponder(Config{Identities: []Identity{r}, Suites: suitesI[len(suitesI)-1:], ephemeral: fixed(t, tr.get("Y"))}))

	// message_1
	m1, wait2, err := initiator.Message1(Start{ConnectionID: tr.get("C_I"), PeerSuites: suitesI[len(suitesI)-1:]})
	if err != nil {
		t.Fatal(err)
	}
	hi := peek(t, &wait2.once)
	suite := hi.suite
	tr.check("METHOD", appendInt(nil, int(hi.method)))
	tr.check("SUITES_I", appendSuites(nil, suitesI))
	tr.checkBoth("G_X", hi.gx)
	tr.check("C_I.cbor", AppendConnectionID(nil, hi.ci))
	tr.check("EAD_1", nil)
	tr.check("message_1", m1)

	// message_2
	got1 := must[*ReceivedMessage1](t)(responder.Message1(m1))
	hr := peek(t, &got1.once)
	m2, wait3, err := got1.Message2(Reply{ConnectionID: tr.get("C_R")})
	if err != nil {
		t.Fatal(err)
	}
	tr.checkBoth("H(message_1)", hr.hashMessage1)
	tr.checkBoth("G_Y", hr.gy)
	tr.check("C_R.cbor", AppendConnectionID(nil, hr.cr))
	tr.check("Input to calculate TH_2", appendBytes(appendBytes(nil, hr.gy), hr.hashMessage1))
	tr.checkBoth("TH_2", hr.th2)
	if suite.curve.weierstrass != nil {
		for name, pub := range map[string]*ecdh.PublicKey{"G_X": hi.ephemeral.PublicKey(), "G_Y": hr.ephemeral.PublicKey()} {
			tr.check(name+"_y", pub.Bytes()[1+suite.curve.size:])
		}
	}
	gxy := must[[]byte](t)(suite.curve.exchange(hr.ephemeral, hr.gPeer))
	tr.check("G_XY", gxy)
	tr.check("salt", hr.th2)
	prk2e := must[*prk](t)(suite.hash.extract(hr.th2, gxy))
	tr.check("PRK_2e", prk2e.key)
	if hr.method.Static(RoleResponder) {
		salt := must[[]byte](t)(prk2e.kdf(labelSalt3e2m, hr.th2, suite.hash.size))
		tr.check("info for SALT_3e2m", appendInfo(nil, labelSalt3e2m, hr.th2, suite.hash.size))
		tr.check("SALT_3e2m", salt)
		tr.check("G_RX", must[[]byte](t)(r.Exchanger.ECDH(hr.gPeer)))
	}
	tr.check("PRK_3e2m", hr.prk3e2m.key)
	tr.check("EAD_2", nil)
	in2 := &macInput{label: labelMAC2, cr: hr.cr, id: hr.identity.ID, th: hr.th2, cred: r.Credential}
	tr.mac("2", hr, in2, hr.prk3e2m, "R")

	// CIPHERTEXT_2 opens to PLAINTEXT_2.
	got2 := must[*ReceivedMessage2](t)(wait2.Message2(m2))
	tr.check("PLAINTEXT_2", hi.receivedPlain)
	tr.check("info for KEYSTREAM_2", appendInfo(nil, labelKeystream2, hi.th2, len(hi.receivedPlain)))
	tr.check("KEYSTREAM_2", must[[]byte](t)(prk2e.keystream2(hi.th2, len(hi.receivedPlain))))
	_, ciphertext2, err := SplitMessage2(m2, suite.suite)
	if err != nil {
		t.Fatal(err)
	}
	tr.check("CIPHERTEXT_2", ciphertext2)
	tr.check("message_2", m2)
	plaintext2 := bytes.Clone(hi.receivedPlain)
	tr.check("Signature_or_MAC_2", hi.received.sigMAC)
	tr.check("Signature_or_MAC_2.cbor", appendBytes(nil, hi.received.sigMAC))

	// message_3
	verified := must[*VerifiedMessage2](t)(got2.Verify(r.Credential))
	tr.check("PRK_3e2m", hi.prk3e2m.key)
	m3, doneI, err := verified.Message3()
	if err != nil {
		t.Fatal(err)
	}
	tr.check("Input to calculate TH_3", bytes.Join([][]byte{appendBytes(nil, hi.th2), plaintext2, r.Credential.item}, nil))
	tr.checkBoth("TH_3", hi.th3)
	if hi.method.Static(RoleInitiator) {
		tr.check("info for SALT_4e3m", appendInfo(nil, labelSalt4e3m, hi.th3, suite.hash.size))
		tr.check("SALT_4e3m", must[[]byte](t)(hi.prk3e2m.kdf(labelSalt4e3m, hi.th3, suite.hash.size)))
		tr.check("G_IY", must[[]byte](t)(i.Exchanger.ECDH(hi.gPeer)))
	}
	tr.check("PRK_4e3m", hi.prk4e3m.key)
	tr.check("EAD_3", nil)
	in3 := &macInput{label: labelMAC3, id: hi.identity.ID, th: hi.th3, cred: i.Credential}
	tr.mac("3", hi, in3, hi.prk4e3m, "I")
	tr.encrypt0("3", hi, hi.prk3e2m, labelK3, labelIV3, hi.th3)

	got3 := must[*ReceivedMessage3](t)(wait3.Message3(m3))
	tr.check("PLAINTEXT_3", hr.receivedPlain)
	tr.check("Signature_or_MAC_3", hr.received.sigMAC)
	tr.check("Signature_or_MAC_3.cbor", appendBytes(nil, hr.received.sigMAC))
	tr.check("message_3", m3)
	tr.check("CIPHERTEXT_3", must[[]byte](t)(parseOne("message_3", m3)))
	tr.check("Input to calculate TH_4", bytes.Join([][]byte{appendBytes(nil, hr.th3), hr.receivedPlain, i.Credential.item}, nil))

	// message_4
	doneR := must[*ResponderDone](t)(got3.Verify(i.Credential))
	tr.check("PRK_4e3m", hr.prk4e3m.key)
	tr.checkBoth("TH_4", hr.th4)
	if _, printed := tr.values["EAD_4"]; printed {
		tr.check("EAD_4", nil)
	}
	if _, printed := tr.values["PLAINTEXT_4"]; printed {
		tr.check("PLAINTEXT_4", nil)
	}
	tr.encrypt0("4", hr, hr.prk4e3m, labelK4, labelIV4, hr.th4)
	m4 := must[[]byte](t)(doneR.Message4())
	tr.check("message_4", m4)
	tr.check("CIPHERTEXT_4", must[[]byte](t)(parseOne("message_4", m4)))
	if doneI.Session().Confirmed() {
		t.Error("Initiator's session confirmed before message_4")
	}
	if _, err := doneI.Message4(m4); err != nil {
		t.Fatal(err)
	}
	if !doneI.Session().Confirmed() || !doneR.Session().Confirmed() {
		t.Error("session not confirmed after message_4")
	}
	for _, s := range []*Session{doneI.Session(), doneR.Session()} {
		tr.session(s)
	}
	tr.allSeen()
}

// mac checks MAC_x, its input, and what is signed.
func (tr *trace) mac(x string, h *handshake, in *macInput, p *prk, party string) {
	t := tr.t
	t.Helper()
	tr.check("ID_CRED_"+party, in.id.item)
	if in.cred.typ == TypeCertificate {
		tr.check("CRED_"+party+".cbor", in.cred.item)
	} else {
		tr.check("CRED_"+party, in.cred.item)
	}
	n := h.macLength(h.role)
	context, external := in.encode()
	tr.check("context_"+x, context)
	tr.check("context_"+x+" (CBOR byte string)", appendBytes(nil, context))
	tr.check("info for MAC_"+x, appendInfo(nil, in.label, context, n))
	mac := must[[]byte](t)(p.kdf(in.label, context, n))
	tr.checkBoth("MAC_"+x, mac)
	if !h.method.Static(h.role) {
		signed := appendText(appendHead(nil, majorArray, 4), "Signature1")
		signed = appendBytes(signed, in.id.item)
		signed = appendBytes(signed, external)
		tr.check("Message to be signed "+x, appendBytes(signed, mac))
	}
}

func (tr *trace) encrypt0(x string, h *handshake, p *prk, labelKey, labelIV int, th []byte) {
	t := tr.t
	t.Helper()
	tr.check("A_"+x, encStructure(th))
	tr.check("info for K_"+x, appendInfo(nil, labelKey, th, h.suite.aead.key))
	tr.check("K_"+x, must[[]byte](t)(p.kdf(labelKey, th, h.suite.aead.key)))
	tr.check("info for IV_"+x, appendInfo(nil, labelIV, th, h.suite.aead.nonce))
	tr.check("IV_"+x, must[[]byte](t)(p.kdf(labelIV, th, h.suite.aead.nonce)))
}

// session checks PRK_out, the exporter, OSCORE's parameters and key update.
func (tr *trace) session(s *Session) {
	t := tr.t
	t.Helper()
	th4, size := tr.get("TH_4"), s.suite.hash.size
	tr.check("info for PRK_out", appendInfo(nil, labelPRKOut, th4, size))
	tr.check("PRK_out", s.prkOut.key)
	tr.check("info for PRK_exporter", appendInfo(nil, labelPRKExporter, nil, size))
	tr.check("PRK_exporter", s.prkExporter.key)

	e := must[Exported](t)(s.Exported())
	tr.check("info for OSCORE Master Secret", appendInfo(nil, exporterMasterSecret, nil, len(e.MasterSecret)))
	tr.check("OSCORE Master Secret", e.MasterSecret)
	tr.check("info for OSCORE Master Salt", appendInfo(nil, exporterMasterSalt, nil, len(e.MasterSalt)))
	tr.check("OSCORE Master Salt", e.MasterSalt)
	mine, theirs := "Client's OSCORE Sender ID", "Server's OSCORE Sender ID"
	if s.role == RoleResponder {
		mine, theirs = theirs, mine
	}
	tr.check(mine, e.SenderID)
	tr.check(theirs, e.RecipientID)
	for name, got := range map[string]int{"application_aead_algorithm": e.AEAD, "application_hash_algorithm": e.Hash} {
		tr.seen[name] = true
		var want int
		if err := json.Unmarshal(tr.values[name], &want); err != nil || got != want {
			t.Errorf("%s: got %d, want %s", name, got, tr.values[name])
		}
	}

	context := tr.get("context for KeyUpdate")
	tr.check("context for KeyUpdate.cbor", appendBytes(nil, context))
	if err := s.KeyUpdate(context); err != nil {
		t.Fatal(err)
	}
	tr.check("PRK_out after KeyUpdate", s.prkOut.key)
	tr.check("PRK_exporter after KeyUpdate", s.prkExporter.key)
	e = must[Exported](t)(s.Exported())
	tr.check("OSCORE Master Secret after KeyUpdate", e.MasterSecret)
	tr.check("OSCORE Master Salt after KeyUpdate", e.MasterSalt)
}

// allSeen fails if the trace prints a value that no check has looked at.
func (tr *trace) allSeen() {
	for name := range tr.values {
		if !tr.seen[name] && !tr.seen[strings.TrimSuffix(name, ".cbor")] {
			tr.t.Errorf("value %q of the trace was not checked", name)
		}
	}
}
