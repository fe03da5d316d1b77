package edhoc

import (
	"crypto"
	"crypto/ecdh"
	"crypto/rand"
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
	return i.static() == m.Static(r) && i.Credential.key.fits(s, i.static()) == nil
}

// signatureInput is the Sig_structure that Signature_or_MAC_x signs (RFC 9528
// §5.3.2, §5.4.2; RFC 9052 §4.4): [ "Signature1", << ID_CRED_x >>,
// << TH, CRED_x, ? EAD >>, MAC ].
func signatureInput(id CredentialID, external, mac []byte) []byte {
	b := make([]byte, 0, 32+len(id.item)+len(external)+len(mac))
	b = appendText(appendHead(b, majorArray, 4), "Signature1")
	return appendBytes(appendBytes(appendBytes(b, id.item), external), mac)
}

// sign signs the MAC with our own key.
func (h *handshake) sign(external, mac []byte) ([]byte, error) {
	signer, err := cose.NewSigner(h.suite.signature, h.identity.Signer)
	if err != nil {
		return nil, fmt.Errorf("edhoc: signing: %w", err)
	}
	input := signatureInput(h.identity.ID, external, mac)
	defer wipe(input) // the MAC within stays secret
	ended := h.publicKey()
	signature, err := signer.Sign(rand.Reader, input)
	ended()
	if err != nil {
		return nil, fmt.Errorf("edhoc: signing: %w", err)
	}
	if got, want := len(signature), h.suite.signatureSize(); got != want {
		return nil, fmt.Errorf("edhoc: signing: %w: signature of %d bytes, want %d", ErrFieldLength, got, want)
	}
	return signature, nil
}

// verifySignature verifies the peer's signature over the MAC with the key of
// the credential.
func (h *handshake) verifySignature(c *Credential, id CredentialID, external, mac, signature []byte) error {
	verifier, err := cose.NewVerifier(h.suite.signature, c.key.verifier())
	if err != nil {
		return fmt.Errorf("%w: %v", ErrCredentialKey, err)
	}
	input := signatureInput(id, external, mac)
	defer wipe(input)
	ended := h.publicKey()
	err = verifier.Verify(input, signature)
	ended()
	switch {
	case err == nil:
		return nil
	case errors.Is(err, cose.ErrVerification):
		return ErrAuthentication
	}
	return fmt.Errorf("%w: %v", ErrAuthentication, err)
}
