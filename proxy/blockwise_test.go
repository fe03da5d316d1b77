package proxy_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/oscorelay/oscorelay/internal/coap"
	"github.com/oscorelay/oscorelay/internal/proof"
	"github.com/oscorelay/oscorelay/proxy"
)

// post sends a request with a payload.
func (s *socket) post(p *running, typ coap.Type, token string, o coap.Options, payload []byte) {
	s.t.Helper()
	s.mid++
	s.send(p.Addr(), coap.Datagram{Type: typ, Code: coap.POST, MessageID: s.mid, Token: []byte(token), Body: coap.AppendBody(nil, o, payload)})
}

// block is a request that came as one of several.
type block struct {
	coap.Block
	coap.Datagram
	options coap.Options
	payload []byte
	tags    []string
}

// takeBlock receives a block and answers it.
func (s *socket) takeBlock(code coap.Code, answer coap.Options, payload []byte) (b block) {
	s.t.Helper()
	d, from := s.receive()
	b = split(s.t, d)
	o := answer
	if o == nil {
		o = coap.Options{{Number: coap.Block1, Value: b.value()}}
	}
	s.send(from, coap.Datagram{Type: coap.Acknowledgement, Code: code, MessageID: d.MessageID, Token: d.Token, Body: coap.AppendBody(nil, o, payload)})
	return b
}

// value is the option's value.
func (b block) value() []byte { return b.Block.Append(nil) }

func split(t testing.TB, d coap.Datagram) (b block) {
	t.Helper()
	opts, payload, err := coap.Split(d.Body)
	if err != nil {
		t.Fatal(err)
	}
	b = block{Datagram: d, payload: bytes.Clone(payload)}
	raw, ok := opts.Get(coap.Block1)
	if !ok {
		t.Fatalf("no Block1 in %x", d.Body)
	}
	if b.Block, err = coap.ParseBlock(raw); err != nil {
		t.Fatal(err)
	}
	for _, o := range opts {
		if o.Number == coap.RequestTag {
			b.tags = append(b.tags, string(o.Value))
		}
	}
	b.options = opts.Without(coap.Block1, coap.RequestTag).Clone()
	return b
}

var big = []byte(strings.Repeat("0123456789abcdef", 20)) // 320 bytes

// TestOuterBlocks: a request that the next hop cannot take whole reaches it in
// blocks that say which operation they belong to, and its client knows of none
// (RFC 8613 §4.1.3.4.2, RFC 9175 §3.3.2).
func TestOuterBlocks(t *testing.T) {
	proof.Checklist(t, "O-4.1.3.4.2-5")
	client, origin := open(t), open(t)
	p := start(t, proxy.Config{Routes: []proxy.Route{{To: origin.addr(), BlockSize: 128}}, HopLimit: -1})
	sealed := options(coap.OSCORE, "\x09\x01\x01", coap.RequestTag, "own", uint16(65000), "unknown")
	for _, typ := range []coap.Type{coap.Confirmable, coap.NonConfirmable} {
		t.Run(typ.String(), func(t *testing.T) {
			client.post(p, typ, "t", sealed, big)
			var whole []byte
			var tags []string
			for i, code := range []coap.Code{coap.Continue, coap.Continue, coap.Changed} {
				o := coap.Options(nil)
				if code == coap.Changed {
					o = options(coap.OSCORE, "", coap.Block1, "\x23")
				}
				b := origin.takeBlock(code, o, nil)
				if int(b.Num) != i || b.Size() != 128 || b.More != (i < 2) || b.Type != coap.Confirmable || b.Code != coap.POST {
					t.Fatalf("block %d is %+v", i, b.Block)
				}
				if !b.options.Equal(sealed.Without(coap.RequestTag)) || len(b.tags) != 2 || b.tags[0] != "own" || i > 0 && b.tags[1] != tags[1] {
					t.Errorf("block %d: options %v, tags %q, before %q", i, b.options, b.tags, tags)
				}
				whole, tags = append(whole, b.payload...), b.tags
			}
			if !bytes.Equal(whole, big) {
				t.Errorf("%q", whole)
			}
			d, _ := client.receive()
			if d.Code != coap.Changed || !bytes.Equal(d.Body, coap.AppendBody(nil, options(coap.OSCORE, ""), nil)) {
				t.Errorf("the client got %v %x", d.Code, d.Body)
			}
		})
	}
	if st := p.Stats(); st.Transfers != 2 || st.Exchanges != 0 {
		t.Errorf("%+v", st)
	}
}

// TestConcurrentBlocks: blocks of requests that are under way together are
// told apart by their Request-Tag.
func TestConcurrentBlocks(t *testing.T) {
	a, b, origin := open(t), open(t), open(t)
	p := start(t, proxy.Config{Routes: []proxy.Route{{To: origin.addr(), BlockSize: 256}}})
	for i, c := range []*socket{a, b} {
		c.post(p, coap.Confirmable, "t", nil, bytes.Repeat([]byte{byte('a' + i)}, 300))
	}
	seen := map[string]string{}
	for range 4 {
		d, from := origin.receive()
		b := split(t, d)
		seen[b.tags[0]] += string(b.payload)
		code := coap.Changed
		if b.More {
			code = coap.Continue
		}
		body := coap.AppendBody(nil, coap.Options{{Number: coap.Block1, Value: b.value()}}, nil)
		origin.send(from, coap.Datagram{Type: coap.Acknowledgement, Code: code, MessageID: d.MessageID, Token: d.Token, Body: body})
	}
	for _, whole := range seen {
		if len(whole) != 300 || strings.Trim(whole, whole[:1]) != "" {
			t.Errorf("%q came under one tag", whole)
		}
	}
	if len(seen) != 2 {
		t.Errorf("%d tags for two requests", len(seen))
	}
	for _, c := range []*socket{a, b} {
		c.want(coap.Acknowledgement, coap.Changed)
	}
}

