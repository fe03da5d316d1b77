package oscore

import "errors"

// The four CBOR items that OSCORE itself needs (RFC 8949 §3.1), in preferred
// serialisation.

// appendHead appends an initial byte of the major type with its argument.
func appendHead(dst []byte, major byte, v uint64) []byte {
	major <<= 5
	switch {
	case v < 24:
		return append(dst, major|byte(v))
	case v < 1<<8:
		return append(dst, major|24, byte(v))
	}
	return append(dst, major|25, byte(v>>8), byte(v)) // nothing here reaches 2^16
}

// appendBstr appends a byte string.
func appendBstr(dst, b []byte) []byte {
	return append(appendHead(dst, 2, uint64(len(b))), b...)
}

var errBstr = errors.New("oscore: kid context is not a CBOR byte string")

// WrapBstr returns b wrapped in a CBOR byte string, the form in which
// Appendix B.2 carries R1, R2 and R2 || R3 as kid context.
func WrapBstr(b []byte) []byte { return appendBstr(nil, b) }

// UnwrapBstr returns the content of a kid context that is exactly one CBOR
// byte string (Appendix B.2). The result aliases b.
func UnwrapBstr(b []byte) ([]byte, error) {
	if len(b) == 0 || b[0]>>5 != 2 {
		return nil, errBstr
	}
	n, rest := int(b[0]&0x1f), b[1:]
	switch {
	case n == 24 && len(rest) >= 1:
		n, rest = int(rest[0]), rest[1:]
	case n == 25 && len(rest) >= 2:
		n, rest = int(rest[0])<<8|int(rest[1]), rest[2:]
	case n >= 24:
		return nil, errBstr
	}
	if n != len(rest) {
		return nil, errBstr
	}
	return rest, nil
}
