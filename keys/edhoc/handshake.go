package edhoc

import (
	"bytes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/subtle"
	"fmt"
	"sync/atomic"
)

// handshake is what a session knows between its steps. It belongs to exactly
// one state at a time and moves on with each step.
type handshake struct {
	*endpoint
	method   Method
	suite    *suiteParams
	identity *Identity
	peer     *Credential

	ephemeral *ecdh.PrivateKey
	gPeer     *ecdh.PublicKey // the peer's ephemeral key
	gx, gy    []byte
	ci, cr    []byte

	hashMessage1            []byte
	th2, th3, th4           []byte
	prk2e, prk3e2m, prk4e3m *prk

	received      plaintext // of message_2 or message_3
	receivedPlain []byte    // its encoding
	forgeries     int
}

// once holds a handshake for the one step that may take it.
type once struct {
	opaque
	p atomic.Pointer[handshake]
}

func (o *once) put(h *handshake) { o.p.Store(h) }

// take hands the handshake out, to the first that asks.
func (o *once) take() (*handshake, error) {
	if h := o.p.Swap(nil); h != nil {
		return h, nil
	}
	return nil, ErrConsumed
}

// Abort ends the session and wipes what it holds. After the step was taken it
// does nothing.
func (o *once) Abort() {
	if h := o.p.Swap(nil); h != nil {
		h.wipe()
	}
}

// wipe clears the secrets; the ephemeral private key, whose bytes crypto/ecdh
// does not give out, is let go of.
func (h *handshake) wipe() {
	h.prk2e.wipe()
	h.prk3e2m.wipe()
	h.prk4e3m.wipe()
	wipe(h.receivedPlain)
	h.ephemeral = nil
}

// fail wipes the handshake and passes the error on.
func (h *handshake) fail(err error) error {
	h.wipe()
	return err
}

// sharedPRK mixes an ECDH shared secret into a PRK with EDHOC_Extract and
// wipes it.
func (h *handshake) sharedPRK(salt []byte, priv ecdh.KeyExchanger, pub *ecdh.PublicKey) (*prk, error) {
	secret, err := h.exchange(h.suite.curve, priv, pub)
	if err != nil {
		return nil, err
	}
	defer wipe(secret)
	return h.suite.hash.extract(salt, secret)
}

// derive2e computes TH_2 and PRK_2e (RFC 9528 §4.1.1.1).
func (h *handshake) derive2e() (err error) {
	h.th2 = h.suite.hash.th2(h.gy, h.hashMessage1)
	h.prk2e, err = h.sharedPRK(h.th2, h.ephemeral, h.gPeer)
	return err
}

// staticPRK is the rule of PRK_3e2m and PRK_4e3m alike (RFC 9528 §4.1.1.2,
// §4.1.1.3): the salt is derived from the PRK before it, and the shared secret
// is that of the party's static and the other's ephemeral key, whichever of
// the two halves is ours.
func (h *handshake) staticPRK(before *prk, saltLabel int, th []byte, priv ecdh.KeyExchanger, pub *ecdh.PublicKey) (*prk, error) {
	salt, err := before.kdf(saltLabel, th, h.suite.hash.size)
	if err != nil {
		return nil, err
	}
	defer wipe(salt)
	return h.sharedPRK(salt, priv, pub)
}

// ownPRK is the PRK that authenticates our own message.
func (h *handshake) ownPRK(before *prk, saltLabel int, th []byte) (*prk, error) {
	if !h.method.Static(h.role) {
		return before.clone(), nil
	}
	return h.staticPRK(before, saltLabel, th, h.identity.Exchanger, h.gPeer)
}

// peerPRK is the PRK that authenticates the peer's message, if the peer is c.
func (h *handshake) peerPRK(c *Credential, before *prk, saltLabel int, th []byte) (*prk, error) {
	if !h.method.Static(h.role.peer()) {
		return before.clone(), nil
	}
	return h.staticPRK(before, saltLabel, th, h.ephemeral, c.key.ecdh)
}

