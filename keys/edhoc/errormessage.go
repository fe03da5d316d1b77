package edhoc

import (
	"errors"
	"fmt"
	"unicode/utf8"
)

// Error codes (RFC 9528 §6). 0 means success and never travels.
const (
	CodeUnspecified       = 1
	CodeWrongSuite        = 2
	CodeUnknownCredential = 3
)

// maxDiagnostic bounds the text that is kept of a peer's diagnostic message.
const maxDiagnostic = 512

// ErrorMessage is EDHOC's error message (RFC 9528 §6). Which field carries the
// ERR_INFO depends on Code; Info holds its encoding for codes unknown here.
type ErrorMessage struct {
	Code       int
	Diagnostic string  // code 1
	Suites     []Suite // code 2: SUITES_R, in no order
	Info       []byte  // other codes
}

// Append appends the message's encoding.
func (m ErrorMessage) Append(dst []byte) []byte {
	dst = appendInt(dst, m.Code)
	switch m.Code {
	case CodeUnspecified:
		return appendText(dst, m.Diagnostic)
	case CodeWrongSuite:
		return appendSuites(dst, m.Suites)
	case CodeUnknownCredential:
		return append(dst, 0xf5)
	}
	return append(dst, m.Info...)
}

// ParseErrorMessage parses an error message. Nothing in it is authenticated.
func ParseErrorMessage(data []byte) (ErrorMessage, error) {
	if len(data) > MaxMessage {
		return ErrorMessage{}, ErrTooLong
	}
	m, err := parseErrorMessage(data)
	if err != nil {
		return ErrorMessage{}, fmt.Errorf("error message: %w", err)
	}
	return m, nil
}

func parseErrorMessage(data []byte) (m ErrorMessage, err error) {
	c := cursor{data}
	if m.Code, err = c.int(); err != nil {
		return m, err
	}
	switch m.Code {
	case 0:
		return m, fmt.Errorf("%w: error code 0 never travels", ErrMalformed)
	case CodeUnspecified:
		text, err := c.text()
		if err != nil {
			return m, err
		}
		if !utf8.Valid(text) {
			return m, fmt.Errorf("%w: diagnostic is not UTF-8", ErrMalformed)
		}
		m.Diagnostic = string(text[:min(len(text), maxDiagnostic)])
	case CodeWrongSuite:
		if m.Suites, err = parseSuites(&c); err != nil {
			return m, err
		}
	case CodeUnknownCredential:
		info, err := c.item()
		if err != nil {
			return m, err
		}
		if len(info) != 1 || info[0] != 0xf5 {
			return m, fmt.Errorf("%w: error code 3 comes with true", ErrMalformed)
		}
	default:
		info, err := c.item()
		if err != nil {
			return m, err
		}
		m.Info = append([]byte(nil), info...)
	}
	if !c.empty() {
		return m, fmt.Errorf("%w: more than two items", ErrMalformed)
	}
	return m, nil
}

// isErrorMessage tells an error message from messages 2 to 4: they are one
// byte string each, an error message starts with an integer.
func isErrorMessage(data []byte) bool {
	c := cursor{data}
	major, ok := c.major()
	return ok && major <= majorNint
}

// peerError returns the error for a message that is an error message.
func peerError(data []byte) error {
	m, err := ParseErrorMessage(data)
	return &PeerError{m, err}
}

// AppendError appends the error message that tells the peer of err, or returns
// dst unchanged where the peer is told nothing: an error that came from the
// peer, a step taken twice, a forgery put aside, one's own configuration.
func AppendError(dst []byte, err error) []byte {
	var suite *SuiteError
	var peer *PeerError
	switch {
	case err == nil, errors.As(err, &peer), errors.Is(err, ErrConsumed), errors.Is(err, ErrIgnored):
		return dst
	case errors.As(err, &suite):
		return ErrorMessage{Code: CodeWrongSuite, Suites: suite.SuitesR}.Append(dst)
	case errors.Is(err, ErrUnknownCredential):
		return ErrorMessage{Code: CodeUnknownCredential}.Append(dst)
	}
	return ErrorMessage{Code: CodeUnspecified, Diagnostic: diagnostic(err)}.Append(dst)
}

// diagnostic is the text for the peer: the kind of the error alone, since the
// detail may tell of what is stored here.
func diagnostic(err error) string {
	for _, d := range diagnostics {
		if errors.Is(err, d.err) {
			return d.text
		}
	}
	return "Internal error"
}

var diagnostics = []struct {
	err  error
	text string
}{
	{ErrEncoding, "Message is not deterministic CBOR"},
	{ErrTooLong, "Message too long"},
	{ErrMethod, "Method not supported"},
	{ErrFieldLength, "Wrong length of a cryptographic field"},
	{ErrPublicKey, "Invalid public key"},
	{ErrConnectionID, "Connection identifier not usable"},
	{ErrCriticalEAD, "Critical EAD item not understood"},
	{ErrDecrypt, "Decryption failed"},
	{ErrAuthentication, "Authentication failed"},
	{ErrReflected, "Own identity or message received"},
	{ErrCredentialType, "Credential type not supported"},
	{ErrCredentialKey, "Credential does not fit method and suite"},
	{ErrExpired, "Credential not valid at this time"},
	{ErrUntrusted, "Credential not trusted"},
	{ErrChangedCredential, "Credential not trusted"},
	{ErrStoreFull, "Credential not trusted"},
	{ErrMalformed, "Malformed message"},
}
