package edhoc

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"
)

// ask asks the store for candidates.
func ask(s *Store, name string, id CredentialID) ([]*Credential, error) {
	return view{s, name}.Candidates(RoleInitiator, id, nil)
}

func valueID(t *testing.T, c *Credential, chain ...*Credential) CredentialID {
	t.Helper()
	return must[CredentialID](t)(ByValue(c, chain...))
}

func TestStorePins(t *testing.T) {
	a := newAuthority(t, "Authority")
	store := newTestStore(a)
	one := newParty(t, a, "one", 2, true, "kccs").Credential
	two := newParty(t, a, "two", 2, true, "kccs").Credential
	if err := store.Pin("one", one, []byte("extra")); err != nil {
		t.Fatal(err)
	}
	for _, id := range []CredentialID{ByKID([]byte("o")), ByKID([]byte("extra")), valueID(t, one)} {
		for _, name := range []string{"", "one"} {
			if got, err := ask(store, name, id); err != nil || len(got) != 1 || !got[0].Equal(one) {
				t.Errorf("%s for %q: %v, %v", id, name, got, err)
			}
		}
		if got, err := ask(store, "two", id); err == nil {
			t.Errorf("%s for two: %v", id, got)
		}
	}
	if _, err := ask(store, "", valueID(t, two)); !errors.Is(err, ErrUntrusted) {
		t.Errorf("not pinned: %v", err)
	}
	if _, err := ask(store, "", CredentialID{item: []byte{0xa1, 0x18, 0x23, 0x61, 0x75}}); !errors.Is(err, ErrCredentialType) {
		t.Errorf("x5u: %v", err)
	}
	// Pinned again under another name: the old name and kid are gone.
	if err := store.Pin("uno", one); err != nil {
		t.Fatal(err)
	}
	if _, err := ask(store, "", ByKID([]byte("extra"))); !errors.Is(err, ErrUnknownCredential) {
		t.Errorf("old kid: %v", err)
	}
	if got := store.Name(one); got != "uno" {
		t.Errorf("name %q", got)
	}
	if n := store.Unpin("uno"); n != 1 || len(store.Entries()) != 0 || len(store.byKID)+len(store.byName)+len(store.byHash) != 0 {
		t.Errorf("Unpin removed %d and left %d", n, len(store.Entries()))
	}
	if err := store.Pin("nobody", nil); !errors.Is(err, ErrConfig) {
		t.Errorf("nil: %v", err)
	}
	if store.Name(two) != "two" {
		t.Errorf("name of an unknown one: %q", store.Name(two))
	}
}

