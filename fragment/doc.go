// Package fragment is firmware whose every block can be verified on arrival.
//
// An author signs an image once. Anyone, without a key, cuts it for a network.
// A device checks each block the moment it arrives, in any order, with a few
// KiB of memory, and nothing unverified reaches its flash.
//
//	author   Describe ─ Sign ─────────────▶ COSE_Sign1 (manifest: size, root, for whom)
//	cutter            Cut ────────────────▶ file: header │ page │ page │ unit │ unit │ …
//	device   Open ─ Policy.Check ─ OpenImage ─ NewVerifier ─ Wanted ⇄ Offer ─ Finish
//	                                  │             │
//	                               journal       flash
//
// The manifest holds the root of an RFC 9162 tree over leaves of L bytes. The
// file holds, before any unit of data, the pages of hashes that lead to it
// from the root; each is checked against one that has been verified before:
//
//	page(2,0) ── page(1,0) ── unit 0 … unit F-1
//	          └─ page(1,1) ── unit F … 2F-1
//
// Changing L changes the root. The cutter's choice, the unit U ≥ L and the
// page P, does not: one signature serves a file of 64-byte blocks for LPWAN
// and one of 1024-byte blocks for the rest.
//
// docs/LWF.md specifies the format, with vectors in testvectors/fragment.json.
//
//	hash.go      RFC 9162 §2.1: leaf, node, the fold of a level
//	manifest.go  the signed CBOR map
//	key.go       keys, algorithms, COSE_Key (RFC 9052 §7, RFC 9679, RFC 9864)
//	sign.go      COSE_Sign1 (RFC 9052 §4.2): Sign, Open, Parse
//	policy.go    what a device accepts: vendor, class, device, rollback, expiry
//	header.go    the file's header and the pinned name
//	geometry.go  which item stands where, and back
//	cut.go       hashing an image, writing a file
//	verifier.go  items in, verified units out
//	image.go     flash: write, read back, mark; the final digest
//	journal.go   what survives a power cut
//	receive.go   a file that is pushed in order
//
// The package is a calculator: no sockets, files or clock. It allocates when a
// verifier is made and never for a page or a unit. package fetch is the
// downloader, package object5 the LwM2M state machine.
//
// Limits: images of 1 byte to 4 GiB − 1; headers of at most 2048 bytes; units,
// pages and leaves of 64 to 4096 bytes. Deltas, SUIT payloads and encrypted
// images can be described and are refused unless the [Policy] takes them; this
// package does not apply or decrypt them. Confidentiality is not a goal of the
// format. The CBOR tag and the content type are not registered.
package fragment
