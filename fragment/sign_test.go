package fragment

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/veraison/go-cose"
)

// signers returns one signer an algorithm.
func signers(t testing.TB) []Signer {
	t.Helper()
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	var all []Signer
	for _, alg := range []Algorithm{ES256, ESP256} {
		s, err := NewSigner(ec, alg, nil)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, s)
	}
	for _, alg := range []Algorithm{Ed25519, EdDSA} {
		s, err := NewSigner(ed, alg, []byte("ed"))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, s)
	}
	return all
}

func TestSignOpen(t *testing.T) {
	for _, s := range signers(t) {
		t.Run(s.Alg.String(), func(t *testing.T) {
			m := signed(t, noise(5000), 8).Manifest()
			m.PkgName, m.PkgVersion, m.Devices = "pump", "1.2", [][]byte{{1}, {2}}
			m.MaxUnit, m.Expiry = 10, 4_000_000_000
			b, err := Sign(rand.Reader, m, s)
			if err != nil {
				t.Fatal(err)
			}
			got, err := Open(b, s.Public())
			if err != nil {
				t.Fatal(err)
			}
			if fmt.Sprint(got.Manifest()) != fmt.Sprint(m) {
				t.Fatalf("manifest %v, want %v", got.Manifest(), m)
			}
			// Any go-cose user who knows the algorithm reads it too.
			var msg cose.Sign1Message
			if err := msg.UnmarshalCBOR(b); err != nil {
				t.Fatal(err)
			}
			if s.Alg == ES256 || s.Alg == EdDSA {
				v, err := cose.NewVerifier(cose.Algorithm(s.Alg), s.Key.Public())
				if err != nil {
					t.Fatal(err)
				}
				if err := msg.Verify(nil, v); err != nil {
					t.Fatal(err)
				}
			}
			// The key's own COSE_Key, private and public, opens it too.
			priv, err := s.AppendCOSEKey(nil)
			if err != nil {
				t.Fatal(err)
			}
			again, err := ParseSigner(priv)
			if err != nil {
				t.Fatal(err)
			}
			pub, err := again.Public().AppendCOSEKey(nil)
			if err != nil {
				t.Fatal(err)
			}
			key, err := ParsePublicKey(pub)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := Open(b, key); err != nil {
				t.Fatal(err)
			}
			for _, text := range []string{fmt.Sprintf("%v", s), fmt.Sprintf("%+v", s), fmt.Sprintf("%#v", s), s.String()} {
				if strings.Contains(text, "D:") || len(text) > 100 {
					t.Fatalf("a signer shows itself as %q", text)
				}
			}
		})
	}
}

// An algorithm is bound to its key: the same key under another number is not
// the trusted one, but for the two names of Ed25519.
func TestAlgorithmIsBoundToItsKey(t *testing.T) {
	all := signers(t)
	m := signed(t, noise(10), 6).Manifest()
	open := func(s Signer, alg Algorithm) error {
		b, err := Sign(rand.Reader, m, s)
		if err != nil {
			t.Fatal(err)
		}
		key := s.Public()
		key.Alg = alg
		_, err = Open(b, key)
		return err
	}
	wantErr(t, open(all[0], ESP256), ErrKey)
	wantErr(t, open(all[1], ES256), ErrKey)
	if err := errors.Join(open(all[2], EdDSA), open(all[3], Ed25519)); err != nil {
		t.Fatal(err)
	}
}

