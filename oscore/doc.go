// Package oscore is RFC 8613: Object Security for Constrained RESTful
// Environments. Bytes in, bytes out; no sockets, no clock, no locks.
//
//	client                                                     server
//	Context.SealRequest ─┐                    ┌─ Context.OpenRequest
//	   fills a Pending   │  outer POST/FETCH  │    fills a Request
//	                     ├──── option 9 ─────►┤
//	                     │     ciphertext     │
//	   Pending.Open ◄────┴────────────────────┴─ Request.Seal          (once)
//	   Pending.Open ◄─────────────────────────── Context.SealResponse  (own Partial IV)
//	                                             Context.SealChallenge (Echo)
//
// Order that is security stands in the types: only the [Request] that
// OpenRequest verified can seal a response, only the [Pending] that sealing a
// request filled in can open one. Both keep the keys they were made under, so
// that a slow handler never answers under a key that came later.
//
// A message is its code and its body, the bytes from the options on
// ([Message]); the transport header stays with the caller. Which option
// travels where is §4.1's table; a caller with a policy of its own uses
// [Context.SealRequestAs].
//
// A [Context] made by [New] knows nothing of its past. Sequence numbers reach
// it as leases of numbers that were reserved durably ([Context.Extend],
// Appendix B.1.1), and its replay window is closed until a hand-over, an Echo
// round trip or the knowledge that it is new opens it ([Context.SetWindow],
// [Context.AcceptEcho]). Package keys does both.
//
//	params.go     §3.2    input parameters
//	hkdf.go       §3.2.1  key derivation
//	algorithm.go          the AEADs and HKDFs of COSE, their sizes and limits
//	context.go    §3.1    context, lease of sender sequence numbers
//	window.go     §7.4    replay window
//	option.go     §6.1    the OSCORE option
//	class.go      §4.1    classes of options
//	keyset.go     §5.2-4  nonce, AAD, AEAD
//	seal.go       §8.1 §8.3  protecting
//	open.go       §8.2 §8.4  verifying, notifications (§7.4.1)
//	exchange.go   §8      what binds a response to its request
//	proxyuri.go   §4.1.3.3   Proxy-Uri
//	link.go       §9      the osc attribute of web links
//	http.go       §11     the HTTP header field
//	keyring.go    what an endpoint asks of a key store
//	cbor.go       the CBOR of §3.2.1, §5.4 and Appendix B.2
//
// Sizes: IDs up to nonce length - 6 bytes (7 for the default algorithm), ID
// Context up to 230 bytes, plaintext up to 65535 bytes with AES-CCM-16-*,
// 2^40 sequence numbers. With enough spare capacity in dst the four
// operations do not allocate.
package oscore
