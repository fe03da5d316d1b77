package oscoretest

import (
	"strings"

	"github.com/oscorelay/oscorelay/internal/coap"
	"github.com/oscorelay/oscorelay/oscore"
)

// Code is a CoAP code (RFC 7252 §5.9, RFC 8132).
type Code byte

// Codes of requests and of responses.
const (
	GET    Code = 0x01
	POST   Code = 0x02
	PUT    Code = 0x03
	DELETE Code = 0x04
	FETCH  Code = 0x05
	PATCH  Code = 0x06
	IPATCH Code = 0x07

	Created      Code = 0x41
	Deleted      Code = 0x42
	Valid        Code = 0x43
	Changed      Code = 0x44
	Content      Code = 0x45
	BadRequest   Code = 0x80
	Unauthorized Code = 0x81
	BadOption    Code = 0x82
	Forbidden    Code = 0x83
	NotFound     Code = 0x84
)

// String writes a code as people do: 2.05.
func (c Code) String() string { return coap.Code(c).String() }

// Message is a request or a response, taken apart.
type Message struct {
	Code    Code
	Path    string // of a request: /3303/0/5700; "/" and "" are the same
	Options []Option
	Payload []byte
}

// Option is a CoAP option other than Uri-Path.
type Option struct {
	Number uint16
	Value  []byte
}

// Get makes a GET.
func Get(path string) Message { return Message{Code: GET, Path: path} }

// Put makes a PUT.
func Put(path string, payload []byte) Message {
	return Message{Code: PUT, Path: path, Payload: payload}
}

// Post makes a POST.
func Post(path string, payload []byte) Message {
	return Message{Code: POST, Path: path, Payload: payload}
}

// Respond makes a response; the payload may be nil.
func Respond(code Code, payload []byte) Message { return Message{Code: code, Payload: payload} }

// Option returns the value of the first option of that number.
func (m Message) Option(number uint16) (value []byte, ok bool) {
	for _, o := range m.Options {
		if o.Number == number {
			return o.Value, true
		}
	}
	return nil, false
}

// encode returns the message as package oscore takes it. The error is that of a
// path segment longer than 255 bytes.
func (m Message) encode() (oscore.Message, error) {
	opts := make(coap.Options, 0, len(m.Options)+4)
	for _, o := range m.Options {
		opts = opts.Add(o.Number, o.Value)
	}
	if m.Path != "" && m.Path != "/" {
		var err error
		if opts, err = opts.AddPath("/" + strings.TrimPrefix(m.Path, "/")); err != nil {
			return oscore.Message{}, err
		}
	}
	return oscore.Message{Code: byte(m.Code), Body: coap.AppendBody(nil, opts, m.Payload)}, nil
}

// decode takes a message apart; what cannot be is its code alone.
func decode(m oscore.Message) Message {
	out := Message{Code: Code(m.Code)}
	opts, payload, err := coap.Split(m.Body)
	if err != nil {
		return out
	}
	if coap.Code(m.Code).IsRequest() {
		out.Path = coap.Path(m.Body)
	}
	for _, o := range opts.Without(coap.URIPath) {
		out.Options = append(out.Options, Option{o.Number, o.Value})
	}
	out.Payload = payload
	return out
}
