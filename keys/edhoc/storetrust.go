package edhoc

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
)

// Expect returns a Trust that takes nobody but the peer called name. It is for
// whoever sets out to reach one peer: that some other peer is trusted, too,
// must not let it answer instead (RFC 9528 Appendix D.2).
func (s *Store) Expect(name string) Trust { return view{s, name} }

// Anyone returns a Trust that takes every peer that the store trusts; who it
// was is told by [Store.Name]. It is for servers.
func (s *Store) Anyone() Trust { return view{s, ""} }

// view is the store, seen by one who expects name; empty: anyone.
type view struct {
	*Store
	name string
}

// Candidates implements [Trust].
func (v view) Candidates(_ Role, id CredentialID, _ []EAD) ([]*Credential, error) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	found, err := v.candidates(id)
	if err != nil {
		return nil, err
	}
	// Of several header parameters, all must be right of the credential.
	found = slices.DeleteFunc(found, func(c *Credential) bool { return !v.named(id, c) })
	if len(found) == 0 {
		return nil, fmt.Errorf("%w: %s", ErrUnknownCredential, id)
	}
	valid := found[:0]
	for _, c := range found {
		if err = c.validAt(v.cfg.Now()); err == nil {
			valid = append(valid, c)
		}
	}
	if len(valid) == 0 {
		return nil, err
	}
	return valid[:min(len(valid), maxCandidates)], nil
}

// candidates goes by the strongest parameter: a value, then a hash, then a kid.
func (v view) candidates(id CredentialID) ([]*Credential, error) {
	switch {
	case id.X5Chain != nil:
		return v.byChain(id.X5Chain)
	case id.KCWT != nil:
		c, err := ParseCWT(id.KCWT)
		if err != nil {
			return nil, err
		}
		return v.byValue(c, func() error {
			if err := c.issuedBy(v.cfg.Issuers, v.cfg.Now()); err != nil {
				return err
			}
			if v.name != "" && v.name != c.subject {
				return fmt.Errorf("%w: %s is not %q", ErrUntrusted, c, v.name)
			}
			return nil
		})
	case id.KCCS != nil:
		c, err := ParseCCS(id.KCCS)
		if err != nil {
			return nil, err
		}
		return v.byValue(c, func() error { return fmt.Errorf("%w: %s is not pinned", errNobodyVouches, c) })
	case id.X5T.Algorithm != 0:
		return v.byCertHash(id.X5T)
	case id.KID != nil:
		return v.entries(v.byKID[string(id.KID)]), nil
	}
	return nil, fmt.Errorf("%w: %s", ErrCredentialType, id)
}

// named says whether the references in id are right of a credential.
func (v view) named(id CredentialID, c *Credential) bool {
	if id.X5T.Algorithm != 0 && (c.cert == nil || !id.X5T.matches(c.cert.Raw)) {
		return false
	}
	if id.KID == nil {
		return true
	}
	if e := v.byItem[c.Fingerprint()]; e != nil {
		return e.kids()[string(id.KID)]
	}
	return c.kid == nil || bytes.Equal(c.kid, id.KID)
}

// entries returns the credentials of those entries that go by the name, the
// pinned ones first: learned ones must not crowd them out of what is tried.
func (v view) entries(list []*Entry) []*Credential {
	var pinned, learned []*Credential
	for _, e := range list {
		switch {
		case v.name != "" && e.Name != v.name:
		case e.FirstUse:
			learned = append(learned, e.Credential)
		default:
			pinned = append(pinned, e.Credential)
		}
	}
	return append(pinned, learned...)
}

// byValue takes a credential that is pinned or learned, or that vouched
// accepts, or that is the first of its name.
func (v view) byValue(c *Credential, vouched func() error) ([]*Credential, error) {
	if e := v.byItem[c.Fingerprint()]; e != nil {
		if v.name != "" && e.Name != v.name {
			return nil, fmt.Errorf("%w: %s is %q here, not %q", ErrUntrusted, c, e.Name, v.name)
		}
		return []*Credential{e.Credential}, nil
	}
	err := vouched()
	if errors.Is(err, errNobodyVouches) && v.tofu {
		c.firstUse = true
		err = v.checkFirstUse(c)
	}
	if err != nil {
		return nil, err
	}
	return []*Credential{c}, nil
}

// errNobodyVouches is the one failure that trust on first use makes good: a
// raw key or a certificate of unknown origin. What is expired, revoked,
// misnamed or a CWT without its issuer's signature stays refused.
var errNobodyVouches = fmt.Errorf("%w: nobody vouches for it", ErrUntrusted)

