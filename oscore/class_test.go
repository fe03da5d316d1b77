package oscore

import (
	"fmt"
	"strings"
	"testing"

	"github.com/oscorelay/oscorelay/internal/coap"
	"github.com/oscorelay/oscorelay/internal/proof"
)

// classes is §4.1's Figure 5 and what later documents added, from the sender's
// side: where an option of the original message goes.
var classes = map[uint16]string{
	coap.IfMatch: "E", coap.URIHost: "U", coap.ETag: "E", coap.IfNoneMatch: "E", coap.Observe: "EU", coap.URIPort: "U", coap.LocationPath: "E",
	coap.URIPath: "E", coap.ContentFormat: "E", coap.MaxAge: "E", coap.URIQuery: "E", coap.HopLimit: "U", coap.Accept: "E", coap.QBlock1: "E",
	coap.LocationQuery: "E", coap.EDHOC: "U", coap.Block2: "E", coap.Block1: "E", coap.Size2: "E", coap.QBlock2: "E", coap.ProxyURI: "U",
	coap.ProxyScheme: "U", coap.Size1: "E", coap.Echo: "E", coap.NoResponse: "E", coap.RequestTag: "E",
	// Unknown ones, of every kind that RFC 7252 §5.4.6 tells apart.
	0: "E", 2: "E", 13: "E", 63: "E", 64: "E", 67: "E", 73: "E", 100: "E", 2048: "E", 2049: "E", 64999: "E", 65000: "E", 65535: "E",
}

// value returns a value of legal length for the option.
func value(number uint16) string {
	switch number {
	case coap.ProxyURI:
		return "coap://example.com"
	case coap.Observe:
		return ""
	}
	if d, ok := coap.Define(number); ok {
		return strings.Repeat("\x05", d.Min)
	}
	return "value"
}

func TestClassOfEveryOption(t *testing.T) {
	proof.Checklist(t, "O-4-1", "O-4-3", "O-4.1-1", "O-4.1.1-1", "O-4.1.2-1", "O-4.1.3.4.1-1", "O-4.1.3.6-1", "O-4.1.3.6-2", "O-13.6-1")
	for number, class := range classes {
		for _, response := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/response %v", coap.OptionName(number), response), func(t *testing.T) {
				first := get
				if number == coap.Observe {
					first = observe
				}
				x := newTrip(t, first)
				own := option{number, value(number)}
				var sealed Message
				var plaintext []byte
				if response {
					sealed = x.seal(t, msg(coap.Content, "payload", own))
					plaintext = x.client.plaintext(t, sealed, x.p.nonceBytes(), x.p.aadBytes())
				} else {
					var p Pending
					sealed = must(x.client.SealRequest(nil, &p, msg(coap.PUT, "payload", own)))(t)
					plaintext = x.server.plaintext(t, sealed, p.nonceBytes(), p.aadBytes())
				}
				_, outer := options(t, sealed.Body).Get(number)
				_, inner := options(t, plaintext[1:]).Get(number)
				if got := map[bool]string{true: "E"}[inner] + map[bool]string{true: "U"}[outer]; got != class {
					t.Errorf("option %d travels %q, want %q", number, got, class)
				}
			})
		}
	}
	for number := range uint16(64) {
		if _, ok := coap.Define(number); ok && number != coap.OSCORE && classes[number] == "" {
			t.Errorf("no expectation for option %d", number)
		}
	}
}

// TestPlainAgreesWithTheWalk holds the short way to the long one.
func TestPlainAgreesWithTheWalk(t *testing.T) {
	check := func(body []byte) {
		t.Helper()
		w := coap.Walk(body)
		careful := false
		for w.Next() {
			careful = careful || w.Number == coap.Observe || isClassU(w.Number)
		}
		if plain(body) && (w.Err() != nil || careful) {
			t.Fatalf("%x passes as plain: careful %v, %v", body, careful, w.Err())
		}
		if !plain(body) && w.Err() == nil && !careful && !strings.ContainsRune(string(body), 0xe0) {
			for i := range body {
				if body[i]>>4 == 14 || body[i]&15 == 14 {
					return // two-byte extensions go the long way
				}
			}
			t.Fatalf("%x goes the long way", body)
		}
	}
	// Every body of up to two bytes, and every first two with a tail.
	check(nil)
	for a := range 256 {
		check([]byte{byte(a)})
		for b := range 256 {
			check([]byte{byte(a), byte(b)})
			check([]byte{byte(a), byte(b), 0xff, 0x01})
			check([]byte{byte(a), byte(b), 0x10, 0x31, 0x00, 0xff})
		}
	}
	check([]byte{0xd0, 0xff, 0xd0, 0xff, 0xff, 0x00})
	long := []byte{}
	for range 300 { // the number passes 65535
		long = append(long, 0xd0, 0xff)
	}
	check(long)
	if plain(long) {
		t.Error("option numbers above 65535 pass")
	}
}

