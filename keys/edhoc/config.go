package edhoc

import (
	"crypto/ecdh"
	"fmt"
	"slices"
)

// Config is what an endpoint needs for its sessions. It is read once, by
// [NewInitiator] or [NewResponder].
type Config struct {
	// Identities are one's own credentials. The first that fits a session's
	// method and suite serves it.
	Identities []Identity
	// Methods are those allowed, and an Initiator takes the first. Nil: all
	// that the identities can serve; for an Initiator with the peer's kind of
	// key taken to be the same as its own (method 0 or 3).
	Methods []Method
	// Suites are the cipher suites supported, the most preferred first. An
	// Initiator must not change the order between runs (RFC 9528 §5.2.2).
	// Nil: those of DefaultSuites that the identities can serve.
	Suites []Suite
	// CriticalEAD are the labels of EAD items that the application processes.
	// Any other critical item ends the session (RFC 9528 §3.8).
	CriticalEAD []uint16
	// Forgeries is how many messages 3 (at the Responder) or 4 (at the
	// Initiator) whose decryption fails are put aside with ErrIgnored, the
	// state waiting on, as RFC 9528 §9.7 allows: a stranger who guesses a
	// connection identifier of one byte cannot end a session with one
	// datagram. Each forgery gets one chance in 2^64 or less. 0: the first
	// failure ends the session.
	Forgeries int

	// ephemeral replaces the generation of ephemeral keys in tests of traces.
	ephemeral func(*curveParams) (*ecdh.PrivateKey, error)
	// began, if set, is called as a public-key operation begins, and what it
	// returns as it ends: benchmarks see where the time goes.
	began func() (ended func())
}

// endpoint is a checked Config.
type endpoint struct {
	Config
	role Role
}

// publicKey marks the beginning of a public-key operation; what it returns, its
// end.
func (e *endpoint) publicKey() (ended func()) {
	if e.began == nil {
		return func() {}
	}
	return e.began()
}

// generate makes a fresh ephemeral key.
func (e *endpoint) generate(c *curveParams) (*ecdh.PrivateKey, error) {
	defer e.publicKey()()
	key, err := e.ephemeral(c)
	if err != nil {
		return nil, fmt.Errorf("edhoc: ephemeral key: %w", err)
	}
	return key, nil
}

// expand is [curveParams.expand].
func (e *endpoint) expand(c *curveParams, x []byte) (*ecdh.PublicKey, error) {
	defer e.publicKey()()
	return c.expand(x)
}

// exchange is [curveParams.exchange].
func (e *endpoint) exchange(c *curveParams, priv ecdh.KeyExchanger, pub *ecdh.PublicKey) ([]byte, error) {
	defer e.publicKey()()
	return c.exchange(priv, pub)
}

func newEndpoint(cfg Config, role Role) (*endpoint, error) {
	e := &endpoint{Config: cfg, role: role}
	e.Identities = slices.Clone(cfg.Identities)
	e.Methods = slices.Clone(cfg.Methods)
	e.Suites = slices.Clone(cfg.Suites)
	e.CriticalEAD = slices.Clone(cfg.CriticalEAD)
	if e.ephemeral == nil {
		e.ephemeral = (*curveParams).generate
	}
	if len(e.Identities) == 0 {
		return nil, fmt.Errorf("%w: no identity", ErrConfig)
	}
	for i := range e.Identities {
		var err error
		if e.Identities[i], err = e.Identities[i].checked(); err != nil {
			return nil, err
		}
	}
	if e.Methods == nil {
		e.Methods = e.defaultMethods()
	}
	for _, m := range e.Methods {
		if !m.known() {
			return nil, fmt.Errorf("%w: method %d does not exist", ErrConfig, m)
		}
	}
	if err := e.checkSuites(); err != nil {
		return nil, err
	}
	return e, nil
}

func (e *endpoint) defaultMethods() []Method {
	if e.role == RoleInitiator {
		if e.Identities[0].static() {
			return []Method{StaticStatic}
		}
		return []Method{SignatureSignature}
	}
	var methods []Method
	for _, m := range []Method{SignatureSignature, SignatureStatic, StaticSignature, StaticStatic} {
		if slices.ContainsFunc(e.Identities, func(i Identity) bool { return i.static() == m.Static(e.role) }) {
			methods = append(methods, m)
		}
	}
	return methods
}

// checkSuites fills in and checks Suites: each must exist and have an identity
// with some method.
func (e *endpoint) checkSuites() error {
	serves := func(s Suite) bool {
		return slices.ContainsFunc(e.Methods, func(m Method) bool { return e.identity(m, suites[s]) != nil })
	}
	if e.Suites == nil {
		for _, s := range DefaultSuites {
			if serves(s) {
				e.Suites = append(e.Suites, s)
			}
		}
		if e.Suites == nil {
			return fmt.Errorf("%w: no identity fits any method and cipher suite", ErrConfig)
		}
		return nil
	}
	if len(e.Suites) == 0 {
		return fmt.Errorf("%w: no cipher suite", ErrConfig)
	}
	for i, s := range e.Suites {
		switch {
		case suites[s] == nil:
			return fmt.Errorf("%w: cipher suite %d is not supported (0-6 and 24 are)", ErrConfig, s)
		case slices.Contains(e.Suites[:i], s):
			return fmt.Errorf("%w: cipher suite %d twice", ErrConfig, s)
		case !serves(s):
			return fmt.Errorf("%w: no identity fits cipher suite %d with methods %v", ErrConfig, s, e.Methods)
		}
	}
	return nil
}

// identity returns the first identity that serves, nil if none does.
func (e *endpoint) identity(m Method, s *suiteParams) *Identity {
	for i := range e.Identities {
		if e.Identities[i].serves(m, e.role, s) {
			return &e.Identities[i]
		}
	}
	return nil
}
