package vault

import (
	"encoding/binary"
	"errors"
	"math"

	"github.com/oscorelay/oscorelay/keys"
	"github.com/oscorelay/oscorelay/oscore"
)

// An entry as it stands under a seal; n is an unsigned varint, bytes are their length
// (n) and themselves:
//
//	version (1)  flags (n)  AEAD, HKDF (zigzag)  window, roles, longest message (n)
//	name  secret  salt  ID Context  sender ID  recipient ID  notes (bytes)
const entryVersion = 1

const (
	hasIDContext = 1 << iota // an empty one is not an absent one
	omitKIDContext
	rederiveOnStart
	noEcho
	flagsKnown = 1<<iota - 1
)

// ErrEntry is of an entry that is not of this form.
var ErrEntry = errors.New("unreadable entry, or one that another version of the program wrote")

// AppendEntry appends an entry as it stands under a seal.
func AppendEntry(dst []byte, e *keys.Entry) []byte {
	p, s := &e.Params, &e.Settings
	flags := uint64(0)
	for _, f := range []struct {
		on   bool
		flag uint64
	}{{p.IDContext != nil, hasIDContext}, {p.OmitKIDContext, omitKIDContext}, {s.RederiveOnStart, rederiveOnStart}, {s.NoEcho, noEcho}} {
		if f.on {
			flags |= f.flag
		}
	}
	dst = append(dst, entryVersion)
	dst = binary.AppendUvarint(dst, flags)
	dst = binary.AppendVarint(dst, int64(p.AEAD))
	dst = binary.AppendVarint(dst, int64(p.HKDF))
	for _, n := range []int{p.WindowSize, int(s.Rederive), s.MaxUnfragmented} {
		dst = binary.AppendUvarint(dst, uint64(max(n, 0)))
	}
	field := func(b []byte) { dst = append(binary.AppendUvarint(dst, uint64(len(b))), b...) }
	field([]byte(e.Name))
	for _, b := range [][]byte{p.MasterSecret, p.MasterSalt, p.IDContext, p.SenderID, p.RecipientID} {
		field(b)
	}
	field([]byte(e.Notes))
	return dst
}

// ParseEntry is the inverse of AppendEntry. The entry shares nothing with b.
func ParseEntry(b []byte) (e keys.Entry, err error) {
	bad := len(b) == 0 || b[0] != entryVersion
	if bad {
		return e, ErrEntry
	}
	b = append([]byte(nil), b[1:]...)
	number := func() int {
		v, n := binary.Uvarint(b)
		if n <= 0 || v > math.MaxInt32 {
			bad, n, v = true, 0, 0
		}
		b = b[n:]
		return int(v)
	}
	signed := func() int {
		v, n := binary.Varint(b)
		if n <= 0 || v != int64(int32(v)) {
			bad, n, v = true, 0, 0
		}
		b = b[n:]
		return int(v)
	}
	bytes := func() (out []byte) {
		n := number()
		if n > len(b) {
			bad, n = true, 0
		}
		out, b = b[:n:n], b[n:]
		if n == 0 {
			return nil
		}
		return out
	}
	p, s := &e.Params, &e.Settings
	flags := number()
	p.AEAD, p.HKDF = oscore.AEAD(signed()), oscore.HKDF(signed())
	p.WindowSize, s.Rederive, s.MaxUnfragmented = number(), oscore.Role(number()), number()
	e.Name = string(bytes())
	p.MasterSecret, p.MasterSalt, p.IDContext, p.SenderID, p.RecipientID = bytes(), bytes(), bytes(), bytes(), bytes()
	e.Notes = string(bytes())
	if bad || len(b) > 0 || flags&^flagsKnown != 0 || flags&hasIDContext == 0 && p.IDContext != nil {
		return keys.Entry{}, ErrEntry
	}
	if flags&hasIDContext != 0 && p.IDContext == nil {
		p.IDContext = []byte{}
	}
	p.OmitKIDContext, s.RederiveOnStart, s.NoEcho = flags&omitKIDContext != 0, flags&rederiveOnStart != 0, flags&noEcho != 0
	return e, nil
}