// TestStoreChains validates paths, names, times and the hook.
func TestStoreChains(t *testing.T) {
	a := newAuthority(t, "Authority")
	key := newSigner(t, crvP256).(*ecdsa.PrivateKey)
	leaf := a.certificate(t, "leaf", key.Public(), func(c *x509.Certificate) {
		c.DNSNames = []string{"leaf.example"}
		c.IPAddresses = []net.IP{net.IPv4(192, 0, 2, 1)}
		c.URIs = []*url.URL{{Scheme: "urn", Opaque: "dev:leaf"}}
	})
	expired := a.certificate(t, "leaf", key.Public(), func(c *x509.Certificate) { c.NotAfter = noon.Add(-time.Hour) })
	// A chain of three: root, middle, end.
	middle := newAuthority(t, "Middle")
	middle.cert = a.certificate(t, "Middle", middle.key.Public(), func(c *x509.Certificate) {
		c.IsCA, c.BasicConstraintsValid, c.KeyUsage = true, true, x509.KeyUsageCertSign
	}).cert
	middleCred := must[*Credential](t)(ParseCertificate(middle.cert.Raw))
	end := middle.certificate(t, "end", key.Public())

	store := newTestStore(a)
	for _, name := range []string{"", "leaf", "leaf.example", "192.0.2.1", "urn:dev:leaf"} {
		if _, err := ask(store, name, valueID(t, leaf)); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
	if _, err := ask(store, "other", valueID(t, leaf)); !errors.Is(err, ErrUntrusted) {
		t.Errorf("other name: %v", err)
	}
	if _, err := ask(store, "", valueID(t, expired)); !errors.Is(err, ErrExpired) {
		t.Errorf("expired: %v", err)
	}
	if _, err := ask(store, "", valueID(t, end)); !errors.Is(err, ErrUntrusted) {
		t.Errorf("without the intermediate: %v", err)
	}
	if got, err := ask(store, "end", valueID(t, end, middleCred)); err != nil || !got[0].Equal(end) {
		t.Errorf("with the intermediate: %v", err)
	}
	if _, err := ask(store, "", must[CredentialID](t)(ByHash(end))); !errors.Is(err, ErrUnknownCredential) {
		t.Errorf("x5t of nothing known: %v", err)
	}
	for _, c := range []*Credential{middleCred, end} {
		if err := store.AddCertificate(c); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := ask(store, "end", must[CredentialID](t)(ByHash(end))); err != nil {
		t.Errorf("x5t through an added intermediate: %v", err)
	}
	if _, err := ask(store, "leaf", must[CredentialID](t)(ByHash(end))); !errors.Is(err, ErrUntrusted) {
		t.Errorf("x5t under another name: %v", err)
	}
	if err := store.AddCertificate(a.ccs); !errors.Is(err, ErrConfig) {
		t.Errorf("a CCS as certificate: %v", err)
	}

	none := NewStore(StoreConfig{Now: func() time.Time { return noon }})
	if _, err := ask(none, "", valueID(t, leaf)); !errors.Is(err, ErrUntrusted) {
		t.Errorf("no roots: %v", err)
	}
	if err := none.Pin("pinned", leaf); err != nil {
		t.Fatal(err)
	}
	for _, algorithm := range []int{algSHA256_64, algSHA256, algSHA384, algSHA512} {
		h := must[CertHash](t)(HashCertificate(leaf.cert.Raw, algorithm))
		if _, err := ask(none, "pinned", CredentialID{X5T: h}); err != nil {
			t.Errorf("x5t %d of a pinned certificate: %v", algorithm, err)
		}
		h.Hash[len(h.Hash)-1] ^= 1
		if _, err := ask(none, "pinned", CredentialID{X5T: h}); !errors.Is(err, ErrUnknownCredential) {
			t.Errorf("x5t %d, one bit off: %v", algorithm, err)
		}
	}
	if _, err := ask(none, "", CredentialID{X5T: CertHash{algSHA256, []byte{1}}}); !errors.Is(err, ErrFieldLength) {
		t.Errorf("short x5t: %v", err)
	}
	if _, err := ask(none, "", CredentialID{X5T: CertHash{-14, make([]byte, 20)}}); !errors.Is(err, ErrCredentialType) {
		t.Errorf("x5t with SHA-1: %v", err)
	}

	revoked := errors.New("revoked")
	hooked := newTestStore(a, func(c *StoreConfig) {
		c.VerifyChain = func(name string, chain []*x509.Certificate) error {
			if name != "anything" || len(chain) != 2 || chain[0].Subject.CommonName != "leaf" {
				t.Errorf("hook got %q and a chain of %d", name, len(chain))
			}
			return revoked
		}
		c.TrustOnFirstUse = true
	})
	// A revoked certificate is not saved by trust on first use.
	if _, err := ask(hooked, "anything", valueID(t, leaf)); !errors.Is(err, ErrUntrusted) || !errors.Is(err, revoked) {
		t.Errorf("hook: %v", err)
	}
	if _, err := ask(hooked, "", valueID(t, expired)); !errors.Is(err, ErrExpired) {
		t.Errorf("expired with trust on first use: %v", err)
	}
}

// TestKeyUsage heeds what certificate and COSE_Key say of their key's use.
func TestKeyUsage(t *testing.T) {
	a := newAuthority(t, "Authority")
	key := newSigner(t, crvP256)
	agree := a.certificate(t, "x", key.Public(), func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyAgreement })
	sign := a.certificate(t, "x", key.Public(), func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageDigitalSignature })
	k := agree.key
	cose := func(extra string) *Credential {
		raw := fmt.Sprintf("a108a101a%d0102%s2001215820%x225820%x", 4+strings.Count(extra, "_"), strings.ReplaceAll(extra, "_", ""), k.x, k.y)
		return must[*Credential](t)(ParseCCS(unhex(t, raw)))
	}
	tests := []struct {
		name          string
		c             *Credential
		signs, agrees bool
	}{
		{"certificate for key agreement", agree, false, true},
		{"certificate for signatures", sign, true, false},
		{"no word of it", cose(""), true, true},
		{"alg ES256", cose("_0326"), true, false},
		{"alg ECDH-ES+HKDF-256", cose("_033818"), false, true},
		{"key_ops verify", cose("_048102"), true, false},
		{"key_ops none", cose("_0480"), false, true},
	}
	for _, tt := range tests {
		if got := tt.c.key.fits(suites[2], false) == nil; got != tt.signs {
			t.Errorf("%s: signs %v", tt.name, got)
		}
		if got := tt.c.key.fits(suites[2], true) == nil; got != tt.agrees {
			t.Errorf("%s: agrees %v", tt.name, got)
		}
	}
}

