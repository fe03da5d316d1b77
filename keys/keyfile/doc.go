// Package keyfile reads and writes key material as people exchange it: TOML,
// JSON, CSV and the context directories of aiocoap. It keeps no state; package
// keys/file does.
//
//	[[context]]
//	name = "boiler"
//	master_secret = "hex:2b7e151628aed2a6abf7158809cf4f3c"
//	master_salt = "hex:9e7ca92223786340"
//	sender_id = "hex:01"
//	recipient_id = "hex:"
//
// Bytes say how they are written: "hex:", "base64:" or "text:" stands before
// them, because taking the one for the other is the most frequent reason why two
// ends do not understand each other. The IDs are seen from the end that holds
// the file. An id_context of "hex:" is empty and present; one that is not there
// is absent (RFC 8613 §3.2.1 derives other keys).
//
// Sequence numbers are no part of any of these files.
//
//	format.go    the formats, by name and by content
//	reader.go    a file's contexts one after the other
//	record.go    the fields and what they may hold
//	bytes.go     "hex:", "base64:", "text:"
//	toml.go json.go csv.go aiocoap.go
//	lint.go      weak, shared, duplicated, mistaken material
package keyfile
