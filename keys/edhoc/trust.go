package edhoc

// Trust decides who may be at the other end (RFC 9528 §3.5, Appendix D). A
// [Store] gives Trusts; an application may bring its own.
type Trust interface {
	// Candidates returns the credentials that id may mean and that would be
	// accepted as the peer's, the likeliest first. ead are the items of the
	// same message; nothing is verified yet. It returns ErrUnknownCredential
	// for a reference to nothing held here, ErrCredentialType for an identifier
	// it cannot use, ErrUntrusted and the like for a value it will not have.
	Candidates(peer Role, id CredentialID, ead []EAD) ([]*Credential, error)
	// Proved is told that the peer has proved to hold the key of a candidate.
	// An error ends the session.
	Proved(peer Role, c *Credential) error
}

// given is the Trust of a caller who brings the candidates and answers for them.
type given []*Credential

func (g given) Candidates(Role, CredentialID, []EAD) ([]*Credential, error) { return g, nil }
func (g given) Proved(Role, *Credential) error                              { return nil }

// authenticatePeer asks trust who the peer may be, verifies that it is, and
// returns the PRK that authenticated it.
func (h *handshake) authenticatePeer(t Trust, before *prk, saltLabel int, in macInput) (*prk, error) {
	role := h.role.peer()
	candidates, err := t.Candidates(role, h.received.idCred, h.showReceived().ead)
	if err != nil {
		return nil, err
	}
	c, peerPRK, err := h.verifyPeer(candidates, before, saltLabel, in)
	if err != nil {
		return nil, err
	}
	if err := t.Proved(role, c); err != nil {
		peerPRK.wipe()
		return nil, err
	}
	h.peer = c
	return peerPRK, nil
}