// macLength is that of MAC_2 or MAC_3: the suite's for a static key, the
// hash's for a signature (RFC 9528 §5.3.2).
func (h *handshake) macLength(r Role) int {
	if h.method.Static(r) {
		return h.suite.macLength
	}
	return h.suite.hash.size
}

// macInput is what a MAC is over: of MAC_2 the C_R too.
type macInput struct {
	label int
	cr    []byte // nil for MAC_3
	id    CredentialID
	th    []byte
	cred  *Credential
	ead   []byte // EAD_x as it travels, padding too
}

// encode returns context_2 = << C_R, ID_CRED_R, TH_2, CRED_R, ? EAD_2 >> or
// context_3 = << ID_CRED_I, TH_3, CRED_I, ? EAD_3 >>, without the wrapping, and
// what signatures are over besides: << TH, CRED_x, ? EAD_x >>, its end.
func (m *macInput) encode() (context, external []byte) {
	b := make([]byte, 0, len(m.cr)+len(m.id.item)+len(m.th)+len(m.cred.item)+len(m.ead)+8)
	if m.cr != nil {
		b = AppendConnectionID(b, m.cr)
	}
	b = append(b, m.id.item...)
	n := len(b)
	b = append(append(appendBytes(b, m.th), m.cred.item...), m.ead...)
	return b, b[n:]
}

// authenticate computes Signature_or_MAC_x for our own message.
func (h *handshake) authenticate(p *prk, in *macInput) ([]byte, error) {
	context, external := in.encode()
	mac, err := p.kdf(in.label, context, h.macLength(h.role))
	if err != nil {
		return nil, err
	}
	if h.method.Static(h.role) {
		return mac, nil
	}
	defer wipe(mac)
	return h.sign(external, mac)
}

// maxCandidates bounds the credentials tried for one identifier; each may cost
// a public-key operation.
const maxCandidates = 8

// verifyPeer finds the candidate that Signature_or_MAC_x proves and returns it
// with the PRK that authenticated it.
func (h *handshake) verifyPeer(candidates []*Credential, before *prk, saltLabel int, in macInput) (*Credential, *prk, error) {
	if len(candidates) > maxCandidates {
		return nil, nil, fmt.Errorf("%w: %d credentials for one identifier, at most %d are tried", ErrConfig, len(candidates), maxCandidates)
	}
	err := error(ErrUnknownCredential)
	for _, c := range candidates {
		if c == nil {
			continue
		}
		var peerPRK *prk
		in.cred = c
		if peerPRK, err = h.verifyAs(c, before, saltLabel, &in); err == nil {
			return c, peerPRK, nil
		}
	}
	return nil, nil, err
}

func (h *handshake) verifyAs(c *Credential, before *prk, saltLabel int, in *macInput) (_ *prk, err error) {
	static := h.method.Static(h.role.peer())
	if err := c.key.fits(h.suite, static); err != nil {
		return nil, err
	}
	// A party must not accept its own identity as the peer's (RFC 9528 §9.2).
	for i := range h.Identities {
		if h.Identities[i].Credential.sameKey(c) {
			return nil, fmt.Errorf("%w: peer uses our own key", ErrReflected)
		}
	}
	peerPRK, err := h.peerPRK(c, before, saltLabel, in.th)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			peerPRK.wipe()
		}
	}()
	context, external := in.encode()
	mac, err := peerPRK.kdf(in.label, context, h.macLength(h.role.peer()))
	if err != nil {
		return nil, err
	}
	defer wipe(mac)
	if static {
		if subtle.ConstantTimeCompare(mac, h.received.sigMAC) != 1 {
			return nil, ErrAuthentication
		}
		return peerPRK, nil
	}
	return peerPRK, h.verifySignature(c, in.id, external, mac, h.received.sigMAC)
}

