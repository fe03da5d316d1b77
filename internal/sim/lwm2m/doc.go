// Package lwm2m is the data of an LwM2M device: its objects, their values and
// the formats that carry them. It has no socket, no clock and no goroutine.
//
//	operation (Read, Write, Execute, Discover …) ──▶ Objects ──▶ []Record ──▶ Encode ──▶ payload
//	payload ──▶ Decode ──▶ []Record ──▶ Objects ──▶ what changed
//
//	path.go        /object/instance/resource/resource-instance
//	value.go       the data types (LwM2M Core, Appendix C), plain text and opaque
//	format.go      content formats, Encode and Decode
//	tlv.go         11542 (LwM2M Core §7.4.3)
//	senml.go       110 and 112 (RFC 8428, LwM2M Core §7.4.4, §7.4.5)
//	link.go        40: registration and discovery
//	attributes.go  notification attributes (LwM2M Core §7.3.2)
//	objects.go     the tree, and reading from it
//	write.go       writing, creating, deleting, executing
//	standard.go    Objects 0, 1, 3, 5, 6, 19, 21 and 3303, as far as tests need them
//
// Limits: no access control (Object 2), no bootstrap interface, no time in
// SenML records, no deprecated format (1541 to 1543, 11543).
package lwm2m
