// Package testvectors holds the published values that tests are checked
// against, transcribed as JSON. Each file says where its values come from.
//
//	oscore_derivation.json   RFC 8613 §3.2.1 for every AEAD and HKDF, by a second implementation
//	oscore_messages.json     messages under every AEAD, by the same: gen/oscore_vectors.py
//	rfc3610.json             RFC 3610 §8, the 24 AES-CCM packets
//	rfc8613.json             RFC 8613 Appendix C, with the intermediate values
//	rfc9529.json             RFC 9529, the EDHOC traces and invalid messages
//	fragment.json            docs/LWF.md: trees, layouts, files, refused manifests; computed here
//	wycheproof_aes_ccm.json  C2SP Wycheproof's AES-CCM values (Apache License 2.0)
//
// It is imported by tests and by cmd/oscore only.
package testvectors

import "embed"

// FS holds the files at its root, for example FS.ReadFile("rfc3610.json").
//
//go:embed *.json
var FS embed.FS