// checkReceived judges the plaintext of message_2 or message_3 before it is
// shown to the application.
func (h *handshake) checkReceived() error {
	want := h.suite.signatureSize()
	if h.method.Static(h.role.peer()) {
		want = h.suite.macLength
	}
	if got := len(h.received.sigMAC); got != want {
		return fmt.Errorf("%w: Signature_or_MAC of %d bytes, want %d", ErrFieldLength, got, want)
	}
	return checkCritical(h.received.ead, h.CriticalEAD)
}

// checkIDs holds the connection identifiers to OSCORE's rules (RFC 9528
// §3.3.3, RFC 8613 §3.3, RFC 9668 §4.1).
func (h *handshake) checkIDs() error {
	most := h.suite.appAEAD.longestIdentifier
	for _, id := range [][]byte{h.ci, h.cr} {
		if len(id) > most {
			return fmt.Errorf("%w: %d bytes, OSCORE with suite %d takes at most %d", ErrConnectionID, len(id), h.suite.suite, most)
		}
	}
	if h.cr != nil && bytes.Equal(h.ci, h.cr) {
		return fmt.Errorf("%w: C_I and C_R are equal", ErrConnectionID)
	}
	return nil
}

// encrypt0 returns the AEAD and the nonce of message_3 or message_4, derived
// from the PRK with the labels of its K and IV (RFC 9528 §5.4.2, §5.5.2). A
// handshake seals once with each pair: the states see to it.
func (h *handshake) encrypt0(p *prk, labelKey, labelIV int, th []byte) (cipher.AEAD, []byte, error) {
	key, err := p.kdf(labelKey, th, h.suite.aead.key)
	if err != nil {
		return nil, nil, err
	}
	defer wipe(key)
	iv, err := p.kdf(labelIV, th, h.suite.aead.nonce)
	if err != nil {
		return nil, nil, err
	}
	aead, err := h.suite.aead.newAEAD(key)
	if err != nil {
		return nil, nil, fmt.Errorf("edhoc: AEAD: %w", err)
	}
	return aead, iv, nil
}

// seal makes CIPHERTEXT_3 or CIPHERTEXT_4.
func (h *handshake) seal(p *prk, labelKey, labelIV int, th, plain []byte) ([]byte, error) {
	aead, iv, err := h.encrypt0(p, labelKey, labelIV, th)
	if err != nil {
		return nil, err
	}
	return aead.Seal(nil, iv, plain, encStructure(th)), nil
}

// open opens CIPHERTEXT_3 or CIPHERTEXT_4.
func (h *handshake) open(p *prk, labelKey, labelIV int, th, ciphertext []byte) ([]byte, error) {
	aead, iv, err := h.encrypt0(p, labelKey, labelIV, th)
	if err != nil {
		return nil, err
	}
	plain, err := aead.Open(nil, iv, ciphertext, encStructure(th))
	if err != nil {
		return nil, ErrDecrypt
	}
	return plain, nil
}

// encStructure is A_x = [ "Encrypt0", protected, TH ] with an empty protected
// header (RFC 9528 Appendix C.3).
func encStructure(th []byte) []byte {
	b := appendText(appendHead(make([]byte, 0, 16+len(th)), majorArray, 3), "Encrypt0")
	return appendBytes(appendBytes(b, nil), th)
}

// message wraps what messages 2 to 4 consist of.
func message(content []byte) ([]byte, error) {
	m := appendBytes(make([]byte, 0, len(content)+3), content)
	if len(m) > MaxMessage {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", ErrTooLong, len(m), MaxMessage)
	}
	return m, nil
}

// ignore decides over a message that is not the genuine one: it puts the
// handshake back to wait on while [Config].Forgeries allows, else it ends it.
func (h *handshake) ignore(o *once, err error) error {
	if h.forgeries >= h.Forgeries {
		return h.fail(err)
	}
	h.forgeries++
	o.put(h)
	return fmt.Errorf("%w: %w", ErrIgnored, err)
}
