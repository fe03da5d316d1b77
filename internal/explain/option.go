package explain

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/oscorelay/oscorelay/internal/coap"
)

// Option is one option of a message.
type Option struct {
	Number  uint16 `json:"number"`
	Name    string `json:"name"` // "" for a number that is not known
	Value   Hex    `json:"value"`
	Meaning string `json:"meaning,omitempty"`
	Problem string `json:"problem,omitempty"`
}

// place is where an option stands, which decides what is said about it.
type place int

const (
	plain place = iota // a message without option 9
	outer              // beside option 9
	inner              // in the plaintext
)

// classU lists the options that travel outside (RFC 8613 Figure 5; RFC 8768
// §3; RFC 9668 §3.1).
var classU = map[uint16]bool{
	coap.URIHost: true, coap.URIPort: true, coap.OSCORE: true, coap.HopLimit: true, coap.EDHOC: true, coap.ProxyURI: true, coap.ProxyScheme: true,
}

// hopByHop lists the Class E options that may also stand outside, where they
// belong to a hop (RFC 8613 §4.1.3).
var hopByHop = map[uint16]bool{
	coap.Observe: true, coap.MaxAge: true, coap.Block1: true, coap.Block2: true, coap.Size1: true, coap.Size2: true,
	coap.NoResponse: true, coap.Echo: true, coap.RequestTag: true, coap.QBlock1: true, coap.QBlock2: true,
}

// newOption describes one option of a message with the given code.
func newOption(number uint16, value []byte, code coap.Code, where place, again bool) Option {
	o := Option{Number: number, Value: value, Meaning: meaning(number, value, code)}
	def, known := coap.Define(number)
	switch {
	case known:
		o.Name = def.Name
		if len(value) < def.Min || len(value) > def.Max {
			o.Problem = fmt.Sprintf("%s of %s outside of %d to %d: the receiver treats it as an option it does not know", def.Name, count(len(value), "byte"), def.Min, def.Max)
		} else if again && !def.Repeatable {
			o.Problem = "may stand only once: the receiver treats this one as an option it does not know"
		}
	case coap.Critical(number):
		o.Meaning = "not known here; critical: a receiver that does not know it refuses the message"
	default:
		o.Meaning = "not known here; elective: a receiver that does not know it skips it"
	}
	switch {
	case o.Problem != "":
	case where == outer && !classU[number] && !hopByHop[number]:
		o.Problem = "Class E: outside of the ciphertext the receiver discards it"
	case where == inner && number == coap.OSCORE:
		o.Problem = "must not stand inside (RFC 8613 section 4.1.3.7)"
	}
	return o
}

// meaning says what an option's value means.
func meaning(number uint16, value []byte, code coap.Code) string {
	v, isUint := coap.Uint(value)
	switch number {
	case coap.URIHost, coap.LocationPath, coap.URIPath, coap.URIQuery, coap.LocationQuery, coap.ProxyURI, coap.ProxyScheme:
		return quote(value)
	case coap.URIPort:
		if isUint {
			return strconv.Itoa(int(v))
		}
	case coap.Observe:
		return observeMeaning(v, isUint, code)
	case coap.ContentFormat, coap.Accept:
		if isUint {
			if name, ok := contentFormats[v]; ok {
				return fmt.Sprintf("%d, %s", v, name)
			}
			return fmt.Sprintf("%d", v)
		}
	case coap.MaxAge:
		if isUint {
			return fmt.Sprintf("fresh for %d s", v)
		}
	case coap.Size1, coap.Size2:
		if isUint {
			return count(int(v), "byte") + " in all"
		}
	case coap.HopLimit:
		if isUint {
			return fmt.Sprintf("%d hops left", v)
		}
	case coap.Block1, coap.Block2, coap.QBlock1, coap.QBlock2:
		return blockMeaning(value)
	case coap.NoResponse:
		return noResponseMeaning(v, isUint)
	case coap.IfNoneMatch:
		return "only if the resource does not exist"
	case coap.EDHOC:
		return "an EDHOC message_3 stands before the ciphertext"
	case coap.IfMatch:
		if len(value) == 0 {
			return "only if the resource exists"
		}
	case coap.Echo:
		if code.IsRequest() {
			return "the answer to a freshness challenge"
		}
		return "a freshness challenge: repeat the request with it"
	case coap.RequestTag:
		return "marks the blocks of one body"
	}
	return ""
}

func observeMeaning(v uint32, isUint bool, code coap.Code) string {
	switch {
	case !isUint:
		return ""
	case code.IsRequest() && v == 0:
		return "0, register"
	case code.IsRequest() && v == 1:
		return "1, deregister"
	case code.IsRequest():
		return fmt.Sprintf("%d, neither register (0) nor deregister (1)", v)
	}
	return fmt.Sprintf("%d, a notification", v)
}

func blockMeaning(value []byte) string {
	b, err := coap.ParseBlock(value)
	if err != nil {
		if v, ok := coap.Uint(value); ok && v&7 == 7 && len(value) <= 3 {
			return fmt.Sprintf("block %d of 1024 bytes each, several at once (BERT, TCP only)", v>>4)
		}
		return ""
	}
	more := "the last"
	if b.More {
		more = "more follow"
	}
	return fmt.Sprintf("block %d of %d bytes, from byte %d on; %s", b.Num, b.Size(), b.Offset(), more)
}

// noResponseMeaning reads RFC 7967 §2.1.
func noResponseMeaning(v uint32, isUint bool) string {
	if !isUint {
		return ""
	}
	if v == 0 {
		return "0, interested in all responses"
	}
	var not []string
	for _, class := range []uint32{2, 4, 5} {
		if v&(1<<(class-1)) != 0 {
			not = append(not, fmt.Sprintf("%d.xx", class))
		}
	}
	return fmt.Sprintf("%d, not interested in %s", v, strings.Join(not, ", "))
}

// quote quotes text of a message, with what does not print escaped.
func quote(b []byte) string { return strconv.Quote(string(b)) }

// count writes a number with its unit: "1 byte", "2 bytes".
func count(n int, unit string) string {
	if n == 1 {
		return "1 " + unit
	}
	return strconv.Itoa(n) + " " + unit + "s"
}
