package oscore

import (
	"errors"
	"fmt"
)

// Outcomes that RFC 8613 §7.4 and §8.2 name. A server that answers at all
// answers them in plain: ErrDecode 4.02, ErrNoContext and ErrReplay 4.01,
// ErrDecrypt 4.00. See internal/endpoint for the table.
var (
	// ErrDecode: the OSCORE option or the COSE object cannot be decoded
	// (§6.1, §8.2 step 2).
	ErrDecode = errors.New("oscore: failed to decode COSE")
	// ErrNoContext: kid or kid context are not this context's (§8.2 step 2).
	ErrNoContext = errors.New("oscore: security context not found")
	// ErrReplay: the Partial IV was received before, or lies before the
	// replay window (§7.4).
	ErrReplay = errors.New("oscore: replay detected")
	// ErrDecrypt: the AEAD refused the message (§8.2 step 6).
	ErrDecrypt = errors.New("oscore: decryption failed")
)

// Outcomes of using a context, a request or a response out of its rules.
var (
	// ErrUnprotected: a message without the OSCORE option where a protected
	// one is needed (§2).
	ErrUnprotected = errors.New("oscore: message is not protected")
	// ErrUnproven: the message is authentic, but the context's replay window
	// was lost, so it may be a replay: answer with SealChallenge and read the
	// Echo that comes back (Appendix B.1.2).
	ErrUnproven = errors.New("oscore: freshness unproven, replay window not initialised")
	// ErrLate is an ErrReplay: the message is authentic, but its number lies
	// below that of the request whose Echo opened the window after a loss. Only
	// an Echo of its own can still prove it, by AcceptEcho (Appendix B.1.2).
	ErrLate = fmt.Errorf("%w: number lies below the window that an Echo opened", ErrReplay)
	// ErrPlaintext: the AEAD verified but the plaintext is no CoAP message
	// (§5.3), or holds an OSCORE option (§4.1.3.7). The request is proven and
	// can seal an error response.
	ErrPlaintext = errors.New("oscore: malformed plaintext")
	// ErrNested: the message to protect already holds an OSCORE option
	// (§4.1.3.7).
	ErrNested = errors.New("oscore: message already holds an OSCORE option")
	// ErrCode: the message's code is of the wrong class for the operation.
	ErrCode = errors.New("oscore: code is of the wrong class")
	// ErrTooLong: the plaintext does not fit the AEAD's length field.
	ErrTooLong = errors.New("oscore: message too long for the AEAD algorithm")
	// ErrNonceSpent: the request's nonce has already protected a response; use
	// Context.SealResponse, which takes a Partial IV of its own (§8.3 step 3).
	ErrNonceSpent = errors.New("oscore: the request's nonce already protects a response")
	// ErrAnswered: the request already got its only response (§7.4).
	ErrAnswered = errors.New("oscore: request already answered")
	// ErrNotification: a response with an inner Observe option to a request
	// that did not register an observation (§4.1.3.5.2), or a second
	// notification without a Partial IV (§8.4.2 step A).
	ErrNotification = errors.New("oscore: unexpected notification")
	// ErrStale: the notification is not newer than one already accepted
	// (§7.4.1).
	ErrStale = errors.New("oscore: notification older than the last")
	// ErrContextChanged: the request belongs to another security context, or
	// to this one before it was derived anew.
	ErrContextChanged = errors.New("oscore: security context was replaced")
	// ErrLeaseExhausted: no sequence number is left that was durably reserved;
	// reserve more and Extend (Appendix B.1.1).
	ErrLeaseExhausted = errors.New("oscore: no reserved sender sequence number left")
	// ErrSequenceExhausted: the last sender sequence number is spent; the
	// context is finished (§7.2.1).
	ErrSequenceExhausted = errors.New("oscore: sender sequence numbers exhausted")
	// ErrLease: a lease that overlaps numbers already given, or ends above
	// 2^40.
	ErrLease = errors.New("oscore: invalid lease of sequence numbers")
	// ErrInvalid: a Request or Pending that was never filled in, or was
	// copied.
	ErrInvalid = errors.New("oscore: request or pending state unset or copied")
)
