// Package ccm is AES-CCM (RFC 3610, NIST SP 800-38C), the AEAD of the OSCORE
// hot path.
//
//	nonce ─┬─ B_0 ─► CBC-MAC ◄─ additional data ◄─ plaintext      serial: one block at a time
//	       └─ A_i ─► CTR     ─► keystream ⊕ plaintext             free to run in the MAC's shadow
//	                 S_0 ⊕ MAC = tag
//
// [Key] is the caller-owned form: expanded once, a plain value, nothing
// allocated on a call. [New] wraps it as a cipher.AEAD. [SealBatch] and
// [OpenBatch] run many messages, each with its own key and result.
//
// # Where to look
//
//	RFC 3610 §2.2  B_0, the additional data's length  header.go
//	RFC 3610 §2.2  CBC-MAC; §2.3 CTR and tag          portable.go, ccm_amd64.s
//	RFC 3610 §2.5  decryption, nothing released       key.go, Key.Open
//	NIST SP 800-38C §5.3, legal parameters            key.go, Key.Init
//	FIPS 197 §5.2  key expansion                      expand_amd64.s
//	several messages abreast                          batch_amd64.go, batch_amd64.s
//
// # Two implementations
//
// On amd64 with AES-NI, SSSE3 and SSE4.1 (found out at start) one assembly
// pass does both halves and costs what the MAC's chain of AES rounds costs;
// limit.Chain measures that chain. Everywhere else, and under the build tag
// purego, the portable twin works over crypto/aes: a block loop for short
// messages, crypto/cipher's CTR from 128 bytes on. The twin takes its scratch
// from a pool and allocates nothing below 128 bytes, half a kilobyte from there
// on. On amd64 without AES-NI the Key keeps no expanded key, so the
// twin expands it on every call.
//
// Nothing branches on, or is addressed by, a key or data. That holds for the
// twin as far as it holds for crypto/aes, whose code without AES hardware uses
// tables.
//
// # Limits
//
// A plaintext has at most 2^(8·(15-nonce length)) - 1 bytes: 65535 for a
// 13-byte nonce (AES-CCM-16-*), unbounded for a 7-byte one (AES-CCM-64-*).
// Additional data may have any length. Nonces are the caller's: the package
// cannot see that one is used twice, and CCM loses everything if it is.
package ccm
