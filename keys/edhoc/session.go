package edhoc

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/oscorelay/oscorelay/oscore"
)

// received is what a message told, before it is authenticated.
type received struct {
	id  CredentialID
	ead []EAD
	cr  []byte
}

func (h *handshake) showReceived() received {
	ead := slices.Clone(h.received.ead) // the plaintext beneath will be wiped
	for i := range ead {
		ead[i].Value = bytes.Clone(ead[i].Value)
	}
	return received{h.received.idCred, ead, bytes.Clone(h.cr)}
}

// CredentialID returns ID_CRED_x, how the peer names its credential.
func (r *received) CredentialID() CredentialID { return r.id }

// EAD returns the items of the message, padding left out. The critical ones
// are among those that [Config].CriticalEAD lists; an application that cannot
// process one ends the session.
func (r *received) EAD() []EAD { return r.ead }

// ConnectionID returns C_R.
func (r *received) ConnectionID() []byte { return bytes.Clone(r.cr) }

// ErrWiped is returned by a session whose keys were wiped.
var ErrWiped = errors.New("edhoc: session was wiped")

// Session is a completed handshake: PRK_out and what it was agreed with. It is
// safe for concurrent use.
type Session struct {
	opaque
	role   Role
	method Method
	suite  *suiteParams
	peer   *Credential
	ci, cr []byte

	mu          sync.Mutex
	prkOut      *prk // nil: wiped
	prkExporter *prk
	confirmed   bool
}

func newSession(h *handshake) (*Session, error) {
	s := &Session{role: h.role, method: h.method, suite: h.suite, peer: h.peer, ci: h.ci, cr: h.cr}
	prkOut, err := h.prk4e3m.kdf(labelPRKOut, h.th4, s.suite.hash.size)
	if err != nil {
		return nil, err
	}
	return s, s.setPRKOut(prkOut)
}

// setPRKOut replaces PRK_out and PRK_exporter and wipes the old ones.
func (s *Session) setPRKOut(key []byte) error {
	prkOut := newPRK(s.suite.hash, key)
	exporter, err := prkOut.kdf(labelPRKExporter, nil, s.suite.hash.size)
	if err != nil {
		prkOut.wipe()
		return err
	}
	s.prkOut.wipe()
	s.prkExporter.wipe()
	s.prkOut, s.prkExporter = prkOut, newPRK(s.suite.hash, exporter)
	return nil
}

// Role returns which party we are.
func (s *Session) Role() Role { return s.role }

// Method returns the session's method.
func (s *Session) Method() Method { return s.method }

// Suite returns the session's cipher suite.
func (s *Session) Suite() Suite { return s.suite.suite }

// Peer returns the peer's credential, proved.
func (s *Session) Peer() *Credential { return s.peer }

// ConnectionIDs returns C_I and C_R.
func (s *Session) ConnectionIDs() (ci, cr []byte) { return bytes.Clone(s.ci), bytes.Clone(s.cr) }

// Confirmed says whether the peer is known to have the session's keys. An
// Initiator should not store them before (RFC 9528 §5.4.2).
func (s *Session) Confirmed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.confirmed
}

// Confirm records that a message under the session's keys, such as an OSCORE
// response, came from the peer and verified. message_3 and message_4 do it by
// themselves.
func (s *Session) Confirm() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.confirmed = true
}

// Exporter is EDHOC_Exporter (RFC 9528 §4.2.1): keying material for the
// application, by a registered label and a context. A pair of the two must not
// serve two purposes; labels 0 and 1 are OSCORE's.
func (s *Session) Exporter(label uint16, context []byte, length int) (oscore.Secret, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.exporter(label, context, length)
}

func (s *Session) exporter(label uint16, context []byte, length int) (oscore.Secret, error) {
	if s.prkExporter == nil {
		return nil, ErrWiped
	}
	if length < 0 || length > 255*s.suite.hash.size {
		return nil, fmt.Errorf("%w: %d bytes of keying material, at most %d", ErrConfig, length, 255*s.suite.hash.size)
	}
	return s.prkExporter.kdf(int(label), context, length)
}

// KeyUpdate is EDHOC_KeyUpdate (RFC 9528 Appendix H): both sides, with the
// same context, move on to new keys from which the old cannot be found. The
// old ones are wiped here; what was exported is the application's to delete.
func (s *Session) KeyUpdate(context []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.prkOut == nil {
		return ErrWiped
	}
	prkOut, err := s.prkOut.kdf(labelKeyUpdate, context, s.suite.hash.size)
	if err != nil {
		return err
	}
	return s.setPRKOut(prkOut)
}

// Wipe clears the session's keys. What was exported lives on.
func (s *Session) Wipe() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.prkOut.wipe()
	s.prkExporter.wipe()
	s.prkOut, s.prkExporter = nil, nil
}
