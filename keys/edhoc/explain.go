package edhoc

import (
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
)

// Field is a part of an explained message.
type Field struct{ Name, Value string }

// Explained is a message as a person reads it. What is encrypted stays so.
type Explained struct {
	Name   string // "message_1" to "message_4", or "error"
	Fields []Field
}

// String returns a line for the name and one for each field.
func (e Explained) String() string {
	var b strings.Builder
	b.WriteString(e.Name + "\n")
	for _, f := range e.Fields {
		fmt.Fprintf(&b, "  %-14s %s\n", f.Name, f.Value)
	}
	return b.String()
}

func (e *Explained) add(name, format string, args ...any) {
	e.Fields = append(e.Fields, Field{name, fmt.Sprintf(format, args...)})
}

// Explainer explains the messages of a captured handshake one by one, in their
// order; from message_1 it knows the cipher suite. The zero value is ready.
type Explainer struct {
	last  int // number of the last message, 0: none
	suite *suiteParams
}

// Next explains a message: as it is, or with the true or the connection
// identifier that CoAP clients put in front (RFC 9528 Appendix A.2).
func (x *Explainer) Next(data []byte) (Explained, error) {
	var e Explained
	err := x.next(&e, data)
	return e, err
}

func (x *Explainer) next(e *Explained, data []byte) error {
	if len(data) > MaxMessage {
		return ErrTooLong
	}
	if len(data) > 0 && data[0] == 0xf5 {
		e.add("prefix", "true: a new session")
		return x.message1(e, data[1:])
	}
	c := cursor{data}
	var items [][]byte
	for !c.empty() {
		item, err := c.item()
		if err != nil {
			return err
		}
		items = append(items, item)
	}
	isBytes := func(i int) bool { return items[i][0]>>5 == majorBytes }
	switch {
	case len(items) == 1 && isBytes(0):
		return x.ciphertext(e, data)
	case len(items) == 2 && isBytes(1):
		id, rest, err := CutConnectionID(data)
		if err != nil {
			return err
		}
		e.add("prefix", "connection identifier %s", hexOrEmpty(id))
		return x.ciphertext(e, rest)
	case len(items) == 2:
		return x.error(e, data)
	case len(items) == 3: // an identifier, then an error message
		id, rest, err := CutConnectionID(data)
		if err != nil {
			return err
		}
		e.add("prefix", "connection identifier %s", hexOrEmpty(id))
		return x.error(e, rest)
	}
	return x.message1(e, data)
}

func (x *Explainer) message1(e *Explained, data []byte) error {
	m, err := ParseMessage1(data)
	if err != nil {
		return err
	}
	x.last, x.suite = 1, suites[m.Selected()]
	e.Name = "message_1"
	keys := func(r Role) string {
		if m.Method.Static(r) {
			return "static Diffie-Hellman key"
		}
		return "signature key"
	}
	if m.Method.known() {
		e.add("METHOD", "%d: Initiator with %s, Responder with %s", m.Method, keys(RoleInitiator), keys(RoleResponder))
	} else {
		e.add("METHOD", "%d: not known here", m.Method)
	}
	e.add("SUITES_I", "%s: the last one, %s, is selected", joinSuites(m.SuitesI), describeSuite(m.Selected()))
	e.add("G_X", "%x (%d bytes)", m.GX, len(m.GX))
	if x.suite != nil {
		if _, err := x.suite.curve.expand(m.GX); err != nil {
			e.add("", "INVALID: %v", err)
		}
	}
	e.add("C_I", "%s", hexOrEmpty(m.CI))
	for _, item := range m.EAD {
		e.add("EAD_1", "%s", item)
	}
	return nil
}

// ciphertext explains messages 2 to 4: which one, their order tells.
func (x *Explainer) ciphertext(e *Explained, data []byte) error {
	if x.last == 4 {
		return fmt.Errorf("%w: nothing comes after message_4", ErrMalformed)
	}
	n := max(x.last+1, 2)
	content, err := parseOne("message_"+strconv.Itoa(n), data)
	if err != nil {
		return err
	}
	e.Name = fmt.Sprintf("message_%d", n)
	switch {
	case n == 2 && x.suite == nil:
		e.add("G_Y_CIPHERTEXT_2", "%x (%d bytes; where G_Y ends depends on the suite of message_1)", content, len(content))
	case n == 2:
		gy, ciphertext, err := splitMessage2(data, x.suite)
		if err != nil {
			return err
		}
		e.add("G_Y", "%x (%d bytes)", gy, len(gy))
		if _, err := x.suite.curve.expand(gy); err != nil {
			e.add("", "INVALID: %v", err)
		}
		e.add("CIPHERTEXT_2", "%x (%d bytes: C_R, ID_CRED_R, Signature_or_MAC_2, EAD_2)", ciphertext, len(ciphertext))
	case n == 3:
		e.add("CIPHERTEXT_3", "%x (%d bytes: ID_CRED_I, Signature_or_MAC_3, EAD_3, and the tag)", content, len(content))
	default:
		e.add("CIPHERTEXT_4", "%x (%d bytes: EAD_4 and the tag)", content, len(content))
	}
	x.last = n
	return nil
}

func (x *Explainer) error(e *Explained, data []byte) error {
	m, err := ParseErrorMessage(data)
	if err != nil {
		return err
	}
	e.Name = "error"
	switch m.Code {
	case CodeUnspecified:
		e.add("ERR_CODE", "1: unspecified error")
		e.add("ERR_INFO", "%q", m.Diagnostic)
	case CodeWrongSuite:
		e.add("ERR_CODE", "2: wrong selected cipher suite")
		e.add("SUITES_R", "%s", joinSuites(m.Suites))
	case CodeUnknownCredential:
		e.add("ERR_CODE", "3: unknown credential referenced")
	default:
		e.add("ERR_CODE", "%d: not known here", m.Code)
		e.add("ERR_INFO", "%x", m.Info)
	}
	x.last, x.suite = 0, nil
	return nil
}

// String shows label, criticality and value.
func (e EAD) String() string {
	s := fmt.Sprintf("label %d", e.Label)
	if e.Critical {
		s += ", critical"
	}
	if e.Value == nil {
		return s + ", no value"
	}
	return s + ", value " + hexOrEmpty(e.Value)
}

func hexOrEmpty(b []byte) string {
	if len(b) == 0 {
		return "(empty)"
	}
	return hex.EncodeToString(b)
}

var aeadNames = map[int]string{
	algCCM64128: "AES-CCM-16-64-128", algCCM128128: "AES-CCM-16-128-128", algA128GCM: "A128GCM", algA256GCM: "A256GCM", algChaCha: "ChaCha20/Poly1305",
}

func describeSuite(s Suite) string {
	p := suites[s]
	if p == nil {
		return fmt.Sprintf("suite %d (not supported here)", s)
	}
	h := "SHA-256"
	if p.hash == hashSHA384 {
		h = "SHA-384"
	}
	return fmt.Sprintf("suite %d (%s, %s, %s, %s)", s, aeadNames[p.aead.cose], h, p.curve.name, p.signature)
}
