package edhoc

import (
	"fmt"

	"github.com/oscorelay/oscorelay/oscore"
)

// Exporter labels of OSCORE (RFC 9528 Appendix A.1).
const (
	exporterMasterSecret = 0
	exporterMasterSalt   = 1
)

// defaultSaltLength is oscore_salt_length in bytes (RFC 9528 Appendix A.1).
const defaultSaltLength = 8

// Exported is what OSCORE needs of a session, from our own point of view (RFC
// 9528 Appendix A.1). There is no ID Context.
type Exported struct {
	MasterSecret oscore.Secret
	MasterSalt   oscore.Secret
	SenderID     []byte // the identifier that the peer chose
	RecipientID  []byte // the identifier that we chose
	AEAD         int    // COSE number of the application AEAD algorithm
	Hash         int    // COSE number of the application hash: -16 SHA-256, -43 SHA-384
}

// Lengths are agreed on out of band where they differ from the defaults (RFC
// 9528 Appendix A.1).
type Lengths struct {
	Key  int  // oscore_key_length in bytes; 0: that of the AEAD's key. Never shorter.
	Salt *int // oscore_salt_length in bytes; nil: 8
}

// Exported derives the OSCORE parameters with the default lengths.
func (s *Session) Exported() (Exported, error) { return s.ExportedLengths(Lengths{}) }

// ExportedLengths derives the OSCORE parameters.
func (s *Session) ExportedLengths(l Lengths) (e Exported, err error) {
	key, salt := l.Key, defaultSaltLength
	if key == 0 {
		key = s.suite.appAEAD.key
	}
	if key < s.suite.appAEAD.key {
		return e, fmt.Errorf("%w: oscore_key_length %d, at least %d", ErrConfig, key, s.suite.appAEAD.key)
	}
	if l.Salt != nil {
		salt = *l.Salt
	}
	e = Exported{AEAD: s.suite.appAEAD.cose, Hash: s.suite.appHash.cose}
	ci, cr := s.ConnectionIDs()
	e.SenderID, e.RecipientID = cr, ci
	if s.role == RoleResponder {
		e.SenderID, e.RecipientID = ci, cr
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if e.MasterSecret, err = s.exporter(exporterMasterSecret, nil, key); err != nil {
		return Exported{}, err
	}
	if e.MasterSalt, err = s.exporter(exporterMasterSalt, nil, salt); err != nil {
		wipe(e.MasterSecret)
		return Exported{}, err
	}
	return e, nil
}

// Params returns the parameters of the OSCORE security context. They share the
// secrets' memory with e. The context's keys were never used before, so its
// sequence numbers start at 0 without taint.
func (e Exported) Params() (oscore.Params, error) {
	p := oscore.Params{
		MasterSecret: e.MasterSecret, MasterSalt: e.MasterSalt,
		SenderID: e.SenderID, RecipientID: e.RecipientID, AEAD: oscore.AEAD(e.AEAD),
	}
	switch e.Hash {
	case algSHA256:
		p.HKDF = oscore.HKDFSHA256
	case algSHA384:
		p.HKDF = oscore.HKDFSHA384
	default:
		return oscore.Params{}, fmt.Errorf("%w: hash algorithm %d makes no OSCORE HKDF", ErrConfig, e.Hash)
	}
	if err := p.Check(); err != nil {
		return oscore.Params{}, fmt.Errorf("edhoc: %w", err)
	}
	return p, nil
}

// Wipe clears the secrets.
func (e *Exported) Wipe() { wipe(e.MasterSecret, e.MasterSalt) }
