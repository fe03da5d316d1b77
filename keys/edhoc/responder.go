package edhoc

import (
	"bytes"
	"crypto/subtle"
	"fmt"
	"slices"
)

// Responder answers sessions. It is immutable and serves many at once.
type Responder struct {
	opaque
	e *endpoint
}

// NewResponder checks the configuration.
func NewResponder(cfg Config) (*Responder, error) {
	e, err := newEndpoint(cfg, RoleResponder)
	if err != nil {
		return nil, err
	}
	return &Responder{e: e}, nil
}

// Suites returns the cipher suites supported, the most preferred first.
func (r *Responder) Suites() []Suite { return slices.Clone(r.e.Suites) }

// Methods returns the methods allowed.
func (r *Responder) Methods() []Method { return slices.Clone(r.e.Methods) }

// Message1 reads message_1 (RFC 9528 §5.2.3). It costs no more than the
// parsing and, on P-256 and P-384, the square root that validates G_X. Nothing
// in message_1 is authenticated.
func (r *Responder) Message1(message1 []byte) (*ReceivedMessage1, error) {
	m, err := ParseMessage1(message1)
	if err != nil {
		return nil, err
	}
	h := &handshake{endpoint: r.e, method: m.Method, gx: m.GX, ci: m.CI}
	if err := h.acceptMessage1(m); err != nil {
		return nil, fmt.Errorf("message_1: %w", err)
	}
	h.hashMessage1 = h.suite.hash.sum(message1)
	next := &ReceivedMessage1{message: m}
	next.put(h)
	return next, nil
}

func (h *handshake) acceptMessage1(m *Message1) error {
	if !slices.Contains(h.Methods, m.Method) {
		return fmt.Errorf("%w: %d", ErrMethod, m.Method)
	}
	supported := func(s Suite) bool {
		return slices.Contains(h.Suites, s) && h.endpoint.identity(m.Method, suites[s]) != nil
	}
	var ours []Suite
	for _, s := range h.Suites {
		if supported(s) {
			ours = append(ours, s)
		}
	}
	if ours == nil {
		return fmt.Errorf("%w: no identity for method %d", ErrMethod, m.Method)
	}
	selected, err := acceptSuite(m.SuitesI, supported, ours)
	if err != nil {
		return err
	}
	h.suite = suites[selected]
	h.identity = h.endpoint.identity(m.Method, h.suite)
	if h.gPeer, err = h.expand(h.suite.curve, m.GX); err != nil {
		return fmt.Errorf("G_X: %w", err)
	}
	if err := h.checkIDs(); err != nil {
		return err
	}
	return checkCritical(m.EAD, h.CriticalEAD)
}

// ReceivedMessage1 is the Responder that has accepted message_1.
type ReceivedMessage1 struct {
	once
	message *Message1
}

// Message returns message_1. Nothing in it is authenticated.
func (r *ReceivedMessage1) Message() Message1 { return *r.message }

// Reply is what message_2 is made with.
type Reply struct {
	// ConnectionID is C_R: no identifier of a running session, no Recipient ID
	// of an OSCORE context of ours, and not C_I (RFC 9668 §4.1); see
	// [FreeConnectionID].
	ConnectionID []byte
	// EAD is EAD_2. Whoever sent message_1 can read it.
	EAD []EAD
}

// Message2 makes message_2 (RFC 9528 §5.3.2) with a fresh ephemeral key.
func (r *ReceivedMessage1) Message2(reply Reply) (message2 []byte, next *WaitMessage3, err error) {
	if err := checkEADs(reply.EAD); err != nil {
		return nil, nil, err
	}
	h, err := r.take()
	if err != nil {
		return nil, nil, err
	}
	if message2, err = h.writeMessage2(reply); err != nil {
		return nil, nil, h.fail(err)
	}
	next = &WaitMessage3{cr: h.cr}
	next.put(h)
	return message2, next, nil
}

