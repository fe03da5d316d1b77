// Package ccm is AES-CCM (RFC 3610, NIST SP 800-38C), the AEAD of the OSCORE
// hot path.
//
//	nonce ─┬─ B_0 ─► CBC-MAC ◄─ additional data ◄─ plaintext      serial: one block at a time
//	       └─ A_i ─► CTR     ─► keystream ⊕ plaintext             free to run in the MAC's shadow
//	                 S_0 ⊕ MAC = tag
//
// [Key] is the caller-owned form: expanded once, a plain value, nothing
// allocated on a call. [New] wraps it as a cipher.AEAD.
//
// # Where to look
//
//	RFC 3610 §2.2  B_0, additional data's length   header.go
//	RFC 3610 §2.2  CBC-MAC, §2.3 CTR, tag          portable.go
//	RFC 3610 §2.5  decryption, nothing released    key.go, Key.Open
//	NIST SP 800-38C §5.3, legal parameters         key.go, Key.Init
//
// # Two implementations
//
// On amd64 with AES-NI one assembly pass does both halves. Everywhere
// else, and under the build tag purego, the portable twin works over
// crypto/aes: a block loop for short messages, crypto/cipher's CBC and CTR
// from 128 bytes on. The twin takes its scratch from a pool and allocates
// nothing below 128 bytes, two small objects from there on.
//
// # Limits
//
// A plaintext has at most 2^(8·(15-nonce length)) - 1 bytes: 65535 for a
// 13-byte nonce (AES-CCM-16-*), unbounded for a 7-byte one (AES-CCM-64-*).
// Additional data may have any length. Nonces are the caller's: the package
// cannot see that one is used twice, and CCM loses everything if it is.
package ccm