// TestClientsOwnBlocks: blocks that clients cut themselves pass as they are,
// with a tag that tells the clients apart.
func TestClientsOwnBlocks(t *testing.T) {
	a, b, origin := open(t), open(t), open(t)
	p := start(t, proxy.Config{Routes: reverse(origin.addr()), HopLimit: -1})
	tags := map[*socket]string{}
	for i := range 2 {
		for _, c := range []*socket{a, b} {
			value := coap.Block{Num: uint32(i), More: i == 0, SZX: 2}.Append(nil)
			o := options(coap.OSCORE, "\x09\x01\x01", coap.Block1, string(value), uint16(65000), "unknown")
			c.post(p, coap.Confirmable, fmt.Sprint(i), o, big[:64])
			d := origin.takeBlock(coap.Continue, nil, nil)
			if !bytes.Equal(d.value(), value) || !d.options.Equal(o.Without(coap.Block1)) || len(d.tags) != 1 {
				t.Fatalf("%+v", d)
			}
			if tags[c] == "" {
				tags[c] = d.tags[0]
			}
			if tags[c] != d.tags[0] {
				t.Error("one operation, two tags")
			}
			c.want(coap.Acknowledgement, coap.Continue)
		}
	}
	if tags[a] == tags[b] {
		t.Error("two clients, one tag")
	}
}

// TestBlockHint: a server that says how small it wants it gets it so, and one
// that lost the blocks before gets them once more.
func TestBlockHint(t *testing.T) {
	client, origin := open(t), open(t)
	p := start(t, proxy.Config{Routes: reverse(origin.addr())})
	client.post(p, coap.Confirmable, "t", nil, big)
	d, from := origin.receive()
	if _, ok := coap.Find(d.Body, coap.Block1); ok {
		t.Error("cut without need")
	}
	hint := coap.AppendBody(nil, options(coap.Block1, string(coap.Block{SZX: 4}.Append(nil))), nil)
	origin.send(from, coap.Datagram{Type: coap.Acknowledgement, Code: coap.RequestEntityTooLarge, MessageID: d.MessageID, Token: d.Token, Body: hint})
	first := origin.takeBlock(coap.Continue, nil, nil)
	if first.Num != 0 || first.Size() != 256 {
		t.Fatalf("%+v", first.Block)
	}
	origin.takeBlock(coap.RequestEntityIncomplete, coap.Options{}, nil)
	again := origin.takeBlock(coap.Continue, options(coap.Block1, string(coap.Block{More: true, SZX: 2}.Append(nil))), nil)
	if again.Num != 0 || again.tags[0] == first.tags[0] {
		t.Fatalf("%+v, tag as before: %v", again.Block, again.tags[0] == first.tags[0])
	}
	if last := origin.takeBlock(coap.Changed, nil, nil); last.Size() != 64 || last.Offset() != 256 || last.More {
		t.Fatalf("%+v", last.Block) // the server asked for smaller ones under way
	}
	client.want(coap.Acknowledgement, coap.Changed)
}

// TestBlockErrors: an error of the server ends the transfer and is the
// client's; blocks out of step are 5.02; what is kept is bounded and let go.
func TestBlockErrors(t *testing.T) {
	client, origin := open(t), open(t)
	p := start(t, proxy.Config{Routes: []proxy.Route{{To: origin.addr(), BlockSize: 64}}, MaxTransfers: 900, Shards: 1, Timeout: 200 * time.Millisecond, AckDelay: 10 * time.Second})
	for code, want := range map[coap.Code]coap.Code{
		coap.Forbidden: coap.Forbidden, coap.RequestEntityTooLarge: coap.RequestEntityTooLarge, coap.InternalServerError: coap.InternalServerError,
	} {
		client.post(p, coap.Confirmable, "t", nil, big)
		origin.takeBlock(code, nil, nil)
		client.want(coap.Acknowledgement, want)
	}
	client.post(p, coap.Confirmable, "t", nil, big)
	origin.takeBlock(coap.Continue, options(coap.Block1, string(coap.Block{Num: 9, More: true, SZX: 2}.Append(nil))), nil)
	client.want(coap.Acknowledgement, coap.BadGateway)
	for range 2 {
		client.post(p, coap.Confirmable, "t", nil, big)
		origin.receive()
	}
	client.post(p, coap.Confirmable, "t", nil, big)
	client.want(coap.Acknowledgement, coap.ServiceUnavailable)
	for range 2 {
		client.want(coap.Acknowledgement, coap.GatewayTimeout)
	}
	if st := p.Stats(); st.By["transfers_full"] != 1 || st.Exchanges != 0 {
		t.Errorf("%+v", st)
	}
	client.post(p, coap.Confirmable, "t", nil, big) // there is room again
	for {
		d, _ := origin.receive()
		if d.Code != coap.Empty {
			break
		}
	}
}
