package main

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"flag"
	"fmt"
	"path/filepath"
	"time"

	"github.com/oscorelay/oscorelay/keys/edhoc"
)

// edhocCert is the verb that makes a certificate.
func edhocCert(_ context.Context, io stdio, args []string) error {
	f := flag.NewFlagSet("edhoc cert", flag.ContinueOnError)
	f.SetOutput(io.err)
	root := f.Bool("root", false, "make a root, which NAME.key signs itself")
	issuer := f.String("issuer", "", "`NAME` of the root, or of a certificate with --ca, that issues it: NAME.key and NAME.pem")
	ca := f.Bool("ca", false, "the certificate may itself issue others")
	days := f.Int("days", 365, "how many `DAYS` it is valid from now on")
	subject := f.String("subject", "", "who the certificate says this is (default: NAME)")
	f.Usage = func() {
		fmt.Fprint(io.err, "Usage: oscore edhoc cert --root | --issuer NAME [flags] NAME\n\n"+
			"Writes NAME.pem, a certificate for the key in NAME.key: give it to 'connect' and\n'serve' with --cred NAME.pem --by-value, and the root to their peers with --roots.\n\n")
		f.PrintDefaults()
	}
	if err := parseFlags(f, args); err != nil {
		return err
	}
	switch {
	case f.NArg() != 1:
		return usagef("one NAME is needed, such as device-17: its key is in NAME.key, made by 'oscore edhoc keygen NAME'")
	case *root == (*issuer != ""):
		return usagef("who issues it? write --root for one that signs itself, or --issuer NAME")
	case *days < 1:
		return usagef("--days %d: at least 1", *days)
	}
	name := f.Arg(0)
	key, err := readPrivateKey(name + ".key")
	if err != nil {
		return err
	}
	if key.Curve() == edhoc.X25519 {
		return fmt.Errorf("%s.key: no certificates for X25519 are made here: take a key on P-256, P-384 or Ed25519", name)
	}
	if *subject == "" {
		*subject = filepath.Base(name)
	}
	public := key.Public()
	if signer, err := key.Signer(); err == nil { // crypto/x509 takes the keys of crypto/ecdsa, not of crypto/ecdh
		public = signer.Public()
	}
	now := time.Now()
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: *subject}, NotBefore: now.Add(-time.Minute), NotAfter: now.AddDate(0, 0, *days),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageKeyAgreement,
	}
	if *root || *ca {
		template.IsCA, template.BasicConstraintsValid, template.KeyUsage = true, true, x509.KeyUsageCertSign|x509.KeyUsageCRLSign
	}
	parent, chain, signer := template, []*edhoc.Credential(nil), key
	if *issuer != "" {
		if chain, err = readChain(*issuer + ".pem"); err != nil {
			return err
		}
		if parent = chain[0].Certificate(); parent == nil || !parent.IsCA {
			return fmt.Errorf("%s.pem cannot issue certificates: make it with 'oscore edhoc cert --root' or --ca", *issuer)
		}
		if signer, err = readPrivateKey(*issuer + ".key"); err != nil {
			return err
		}
		if template.NotAfter.After(parent.NotAfter) {
			template.NotAfter = parent.NotAfter
		}
	}
	var private crypto.Signer
	if private, err = signer.Signer(); err != nil {
		return err
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, private)
	if err != nil {
		return fmt.Errorf("%s.pem: %w", name, err)
	}
	var out bytes.Buffer
	blocks := [][]byte{der}
	for _, c := range chain {
		if cert := c.Certificate(); cert != nil && !bytes.Equal(cert.RawSubject, cert.RawIssuer) { // the root is at the peer
			blocks = append(blocks, cert.Raw)
		}
	}
	for _, b := range blocks {
		if err := pem.Encode(&out, &pem.Block{Type: "CERTIFICATE", Bytes: b}); err != nil {
			return err
		}
	}
	if err := writeSecret(name+".pem", out.Bytes()); err != nil {
		return err
	}
	fmt.Fprintf(io.out, "%s.pem  subject %q, valid until %s\n", name, *subject, template.NotAfter.UTC().Format(time.RFC3339))
	return nil
}
