package edhoc

import (
	"bytes"
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"math/big"
	"testing"
	"time"

	"github.com/veraison/go-cose"
)

// noon is the time of the tests.
var noon = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)

// authority signs certificates and CWTs.
type authority struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
	ccs  *Credential
}

func newAuthority(t testing.TB, name string) *authority {
	t.Helper()
	a := &authority{key: must[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: noon.AddDate(-1, 0, 0), NotAfter: noon.AddDate(1, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der := must[[]byte](t)(x509.CreateCertificate(rand.Reader, template, template, a.key.Public(), a.key))
	a.cert = must[*x509.Certificate](t)(x509.ParseCertificate(der))
	a.ccs = must[*Credential](t)(NewCCS(CCSParams{Subject: name, Public: a.key.Public()}))
	return a
}

func (a *authority) certificate(t testing.TB, name string, pub crypto.PublicKey, change ...func(*x509.Certificate)) *Credential {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name},
		NotBefore: noon.AddDate(0, -1, 0), NotAfter: noon.AddDate(0, 1, 0),
	}
	for _, c := range change {
		c(template)
	}
	x25519, ok := pub.(*ecdh.PublicKey)
	if ok && x25519.Curve() == ecdh.X25519() {
		pub = ed25519.PublicKey(x25519.Bytes()) // crypto/x509 makes no certificates for X25519
	} else if ok {
		pub = must[*ecdsa.PublicKey](t)(ecdsa.ParseUncompressedPublicKey(ellipticOf(x25519.Curve()), x25519.Bytes()))
	}
	der := must[[]byte](t)(x509.CreateCertificate(rand.Reader, template, a.cert, pub, a.key))
	if _, isEd := pub.(ed25519.PublicKey); isEd && ok {
		der = a.relabelX25519(t, der)
	}
	return must[*Credential](t)(ParseCertificate(der))
}

func ellipticOf(c ecdh.Curve) elliptic.Curve {
	if c == ecdh.P384() {
		return elliptic.P384()
	}
	return elliptic.P256()
}

// relabelX25519 turns the Ed25519 key of a certificate into an X25519 key of
// the same bytes (RFC 8410 §3: the identifiers differ in one byte) and signs
// again.
func (a *authority) relabelX25519(t testing.TB, der []byte) []byte {
	t.Helper()
	var cert struct {
		TBS, Algorithm asn1.RawValue
		Signature      asn1.BitString
	}
	if _, err := asn1.Unmarshal(der, &cert); err != nil {
		t.Fatal(err)
	}
	tbs := bytes.Replace(cert.TBS.FullBytes, []byte{0x2b, 0x65, 0x70, 0x03, 0x21}, []byte{0x2b, 0x65, 0x6e, 0x03, 0x21}, 1)
	digest := sha256.Sum256(tbs)
	signature := must[[]byte](t)(ecdsa.SignASN1(rand.Reader, a.key, digest[:]))
	cert.TBS = asn1.RawValue{FullBytes: tbs}
	cert.Signature = asn1.BitString{Bytes: signature, BitLength: 8 * len(signature)}
	return must[[]byte](t)(asn1.Marshal(cert))
}

// cwt signs a claims set.
func (a *authority) cwt(t testing.TB, ccs *Credential) *Credential {
	t.Helper()
	signer := must[cose.Signer](t)(cose.NewSigner(cose.AlgorithmES256, a.key))
	m := cose.UntaggedSign1Message{Payload: ccs.item}
	if err := m.Sign(rand.Reader, nil, signer); err != nil {
		t.Fatal(err)
	}
	return must[*Credential](t)(ParseCWT(must[[]byte](t)(m.MarshalCBOR())))
}

// credentialKinds are the ways to present a credential.
var credentialKinds = []string{"ccs by kid", "kccs", "cwt by kid", "kcwt", "x5chain", "x5t"}

// party is one side with all that the other needs to trust it.
type party struct {
	Identity
	name string
	pin  func(*Store)
}

// newParty makes an identity for a suite: a static or a signature key, in a
// credential of the kind.
func newParty(t testing.TB, a *authority, name string, suite Suite, static bool, kind string) party {
	t.Helper()
	s := suites[suite]
	p := party{name: name, pin: func(*Store) {}}
	var pub crypto.PublicKey
	if static {
		key := must[*ecdh.PrivateKey](t)(s.curve.generate())
		p.Exchanger, pub = key, key.PublicKey()
	} else {
		p.Signer = newSigner(t, s.signatureCurve())
		pub = p.Signer.Public()
	}
	kid := []byte(name)[:1]
	ccs := must[*Credential](t)(NewCCS(CCSParams{Subject: name, KID: kid, Public: pub}))
	switch kind {
	case "ccs by kid":
		p.Credential = ccs
	case "kccs":
		p.Credential = ccs
		p.ID = must[CredentialID](t)(ByValue(ccs))
	case "cwt by kid":
		p.Credential = a.cwt(t, ccs)
	case "kcwt":
		p.Credential = a.cwt(t, ccs)
		p.ID = must[CredentialID](t)(ByValue(p.Credential))
	case "x5chain":
		p.Credential = a.certificate(t, name, pub)
		p.ID = must[CredentialID](t)(ByValue(p.Credential))
	case "x5t":
		p.Credential = a.certificate(t, name, pub)
		p.ID = must[CredentialID](t)(ByHash(p.Credential))
	default:
		t.Fatalf("no kind %q", kind)
	}
	switch kind {
	case "ccs by kid", "kccs", "cwt by kid":
		p.pin = func(s *Store) {
			if err := s.Pin(name, p.Credential); err != nil {
				t.Error(err)
			}
		}
	case "x5t":
		p.pin = func(s *Store) {
			if err := s.AddCertificate(p.Credential); err != nil {
				t.Error(err)
			}
		}
	}
	return p
}

func newSigner(t testing.TB, crv int) crypto.Signer {
	t.Helper()
	switch crv {
	case crvEd25519:
		_, key, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return key
	case crvP384:
		return must[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(elliptic.P384(), rand.Reader))
	}
	return must[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
}

// newTestStore trusts the authority for chains and CWTs.
func newTestStore(a *authority, change ...func(*StoreConfig)) *Store {
	cfg := StoreConfig{Roots: x509.NewCertPool(), Issuers: []*Credential{a.ccs}, Now: func() time.Time { return noon }}
	cfg.Roots.AddCert(a.cert)
	for _, c := range change {
		c(&cfg)
	}
	return NewStore(cfg)
}

// exchange is a handshake between two endpoints of the tests.
type exchange struct {
	i, r           Config
	trustI, trustR Trust // of the Responder's and of the Initiator's identity
	ead            [5][]EAD
	// tamper may change message n (1 to 4) on its way.
	tamper func(n int, m []byte) []byte

	messages           [5][]byte
	sessionI, sessionR *Session
	gotEAD             [5][]EAD
	errI, errR         error // where it ended, if it did
}

// newExchange is a handshake between fresh parties that know each other.
func newExchange(t testing.TB, m Method, s Suite, kindI, kindR string) *exchange {
	t.Helper()
	a := newAuthority(t, "Authority")
	i := newParty(t, a, "initiator", s, m.Static(RoleInitiator), kindI)
	r := newParty(t, a, "responder", s, m.Static(RoleResponder), kindR)
	store := newTestStore(a)
	i.pin(store)
	r.pin(store)
	return &exchange{
		i:      Config{Identities: []Identity{i.Identity}, Methods: []Method{m}, Suites: []Suite{s}},
		r:      Config{Identities: []Identity{r.Identity}, Suites: []Suite{s}},
		trustI: store.Expect("responder"), trustR: store.Anyone(),
	}
}

// run runs the handshake until an error or its end with message_4.
func (x *exchange) run(t testing.TB) {
	t.Helper()
	carry := func(n int, m []byte) []byte {
		x.messages[n] = m
		if x.tamper != nil {
			m = x.tamper(n, append([]byte(nil), m...))
		}
		return m
	}
	initiator := must[*Initiator](t)(NewInitiator(x.i))
	responder := must[*Responder](t)(NewResponder(x.r))
	m1, wait2, err := initiator.Message1(Start{ConnectionID: []byte{0x05}, EAD: x.ead[1]})
	if err != nil {
		x.errI = err
		return
	}
	got1, err := responder.Message1(carry(1, m1))
	if err != nil {
		x.errR = err
		return
	}
	x.gotEAD[1] = got1.Message().EAD
	m2, wait3, err := got1.Message2(Reply{ConnectionID: []byte{0x27}, EAD: x.ead[2]})
	if err != nil {
		x.errR = err
		return
	}
	got2, err := wait2.Message2(carry(2, m2))
	if err != nil {
		x.errI = err
		return
	}
	x.gotEAD[2] = got2.EAD()
	verified, err := got2.Authenticate(x.trustI)
	if err != nil {
		x.errI = err
		return
	}
	m3, doneI, err := verified.Message3(x.ead[3]...)
	if err != nil {
		x.errI = err
		return
	}
	x.sessionI = doneI.Session()
	got3, err := wait3.Message3(carry(3, m3))
	if err != nil {
		x.errR = err
		return
	}
	x.gotEAD[3] = got3.EAD()
	doneR, err := got3.Authenticate(x.trustR)
	if err != nil {
		x.errR = err
		return
	}
	x.sessionR = doneR.Session()
	m4, err := doneR.Message4(x.ead[4]...)
	if err != nil {
		x.errR = err
		return
	}
	x.gotEAD[4], x.errI = doneI.Message4(carry(4, m4))
}

// mustRun runs a handshake that must succeed.
func (x *exchange) mustRun(t testing.TB) {
	t.Helper()
	x.run(t)
	if x.errI != nil || x.errR != nil {
		t.Fatalf("handshake failed: Initiator %v, Responder %v", x.errI, x.errR)
	}
}

func (x *exchange) String() string {
	return fmt.Sprintf("method %v, suite %v", x.i.Methods, x.i.Suites)
}
