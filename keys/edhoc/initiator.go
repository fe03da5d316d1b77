package edhoc

import (
	"bytes"
	"crypto/subtle"
	"errors"
	"fmt"
	"slices"
)

// Initiator starts sessions. It is immutable and serves many at once.
type Initiator struct {
	opaque
	e *endpoint
}

// NewInitiator checks the configuration.
func NewInitiator(cfg Config) (*Initiator, error) {
	e, err := newEndpoint(cfg, RoleInitiator)
	if err != nil {
		return nil, err
	}
	return &Initiator{e: e}, nil
}

// Start is what one session is started with.
type Start struct {
	// ConnectionID is C_I: no identifier of a running session and no Recipient
	// ID of an OSCORE context of ours (RFC 9668 §4.1); see [FreeConnectionID].
	ConnectionID []byte
	// PeerSuites are the cipher suites that the Responder is known to support,
	// from the SUITES_R of its error message. Nil: not known, the most
	// preferred is tried.
	PeerSuites []Suite
	// EAD is EAD_1. It travels in the clear.
	EAD []EAD
}

// Message1 makes message_1 (RFC 9528 §5.2.2) with a fresh ephemeral key.
func (i *Initiator) Message1(s Start) (message1 []byte, next *WaitMessage2, err error) {
	if err := checkEADs(s.EAD); err != nil {
		return nil, nil, err
	}
	selected, err := selectSuite(i.e.Suites, s.PeerSuites)
	if err != nil {
		return nil, nil, err
	}
	h := &handshake{endpoint: i.e, method: i.e.Methods[0], suite: suites[selected], ci: append([]byte{}, s.ConnectionID...)}
	if h.identity = i.e.identity(h.method, h.suite); h.identity == nil {
		return nil, nil, fmt.Errorf("%w: no identity fits method %d with cipher suite %d", ErrConfig, h.method, selected)
	}
	if err := h.checkIDs(); err != nil {
		return nil, nil, err
	}
	if h.ephemeral, err = h.generate(h.suite.curve); err != nil {
		return nil, nil, err
	}
	h.gx = h.suite.curve.compact(h.ephemeral.PublicKey())
	// SUITES_I: the selected one last, before it all that are preferred to it.
	m := Message1{Method: h.method, SuitesI: i.e.Suites[:slices.Index(i.e.Suites, selected)+1], GX: h.gx, CI: h.ci, EAD: s.EAD}
	message1 = m.append(make([]byte, 0, 64))
	if len(message1) > MaxMessage {
		return nil, nil, h.fail(fmt.Errorf("%w: %d bytes, at most %d", ErrTooLong, len(message1), MaxMessage))
	}
	h.hashMessage1 = h.suite.hash.sum(message1)
	next = new(WaitMessage2)
	next.put(h)
	return message1, next, nil
}

// WaitMessage2 is the Initiator that has sent message_1.
type WaitMessage2 struct {
	once
	cr []byte
}

// ConnectionID returns C_R after a Message2 that failed, as the message had it;
// nil if it could not be read, or is longer than C_R may be. It is where the
// error message goes, which the Responder is owed (RFC 9528 §5.3.3).
func (w *WaitMessage2) ConnectionID() []byte { return bytes.Clone(w.cr) }

// Message2 reads message_2 and decrypts it (RFC 9528 §5.3.3). What the next
// state shows is not authenticated yet. An error message in its place comes
// back as [*PeerError].
func (w *WaitMessage2) Message2(message2 []byte) (*ReceivedMessage2, error) {
	h, err := w.take()
	if err != nil {
		return nil, err
	}
	if err := h.readMessage2(message2); err != nil {
		if cr := h.received.cr; len(cr) <= h.suite.appAEAD.longestIdentifier {
			w.cr = bytes.Clone(cr) // before it is wiped with the plaintext
		}
		return nil, h.fail(err)
	}
	next := &ReceivedMessage2{received: h.showReceived()}
	next.put(h)
	return next, nil
}

func (h *handshake) readMessage2(message2 []byte) error {
	// 1. Decode; validate G_Y.
	gy, ciphertext, err := splitMessage2(message2, h.suite)
	if err != nil {
		return err
	}
	if bytes.Equal(gy, h.gx) {
		return fmt.Errorf("message_2: %w: G_Y is our own G_X", ErrReflected)
	}
	h.gy = gy
	if h.gPeer, err = h.expand(h.suite.curve, gy); err != nil {
		return fmt.Errorf("message_2: G_Y: %w", err)
	}
	// 2. Decrypt CIPHERTEXT_2.
	if err := h.derive2e(); err != nil {
		return fmt.Errorf("message_2: %w", err)
	}
	stream, err := h.prk2e.keystream2(h.th2, len(ciphertext))
	if err != nil {
		return err
	}
	subtle.XORBytes(stream, stream, ciphertext)
	h.receivedPlain = stream
	if h.received, err = parsePlaintext2(h.receivedPlain); err != nil {
		return fmt.Errorf("message_2: %w", err)
	}
	// 3. C_R must differ from C_I (RFC 9668 §4.1.3); lengths must be the suite's.
	h.cr = bytes.Clone(h.received.cr)
	if err := h.checkIDs(); err != nil {
		return fmt.Errorf("message_2: %w", err)
	}
	if err := h.checkReceived(); err != nil {
		return fmt.Errorf("message_2: %w", err)
	}
	return nil
}