func TestCWT(t *testing.T) {
	a := newAuthority(t, "Authority")
	store := newTestStore(a)
	ccs := newParty(t, a, "dev", 2, true, "kccs").Credential
	cwt := a.cwt(t, ccs)
	if got, err := ask(store, "dev", valueID(t, cwt)); err != nil || !got[0].Equal(cwt) {
		t.Errorf("signed: %v", err)
	}
	if _, err := ask(store, "other", valueID(t, cwt)); !errors.Is(err, ErrUntrusted) {
		t.Errorf("another's name: %v", err)
	}
	forged := bytes.Clone(cwt.item)
	forged[len(forged)-1] ^= 1
	tofu := newTestStore(a, func(c *StoreConfig) { c.TrustOnFirstUse = true })
	for _, s := range []*Store{store, tofu} {
		if _, err := ask(s, "", valueID(t, must[*Credential](t)(ParseCWT(forged)))); !errors.Is(err, ErrUntrusted) {
			t.Errorf("forged: %v", err)
		}
	}
	// It says that somebody else has issued it.
	elsewhere := append([]byte{ccs.item[0] + 1, 0x01, 0x61, 'x'}, ccs.item[1:]...)
	if _, err := ask(store, "", valueID(t, a.cwt(t, must[*Credential](t)(ParseCCS(elsewhere))))); !errors.Is(err, ErrUntrusted) {
		t.Errorf("of another issuer by its own word: %v", err)
	}
	here := append([]byte{ccs.item[0] + 1, 0x01, 0x69}, append([]byte("Authority"), ccs.item[1:]...)...)
	if _, err := ask(store, "", valueID(t, a.cwt(t, must[*Credential](t)(ParseCCS(here))))); err != nil {
		t.Errorf("with its issuer's name: %v", err)
	}
	if _, err := ParseCWT(append([]byte{0xd2}, cwt.item...)); !errors.Is(err, ErrMalformed) {
		t.Errorf("tagged: %v", err)
	}
	for _, tt := range []struct {
		exp, nbf int64
		want     error
	}{{noon.Unix() + 1, noon.Unix() - 1, nil}, {noon.Unix() - 1, 0, ErrExpired}, {0, noon.Unix() + 1, ErrExpired}} {
		b := []byte{0xa1}
		if tt.exp != 0 {
			b[0]++
			b = appendHead(append(b, 4), majorUint, uint64(tt.exp))
		}
		if tt.nbf != 0 {
			b[0]++
			b = appendHead(append(b, 5), majorUint, uint64(tt.nbf))
		}
		b = append(b, ccs.item[bytes.IndexByte(ccs.item, 8):]...) // from the cnf claim on
		timed := a.cwt(t, must[*Credential](t)(ParseCCS(b)))
		if _, err := ask(store, "", valueID(t, timed)); !errors.Is(err, tt.want) {
			t.Errorf("exp %d nbf %d: %v, want %v", tt.exp, tt.nbf, err, tt.want)
		}
	}
}

