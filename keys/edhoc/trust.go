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

// authenticatePeer runs Trust around a verification.
func authenticatePeer[T any](h *handshake, t Trust, verify func(candidates []*Credential) (T, error)) (T, error) {
	var none T
	peer := h.role.peer()
	candidates, err := t.Candidates(peer, h.received.idCred, h.showReceived().ead)
	if err != nil {
		return none, h.fail(err)
	}
	next, err := verify(candidates)
	if err != nil {
		return none, err
	}
	if err := t.Proved(peer, h.peer); err != nil {
		return none, h.fail(err)
	}
	return next, nil
}
