package explain

import (
	"errors"
	"fmt"

	"github.com/oscorelay/oscorelay/internal/coap"
	"github.com/oscorelay/oscorelay/oscore"
)

// Report is what there is to say about one message.
type Report struct {
	Index     int      `json:"index"` // from 1, in the order given
	Framing   string   `json:"framing"`
	Bytes     Hex      `json:"hex"`
	Header    Hex      `json:"header,omitempty"` // up to the token
	Type      string   `json:"type,omitempty"`   // CON, NON, ACK or RST; datagrams only
	MessageID *uint16  `json:"message_id,omitempty"`
	Code      string   `json:"code,omitempty"`
	Token     Hex      `json:"token"`
	Options   []Option `json:"options,omitempty"`
	OSCORE    *OSCORE  `json:"oscore,omitempty"`
	Payload   *Payload `json:"payload,omitempty"`
	// Malformed says why the bytes are no message; what could be read before
	// it stands in the other fields.
	Malformed string `json:"malformed,omitempty"`
	// Opened is the message inside, if keys were given and it opened.
	Opened *Opened `json:"opened,omitempty"`
	// Closed says why a protected message was not decrypted; "" without keys.
	Closed string  `json:"closed,omitempty"`
	Crypto *Crypto `json:"crypto,omitempty"`
	// Links is what a capture with addresses shows beside the message itself.
	Links *Links   `json:"links,omitempty"`
	Notes []string `json:"notes,omitempty"`
}

// Opened is a message out of its ciphertext.
type Opened struct {
	// By tells in which direction the keys fit: "recipient" when their owner
	// received the message, "sender" when it sent it.
	By      string   `json:"by"`
	Request int      `json:"request,omitempty"` // of a response: the index of its request
	Code    string   `json:"code"`
	Options []Option `json:"options,omitempty"`
	Payload *Payload `json:"payload,omitempty"`
}

// Framings.
const (
	Datagram = "datagram"
	Stream   = "stream"
)

func (r *Report) note(format string, args ...any) {
	r.Notes = append(r.Notes, fmt.Sprintf(format, args...))
}

// message is a captured message as the explainer works on it.
type message struct {
	code  coap.Code
	token []byte
	body  []byte
}

func (m message) oscore() oscore.Message { return oscore.Message{Code: byte(m.code), Body: m.body} }

// datagram reads the header of RFC 7252 §3.
func (r *Report) datagram(b []byte) (message, bool) {
	r.Framing, r.Bytes = Datagram, b
	d, err := coap.ParseDatagram(b)
	if len(b) >= 4 && b[0]>>6 == 1 {
		id := d.MessageID
		r.Header, r.Type, r.MessageID, r.Code = b[:4], d.Type.String(), &id, codeText(d.Code)
	}
	if err != nil {
		r.Malformed = reason(err)
		r.guessFraming(b)
		return message{}, false
	}
	r.Token = d.Token
	r.Header = b[:len(b)-len(d.Token)-len(d.Body)]
	return message{d.Code, d.Token, d.Body}, true
}

// guessFraming says what bytes that are no datagram may be.
func (r *Report) guessFraming(b []byte) {
	_, n, err := coap.ParseFrame(b, len(b))
	switch {
	case len(b) == 0:
	case b[0]>>6 == 1:
	case err == nil && n == len(b) && n > 2:
		r.note("it is one whole frame in the stream framing of RFC 8323: if it was captured on TCP, add --tcp")
	case 20 <= b[0] && b[0] <= 25 || b[0]>>5 == 1 && len(b) > 13:
		r.note("it looks like a DTLS record: what is inside is encrypted by DTLS and cannot be explained")
	case b[0]>>4 == 4 || b[0]>>4 == 6:
		r.note("it looks like an IP packet: give the UDP payload alone")
	}
	if _, err := oscore.ParseOption(b); err == nil && len(b) > 0 && len(b) < 32 {
		r.note("it could be the value of an OSCORE option: then add --option")
	}
}