// TestFirstUse: the first credential of a name is learned once proved, no
// other one is taken after it, and only while the switch is on.
func TestFirstUse(t *testing.T) {
	a := newAuthority(t, "Authority")
	var learned []Entry
	store := NewStore(StoreConfig{
		MaxLearned: 2, Now: func() time.Time { return noon },
		OnLearn: func(e Entry) error { learned = append(learned, e); return nil },
	})
	x := newExchange(t, StaticStatic, 2, "kccs", "kccs")
	run := func() error {
		y := &exchange{i: x.i, r: x.r, trustI: store.Expect("coap://server"), trustR: x.trustR}
		y.run(t)
		return errors.Join(y.errI, y.errR)
	}
	if err := run(); !errors.Is(err, ErrUntrusted) {
		t.Fatalf("switched off: %v", err)
	}
	store.SetTrustOnFirstUse(true)
	if err := run(); err != nil {
		t.Fatal(err)
	}
	if len(learned) != 1 || learned[0].Name != "coap://server" || !learned[0].FirstUse {
		t.Fatalf("learned %+v", learned)
	}
	// Again: known now. Switched off, too.
	store.SetTrustOnFirstUse(false)
	if err := run(); err != nil {
		t.Error(err)
	}
	store.SetTrustOnFirstUse(true)
	// Somebody else answers.
	imposter := newParty(t, a, "responder", 2, true, "kccs")
	genuine := x.r
	x.r = Config{Identities: []Identity{imposter.Identity}}
	if err := run(); !errors.Is(err, ErrChangedCredential) {
		t.Errorf("changed key: %v", err)
	}
	if len(store.Entries()) != 1 {
		t.Errorf("%d entries", len(store.Entries()))
	}
	// A learned credential is not learned unless its key is proved.
	x.r = genuine
	if got, err := ask(store, "new name", valueID(t, imposter.Credential)); err != nil || len(got) != 1 || len(store.Entries()) != 1 {
		t.Errorf("%v, %v, %d entries", got, err, len(store.Entries()))
	}
	// Servers: names come from the credentials.
	anyone := store.Anyone()
	learn := func(name string) error {
		c, err := anyone.Candidates(RoleInitiator, valueID(t, newParty(t, a, name, 2, true, "kccs").Credential), nil)
		if err != nil {
			return err
		}
		return anyone.Proved(RoleInitiator, c[0])
	}
	if err := learn("device"); err != nil {
		t.Error(err)
	}
	if err := learn("device"); !errors.Is(err, ErrChangedCredential) {
		t.Errorf("second device of the name: %v", err)
	}
	if err := learn("third"); !errors.Is(err, ErrStoreFull) {
		t.Errorf("beyond the bound: %v", err)
	}
	if n := store.Unpin("device"); n != 1 {
		t.Errorf("forgot %d", n)
	}
	if err := learn("third"); err != nil {
		t.Errorf("room again: %v", err)
	}
	// Two sessions at once: the second to prove comes too late.
	store.Unpin("third")
	c1, err1 := anyone.Candidates(RoleInitiator, valueID(t, newParty(t, a, "twin", 2, true, "kccs").Credential), nil)
	c2, err2 := anyone.Candidates(RoleInitiator, valueID(t, newParty(t, a, "twin", 2, true, "kccs").Credential), nil)
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	if err := anyone.Proved(RoleInitiator, c1[0]); err != nil {
		t.Error(err)
	}
	if err := anyone.Proved(RoleInitiator, c2[0]); !errors.Is(err, ErrChangedCredential) {
		t.Errorf("late twin: %v", err)
	}
	// What cannot be made durable is not trusted.
	x.sessionI = nil
	broken := NewStore(StoreConfig{TrustOnFirstUse: true, OnLearn: func(Entry) error { return errors.New("disk full") }})
	x.trustI = broken.Anyone()
	x.run(t)
	if !errors.Is(x.errI, ErrUntrusted) || len(broken.Entries()) != 0 || x.sessionI != nil {
		t.Errorf("not durable: %v", x.errI)
	}
}

