package proxy

// sender reads kid and kid context from an OSCORE option (RFC 8613 §6.1), nil
// where absent. It is all that a proxy may want of the option; a value that is
// not in order has neither, and is the server's to refuse.
func sender(value []byte) (kid, kidContext []byte) {
	if len(value) == 0 {
		return nil, nil
	}
	flags, rest := value[0], value[1:]
	n := int(flags & 7) // Partial IV
	if flags&0xe0 != 0 || n > 5 || len(rest) < n {
		return nil, nil
	}
	rest = rest[n:]
	if flags&0x10 != 0 {
		if len(rest) < 1 || len(rest)-1 < int(rest[0]) {
			return nil, nil
		}
		s := int(rest[0])
		kidContext, rest = rest[1:1+s:1+s], rest[1+s:]
	}
	if flags&0x08 != 0 {
		kid = rest[:len(rest):len(rest)]
	}
	return kid, kidContext
}
