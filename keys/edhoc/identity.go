package edhoc

import (
	"crypto"
	"crypto/ecdh"
	"errors"
	"fmt"

	"github.com/veraison/go-cose"
)

// Identity is a credential of one's own with the private key to it. The key is
// asked to sign or to exchange and never shown, so it may live in a token:
// crypto.Signer and ecdh.KeyExchanger are what tokens' bindings offer. Exactly
// one of the two is set; one private key should not serve both (RFC 9528 §9.2).
type Identity struct {
	Credential *Credential
	// ID is how the credential is named to the peer; zero: by the kid it has
	// inside, else by value.
	ID CredentialID
	// Signer authenticates by signatures.
	Signer crypto.Signer
	// Exchanger authenticates by static Diffie-Hellman.
	Exchanger ecdh.KeyExchanger
}

// checked returns the identity with its defaults filled in, or says what does
// not fit together.
func (i Identity) checked() (Identity, error) {
	switch {
	case i.Credential == nil:
		return i, fmt.Errorf("%w: identity without credential", ErrConfig)
	case (i.Signer == nil) == (i.Exchanger == nil):
		return i, fmt.Errorf("%w: identity %s needs either a Signer or an Exchanger", ErrConfig, i.Credential)
	}
	var public crypto.PublicKey
	if i.Signer != nil {
		public = i.Signer.Public()
	} else {
		public = i.Exchanger.PublicKey()
	}
	key, err := newPublicKey(public)
	if err != nil {
		return i, fmt.Errorf("%w: identity %s: %w", ErrConfig, i.Credential, err)
	}
	mine := Credential{key: key}
	if !i.Credential.sameKey(&mine) {
		return i, fmt.Errorf("%w: private key does not belong to identity %s", ErrConfig, i.Credential)
	}
	if i.ID.empty() {
		if i.Credential.kid != nil {
			i.ID = ByKID(i.Credential.kid)
		} else if i.ID, err = ByValue(i.Credential); err != nil {
			return i, err
		}
	}
	return i, nil
}

func (i *Identity) static() bool { return i.Exchanger != nil }

// serves says whether the identity can authenticate the role.
func (i *Identity) serves(m Method, r Role, s *suiteParams) bool {
	return i.static() == m.static(r) && i.Credential.key.fits(s, i.static()) == nil
}

// sign1 makes the COSE_Sign1 of Signature_or_MAC_x (RFC 9528 §5.3.2, §5.4.2):
// protected << ID_CRED_x >>, external_aad << TH, CRED_x, ? EAD >>, payload MAC.
func sign1(id CredentialID, mac []byte) *cose.Sign1Message {
	return &cose.Sign1Message{
		Headers: cose.Headers{RawProtected: appendBytes(nil, id.item)},
		Payload: mac,
	}
}

// sign signs the MAC.
func (i *Identity) sign(s *suiteParams, external, mac []byte) ([]byte, error) {
	signer, err := cose.NewSigner(s.signature, i.Signer)
	if err != nil {
		return nil, fmt.Errorf("edhoc: signing: %w", err)
	}
	m := sign1(i.ID, mac)
	if err := m.Sign(nil, external, signer); err != nil {
		return nil, fmt.Errorf("edhoc: signing: %w", err)
	}
	if len(m.Signature) != s.signatureSize() {
		return nil, fmt.Errorf("edhoc: signing: %w: signature of %d bytes, want %d", ErrFieldLength, len(m.Signature), s.signatureSize())
	}
	return m.Signature, nil
}

// verify verifies a signature over the MAC with the key of the credential.
func (c *Credential) verify(s *suiteParams, id CredentialID, external, mac, signature []byte) error {
	verifier, err := cose.NewVerifier(s.signature, c.key.verifier())
	if err != nil {
		return fmt.Errorf("%w: %v", ErrCredentialKey, err)
	}
	m := sign1(id, mac)
	m.Signature = signature
	if err := m.Verify(external, verifier); err != nil {
		if errors.Is(err, cose.ErrVerification) {
			return ErrAuthentication
		}
		return fmt.Errorf("%w: %v", ErrAuthentication, err)
	}
	return nil
}
