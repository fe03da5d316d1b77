package main

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha1"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/oscorelay/oscorelay/fragment"
)

var fragmentAlgorithms = map[string]fragment.Algorithm{
	"es256": fragment.ES256, "esp256": fragment.ESP256, "ed25519": fragment.Ed25519,
}

func algorithm(name string) (fragment.Algorithm, error) {
	alg, ok := fragmentAlgorithms[strings.ToLower(name)]
	if !ok {
		return 0, usagef("-alg %s: use ESP256, ES256 or Ed25519", name)
	}
	return alg, nil
}

// fragmentKeygen makes an author's key pair: <prefix>.key and <prefix>.pub.
func fragmentKeygen(_ context.Context, sio stdio, args []string) error {
	f := newFragmentFlags(sio, "keygen", "")
	algName := f.String("alg", "Ed25519", "signature algorithm: Ed25519, ESP256 or ES256")
	kid := f.String("kid", "", "key identifier (default: the first 8 bytes of the key's thumbprint)")
	format := f.String("format", "cose", "cose: COSE_Key, holds algorithm and identifier; pem: PKCS #8 and PKIX, as openssl reads them")
	prefix := f.String("o", "author", "write <prefix>.key, private, and <prefix>.pub")
	force := f.Bool("force", false, "overwrite existing files")
	if _, err := f.parse(args, 0, 0); err != nil {
		return err
	}
	alg, err := algorithm(*algName)
	if err != nil {
		return err
	}
	var key crypto.Signer
	if alg == fragment.Ed25519 {
		_, key, err = ed25519.GenerateKey(rand.Reader)
	} else {
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	}
	if err != nil {
		return err
	}
	signer, err := fragment.NewSigner(key, alg, []byte(*kid))
	if err != nil {
		return err
	}
	var priv, pub []byte
	switch *format {
	case "cose":
		if priv, err = signer.AppendCOSEKey(nil); err == nil {
			pub, err = signer.Public().AppendCOSEKey(nil)
		}
	case "pem":
		if *kid != "" || alg == fragment.ES256 {
			return usagef("keygen: a PEM file holds neither -kid nor ES256's name; use -format cose")
		}
		if priv, err = x509.MarshalPKCS8PrivateKey(key); err == nil {
			priv = pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: priv})
			if pub, err = x509.MarshalPKIXPublicKey(key.Public()); err == nil {
				pub = pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: pub})
			}
		}
	default:
		return usagef("-format %s: use cose or pem", *format)
	}
	if err != nil {
		return err
	}
	if err := writeNew(*prefix+".key", priv, 0o600, *force); err != nil {
		return err
	}
	if err := writeNew(*prefix+".pub", pub, 0o644, *force); err != nil {
		return err
	}
	v := struct {
		Private   string `json:"private"`
		Public    string `json:"public"`
		Algorithm string `json:"algorithm"`
		KID       string `json:"kid"`
	}{*prefix + ".key", *prefix + ".pub", signer.Alg.String(), hex.EncodeToString(signer.KID)}
	return f.print(v, func(w io.Writer) {
		fmt.Fprintf(w, "%s: %s private key, kid %s. Keep it off every device and server.\n", v.Private, v.Algorithm, v.KID)
		fmt.Fprintf(w, "%s: public key, for the devices.\n", v.Public)
	})
}