func TestOpenRefuses(t *testing.T) {
	s := author(t)
	m := signed(t, noise(10), 6).Manifest()
	good, err := Sign(nil, m, s)
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := NewSigner(ed25519.NewKeyFromSeed(make([]byte, 32)), 0, s.KID)
	if err != nil {
		t.Fatal(err)
	}
	// raw signs a payload and header of the test's own.
	raw := func(payload []byte, protected cose.ProtectedHeader, unprotected cose.UnprotectedHeader) []byte {
		signer, err := s.signer()
		if err != nil {
			t.Fatal(err)
		}
		alg := protected[cose.HeaderLabelAlgorithm]
		protected[cose.HeaderLabelAlgorithm] = cose.Algorithm(s.Alg)
		msg := cose.Sign1Message{Headers: cose.Headers{Protected: protected, Unprotected: unprotected}, Payload: payload}
		if alg != nil {
			msg.Headers.Protected[cose.HeaderLabelAlgorithm] = alg
			a := alg.(cose.Algorithm)
			signer = coseSigner{signer, Algorithm(a)}
		}
		if err := msg.Sign(nil, nil, signer); err != nil {
			t.Fatal(err)
		}
		b, err := msg.MarshalCBOR()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	head := func() cose.ProtectedHeader {
		return cose.ProtectedHeader{cose.HeaderLabelKeyID: s.KID, cose.HeaderLabelType: ContentType}
	}
	payload, err := m.marshal()
	if err != nil {
		t.Fatal(err)
	}
	with := func(h cose.ProtectedHeader, label, value any) cose.ProtectedHeader { h[label] = value; return h }
	without := func(h cose.ProtectedHeader, label any) cose.ProtectedHeader { delete(h, label); return h }
	change := func(change func(map[int]any)) []byte {
		var p map[int]any
		if err := decMode.Unmarshal(payload, &p); err != nil {
			t.Fatal(err)
		}
		change(p)
		b, err := encMode.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	set := func(key int, value any) []byte { return change(func(p map[int]any) { p[key] = value }) }
	nested := append(bytes.Repeat([]byte{0x81}, 1000), 0x00)
	digest := bytes.Repeat([]byte{1}, 32)

	for name, c := range map[string]struct {
		b    []byte
		key  PublicKey
		want error
	}{
		"empty":               {nil, s.Public(), ErrHeader},
		"untagged":            {good[1:], s.Public(), ErrHeader},
		"trailing byte":       {append(bytes.Clone(good), 0), s.Public(), ErrHeader},
		"cut":                 {good[:len(good)-1], s.Public(), ErrHeader},
		"64 KiB":              {append(bytes.Clone(good), make([]byte, 64<<10)...), s.Public(), ErrHeader},
		"other key, same kid": {good, stranger.Public(), ErrSignature},
		"no key":              {good, PublicKey{KID: []byte("x")}, ErrKey},
		"unprotected header":  {raw(payload, head(), cose.UnprotectedHeader{int64(4): []byte{1}}), s.Public(), ErrHeader},
		"more protected":      {raw(payload, with(head(), int64(99), "x"), nil), s.Public(), ErrHeader},
		"no typ":              {raw(payload, without(head(), cose.HeaderLabelType), nil), s.Public(), ErrHeader},
		"other typ":           {raw(payload, with(head(), cose.HeaderLabelType, "application/x"), nil), s.Public(), ErrHeader},
		"no kid":              {raw(payload, without(head(), cose.HeaderLabelKeyID), nil), s.Public(), ErrHeader},
		"algorithm ES384":     {raw(payload, with(head(), cose.HeaderLabelAlgorithm, cose.Algorithm(-35)), nil), s.Public(), ErrAlgorithm},
		"payload no map":      {raw([]byte{1}, head(), nil), s.Public(), ErrManifest},
		"deep nesting":        {raw(nested, head(), nil), s.Public(), ErrManifest},
		"version 2":           {raw(set(1, 2), head(), nil), s.Public(), ErrVersion},
		"unknown key":         {raw(set(17, 0), head(), nil), s.Public(), ErrManifest},
		"duplicate key":       {raw(twice(payload), head(), nil), s.Public(), ErrManifest},
		"missing sequence":    {raw(change(func(p map[int]any) { delete(p, 2) }), head(), nil), s.Public(), ErrManifest},
		"missing digest":      {raw(change(func(p map[int]any) { delete(p, 5) }), head(), nil), s.Public(), ErrManifest},
		"S = 0":               {raw(set(3, 0), head(), nil), s.Public(), ErrManifest},
		"S = 2^32":            {raw(set(3, uint64(1)<<32), head(), nil), s.Public(), ErrManifest},
		"S negative":          {raw(set(3, -1), head(), nil), s.Public(), ErrManifest},
		"l = 5":               {raw(set(4, []any{1, 5, digest}), head(), nil), s.Public(), ErrManifest},
		"l = 13":              {raw(set(4, []any{1, 13, digest}), head(), nil), s.Public(), ErrManifest},
		"short root":          {raw(set(4, []any{1, 6, digest[:31]}), head(), nil), s.Public(), ErrManifest},
		"other tree":          {raw(set(4, []any{2, 6, digest}), head(), nil), s.Public(), ErrAlgorithm},
		"digest algorithm":    {raw(set(5, []any{-15, digest}), head(), nil), s.Public(), ErrAlgorithm},
		"short digest":        {raw(set(5, []any{-16, digest[:20]}), head(), nil), s.Public(), ErrManifest},
		"vendor of 15 bytes":  {raw(set(6, digest[:15]), head(), nil), s.Public(), ErrManifest},
		"nine devices":        {raw(set(8, make([][]byte, 9)), head(), nil), s.Public(), ErrManifest},
		"empty device id":     {raw(set(8, [][]byte{{}}), head(), nil), s.Public(), ErrManifest},
		"empty version text":  {raw(set(9, ""), head(), nil), s.Public(), ErrManifest},
		"payload type 3":      {raw(set(11, 3), head(), nil), s.Public(), ErrManifest},
		"delta without base":  {raw(set(11, 1), head(), nil), s.Public(), ErrManifest},
		"base without delta":  {raw(set(12, []any{-16, digest}), head(), nil), s.Public(), ErrManifest},
		"unknown encryption":  {raw(set(13, []any{-65533, digest[:16], []byte{1}}), head(), nil), s.Public(), ErrAlgorithm},
		"short IV":            {raw(set(13, []any{-65534, digest[:12], []byte{1}}), head(), nil), s.Public(), ErrManifest},
		"unit cap below leaf": {raw(set(15, 5), head(), nil), s.Public(), ErrManifest},
		"long integer":        {raw(bytes.Replace(payload, []byte{0x02, 0x05, 0x03}, []byte{0x02, 0x18, 0x05, 0x03}, 1), head(), nil), s.Public(), ErrManifest},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Open(c.b, c.key)
			wantErr(t, err, c.want)
		})
	}
	// Type 0 may be written out.
	if _, err := Open(raw(set(11, 0), head(), nil), s.Public()); err != nil {
		t.Fatalf("explicit type 0: %v", err)
	}
}

