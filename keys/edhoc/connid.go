package edhoc

import (
	"crypto/rand"
	"fmt"
)

// A connection identifier, and a kid in a compact ID_CRED, is a byte string
// that travels as an integer where it looks like one (RFC 9528 §3.3.2).

// AppendConnectionID appends an identifier as it travels: the bytes 0x00-0x17
// and 0x20-0x37 as themselves, which are the integers of one byte, everything
// else as a byte string. So is C_R or C_I put in front of a message in CoAP
// (RFC 9528 Appendix A.2).
func AppendConnectionID(dst, id []byte) []byte {
	if len(id) == 1 && isOneByteInt(id[0]) {
		return append(dst, id[0])
	}
	return appendBytes(dst, id)
}

// CutConnectionID parses an identifier from the front of data and returns it
// and what follows. Both alias data.
func CutConnectionID(data []byte) (id, rest []byte, err error) {
	c := cursor{data}
	if id, err = c.identifier(); err != nil {
		return nil, nil, fmt.Errorf("connection identifier: %w", err)
	}
	return id, c.rest, nil
}

func isOneByteInt(b byte) bool { return b>>5 <= majorNint && b&0x1f < 24 }

// identifier consumes a bstr_identifier.
func (c *cursor) identifier() ([]byte, error) {
	if !c.empty() && isOneByteInt(c.rest[0]) {
		id := c.rest[:1:1]
		c.rest = c.rest[1:]
		return id, nil
	}
	id, err := c.bytes()
	if err != nil {
		return nil, err
	}
	if len(id) == 1 && isOneByteInt(id[0]) {
		return nil, fmt.Errorf("%w: byte string %x must travel as an integer", ErrEncoding, id)
	}
	return id, nil
}

// FreeConnectionID chooses an identifier at random among the shortest that
// used does not claim: 48 of one byte that travel in one byte, then those of
// two and three bytes. It gives up, with ErrConnectionID, when 64 draws of
// three bytes were all taken.
//
// used must say true for the identifiers of running EDHOC sessions and for the
// Recipient IDs of OSCORE contexts (RFC 9668 §4.1), those with an ID Context
// too; and, for C_R, for C_I. The caller that shares its identifiers among
// goroutines must hold them from this call until the chosen one is entered.
func FreeConnectionID(used func(id []byte) bool) ([]byte, error) {
	var short []byte
	for _, base := range []byte{0x00, 0x20} {
		for b := base; b < base+24; b++ {
			if !used([]byte{b}) {
				short = append(short, b)
			}
		}
	}
	if len(short) > 0 {
		// 256 is no multiple of every length; the bias is of no concern, an
		// identifier has no cryptographic purpose (RFC 9528 §3.3).
		var r [1]byte
		rand.Read(r[:])
		return []byte{short[int(r[0])%len(short)]}, nil
	}
	for _, n := range []int{2, 3} {
		for range 64 {
			id := make([]byte, n)
			rand.Read(id)
			if !used(id) {
				return id, nil
			}
		}
	}
	return nil, fmt.Errorf("%w: none free", ErrConnectionID)
}
