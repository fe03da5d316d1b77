// Package mirror is a plain CoAP file server: GET with Block2 (RFC 7959) over
// UDP, with no security of its own. It is what an untrusted mirror of signed
// firmware needs to be, and no more.
//
//	datagram → parse → path → resource → block → datagram
//
// Requests are idempotent, so a repeated one is simply answered again and no
// state is kept for a client (RFC 7252 §4.5).
//
//	server.go  the loop, the answer
//
// Limits: a file is served up to block number 2^20 - 1. An answer can be 20
// times its request: like every plain UDP server it can be made to send to a
// forged address, so [Server.MaxSZX] bounds a block.
package mirror