// stream reads the header of RFC 8323 §3.2 and returns what follows the frame.
func (r *Report) stream(b []byte) (m message, rest []byte, ok bool) {
	r.Framing, r.Bytes = Stream, b
	f, n, err := coap.ParseFrame(b, maxFrame)
	if err != nil {
		r.Malformed = reason(err)
		if errors.Is(err, coap.ErrIncomplete) {
			r.Malformed = fmt.Sprintf("the frame announces more than the %s that are here", count(len(b), "byte"))
		}
		return message{}, nil, false
	}
	r.Bytes = b[:n]
	r.Header, r.Token, r.Code = b[:n-len(f.Token)-len(f.Body)], f.Token, codeText(f.Code)
	return message{f.Code, f.Token, f.Body}, b[n:], true
}

// guessDatagram says when bytes that are no frame are a datagram.
func (r *Report) guessDatagram(b []byte) {
	if d, err := coap.ParseDatagram(b); err == nil && coap.Check(d.Body) == nil {
		r.note("it is one whole datagram: if it was captured on UDP, leave --tcp out")
	}
}

// maxFrame bounds a frame; what a person pastes is shorter.
const maxFrame = 1 << 24

// body explains options and payload.
func (r *Report) body(m message) {
	where, who := plain, unknownRole
	switch {
	case m.code.IsRequest():
		who = requestRole
	case m.code.IsResponse():
		who = responseRole
	}
	w := coap.Walk(m.body)
	value, protected := coap.Find(m.body, coap.OSCORE)
	if protected {
		where = outer
		r.OSCORE = newOSCORE(value, who)
	}
	var format int64
	r.Options, format = explainOptions(&w, m.code, where)
	if w.Err() != nil {
		r.Malformed = reason(w.Err())
		if n := len(r.Options); n > 0 {
			r.note("it is well-formed up to the end of option %d", r.Options[n-1].Number)
		}
		return
	}
	payload := w.Payload()
	if protected {
		if payload != nil {
			r.Payload = &Payload{Bytes: payload}
		} else {
			r.OSCORE.Problem = "a message with option 9 must have a payload: the ciphertext is missing (RFC 8613 section 2)"
		}
		return
	}
	r.Payload = newPayload(payload, format)
}

// explainOptions walks the options to their end and returns the
// Content-Format, -1 if there is none.
func explainOptions(w *coap.Walker, code coap.Code, where place) (options []Option, format int64) {
	format = -1
	previous, first := uint16(0), true
	for w.Next() {
		options = append(options, newOption(w.Number, w.Value, code, where, !first && w.Number == previous))
		previous, first = w.Number, false
		if v, ok := coap.Uint(w.Value); ok && w.Number == coap.ContentFormat {
			format = int64(v)
		}
	}
	return options, format
}

// newOpened explains the message inside.
func newOpened(m oscore.Message, by string) *Opened {
	code := coap.Code(m.Code)
	w := coap.Walk(m.Body)
	o := &Opened{By: by, Code: codeText(code)}
	var format int64
	o.Options, format = explainOptions(&w, code, inner)
	o.Payload = newPayload(w.Payload(), format)
	return o
}

// codeText writes a code as number and name: "0.02 POST", "2.05 Content".
func codeText(c coap.Code) string {
	number := fmt.Sprintf("%d.%02d", c.Class(), c.Detail())
	if name := c.Name(); name != "" {
		return number + " " + name
	}
	return number + " (not registered)"
}

// reason is a codec's error without the name of its package.
func reason(err error) string {
	const prefix = "coap: "
	if s := err.Error(); len(s) > len(prefix) && s[:len(prefix)] == prefix {
		return s[len(prefix):]
	}
	return err.Error()
}

// payloadOf returns a body's payload, nil if it has none.
func payloadOf(body []byte) []byte {
	w := coap.Walk(body)
	for w.Next() {
	}
	return w.Payload()
}
