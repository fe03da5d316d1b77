package sim

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/oscorelay/oscorelay/internal/sim/lwm2m"
	"github.com/plgd-dev/go-coap/v3/message"
	"github.com/plgd-dev/go-coap/v3/message/codes"
	"github.com/plgd-dev/go-coap/v3/message/pool"
)

// NoFormat is the absence of Accept or Content-Format.
const NoFormat = -1

// Request is a CoAP request. Fields that are formats must be NoFormat where
// there is none: 0 is plain text.
type Request struct {
	Method  codes.Code
	Path    string // "/3/0/0"; "/" for composite operations
	Query   []string
	Accept  int
	Format  int
	Payload []byte
	NON     bool // non-confirmable
}

// Response is the whole answer to a request, or a notification.
type Response struct {
	Code     codes.Code
	Format   int // NoFormat where there is none
	Payload  []byte
	Location string // of a registration or an instance: "/rd/1"
	Observe  bool   // the observation was accepted, or goes on
}

// Err returns nil for a success, else an error that tells the code.
func (r Response) Err() error {
	if r.Code>>5 == 2 {
		return nil
	}
	return &CodeError{r.Code, string(r.Payload)}
}

// CodeError is an answer that is no success.
type CodeError struct {
	Code       codes.Code
	Diagnostic string
}

func (e *CodeError) Error() string {
	s := "sim: answer " + CodeText(e.Code)
	if e.Diagnostic != "" {
		s += " (" + e.Diagnostic + ")"
	}
	return s
}

// CodeText returns a code as 2.05.
func CodeText(c codes.Code) string { return fmt.Sprintf("%d.%02d", c>>5, c&0x1f) }

// Errors of requests.
var (
	ErrReset  = errors.New("sim: the peer reset the request")
	ErrClosed = errors.New("sim: closed")
	ErrEnded  = errors.New("sim: the observation is over")
)

// codeOf is the table of lwm2m's errors.
func codeOf(err error) codes.Code {
	for _, x := range []struct {
		err  error
		code codes.Code
	}{
		{lwm2m.ErrNotFound, codes.NotFound},
		{lwm2m.ErrBadRequest, codes.BadRequest},
		{lwm2m.ErrNotAllowed, codes.MethodNotAllowed},
		{lwm2m.ErrUnauthorized, codes.Unauthorized},
		{lwm2m.ErrFormat, codes.UnsupportedMediaType},
		{lwm2m.ErrNotAcceptable, codes.NotAcceptable},
		{lwm2m.ErrPreconditionState, codes.MethodNotAllowed},
	} {
		if errors.Is(err, x.err) {
			return x.code
		}
	}
	return codes.InternalServerError
}

// failure answers with an error.
func failure(err error) Response {
	return Response{Code: codeOf(err), Format: lwm2m.Text, Payload: []byte(err.Error())}
}

// incoming is a request that came in.
type incoming struct {
	Request
	Observe int // -1, 0 or 1
	Token   string
	Source  *net.UDPAddr
	Peer    string // OSCORE's, "" in plain
	// notify sends a notification under the request's token.
	notify func(r Response, confirm bool) error
}

// packet is a copy of a message of go-coap, which recycles its own.
type packet struct {
	code    codes.Code
	options message.Options
	payload []byte
}

func copyPacket(m *pool.Message) (p packet, err error) {
	p.code = m.Code()
	for _, o := range m.Options() {
		p.options = append(p.options, message.Option{ID: o.ID, Value: bytes.Clone(o.Value)})
	}
	if m.Body() != nil {
		p.payload, err = m.ReadBody()
	}
	return p, err
}

func (p packet) number(id message.OptionID) int {
	v, err := p.options.GetUint32(id)
	if err != nil {
		return -1
	}
	return int(v)
}

func (p packet) strings(id message.OptionID) (out []string) {
	for _, o := range p.options {
		if o.ID == id {
			out = append(out, string(o.Value))
		}
	}
	return out
}

func (p packet) request() Request {
	return Request{
		Method: p.code, Path: "/" + strings.Join(p.strings(message.URIPath), "/"), Query: p.strings(message.URIQuery),
		Accept: p.number(message.Accept), Format: p.number(message.ContentFormat), Payload: p.payload,
	}
}

func (p packet) response() Response {
	r := Response{Code: p.code, Format: p.number(message.ContentFormat), Payload: p.payload, Observe: p.options.HasOption(message.Observe)}
	if l := p.strings(message.LocationPath); len(l) > 0 {
		r.Location = "/" + strings.Join(l, "/")
	}
	return r
}

// optionList builds options in their order.
type optionList struct{ message.Options }

func (o *optionList) text(id message.OptionID, values ...string) {
	for _, v := range values {
		o.Options = append(o.Options, message.Option{ID: id, Value: []byte(v)})
	}
}

func (o *optionList) number(id message.OptionID, v int) {
	if v < 0 {
		return
	}
	b := make([]byte, 4)
	n, err := message.EncodeUint32(b, uint32(v))
	if err != nil {
		panic(err) // four bytes hold it
	}
	o.Options = append(o.Options, message.Option{ID: id, Value: b[:n]})
}

func segments(path string) []string {
	path = strings.Trim(path, "/")
	if path == "" {
		return nil
	}
	return strings.Split(path, "/")
}

func (r Request) packet(observe int) packet {
	var o optionList
	o.number(message.Observe, observe)
	o.text(message.URIPath, segments(r.Path)...)
	o.number(message.ContentFormat, r.Format)
	o.text(message.URIQuery, r.Query...)
	o.number(message.Accept, r.Accept)
	return packet{r.Method, o.Options, r.Payload}
}

func (r Response) packet(observe int) packet {
	var o optionList
	o.number(message.Observe, observe)
	o.text(message.LocationPath, segments(r.Location)...)
	if len(r.Payload) > 0 {
		o.number(message.ContentFormat, r.Format)
	}
	return packet{r.Code, o.Options, r.Payload}
}

// fill makes a message of go-coap.
func (p packet) fill(m *pool.Message) {
	m.SetCode(p.code)
	m.ResetOptionsTo(p.options)
	if len(p.payload) > 0 {
		m.SetBody(bytes.NewReader(p.payload))
	}
}
