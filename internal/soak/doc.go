// Package soak judges a gateway from outside: it kills the real daemon again and
// again under traffic, and looks at what was on the wire.
//
//	devices ══ relay, Mallory ══ oscored ── plain server
//	             │ pcap             ▲ kill -9, failed flushes, a full disk
//	             ▼                  │
//	           Check ◀── keys     the system calls of the process (seccomp)
//
// [Check] is a witness of its own: it derives keys, reads datagrams and opens
// them with nothing of this module but the pcap reader, so that a mistake of
// package oscore is not judged by package oscore.
//
//	derive.go  keys and nonces (RFC 8613 §3.2, §5.2), AES-CCM (RFC 3610)
//	wire.go    datagrams (RFC 7252 §3), option 9 (RFC 8613 §6.1)
//	check.go   what must not be seen on the wire
//	intents.go what handlers did, beside it
//
// The daemon's soak itself stands in the tests, under the build tag soak
// (make soak). A process that is killed loses nothing that the kernel has: what
// a power cut loses is for the crash tests of keys/bolt.
//
// Limits: AES-CCM-16-64-128 with HKDF SHA-256 only; no contexts that were
// derived by Appendix B.2 or EDHOC, whose messages count as of no known key.
package soak
