package main

import (
	"context"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/oscorelay/oscorelay/keys/edhoc"
)

const edhocUsage = `Usage: oscore edhoc <verb> [flags] [arguments]

  keygen NAME       make a key pair: NAME.key is secret, NAME.cred is for peers
  cert NAME         make a certificate for NAME.key: a root, or issued by one
  cred FILE...      show credentials: kind, subject, kid, hex, diagnostic notation
  connect URI       shake hands, read a resource, keep the context in the key directory
  serve             serve demonstration resources to whoever shakes hands and is trusted
  decode HEX...     explain the messages of a captured handshake

'oscore edhoc <verb> -h' shows a verb's flags.
`

var edhocVerbs = map[string]func(context.Context, stdio, []string) error{
	"keygen": edhocKeygen, "cert": edhocCert, "cred": edhocCred, "connect": edhocConnect, "serve": edhocServe, "decode": edhocDecode,
}

func runEDHOC(ctx context.Context, io stdio, args []string) error {
	if len(args) == 0 {
		return usagef("a verb is missing: keygen, cert, cred, connect, serve, decode")
	}
	if args[0] == "-h" || args[0] == "--help" || args[0] == "help" {
		fmt.Fprint(io.out, edhocUsage)
		return nil
	}
	verb, ok := edhocVerbs[args[0]]
	if !ok {
		return usagef("unknown verb %q: keygen, cert, cred, connect, serve, decode", args[0])
	}
	return verb(ctx, io, args[1:])
}

// partyFlags say who one is and whom one trusts.
type partyFlags struct {
	key, cred, roots string
	firstUse         string
	trust            []string
	byValue, sign    bool
	reverse, fourth  bool
	method           int
}

func (p *partyFlags) register(f *flag.FlagSet) {
	f.StringVar(&p.key, "key", "", "one's own private key, a COSE_Key `FILE` as keygen writes it")
	f.StringVar(&p.cred, "cred", "", "one's own credential, `FILE` (default: the key's name with .cred); a certificate may have those after it\nthat lead to a root")
	f.Func("trust", "trust the credential in `[NAME=]FILE`; may be repeated", func(s string) error {
		p.trust = append(p.trust, s)
		return nil
	})
	f.StringVar(&p.roots, "roots", "", "trust certificates whose chains lead to those in PEM `FILE`; the peer sends its own by --by-value")
	f.StringVar(&p.firstUse, "trust-on-first-use", "", "trust the first credential that comes under a name (sent by --by-value), remember it in `FILE`,\n"+
		"and take no other under that name; whoever is on the path at the first use can pass for the peer")
	f.BoolVar(&p.byValue, "by-value", false, "send the credential itself, not its kid or hash")
	f.BoolVar(&p.sign, "sign", false, "authenticate by signatures with a P-256 or P-384 key (Ed25519 keys always do, X25519 keys never)")
	f.IntVar(&p.method, "method", -1, "the one `METHOD` to use, 0 to 3: who signs and who has a static key (default: what the key serves;\nconnect takes the peer to have a key of the same kind)")
	f.BoolVar(&p.reverse, "reverse", false, "reverse flow: the server is the Initiator")
	f.BoolVar(&p.fourth, "message4", false, "the handshake ends with message_4")
}