// checkFirstUse refuses a credential under a name that has another already.
func (v view) checkFirstUse(c *Credential) error {
	name := v.learnAs(c)
	if len(v.byName[name]) > 0 {
		return fmt.Errorf("%w: %q presents %s", ErrChangedCredential, name, c)
	}
	if v.learned >= v.cfg.MaxLearned {
		return fmt.Errorf("%w: %d are known", ErrStoreFull, v.learned)
	}
	return nil
}

func (v view) learnAs(c *Credential) string {
	if v.name != "" {
		return v.name
	}
	return nameOf(c)
}

func (v view) byChain(chain [][]byte) ([]*Credential, error) {
	leaf, err := ParseCertificate(chain[0])
	if err != nil {
		return nil, err
	}
	pool := v.intermediates()
	for _, der := range chain[1:] {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("x5chain: %w: %v", ErrMalformed, err)
		}
		pool.AddCert(c)
	}
	return v.byValue(leaf, func() error { return v.verifyChain(leaf.cert, pool) })
}

// byCertHash looks among pinned certificates, then among those added.
func (v view) byCertHash(h CertHash) ([]*Credential, error) {
	switch h.Algorithm {
	case algSHA256_64, algSHA256, algSHA384, algSHA512:
	default:
		return nil, fmt.Errorf("%w: x5t with hash algorithm %d", ErrCredentialType, h.Algorithm)
	}
	if len(h.Hash) < 8 {
		return nil, fmt.Errorf("%w: x5t of %d bytes", ErrFieldLength, len(h.Hash))
	}
	key := [8]byte(h.Hash[:8])
	if found := v.entries(v.byHash[key]); len(found) > 0 {
		return found, nil
	}
	var found []*Credential
	var err error
	for _, c := range v.known[key] {
		if err = v.verifyChain(c.cert, v.intermediates()); err == nil {
			found = append(found, c)
		}
	}
	if found == nil && err != nil {
		return nil, err
	}
	return found, nil
}

func (v view) intermediates() *x509.CertPool {
	pool := x509.NewCertPool()
	for _, c := range v.inters {
		pool.AddCert(c)
	}
	return pool
}

// verifyChain validates the path to a root (RFC 5280 §6) and then its name.
func (v view) verifyChain(leaf *x509.Certificate, intermediates *x509.CertPool) error {
	if v.cfg.Roots == nil {
		return fmt.Errorf("%w: certificate of %q is not pinned and there are no roots", errNobodyVouches, leaf.Subject.CommonName)
	}
	chains, err := leaf.Verify(x509.VerifyOptions{
		Roots: v.cfg.Roots, Intermediates: intermediates, CurrentTime: v.cfg.Now(),
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	if err != nil {
		kind := ErrUntrusted
		var invalid x509.CertificateInvalidError
		var unknown x509.UnknownAuthorityError
		switch {
		case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
			kind = ErrExpired
		case errors.As(err, &unknown):
			kind = errNobodyVouches
		}
		return fmt.Errorf("%w: certificate of %q: %v", kind, leaf.Subject.CommonName, err)
	}
	for _, chain := range chains {
		if err = v.judge(chain); err == nil {
			return nil
		}
	}
	return err
}

func (v view) judge(chain []*x509.Certificate) error {
	leaf := chain[0]
	if v.cfg.VerifyChain != nil {
		if err := v.cfg.VerifyChain(v.name, chain); err != nil {
			return fmt.Errorf("%w: certificate of %q: %w", ErrUntrusted, leaf.Subject.CommonName, err)
		}
		return nil
	}
	if v.name == "" || v.name == leaf.Subject.CommonName ||
		slices.Contains(leaf.DNSNames, v.name) || slices.Contains(leaf.EmailAddresses, v.name) {
		return nil
	}
	for _, ip := range leaf.IPAddresses {
		if ip.String() == v.name {
			return nil
		}
	}
	for _, uri := range leaf.URIs {
		if uri.String() == v.name {
			return nil
		}
	}
	return fmt.Errorf("%w: certificate of %q does not name %q", ErrUntrusted, leaf.Subject.CommonName, v.name)
}

// Proved implements [Trust]: the first use of a credential is remembered now
// that its owner has proved to hold the key.
func (v view) Proved(_ Role, c *Credential) error {
	if !c.firstUse {
		return nil
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	// Since Candidates another session may have come first, or the switch
	// been turned.
	name := v.learnAs(c)
	if e := v.byItem[c.Fingerprint()]; e != nil && e.Name == name {
		return nil
	}
	if !v.tofu {
		return fmt.Errorf("%w: %s", ErrUntrusted, c)
	}
	if err := v.checkFirstUse(c); err != nil {
		return err
	}
	e := &Entry{Name: name, Credential: c, FirstUse: true}
	if v.cfg.OnLearn != nil {
		if err := v.cfg.OnLearn(e.clone()); err != nil {
			return fmt.Errorf("%w: %s not remembered: %w", ErrUntrusted, c, err)
		}
	}
	v.add(e)
	return nil
}