func TestEveryOuterOptionOfClassUIsCarriedOver(t *testing.T) {
	proof.Checklist(t, "O-4-3", "O-4.1.3.2-1")
	client, server := testPair(t)
	m := msg(coap.PUT, "payload", option{coap.IfMatch, "1"}, option{coap.URIPath, "a"}, option{coap.Accept, ""}, option{coap.Size1, "\x07"}, option{2049, "x"})
	var p Pending
	sealed := must(client.SealRequest(nil, &p, m))(t)
	opts, payload, _ := coap.Split(sealed.Body)
	added := coap.Options{}
	for _, n := range []uint16{coap.URIHost, coap.URIPort, coap.HopLimit, coap.EDHOC, coap.ProxyURI, coap.ProxyScheme} {
		added = added.Add(n, []byte(value(n)))
	}
	outer := append(append(coap.Options{{Number: coap.ETag, Value: []byte("x")}, {Number: 48, Value: []byte("x")}}, opts...), added...)
	var r Request
	opened := must(server.OpenRequest(nil, &r, Message{sealed.Code, coap.AppendBody(nil, outer, payload)}))(t)
	inner, _, _ := coap.Split(m.Body)
	sameMessage(t, opened, Message{m.Code, coap.AppendBody(nil, append(inner, added...), []byte("payload"))})
}

func TestInnerOptionWinsOverOuter(t *testing.T) {
	client, server := testPair(t)
	for _, n := range []uint16{coap.URIHost, coap.URIPort, coap.HopLimit, coap.ProxyScheme} {
		inner := msg(coap.GET, "", option{n, "in"}, option{coap.URIPath, "a"})
		var p Pending
		sealed := must(client.SealRequestAs(nil, &p, inner, msg(coap.POST, "", option{n, "out"}, option{coap.ProxyURI, "coap://h"})))(t)
		var r Request
		opened := must(server.OpenRequest(nil, &r, sealed))(t)
		sameMessage(t, opened, msg(coap.GET, "", option{n, "in"}, option{coap.URIPath, "a"}, option{coap.ProxyURI, "coap://h"}))
	}
}

func TestSealRequestAs(t *testing.T) {
	proof.Checklist(t, "O-4.1.2-1")
	client, server := testPair(t)
	inner := msg(coap.GET, "p", option{coap.URIHost, "inside"}, option{coap.URIPath, "a"}, option{coap.OSCORE, "\x09\x00\x05"})
	outer := msg(coap.FETCH, "", option{coap.URIPath, "proxy"}, option{coap.NoResponse, "\x1a"}, option{coap.EDHOC, ""}, option{65000, "x"})
	var p Pending
	sealed := must(client.SealRequestAs(nil, &p, inner, outer))(t)
	if sealed.Code != byte(coap.FETCH) {
		t.Errorf("outer code %x", sealed.Code)
	}
	want, _, _ := coap.Split(outer.Body)
	if got := options(t, sealed.Body).Without(coap.OSCORE); !got.Equal(want) {
		t.Errorf("outer options %v, want %v", got, want)
	}
	plaintext := server.plaintext(t, sealed, p.nonceBytes(), p.aadBytes())
	equal(t, "plaintext", plaintext, append([]byte{inner.Code}, inner.Body...))
	for name, c := range map[string]struct {
		inner, outer Message
		err          error
	}{
		"outer payload":     {get, msg(coap.POST, "x"), coap.ErrFormat},
		"outer broken":      {get, Message{codePOST, []byte{0xf0}}, coap.ErrFormat},
		"inner broken":      {Message{1, []byte{0xff}}, Message{Code: codePOST}, coap.ErrFormat},
		"outer OSCORE":      {get, msg(coap.POST, "", option{coap.OSCORE, ""}), ErrNested},
		"outer response":    {get, Message{Code: codeChanged}, ErrCode},
		"inner response":    {content, Message{Code: codePOST}, ErrCode},
		"inner empty":       {Message{}, Message{Code: codePOST}, ErrCode},
		"observe too long":  {msg(coap.GET, "", option{coap.Observe, "\x01\x02\x03\x04"}), Message{Code: codeFETCH}, coap.ErrFormat},
		"observe too often": {msg(coap.GET, "", option{coap.Observe, ""}, option{coap.Observe, ""}), Message{Code: codeFETCH}, coap.ErrFormat},
	} {
		if _, err := client.SealRequestAs(nil, &p, c.inner, c.outer); err == nil {
			t.Errorf("%s: accepted", name)
		} else {
			wantNamed(t, name, err, c.err)
		}
	}
	if client.NextSequence() != 1 {
		t.Errorf("refused messages spent numbers: next is %d", client.NextSequence())
	}
}
