package endpoint

import (
	"errors"
	"fmt"

	"github.com/oscorelay/oscorelay/internal/coap"
	"github.com/oscorelay/oscorelay/oscore"
)

// Reason names why a message was refused or challenged; it is a counter's
// label and a log attribute.
type Reason string

// The reasons.
const (
	ReasonDecode    Reason = "decode"
	ReasonNoContext Reason = "no_context"
	ReasonReplay    Reason = "replay"
	ReasonDecrypt   Reason = "decrypt"
	ReasonPlaintext Reason = "plaintext"
	ReasonChallenge Reason = "echo_challenge"
	ReasonLimited   Reason = "rate_limited"
	ReasonForbidden Reason = "forbidden"
	ReasonStale     Reason = "stale"
	ReasonPlain     Reason = "plain_response"
	ReasonRederived Reason = "rederived"
	// ReasonUnprotected: a request without OSCORE.
	ReasonUnprotected Reason = "unprotected_request"
	ReasonStorage     Reason = "storage"
	ReasonTainted     Reason = "tainted"
)

// Errors of this package.
var (
	// ErrNoPeer: nothing is sent to a peer that has no context: there is no
	// way to send it in plain (fail closed).
	ErrNoPeer = errors.New("endpoint: no security context for the peer, nothing was sent")
	// ErrTainted: the context's history is unknown, so nothing may be sealed
	// under it.
	ErrTainted = errors.New("endpoint: sequence number history of the security context is unknown, nothing was sent; derive a new context (Appendix B.2 or EDHOC) or provision a new key")
	// ErrEcho: the server goes on asking for an Echo that it was given.
	ErrEcho = errors.New("endpoint: server does not accept its own Echo")
	// ErrTooLarge: the body is larger than the endpoint takes.
	ErrTooLarge = errors.New("endpoint: body larger than the maximum")
	// ErrTransfer: the peer broke the rules of RFC 7959.
	ErrTransfer = errors.New("endpoint: block-wise transfer failed")
	// ErrRederive: the peer does not follow Appendix B.2.
	ErrRederive = errors.New("endpoint: context derivation (Appendix B.2) failed")
	// ErrEnded: the exchange or the observation is over.
	ErrEnded = errors.New("endpoint: exchange is over")

	errNoRandom = errors.New("endpoint: the source of randomness failed at start, no Echo value can be made")
)

// PlainError is a response that nothing protects: anybody on the path can have
// made it. It is reported, never acted upon (RFC 8613 Appendix D.5.3).
type PlainError struct {
	Code       coap.Code
	Diagnostic string // printable part of the payload, at most 100 bytes
}

func (e *PlainError) Error() string {
	s := fmt.Sprintf("endpoint: unprotected answer %v %s", e.Code, e.Code.Name())
	if e.Diagnostic != "" {
		s += fmt.Sprintf(" (%q)", e.Diagnostic)
	}
	return s
}

func newPlainError(m oscore.Message) *PlainError {
	_, payload, _ := coap.Split(m.Body)
	text := make([]byte, 0, 100)
	for _, b := range payload {
		if b < 0x20 || b > 0x7e || len(text) == cap(text) {
			break
		}
		text = append(text, b)
	}
	return &PlainError{coap.Code(m.Code), string(text)}
}

// refusal is one line of RFC 8613 §8.2's table of plain error answers.
type refusal struct {
	err        error
	reason     Reason
	code       coap.Code
	diagnostic string
	maxAge     bool
}

var refusals = []refusal{
	{oscore.ErrDecode, ReasonDecode, coap.BadOption, "Failed to decode COSE", false},
	{oscore.ErrNoContext, ReasonNoContext, coap.Unauthorized, "Security context not found", false},
	{oscore.ErrReplay, ReasonReplay, coap.Unauthorized, "Replay detected", true},
	{oscore.ErrDecrypt, ReasonDecrypt, coap.BadRequest, "Decryption failed", true},
}

// message returns the plain answer.
func (r refusal) message() oscore.Message {
	var opts coap.Options
	if r.maxAge {
		opts = opts.AddUint(coap.MaxAge, 0)
	}
	return oscore.Message{Code: byte(r.code), Body: coap.AppendBody(nil, opts, []byte(r.diagnostic))}
}
