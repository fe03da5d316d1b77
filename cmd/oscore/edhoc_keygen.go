package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"flag"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/fxamacker/cbor/v2"
	"github.com/oscorelay/oscorelay/keys/edhoc"
)

// edhocKeygen is the verb that makes a key pair.
func edhocKeygen(_ context.Context, io stdio, args []string) error {
	f := flag.NewFlagSet("edhoc keygen", flag.ContinueOnError)
	f.SetOutput(io.err)
	curve := f.String("curve", "P-256", "`CURVE`: P-256 or P-384 (static Diffie-Hellman, or signatures with --sign), X25519, Ed25519 (signatures)")
	subject := f.String("subject", "", "who the credential says this is (default: NAME)")
	kid := f.String("kid", "", "key identifier, `HEX` (default: two random bytes); the shorter, the shorter the messages")
	f.Usage = func() {
		fmt.Fprint(io.err, "Usage: oscore edhoc keygen [flags] NAME\n\nWrites NAME.key, which is secret, and NAME.cred, which peers are given.\n\n")
		f.PrintDefaults()
	}
	if err := parseFlags(f, args); err != nil {
		return err
	}
	if f.NArg() != 1 {
		return usagef("one NAME is needed, such as device-17")
	}
	name := f.Arg(0)
	c, err := edhoc.ParseCurve(*curve)
	if err != nil {
		return usagef("--curve %q: write P-256, P-384, X25519 or Ed25519", *curve)
	}
	id := make([]byte, 2)
	_, _ = rand.Read(id) // never fails (crypto/rand)
	if *kid != "" {
		if id, err = hex.DecodeString(*kid); err != nil {
			return usagef("--kid %q is no hex, such as 0a", *kid)
		}
	}
	if *subject == "" {
		*subject = filepath.Base(name)
	}
	key, err := edhoc.GenerateKey(c)
	if err != nil {
		return err
	}
	cred, err := edhoc.NewCCS(edhoc.CCSParams{Subject: *subject, KID: id, Public: key.Public()})
	if err != nil {
		return err
	}
	secret := key.Append(nil)
	err = writeSecret(name+".key", secret)
	clear(secret)
	if err != nil {
		return err
	}
	if err := writeSecret(name+".cred", []byte(hex.EncodeToString(cred.Bytes())+"\n")); err != nil {
		return err
	}
	fmt.Fprintf(io.out, "%s.key   secret: the private key (COSE_Key, %s)\n%s.cred  for peers: subject %q, kid %x\n", name, c, name, *subject, id)
	return nil
}

// edhocCred is the verb that shows credentials.
func edhocCred(_ context.Context, io stdio, args []string) error {
	f := flag.NewFlagSet("edhoc cred", flag.ContinueOnError)
	f.SetOutput(io.err)
	asJSON := f.Bool("json", false, "print one JSON line for each")
	f.Usage = func() {
		fmt.Fprint(io.err, "Usage: oscore edhoc cred [flags] FILE...\n\nShows credentials: NAME.cred, CWT claims sets, certificates.\n\n")
		f.PrintDefaults()
	}
	if err := parseFlags(f, args); err != nil {
		return err
	}
	if f.NArg() == 0 {
		return usagef("which credential? give FILE, such as device-17.cred")
	}
	for _, file := range f.Args() {
		if strings.HasSuffix(file, ".key") {
			return fmt.Errorf("%s is a private key; its credential is %s", file, strings.TrimSuffix(file, ".key")+".cred")
		}
		c, err := readCredential(file)
		if err != nil {
			return err
		}
		sum := c.Fingerprint()
		diagnostic := ""
		if c.Type() != edhoc.TypeCertificate {
			if diagnostic, err = cbor.Diagnose(c.Bytes()); err != nil {
				return fmt.Errorf("%s: %w", file, err)
			}
		}
		if *asJSON {
			if err := printJSON(io.out, map[string]string{
				"file": file, "type": c.Type().String(), "subject": c.Subject(), "kid": hex.EncodeToString(c.KID()),
				"hex": hex.EncodeToString(c.Bytes()), "diagnostic": diagnostic, "sha256": hex.EncodeToString(sum[:]),
			}); err != nil {
				return err
			}
			continue
		}
		fmt.Fprintf(io.out, "%s\n  type         %s\n  subject      %s\n  kid          %x\n  SHA-256      %x\n  hex          %x\n", file, c.Type(), c.Subject(), c.KID(), sum, c.Bytes())
		if diagnostic != "" {
			fmt.Fprintf(io.out, "  diagnostic   %s\n", diagnostic)
		}
	}
	return nil
}

// edhocDecode is the verb that explains a captured handshake.
func edhocDecode(_ context.Context, io stdio, args []string) error {
	f := flag.NewFlagSet("edhoc decode", flag.ContinueOnError)
	f.SetOutput(io.err)
	f.Usage = func() {
		fmt.Fprint(io.err, "Usage: oscore edhoc decode HEX|FILE|-...\n\n"+
			"Explains the messages of one handshake in their order: EDHOC messages, with or\nwithout what CoAP clients put in front. What is encrypted stays so: it takes\nephemeral keys, which nobody keeps.\n")
	}
	if err := parseFlags(f, args); err != nil {
		return err
	}
	messages, err := readCaptured(io.in, f.Args())
	if err != nil {
		return err
	}
	var x edhoc.Explainer
	for i, m := range messages {
		e, err := x.Next(m)
		if err != nil {
			return fmt.Errorf("message %d (%s): %w", i+1, shorten(hex.EncodeToString(m)), err)
		}
		fmt.Fprint(io.out, e)
	}
	return nil
}
