// Package coap is the wire codec: CoAP messages (RFC 7252) to and from bytes,
// over datagrams and over streams (RFC 8323), around one body representation.
//
// A message without its transport header is a Code and a body:
//
//	datagram  | Ver T TKL | Code | Message ID | Token | body            |
//	stream    | Len TKL | Ext. Len | Code     | Token | body            |
//	plaintext |             Code |                      body            |  (OSCORE, RFC 8613 §5.3)
//
//	body      | options | 0xff | payload |
//
// The body is the same bytes in all of them, so that a relay splices and never
// rebuilds. Options are walked in place; nothing here allocates on the way in.
//
//	code.go      §3, §12.1: Code, class and detail
//	option.go    §3.1, §5.4: option numbers, the walk, appending
//	body.go      §3: validation, whole bodies from option lists
//	datagram.go  §3: the datagram header, tokens of any length (RFC 8974)
//	stream.go    RFC 8323 §3.2: the stream header
//	block.go     RFC 7959 §2.2: Block1 and Block2 values
//	uri.go       §6.4, §6.5: paths and queries
//
// What RFC 7252 §3 calls a message format error is refused: reserved deltas
// and lengths, a payload marker without a payload, an option number above
// 65535, a non-empty Empty message, a version other than 1.
//
// Limits: a datagram holds what the transport gives (65507 bytes over UDP), a
// stream frame is bounded by the caller of [ParseFrame], a token holds
// [MaxToken] bytes. All functions are safe for concurrent use.
package coap