// readSigner reads a private key: COSE_Key, or PEM (PKCS #8 or SEC 1).
func readSigner(path string) (fragment.Signer, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return fragment.Signer{}, err
	}
	fail := func(err error) (fragment.Signer, error) {
		return fragment.Signer{}, fmt.Errorf("%s: %w", path, err)
	}
	if info, err := os.Stat(path); err == nil && info.Mode().Perm()&0o077 != 0 {
		return fail(fmt.Errorf("others may read this private key; chmod 600 %s", path))
	}
	if !bytes.Contains(b, []byte("-----BEGIN")) {
		s, err := fragment.ParseSigner(b)
		if err != nil {
			return fail(err)
		}
		return s, nil
	}
	for block, rest := pem.Decode(b); block != nil; block, rest = pem.Decode(rest) {
		var key any
		switch block.Type {
		case "PRIVATE KEY":
			key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
		case "EC PRIVATE KEY":
			key, err = x509.ParseECPrivateKey(block.Bytes)
		case "ENCRYPTED PRIVATE KEY":
			return fail(fmt.Errorf("the key is encrypted; decrypt it first: openssl pkcs8 -in %s -out plain.key", path))
		case "PUBLIC KEY":
			return fail(fmt.Errorf("this is a public key; -key needs the private one"))
		default:
			continue
		}
		if err != nil {
			return fail(err)
		}
		signer, ok := key.(crypto.Signer)
		if !ok {
			return fail(fmt.Errorf("a %T cannot sign", key))
		}
		s, err := fragment.NewSigner(signer, 0, nil)
		if err != nil {
			return fail(err)
		}
		return s, nil
	}
	return fail(fmt.Errorf("no private key in this PEM file"))
}

// readPublic reads a public key, or the public part of a private one.
func readPublic(path string) (fragment.PublicKey, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return fragment.PublicKey{}, err
	}
	fail := func(err error) (fragment.PublicKey, error) {
		return fragment.PublicKey{}, fmt.Errorf("%s: %w", path, err)
	}
	if !bytes.Contains(b, []byte("-----BEGIN")) {
		k, err := fragment.ParsePublicKey(b)
		if err != nil {
			return fail(err)
		}
		return k, nil
	}
	for block, rest := pem.Decode(b); block != nil; block, rest = pem.Decode(rest) {
		var key any
		switch block.Type {
		case "PUBLIC KEY":
			key, err = x509.ParsePKIXPublicKey(block.Bytes)
		case "CERTIFICATE":
			var cert *x509.Certificate
			if cert, err = x509.ParseCertificate(block.Bytes); err == nil {
				key = cert.PublicKey
			}
		default:
			continue
		}
		if err != nil {
			return fail(err)
		}
		k, err := fragment.NewPublicKey(key, 0, nil)
		if err != nil {
			return fail(err)
		}
		return k, nil
	}
	return fail(fmt.Errorf("no public key in this PEM file; make one with: openssl pkey -in %s -pubout", path))
}

// keyFiles is a repeatable -key flag.
type keyFiles []fragment.PublicKey

func (k *keyFiles) String() string { return "" }

func (k *keyFiles) Set(path string) error {
	key, err := readPublic(path)
	if err != nil {
		return err
	}
	*k = append(*k, key)
	return nil
}

// namespaceDNS is RFC 9562 §6.6's namespace for domain names.
var namespaceDNS = [16]byte{0x6b, 0xa7, 0xb8, 0x10, 0x9d, 0xad, 0x11, 0xd1, 0x80, 0xb4, 0x00, 0xc0, 0x4f, 0xd4, 0x30, 0xc8}

// uuid reads a UUID, or makes one of a name (version 5, RFC 9562 §5.5): a
// vendor's of its domain, a class's of the vendor's UUID and the class's name,
// as SUIT does.
func uuid(flagName, s string, namespace [16]byte) (id [16]byte, err error) {
	if s == "" {
		return id, usagef("-%s is missing: a UUID or a name", flagName)
	}
	if plain := strings.ReplaceAll(s, "-", ""); len(s) == 36 && len(plain) == 32 {
		if b, err := hex.DecodeString(plain); err == nil {
			return [16]byte(b), nil
		}
	}
	h := sha1.New()
	h.Write(namespace[:])
	h.Write([]byte(s))
	copy(id[:], h.Sum(nil))
	id[6] = id[6]&0x0f | 0x50
	id[8] = id[8]&0x3f | 0x80
	return id, nil
}

func uuidText(id [16]byte) string {
	h := hex.EncodeToString(id[:])
	return strings.Join([]string{h[:8], h[8:12], h[12:16], h[16:20], h[20:]}, "-")
}

// vendorClass reads -vendor and -class.
func vendorClass(vendor, class string) (v, c [16]byte, err error) {
	if v, err = uuid("vendor", vendor, namespaceDNS); err != nil {
		return v, c, err
	}
	c, err = uuid("class", class, v)
	return v, c, err
}