func (h *handshake) writeMessage2(reply Reply) (_ []byte, err error) {
	h.cr = append([]byte{}, reply.ConnectionID...)
	if err := h.checkIDs(); err != nil {
		return nil, err
	}
	// 1. The ephemeral key; TH_2 and PRK_2e.
	if h.ephemeral, err = h.generate(h.suite.curve); err != nil {
		return nil, err
	}
	h.gy = h.suite.curve.compact(h.ephemeral.PublicKey())
	if err := h.derive2e(); err != nil {
		return nil, fmt.Errorf("message_1: G_X: %w", err)
	}
	// 2. MAC_2 and Signature_or_MAC_2.
	if h.prk3e2m, err = h.ownPRK(h.prk2e, labelSalt3e2m, h.th2); err != nil {
		return nil, err
	}
	p := plaintext{cr: h.cr, idCred: h.identity.ID, rawEAD: appendEADs(nil, reply.EAD)}
	p.sigMAC, err = h.authenticate(h.prk3e2m, &macInput{
		label: labelMAC2, cr: h.cr, id: p.idCred, th: h.th2, cred: h.identity.Credential, ead: p.rawEAD,
	})
	if err != nil {
		return nil, err
	}
	// 3. CIPHERTEXT_2.
	plain := make([]byte, 0, len(p.cr)+len(p.idCred.item)+len(p.sigMAC)+len(p.rawEAD)+8)
	plain = p.appendRest(AppendConnectionID(plain, p.cr))
	defer wipe(plain)
	stream, err := h.prk2e.keystream2(h.th2, len(plain))
	if err != nil {
		return nil, err
	}
	subtle.XORBytes(stream, stream, plain)
	// 4. TH_3, of which the parts are at hand.
	h.th3 = h.suite.hash.next(h.th2, plain, h.identity.Credential.item)
	h.prk2e.wipe()
	return message(slices.Concat(h.gy, stream))
}

// WaitMessage3 is the Responder that has sent message_2.
type WaitMessage3 struct {
	once
	cr []byte
}

// ConnectionID returns C_R, by which message_3 finds this state.
func (w *WaitMessage3) ConnectionID() []byte { return bytes.Clone(w.cr) }

// Message3 reads message_3 and decrypts it (RFC 9528 §5.4.3). What the next
// state shows comes from whoever sent message_1 and is not authenticated yet.
// An error message in its place comes back as [*PeerError]. With ErrIgnored
// the state still waits.
func (w *WaitMessage3) Message3(message3 []byte) (*ReceivedMessage3, error) {
	h, err := w.take()
	if err != nil {
		return nil, err
	}
	ciphertext, err := parseOne("message_3", message3)
	if err == nil {
		h.receivedPlain, err = h.open(h.prk3e2m, labelK3, labelIV3, h.th3, ciphertext)
	}
	if err != nil {
		return nil, h.ignore(&w.once, err)
	}
	if h.received, err = parsePlaintext3(h.receivedPlain); err == nil {
		err = h.checkReceived()
	}
	if err != nil {
		return nil, h.fail(fmt.Errorf("message_3: %w", err))
	}
	next := &ReceivedMessage3{received: h.showReceived()}
	next.put(h)
	return next, nil
}

// ReceivedMessage3 is the Responder that has read message_3 and must find out
// who sent it.
type ReceivedMessage3 struct {
	once
	received
}

// Authenticate asks trust who the Initiator may be and verifies that it is.
func (r *ReceivedMessage3) Authenticate(t Trust) (*ResponderDone, error) {
	h, err := r.take()
	if err != nil {
		return nil, err
	}
	return h.verifyMessage3(t)
}

// Verify verifies Signature_or_MAC_3 with the first of the candidates that
// proves right (RFC 9528 §5.4.3). The caller answers for each being acceptable.
func (r *ReceivedMessage3) Verify(candidates ...*Credential) (*ResponderDone, error) {
	h, err := r.take()
	if err != nil {
		return nil, err
	}
	return h.verifyMessage3(given(candidates))
}

func (h *handshake) verifyMessage3(t Trust) (*ResponderDone, error) {
	peerPRK, err := h.authenticatePeer(t, h.prk3e2m, labelSalt4e3m, macInput{
		label: labelMAC3, id: h.received.idCred, th: h.th3, ead: h.received.rawEAD,
	})
	if err != nil {
		return nil, h.fail(fmt.Errorf("message_3: %w", err))
	}
	h.prk4e3m = peerPRK
	h.th4 = h.suite.hash.next(h.th3, h.receivedPlain, h.peer.item)
	h.ephemeral = nil
	session, err := newSession(h)
	if err != nil {
		return nil, h.fail(err)
	}
	session.Confirm()
	next := &ResponderDone{session: session}
	next.put(h)
	return next, nil
}

// ResponderDone is the Responder that knows the Initiator. Its session is
// complete; message_4 may follow, and must where no protected message of the
// Responder would (RFC 9528 §5.5).
type ResponderDone struct {
	once
	session *Session
}

// Session returns the session.
func (d *ResponderDone) Session() *Session { return d.session }

// Message4 makes message_4 (RFC 9528 §5.5.2).
func (d *ResponderDone) Message4(ead ...EAD) (message4 []byte, err error) {
	if err := checkEADs(ead); err != nil {
		return nil, err
	}
	h, err := d.take()
	if err != nil {
		return nil, err
	}
	defer h.wipe()
	ciphertext, err := h.seal(h.prk4e3m, labelK4, labelIV4, h.th4, appendEADs(nil, ead))
	if err != nil {
		return nil, err
	}
	return message(ciphertext)
}
