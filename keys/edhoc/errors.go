package edhoc

import (
	"errors"
	"fmt"
	"strings"
)

// What a step of the protocol can end with. Each is wrapped with detail; test
// with errors.Is. [AppendError] makes the message for the peer out of any of
// them.
var (
	// ErrConsumed: the step was already taken from this state. A state serves
	// once, so that neither an ephemeral key nor a key and nonce come twice.
	ErrConsumed = errors.New("edhoc: this state was already used")
	// ErrConfig: the caller's own configuration does not fit together.
	ErrConfig = errors.New("edhoc: configuration")
	// ErrMalformed: a message or credential does not follow its CDDL (RFC 9528 §9.7).
	ErrMalformed = errors.New("edhoc: malformed")
	// ErrEncoding: CBOR that is not deterministically encoded (RFC 9528 §3.1).
	ErrEncoding = errors.New("edhoc: not deterministic CBOR")
	// ErrTooLong: a message beyond [MaxMessage].
	ErrTooLong = errors.New("edhoc: message too long")
	// ErrMethod: the Initiator's method is not among ours.
	ErrMethod = errors.New("edhoc: method not supported")
	// ErrWrongSuite: the selected suite is not ours, or not the first of the
	// Initiator's that is (RFC 9528 §6.3). Carried by [*SuiteError].
	ErrWrongSuite = errors.New("edhoc: wrong selected cipher suite")
	// ErrFieldLength: a cryptographic field has the wrong length (RFC 9528 §9.7).
	ErrFieldLength = errors.New("edhoc: cryptographic field has the wrong length")
	// ErrPublicKey: a public key that is no valid point (RFC 9528 §9.2).
	ErrPublicKey = errors.New("edhoc: invalid public key")
	// ErrConnectionID: an identifier that is too long for OSCORE, or C_I equal
	// to C_R (RFC 9528 §3.3.3, RFC 9668 §4).
	ErrConnectionID = errors.New("edhoc: connection identifier not usable")
	// ErrCriticalEAD: a critical EAD item that nobody here understands (RFC 9528 §3.8).
	ErrCriticalEAD = errors.New("edhoc: critical EAD item not understood")
	// ErrDecrypt: the AEAD of message_3 or message_4 does not verify.
	ErrDecrypt = errors.New("edhoc: decryption failed")
	// ErrIgnored joins ErrDecrypt when the forgery was put aside and the state
	// still waits for the genuine message (see [Config].Forgeries).
	ErrIgnored = errors.New("edhoc: message ignored, still waiting")
	// ErrAuthentication: Signature_or_MAC does not verify with any credential
	// that the identifier may mean.
	ErrAuthentication = errors.New("edhoc: authentication failed")
	// ErrReflected: the peer presented our own ephemeral key or credential.
	ErrReflected = errors.New("edhoc: own message or identity reflected")
	// ErrUnknownCredential: a reference to a credential that is not held here
	// (RFC 9528 §6.4).
	ErrUnknownCredential = errors.New("edhoc: unknown credential referenced")
	// ErrCredentialType: a kind of credential or identifier not supported here.
	ErrCredentialType = errors.New("edhoc: type of credential not supported")
	// ErrCredentialKey: the key in the credential does not fit the method and
	// the cipher suite (RFC 9528 §3.5.1).
	ErrCredentialKey = errors.New("edhoc: key of the credential does not fit method and suite")
	// ErrUntrusted: a credential that came by value and that nothing vouches for.
	ErrUntrusted = errors.New("edhoc: credential not trusted")
	// ErrExpired: a credential outside the time it is valid in.
	ErrExpired = errors.New("edhoc: credential not valid at this time")
	// ErrChangedCredential: trust on first use has seen another key under this name.
	ErrChangedCredential = errors.New("edhoc: another credential is known under this name")
	// ErrStoreFull: trust on first use has reached its bound.
	ErrStoreFull = errors.New("edhoc: no room to learn another credential")
)

// SuiteError says that message_1 selected the wrong cipher suite. SuitesR is
// what the error message tells the Initiator.
type SuiteError struct{ SuitesR []Suite }

func (e *SuiteError) Error() string {
	return fmt.Sprintf("%v (supported: %s)", ErrWrongSuite, joinSuites(e.SuitesR))
}

// Unwrap makes errors.Is(err, ErrWrongSuite) true.
func (e *SuiteError) Unwrap() error { return ErrWrongSuite }

// PeerError is an error message from the peer (RFC 9528 §6). It came
// unprotected and may be forged. It is never answered, not even when it is
// malformed or has the code 0 (§6.1).
type PeerError struct {
	Message   ErrorMessage
	Malformed error // why Message could not be read; nil if it could
}

// Unwrap returns why the message could not be read.
func (e *PeerError) Unwrap() error { return e.Malformed }

func (e *PeerError) Error() string {
	if e.Malformed != nil {
		return "edhoc: peer ended the session: " + e.Malformed.Error()
	}
	switch e.Message.Code {
	case CodeUnspecified:
		return fmt.Sprintf("edhoc: peer ended the session: %q", e.Message.Diagnostic)
	case CodeWrongSuite:
		return "edhoc: peer ended the session: wrong selected cipher suite, it supports " + joinSuites(e.Message.Suites)
	case CodeUnknownCredential:
		return "edhoc: peer ended the session: it does not know the referenced credential"
	}
	return fmt.Sprintf("edhoc: peer ended the session with error code %d", e.Message.Code)
}

func joinSuites(suites []Suite) string {
	names := make([]string, len(suites))
	for i, s := range suites {
		names[i] = fmt.Sprint(int(s))
	}
	return strings.Join(names, ", ")
}