// TestCrowd: learned credentials cannot push a pinned one of the same kid out.
func TestCrowd(t *testing.T) {
	a := newAuthority(t, "Authority")
	store := newTestStore(a, func(c *StoreConfig) { c.TrustOnFirstUse = true })
	anyone := store.Anyone()
	for n := range 2 * maxCandidates {
		c, err := anyone.Candidates(RoleInitiator, valueID(t, newParty(t, a, fmt.Sprintf("d%d", n), 2, true, "kccs").Credential), nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := anyone.Proved(RoleInitiator, c[0]); err != nil {
			t.Fatal(err)
		}
	}
	pinned := newParty(t, a, "dear", 2, true, "kccs").Credential
	if err := store.Pin("dear", pinned); err != nil {
		t.Fatal(err)
	}
	got, err := anyone.Candidates(RoleInitiator, ByKID([]byte("d")), nil)
	if err != nil || len(got) != maxCandidates || !got[0].Equal(pinned) {
		t.Errorf("%d candidates, %v", len(got), err)
	}
}

func TestStoreState(t *testing.T) {
	a := newAuthority(t, "Authority")
	store := newTestStore(a, func(c *StoreConfig) { c.TrustOnFirstUse = true })
	for _, kind := range []string{"kccs", "kcwt", "x5chain"} {
		if err := store.Pin(kind, newParty(t, a, kind, 2, true, kind).Credential, []byte{1}, []byte{}); err != nil {
			t.Fatal(err)
		}
	}
	anyone := store.Anyone()
	first := must[[]*Credential](t)(anyone.Candidates(RoleInitiator, valueID(t, newParty(t, a, "first", 0, false, "kccs").Credential), nil))
	if err := anyone.Proved(RoleInitiator, first[0]); err != nil {
		t.Fatal(err)
	}
	out := must[[]byte](t)(store.Export())
	back := NewStore(StoreConfig{})
	for range 2 { // the second time changes nothing
		if err := back.Import(out); err != nil {
			t.Fatal(err)
		}
	}
	if again := must[[]byte](t)(back.Export()); !bytes.Equal(out, again) {
		t.Errorf("exported\n%s\nimported\n%s", out, again)
	}
	if back.learned != 1 {
		t.Errorf("%d learned", back.learned)
	}
	for name, tt := range map[string][2]string{
		"unknown field":    {`"origin"`, `"orgin"`},
		"unknown type":     {`"ccs"`, `"pgp"`},
		"unknown origin":   {`"pinned"`, `"guessed"`},
		"not hex":          {`"credential": "`, `"credential": "x`},
		"not a credential": {`"credential": "`, `"credential": "00`},
		"kid not hex":      {`"01"`, `"zz"`},
		"other version":    {`"version": 1`, `"version": 2`},
	} {
		bad := strings.Replace(string(out), tt[0], tt[1], 1)
		fresh := NewStore(StoreConfig{})
		if err := fresh.Import([]byte(bad)); err == nil || len(fresh.Entries()) != 0 {
			t.Errorf("%s: %v, %d entries", name, err, len(fresh.Entries()))
		}
	}
	if err := back.Import(append(out, '1')); err == nil {
		t.Error("text after the object")
	}
}

func TestParseCredentials(t *testing.T) {
	x := "bbc34960526ea4d32e940cad2a234148ddc21791a12afbcbac93622046dd44f0"
	y := "4519e257236b2a0ce2023f0931f1f386ca7afda64fcde0108c224c51eabf6072"
	good := "a108a101a401022001215820" + x + "225820" + y
	for _, ok := range []string{
		good,
		"a108a101a401022001215820" + x + "22f4", // y by its sign
	} {
		c, err := ParseCCS(unhex(t, ok))
		if err != nil || fmt.Sprintf("%x", c.key.y) != y {
			t.Errorf("%s: %v", ok, err)
		}
	}
	for name, tt := range map[string]struct {
		hex  string
		want error
	}{
		"empty":              {"", ErrMalformed},
		"not a map":          {"80", ErrMalformed},
		"no cnf":             {"a10263666f6f", ErrMalformed},
		"cnf without key":    {"a108a1034101", ErrMalformed},
		"private key inside": {"a108a101a501022001215820" + x + "225820" + y + "235820" + x, ErrMalformed},
		"symmetric key":      {"a108a101a201042041ff", ErrCredentialType},
		"P-521":              {"a108a101a401022003215820" + x + "225820" + y, ErrCredentialType},
		"Ed448":              {"a108a101a301012007215820" + x, ErrCredentialType},
		"X25519 as EC2":      {"a108a101a301022004215820" + x, ErrCredentialType},
		"off the curve":      {"a108a101a401022001215820" + x + "225820" + x, ErrPublicKey},
		"x alone off":        {"a108a101a401022001215820" + "a04e73601df544a70ba7ea1e57030f7d4b4eb7f673924e58d54ca77a5e7d4d4a" + "22f5", ErrPublicKey},
		"short x":            {"a108a101a40102200121411122f5", ErrFieldLength},
		"short y":            {"a108a101a401022001215820" + x + "224111", ErrFieldLength},
		"y as text":          {"a108a101a401022001215820" + x + "226111", ErrMalformed},
		"short X25519":       {"a108a101a30101200421420102", ErrFieldLength},
		"claim twice":        {"a2" + good[2:] + good[2:], ErrMalformed},
		"bytes after":        {good + "00", ErrMalformed},
		"indefinite":         {"bf08a101a401022001215820" + x + "225820" + y + "ff", ErrEncoding},
		"exp as text":        {"a2046131" + good[2:], ErrMalformed},
		"cut":                {good[:60], ErrMalformed},
	} {
		if _, err := ParseCCS(unhex(t, tt.hex)); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", name, err, tt.want)
		}
	}
	if _, err := ParseCCS(make([]byte, maxCredential+1)); !errors.Is(err, ErrTooLong) {
		t.Error("long CCS")
	}
	if _, err := ParseCertificate([]byte{0x30, 0}); !errors.Is(err, ErrMalformed) {
		t.Error("empty certificate")
	}
	if _, err := NewCCS(CCSParams{Public: "key"}); !errors.Is(err, ErrCredentialType) {
		t.Error("a string as key")
	}
}