func TestPolicy(t *testing.T) {
	m := signed(t, noise(1000), 6).Manifest()
	ok := Policy{Vendor: m.Vendor, Class: m.Class, Installed: 4, Flash: 1000, Now: 100, Device: []byte("me")}
	sum := Digest{Alg: SHA256, Value: make([]byte, 32)}
	for name, c := range map[string]struct {
		change func(*Manifest, *Policy)
		want   error
	}{
		"taken":             {func(*Manifest, *Policy) {}, nil},
		"vendor":            {func(m *Manifest, _ *Policy) { m.Vendor[0] ^= 1 }, ErrVendor},
		"class":             {func(m *Manifest, _ *Policy) { m.Class[0] ^= 1 }, ErrClass},
		"other device":      {func(m *Manifest, _ *Policy) { m.Devices = [][]byte{[]byte("you")} }, ErrDevice},
		"this device":       {func(m *Manifest, _ *Policy) { m.Devices = [][]byte{[]byte("you"), []byte("me")} }, nil},
		"same sequence":     {func(_ *Manifest, p *Policy) { p.Installed = 5 }, ErrRollback},
		"older sequence":    {func(_ *Manifest, p *Policy) { p.Installed = 6 }, ErrRollback},
		"sequence 0":        {func(m *Manifest, p *Policy) { m.Sequence, p.Installed = 0, 0 }, ErrRollback},
		"expired":           {func(m *Manifest, _ *Policy) { m.Expiry = 99 }, ErrExpired},
		"not yet expired":   {func(m *Manifest, _ *Policy) { m.Expiry = 100 }, nil},
		"no clock":          {func(m *Manifest, p *Policy) { m.Expiry, p.Now = 1, 0 }, nil},
		"flash":             {func(_ *Manifest, p *Policy) { p.Flash = 999 }, ErrTooLarge},
		"delta":             {func(m *Manifest, _ *Policy) { m.Type, m.Base = Delta, &sum }, ErrUnsupported},
		"delta, other base": {func(m *Manifest, p *Policy) { m.Type, m.Base, p.Delta = Delta, &sum, true }, ErrUnsupported},
		"delta taken":       {func(m *Manifest, p *Policy) { m.Type, m.Base, p.Delta, p.Base = Delta, &sum, true, sum }, nil},
		"SUIT":              {func(m *Manifest, _ *Policy) { m.Type = SUIT }, ErrUnsupported},
		"encrypted": {func(m *Manifest, _ *Policy) {
			m.Encryption = &Encryption{Alg: A128CTR, IV: make([]byte, 16), KID: []byte{1}}
		}, ErrUnsupported},
	} {
		t.Run(name, func(t *testing.T) {
			m, p := m, ok
			c.change(&m, &p)
			s := author(t)
			b, err := Sign(nil, m, s)
			if err != nil {
				t.Fatal(err)
			}
			opened, err := Open(b, s.Public())
			if err != nil {
				t.Fatal(err)
			}
			wantErr(t, p.Check(opened), c.want)
		})
	}
}

