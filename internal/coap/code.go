package coap

import "fmt"

// Code is the code field of a message: a 3-bit class and a 5-bit detail
// (RFC 7252 §3), written "c.dd".
type Code uint8

// Codes of RFC 7252 §12.1, RFC 7959 §2.9, RFC 8132 §4, RFC 8516, RFC 8768 and
// RFC 8323 §5.
const (
	Empty  Code = 0x00
	GET    Code = 0x01
	POST   Code = 0x02
	PUT    Code = 0x03
	DELETE Code = 0x04
	FETCH  Code = 0x05
	PATCH  Code = 0x06
	IPATCH Code = 0x07

	Created  Code = 2<<5 | 1
	Deleted  Code = 2<<5 | 2
	Valid    Code = 2<<5 | 3
	Changed  Code = 2<<5 | 4
	Content  Code = 2<<5 | 5
	Continue Code = 2<<5 | 31

	BadRequest               Code = 4 << 5
	Unauthorized             Code = 4<<5 | 1
	BadOption                Code = 4<<5 | 2
	Forbidden                Code = 4<<5 | 3
	NotFound                 Code = 4<<5 | 4
	MethodNotAllowed         Code = 4<<5 | 5
	NotAcceptable            Code = 4<<5 | 6
	RequestEntityIncomplete  Code = 4<<5 | 8
	Conflict                 Code = 4<<5 | 9
	PreconditionFailed       Code = 4<<5 | 12
	RequestEntityTooLarge    Code = 4<<5 | 13
	UnsupportedContentFormat Code = 4<<5 | 15
	UnprocessableEntity      Code = 4<<5 | 22
	TooManyRequests          Code = 4<<5 | 29

	InternalServerError  Code = 5 << 5
	NotImplemented       Code = 5<<5 | 1
	BadGateway           Code = 5<<5 | 2
	ServiceUnavailable   Code = 5<<5 | 3
	GatewayTimeout       Code = 5<<5 | 4
	ProxyingNotSupported Code = 5<<5 | 5
	HopLimitReached      Code = 5<<5 | 8

	CSM     Code = 7<<5 | 1
	Ping    Code = 7<<5 | 2
	Pong    Code = 7<<5 | 3
	Release Code = 7<<5 | 4
	Abort   Code = 7<<5 | 5
)

// Class returns the code's class: 0 for requests, 2, 4 and 5 for responses, 7
// for signalling.
func (c Code) Class() uint8 { return uint8(c) >> 5 }

// Detail returns the code's detail.
func (c Code) Detail() uint8 { return uint8(c) & 0x1f }

// IsRequest reports whether c is a request code (0.01 to 0.31).
func (c Code) IsRequest() bool { return c.Class() == 0 && c != Empty }

// IsResponse reports whether c is a response code (classes 2 to 5).
func (c Code) IsResponse() bool { return c.Class() >= 2 && c.Class() <= 5 }

// IsSignal reports whether c is a signalling code (RFC 8323 §5).
func (c Code) IsSignal() bool { return c.Class() == 7 }

// IsSuccess reports whether c is a response of class 2.
func (c Code) IsSuccess() bool { return c.Class() == 2 }

// String returns the method's name for a request, "c.dd" for anything else.
func (c Code) String() string {
	if c.IsRequest() {
		if name, ok := methodNames[c]; ok {
			return name
		}
	}
	return fmt.Sprintf("%d.%02d", c.Class(), c.Detail())
}

// Name returns the registered name of c, such as "Content", or "" for a code
// this package does not know.
func (c Code) Name() string {
	if name, ok := methodNames[c]; ok {
		return name
	}
	return codeNames[c]
}

var methodNames = map[Code]string{
	GET: "GET", POST: "POST", PUT: "PUT", DELETE: "DELETE", FETCH: "FETCH", PATCH: "PATCH", IPATCH: "iPATCH",
}

var codeNames = map[Code]string{
	Empty: "Empty", Created: "Created", Deleted: "Deleted", Valid: "Valid", Changed: "Changed", Content: "Content", Continue: "Continue",
	BadRequest: "Bad Request", Unauthorized: "Unauthorized", BadOption: "Bad Option", Forbidden: "Forbidden", NotFound: "Not Found",
	MethodNotAllowed: "Method Not Allowed", NotAcceptable: "Not Acceptable", RequestEntityIncomplete: "Request Entity Incomplete",
	Conflict: "Conflict", PreconditionFailed: "Precondition Failed", RequestEntityTooLarge: "Request Entity Too Large",
	UnsupportedContentFormat: "Unsupported Content-Format", UnprocessableEntity: "Unprocessable Entity", TooManyRequests: "Too Many Requests",
	InternalServerError: "Internal Server Error", NotImplemented: "Not Implemented", BadGateway: "Bad Gateway",
	ServiceUnavailable: "Service Unavailable", GatewayTimeout: "Gateway Timeout", ProxyingNotSupported: "Proxying Not Supported",
	HopLimitReached: "Hop Limit Reached",
	CSM:             "CSM", Ping: "Ping", Pong: "Pong", Release: "Release", Abort: "Abort",
}
