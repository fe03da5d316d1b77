package oscore

import (
	"errors"
	"testing"

	"github.com/oscorelay/oscorelay/internal/coap"
)

// testParams are a client's parameters that fit every algorithm.
func testParams() Params {
	return Params{
		MasterSecret: Secret("sixteen bytes !!"), MasterSalt: []byte("salt"), SenderID: []byte{0x01}, RecipientID: []byte{},
	}
}

// testPair returns fresh contexts of a client and a server.
func testPair(t testing.TB) (client, server *Context) {
	t.Helper()
	p := testParams()
	return newPair(t, p, p.Swap())
}

// option is an option of a test's message, with its value as a string.
type option struct {
	number uint16
	value  string
}

func msg(code coap.Code, payload string, opts ...option) Message {
	var list coap.Options
	for _, o := range opts {
		list = list.Add(o.number, []byte(o.value))
	}
	return Message{byte(code), coap.AppendBody(nil, list, []byte(payload))}
}

// trip is a request that came through.
type trip struct {
	client, server *Context
	p              Pending
	r              Request
	sealed, opened Message
}

// request sends m from client to server.
func request(t testing.TB, client, server *Context, m Message) *trip {
	t.Helper()
	x := &trip{client: client, server: server}
	var err error
	if x.sealed, err = client.SealRequest(nil, &x.p, m); err != nil {
		t.Fatal(err)
	}
	if x.opened, err = server.OpenRequest(nil, &x.r, x.sealed); err != nil {
		t.Fatal(err)
	}
	return x
}

func newTrip(t testing.TB, m Message) *trip {
	t.Helper()
	client, server := testPair(t)
	return request(t, client, server, m)
}

var (
	get     = msg(coap.GET, "", option{coap.URIPath, "temp"})
	observe = msg(coap.GET, "", option{coap.Observe, ""}, option{coap.URIPath, "temp"})
	content = msg(coap.Content, "20.5")
	notify  = msg(coap.Content, "20.5", option{coap.Observe, "\x07"})
)

// seal seals a response under the request's nonce, number one of its own.
func (x *trip) seal(t testing.TB, m Message) Message {
	t.Helper()
	return must(x.r.Seal(nil, m))(t)
}

func (x *trip) number(t testing.TB, m Message) Message {
	t.Helper()
	return must(x.server.SealResponse(nil, &x.r, m))(t)
}

// must turns a result and an error into the result or the test's end.
func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// want fails the test unless err is the wanted one; nil is one too.
func want(t testing.TB, err, wanted error) {
	t.Helper()
	if !errors.Is(err, wanted) {
		t.Errorf("got error %v, want %v", err, wanted)
	}
}

// options returns a body's options.
func options(t testing.TB, body []byte) coap.Options {
	t.Helper()
	opts, _, err := coap.Split(body)
	if err != nil {
		t.Fatal(err)
	}
	return opts
}

// plaintext decrypts what was sealed under the request's nonce of x.
func (c *Context) plaintext(t testing.TB, sealed Message, nonce, aad []byte) []byte {
	t.Helper()
	_, ciphertext, err := coap.Split(sealed.Body)
	if err != nil {
		t.Fatal(err)
	}
	return must(c.keys.open(nil, nonce, ciphertext, aad))(t)
}

// forge seals any bytes as the plaintext of a request, as only a holder of the
// keys can.
func forge(t testing.TB, c *Context, plaintext []byte) Message {
	t.Helper()
	var p Pending
	n := must(c.take())(t)
	var buf [maxPIVLen]byte
	piv := buf[:putPIV(&buf, n)]
	c.keys.sender.exchange(&p.exchange, int(c.keys.nonceLen), piv)
	p.keys = c.keys
	body := appendOuter(nil, nil, &Option{PartialIV: piv, KIDContext: c.kidContext, KID: c.keys.sender.kid()}, 0)
	ciphertext := must(c.keys.seal(nil, p.nonceBytes(), plaintext, p.aadBytes()))(t)
	return Message{codePOST, append(append(body, 0xff), ciphertext...)}
}

// forgeResponse does the same for a response under the request's nonce, or
// under a Partial IV.
func (x *trip) forgeResponse(t testing.TB, plaintext []byte, opt *Option) Message {
	t.Helper()
	k := x.server.keys
	nonce := x.r.nonce
	if opt.PartialIV != nil {
		nonce = k.sender.nonce
		xorPIV(&nonce, int(k.nonceLen), opt.PartialIV)
	}
	ciphertext := must(k.seal(nil, nonce[:k.nonceLen], plaintext, x.r.aadBytes()))(t)
	return Message{codeChanged, append(append(appendOSCORE(nil, 0, opt), 0xff), ciphertext...)}
}

// withOption returns a protected message with its OSCORE option's value
// replaced.
func withOption(t testing.TB, m Message, value []byte) Message {
	t.Helper()
	opts, payload, err := coap.Split(m.Body)
	if err != nil {
		t.Fatal(err)
	}
	opts = opts.Without(coap.OSCORE).Add(coap.OSCORE, value)
	return Message{m.Code, coap.AppendBody(nil, opts, payload)}
}

func wantNamed(t testing.TB, name string, err, wanted error) {
	t.Helper()
	if !errors.Is(err, wanted) {
		t.Errorf("%s: got error %v, want %v", name, err, wanted)
	}
}
