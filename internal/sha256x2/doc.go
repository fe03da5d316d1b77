// Package sha256x2 computes the SHA-256 compression function (FIPS 180-4
// §6.2.2) of two independent messages at once.
//
// A hash tree has many short, independent messages. The SHA instructions of a
// processor take several cycles each and can overlap, but within one message
// every round waits for the round before; so two messages together take hardly
// longer than one:
//
//	lane 0   rnds2 ─ · ─ rnds2 ─ · ─ rnds2
//	lane 1   ·  rnds2 ─ · ─ rnds2 ─ · ─ rnds2
//
// It is no implementation of hash.Hash: the caller pads (§5.1.1). Where the
// processor has no such instructions [Available] is false, and crypto/sha256
// is to be used.
//
//	sha256x2.go   the interface, byte order
//	amd64.go, sha256x2_amd64.s   SHA-NI
//	other.go      everything else: not available
//
// Limits: amd64 with SHA, SSSE3 and SSE4.1. Both messages have the same number
// of blocks.
package sha256x2
