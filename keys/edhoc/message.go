package edhoc

import (
	"bytes"
	"fmt"
)

// MaxMessage is the longest message in bytes that is read or made. It bounds
// what a stranger can make us hold.
const MaxMessage = 1 << 14

// Message1 is message_1 (RFC 9528 §5.2.1). Everything in it travels in the
// clear.
type Message1 struct {
	Method  Method
	SuitesI []Suite // most preferred first, the selected last
	GX      []byte
	CI      []byte
	EAD     []EAD
}

// Selected returns the cipher suite that the Initiator selected.
func (m *Message1) Selected() Suite { return m.SuitesI[len(m.SuitesI)-1] }

func (m *Message1) append(dst []byte) []byte {
	dst = appendInt(dst, int(m.Method))
	dst = appendSuites(dst, m.SuitesI)
	dst = appendBytes(dst, m.GX)
	dst = AppendConnectionID(dst, m.CI)
	return appendEADs(dst, m.EAD)
}

// ParseMessage1 parses message_1 without judging it: neither whether its suite
// is supported nor whether G_X is a point. A responder needs it not;
// it is for tools that explain messages, and to shed load before any
// public-key operation.
func ParseMessage1(data []byte) (*Message1, error) {
	if len(data) > MaxMessage {
		return nil, fmt.Errorf("message_1: %w", ErrTooLong)
	}
	m, err := parseMessage1(bytes.Clone(data))
	if err != nil {
		return nil, fmt.Errorf("message_1: %w", err)
	}
	return m, nil
}

func parseMessage1(data []byte) (*Message1, error) {
	c, m := cursor{data}, new(Message1)
	method, err := c.int()
	if err != nil {
		return nil, fmt.Errorf("METHOD: %w", err)
	}
	m.Method = Method(method)
	if m.SuitesI, err = parseSuites(&c); err != nil {
		return nil, fmt.Errorf("SUITES_I: %w", err)
	}
	if m.GX, err = c.bytes(); err != nil {
		return nil, fmt.Errorf("G_X: %w", err)
	}
	if m.CI, err = c.identifier(); err != nil {
		return nil, fmt.Errorf("C_I: %w", err)
	}
	if m.EAD, err = c.eads(); err != nil {
		return nil, fmt.Errorf("EAD_1: %w", err)
	}
	return m, nil
}

// parseOne parses messages 2, 3 and 4, one byte string each.
func parseOne(name string, data []byte) ([]byte, error) {
	if len(data) > MaxMessage {
		return nil, fmt.Errorf("%s: %w", name, ErrTooLong)
	}
	if isErrorMessage(data) {
		return nil, peerError(data)
	}
	c := cursor{data}
	s, err := c.bytes()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if !c.empty() {
		return nil, fmt.Errorf("%s: %w: more than one item", name, ErrMalformed)
	}
	return bytes.Clone(s), nil
}

// SplitMessage2 splits message_2 for a suite into G_Y and CIPHERTEXT_2 (RFC
// 9528 §5.3.1), for tools that explain messages.
func SplitMessage2(data []byte, suite Suite) (gy, ciphertext2 []byte, err error) {
	s := suites[suite]
	if s == nil {
		return nil, nil, fmt.Errorf("message_2: %w: %d", ErrWrongSuite, suite)
	}
	return splitMessage2(data, s)
}

func splitMessage2(data []byte, s *suiteParams) (gy, ciphertext2 []byte, err error) {
	both, err := parseOne("message_2", data)
	if err != nil {
		return nil, nil, err
	}
	if len(both) <= s.curve.size {
		return nil, nil, fmt.Errorf("message_2: %w: %d bytes, G_Y alone takes %d", ErrFieldLength, len(both), s.curve.size)
	}
	return both[:s.curve.size:s.curve.size], both[s.curve.size:], nil
}

// plaintext is PLAINTEXT_2; without C_R, PLAINTEXT_3 (RFC 9528 §5.3.2, §5.4.2).
type plaintext struct {
	cr     []byte
	idCred CredentialID
	sigMAC []byte
	ead    []EAD
	rawEAD []byte // as it travels
}

func parsePlaintext2(data []byte) (p plaintext, err error) {
	c := cursor{data}
	if p.cr, err = c.identifier(); err != nil {
		return p, fmt.Errorf("PLAINTEXT_2: C_R: %w", err)
	}
	if err = p.parseRest(&c); err != nil {
		return p, fmt.Errorf("PLAINTEXT_2: %w", err)
	}
	return p, nil
}

func parsePlaintext3(data []byte) (p plaintext, err error) {
	if err = p.parseRest(&cursor{data}); err != nil {
		return p, fmt.Errorf("PLAINTEXT_3: %w", err)
	}
	return p, nil
}

func (p *plaintext) parseRest(c *cursor) (err error) {
	if p.idCred, err = c.credentialID(); err != nil {
		return err
	}
	if p.sigMAC, err = c.bytes(); err != nil {
		return fmt.Errorf("Signature_or_MAC: %w", err)
	}
	p.rawEAD = c.rest
	if p.ead, err = c.eads(); err != nil {
		return fmt.Errorf("EAD: %w", err)
	}
	return nil
}

// appendRest appends the part that both plaintexts share.
func (p *plaintext) appendRest(dst []byte) []byte {
	dst = p.idCred.appendCompact(dst)
	dst = appendBytes(dst, p.sigMAC)
	return append(dst, p.rawEAD...)
}

func parsePlaintext4(data []byte) ([]EAD, error) {
	c := cursor{data}
	items, err := c.eads()
	if err != nil {
		return nil, fmt.Errorf("PLAINTEXT_4: EAD_4: %w", err)
	}
	return items, nil
}