func TestParseKeyRefuses(t *testing.T) {
	all := signers(t)
	ec, ed := all[1], all[2]
	x := bytes.Repeat([]byte{1}, 32)
	enc := func(m map[int]any) []byte {
		b, err := encMode.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	ecKey, err := newCOSEKey(ec.Key.Public())
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{
		"nothing":          nil,
		"not a map":        {1},
		"symmetric":        enc(map[int]any{1: 4, -1: x}),
		"P-384":            enc(map[int]any{1: 2, -1: 2, -2: x, -3: x}),
		"curve is text":    enc(map[int]any{1: 2, -1: "P-256", -2: x, -3: x}),
		"not on the curve": enc(map[int]any{1: 2, -1: 1, -2: x, -3: x}),
		"compressed point": enc(map[int]any{1: 2, -1: 1, -2: x, -3: true}),
		"short":            enc(map[int]any{1: 1, -1: 6, -2: x[:31]}),
		"other algorithm":  enc(map[int]any{1: 1, 3: -7, -1: 6, -2: x}),
		"key_ops":          enc(map[int]any{1: 1, 4: []int{1}, -1: 6, -2: x}),
		"long kid":         enc(map[int]any{1: 1, 2: make([]byte, 65), -1: 6, -2: x}),
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ParsePublicKey(b)
			wantErr(t, err, ErrBadKey)
		})
	}
	for name, b := range map[string][]byte{
		"no private part":  enc(map[int]any{1: 1, -1: 6, -2: []byte(ed.Key.Public().(ed25519.PublicKey))}),
		"other public":     enc(map[int]any{1: 2, -1: 1, -2: ecKey.X, -3: ecKey.Y, -4: x}),
		"scalar too large": enc(map[int]any{1: 2, -1: 1, -4: bytes.Repeat([]byte{0xff}, 32)}),
	} {
		t.Run("private/"+name, func(t *testing.T) {
			_, err := ParseSigner(b)
			wantErr(t, err, ErrBadKey)
		})
	}
}

// twice repeats the manifest's last entry, the class.
func twice(payload []byte) []byte {
	b := append([]byte{payload[0] + 1}, payload[1:]...)
	return append(b, payload[len(payload)-18:]...)
}

// Nothing is written by the word of a manifest that Open has not verified.
func TestOpenImageNeedsAVerifiedManifest(t *testing.T) {
	for _, s := range []*Signed{nil, {}} {
		_, err := OpenImage(s, ImageConfig{Flash: &memory{}})
		wantErr(t, err, ErrSignature)
	}
}