// ReceivedMessage2 is the Initiator that has read message_2 and must find out
// who sent it.
type ReceivedMessage2 struct {
	once
	received
}

// Authenticate asks trust who the Responder may be and verifies that it is.
func (r *ReceivedMessage2) Authenticate(t Trust) (*VerifiedMessage2, error) {
	h, err := r.take()
	if err != nil {
		return nil, err
	}
	return h.verifyMessage2(t)
}

// Verify verifies Signature_or_MAC_2 with the first of the candidates that
// proves right (RFC 9528 §5.3.3). The caller answers for each being acceptable.
func (r *ReceivedMessage2) Verify(candidates ...*Credential) (*VerifiedMessage2, error) {
	h, err := r.take()
	if err != nil {
		return nil, err
	}
	return h.verifyMessage2(given(candidates))
}

func (h *handshake) verifyMessage2(t Trust) (*VerifiedMessage2, error) {
	peerPRK, err := h.authenticatePeer(t, h.prk2e, labelSalt3e2m, macInput{
		label: labelMAC2, cr: h.cr, id: h.received.idCred, th: h.th2, ead: h.received.rawEAD,
	})
	if err != nil {
		return nil, h.fail(fmt.Errorf("message_2: %w", err))
	}
	h.prk3e2m = peerPRK
	h.th3 = h.suite.hash.next(h.th2, h.receivedPlain, h.peer.item)
	h.prk2e.wipe()
	next := new(VerifiedMessage2)
	next.peer = h.peer
	next.put(h)
	return next, nil
}

// VerifiedMessage2 is the Initiator that knows the Responder.
type VerifiedMessage2 struct {
	once
	peer *Credential
}

// Peer returns the Responder's credential, proved.
func (v *VerifiedMessage2) Peer() *Credential { return v.peer }

// Message3 makes message_3 (RFC 9528 §5.4.2) and the session's keys.
func (v *VerifiedMessage2) Message3(ead ...EAD) (message3 []byte, next *InitiatorDone, err error) {
	if err := checkEADs(ead); err != nil {
		return nil, nil, err
	}
	h, err := v.take()
	if err != nil {
		return nil, nil, err
	}
	if message3, err = h.writeMessage3(ead); err != nil {
		return nil, nil, h.fail(err)
	}
	session, err := newSession(h)
	if err != nil {
		return nil, nil, h.fail(err)
	}
	next = &InitiatorDone{session: session}
	next.put(h)
	return message3, next, nil
}

func (h *handshake) writeMessage3(ead []EAD) (_ []byte, err error) {
	// 1. MAC_3 and Signature_or_MAC_3.
	if h.prk4e3m, err = h.ownPRK(h.prk3e2m, labelSalt4e3m, h.th3); err != nil {
		return nil, err
	}
	p := plaintext{idCred: h.identity.ID, rawEAD: appendEADs(nil, ead)}
	p.sigMAC, err = h.authenticate(h.prk4e3m, &macInput{
		label: labelMAC3, id: p.idCred, th: h.th3, cred: h.identity.Credential, ead: p.rawEAD,
	})
	if err != nil {
		return nil, err
	}
	// 2. CIPHERTEXT_3.
	plain := p.appendRest(make([]byte, 0, len(p.idCred.item)+len(p.sigMAC)+len(p.rawEAD)+4))
	defer wipe(plain)
	ciphertext, err := h.seal(h.prk3e2m, labelK3, labelIV3, h.th3, plain)
	if err != nil {
		return nil, err
	}
	// 3. TH_4.
	h.th4 = h.suite.hash.next(h.th3, plain, h.identity.Credential.item)
	h.ephemeral = nil
	return message(ciphertext)
}

// InitiatorDone is the Initiator that has sent message_3. Its session can be
// used; it is confirmed, and fit to be stored, once message_4 or an OSCORE
// message of the Responder has verified (RFC 9528 §5.4.2).
type InitiatorDone struct {
	once
	session *Session
}

// Session returns the session.
func (d *InitiatorDone) Session() *Session { return d.session }

// Message4 verifies message_4 (RFC 9528 §5.5.3), which confirms the session. A
// failure ends the session, its keys too, unless the error is ErrIgnored.
func (d *InitiatorDone) Message4(message4 []byte) ([]EAD, error) {
	h, err := d.take()
	if err != nil {
		return nil, err
	}
	ciphertext, err := parseOne("message_4", message4)
	var plain []byte
	if err == nil {
		plain, err = h.open(h.prk4e3m, labelK4, labelIV4, h.th4, ciphertext)
	}
	if err != nil {
		err = h.ignore(&d.once, err)
		if !errors.Is(err, ErrIgnored) {
			d.session.Wipe()
		}
		return nil, err
	}
	defer h.wipe()
	ead, err := parsePlaintext4(plain)
	if err == nil {
		err = checkCritical(ead, h.CriticalEAD)
	}
	if err != nil {
		d.session.Wipe()
		return nil, fmt.Errorf("message_4: %w", err)
	}
	d.session.Confirm()
	return ead, nil
}
