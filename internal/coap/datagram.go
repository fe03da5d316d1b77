package coap

import "encoding/binary"

// Type is a datagram's message type (RFC 7252 §3).
type Type uint8

// The four message types.
const (
	Confirmable     Type = 0
	NonConfirmable  Type = 1
	Acknowledgement Type = 2
	Reset           Type = 3
)

// String returns the RFC's abbreviation: CON, NON, ACK or RST.
func (t Type) String() string { return [4]string{"CON", "NON", "ACK", "RST"}[t&3] }

// MaxToken is the longest token that a header can announce (RFC 8974 §2.1), in
// bytes.
const MaxToken = 65804

// Datagram is a message over a datagram transport. Token and Body alias the
// bytes it was parsed from.
type Datagram struct {
	Type      Type
	Code      Code
	MessageID uint16
	Token     []byte
	Body      []byte
}

// ParseDatagram reads a datagram's header. It does not walk the body: [Check]
// does. Errors wrap [ErrFormat]; on an error after the first four bytes the
// header fields Type, Code and MessageID are still returned, so that the
// caller can answer with a Reset (RFC 7252 §4.2).
func ParseDatagram(b []byte) (Datagram, error) {
	if len(b) < 4 {
		return Datagram{}, errShort
	}
	if b[0]>>6 != 1 {
		return Datagram{}, errVersion
	}
	d := Datagram{Type: Type(b[0] >> 4 & 3), Code: Code(b[1]), MessageID: binary.BigEndian.Uint16(b[2:])}
	token, rest, err := parseToken(b[0]&0xf, b[4:])
	if err != nil {
		return d, err
	}
	if d.Code == Empty && (len(token) != 0 || len(rest) != 0) {
		return d, errEmpty
	}
	d.Token, d.Body = token, rest
	return d, nil
}

// Append appends the datagram's bytes.
func (d Datagram) Append(dst []byte) []byte {
	n := nibble(uint32(len(d.Token)))
	dst = append(dst, 1<<6|byte(d.Type&3)<<4|n, byte(d.Code))
	dst = binary.BigEndian.AppendUint16(dst, d.MessageID)
	dst = appendExtended(dst, n, uint32(len(d.Token)))
	dst = append(dst, d.Token...)
	return append(dst, d.Body...)
}

// parseToken reads the token that the TKL nibble announces (RFC 8974 §2.1)
// from the start of b.
func parseToken(tkl byte, b []byte) (token, rest []byte, err error) {
	n := int(tkl)
	switch {
	case tkl == 15:
		return nil, nil, errTokenLength
	case tkl == 14:
		if len(b) < 2 {
			return nil, nil, errShort
		}
		n, b = 269+int(binary.BigEndian.Uint16(b)), b[2:]
	case tkl == 13:
		if len(b) < 1 {
			return nil, nil, errShort
		}
		n, b = 13+int(b[0]), b[1:]
	}
	if len(b) < n {
		return nil, nil, errShort
	}
	return b[:n:n], b[n:], nil
}
