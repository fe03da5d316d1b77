// Package explain says in words what the bytes of a CoAP or OSCORE message
// mean, and why a message does not open. Bytes in, a report out; it prints
// nothing and keeps no secret in what it returns.
//
//	pasted text ─ ParseText ─► messages ─ Session.Datagram / Stream ─► Report
//	packet capture ──────────► messages with addresses ─ Session.Packet ┘
//	written keys ─ ParseValue ─► Keys ───┘            │
//	      └────────────── Diagnose ◄──────────────────┘ a message that does not open
//
// A [Session] remembers the requests it has seen, so that a response that
// follows is decrypted with the request it answers (RFC 8613 §8.4). It tries
// both directions: the owner of the keys may have sent the message or received
// it.
//
// [Diagnose] assumes that the keys are nearly right and searches for the
// mistakes that people make when they copy them: the IDs swapped, hex read as
// text, the salt in place of the secret, an ID Context the peer does not have,
// another algorithm. It judges each guess by the authentication tag of a
// captured message, or by any other [Trial], such as an exchange with a peer.
//
//	input.go     hex, byte lists and dumps as people paste them
//	value.go     keys as people write them: hex, text:, base64:
//	message.go   RFC 7252 §3, RFC 8323 §3.2: header, token, options, payload
//	option.go    the meaning of each option
//	payload.go   payloads by Content-Format
//	oscore.go    RFC 8613 §6.1: option 9 field by field
//	session.go   RFC 8613 §8: decrypting what was captured
//	links.go     RFC 7252 §4, §5.3: which message answers which, between whom
//	crypto.go    RFC 8613 §5.2, §5.4: nonce and AAD, to be shown
//	diagnose.go  the search
//	mistake.go   the mistakes it knows
//
// Limits: a request's tag vouches for the secret, the salt, the ID Context,
// both algorithms and the kid, not for the other ID: that takes a response.
package explain