// identity reads one's own key and credential.
func (p *partyFlags) identity() (edhoc.Identity, error) {
	if p.key == "" {
		return edhoc.Identity{}, usagef("--key is missing: make one with 'oscore edhoc keygen NAME', which writes NAME.key")
	}
	key, err := readPrivateKey(p.key)
	if err != nil {
		return edhoc.Identity{}, err
	}
	file := p.cred
	if file == "" {
		file = strings.TrimSuffix(p.key, filepath.Ext(p.key)) + ".cred"
	}
	id := edhoc.Identity{}
	chain, err := readChain(file)
	if err != nil {
		if p.cred == "" && errors.Is(err, os.ErrNotExist) {
			return id, fmt.Errorf("%s: there is no credential beside the key: name it with --cred FILE", file)
		}
		return id, err
	}
	id.Credential = chain[0]
	if p.sign || key.Curve() == edhoc.Ed25519 {
		id.Signer, err = key.Signer()
	} else {
		id.Exchanger, err = key.Exchanger()
	}
	if err != nil {
		return id, fmt.Errorf("%s: %w", p.key, err)
	}
	switch {
	case p.byValue:
		id.ID, err = edhoc.ByValue(id.Credential, chain[1:]...)
	case id.Credential.Type() == edhoc.TypeCertificate:
		id.ID, err = edhoc.ByHash(id.Credential)
	}
	if err != nil {
		return id, fmt.Errorf("%s: %w", file, err)
	}
	return id, nil
}

// edhocConfig reads identity and trust, and checks that the key is the
// credential's and fits the method; serves tells a CoAP server.
func (p *partyFlags) edhocConfig(serves bool) (edhoc.Config, *edhoc.Store, []string, error) {
	id, err := p.identity()
	if err != nil {
		return edhoc.Config{}, nil, nil, err
	}
	cfg := edhoc.Config{Identities: []edhoc.Identity{id}}
	if _, err := edhoc.NewResponder(cfg); err != nil {
		return cfg, nil, nil, fmt.Errorf("%s: %w", p.key, err)
	}
	if p.method >= 0 {
		cfg.Methods = []edhoc.Method{edhoc.Method(p.method)}
		_, asInitiator := edhoc.NewInitiator(cfg)
		_, asResponder := edhoc.NewResponder(cfg)
		role, err := edhoc.RoleInitiator, asInitiator
		if serves != p.reverse {
			role, err = edhoc.RoleResponder, asResponder
		}
		if err != nil {
			return cfg, nil, nil, fmt.Errorf("--method %d: %s cannot serve the %s: in methods 0 and 1 the Initiator signs, in 0 and 2 the Responder; --sign makes a P-256 or P-384 key sign.\n  (%w)", p.method, p.key, role, err)
		}
	}
	store, names, err := p.store()
	return cfg, store, names, err
}

func readPrivateKey(file string) (*edhoc.PrivateKey, error) {
	info, err := os.Stat(file)
	if err != nil {
		return nil, err
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("%s can be read by others (mode %04o): chmod 600 %s", file, info.Mode().Perm(), file)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	if block, _ := pem.Decode(b); block != nil {
		k, err := x509.ParsePKCS8PrivateKey(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%s: a PEM file that is no PKCS #8 private key: convert it with 'openssl pkcs8 -topk8 -nocrypt'", file)
		}
		key, err := edhoc.NewPrivateKey(k)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		return key, nil
	}
	key, err := edhoc.ParsePrivateKey(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w; a key is made by 'oscore edhoc keygen'", file, err)
	}
	return key, nil
}

// readCredential reads a CCS in hex or binary, or a certificate in PEM or DER.
func readCredential(file string) (*edhoc.Credential, error) {
	chain, err := readChain(file)
	if err != nil {
		return nil, err
	}
	return chain[0], nil
}

// readChain reads a credential, and the further certificates of a PEM file.
func readChain(file string) (chain []*edhoc.Credential, err error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	parts := [][]byte{b}
	if block, rest := pem.Decode(b); block != nil {
		for parts = nil; block != nil; block, rest = pem.Decode(rest) {
			parts = append(parts, block.Bytes)
		}
	} else if raw, err := hex.DecodeString(strings.TrimSpace(string(b))); err == nil && len(raw) > 0 {
		parts[0] = raw
	}
	for _, part := range parts {
		var c *edhoc.Credential
		if len(part) > 0 && part[0] == 0x30 {
			c, err = edhoc.ParseCertificate(part)
		} else {
			c, err = edhoc.ParseCCS(part)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w; a credential is a NAME.cred of 'oscore edhoc keygen', a CWT claims set, or a certificate", file, err)
		}
		chain = append(chain, c)
	}
	return chain, nil
}
