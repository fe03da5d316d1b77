package sim

import (
	"bytes"
	"net"
	"testing"
	"time"

	"github.com/oscorelay/oscorelay/internal/coap"
	"github.com/oscorelay/oscorelay/internal/sim/lwm2m"
	"github.com/plgd-dev/go-coap/v3/message"
	"github.com/plgd-dev/go-coap/v3/message/codes"
	"github.com/plgd-dev/go-coap/v3/udp/coder"
)

// raw is a peer that sends datagrams as they are given.
type raw struct {
	t    *testing.T
	conn *net.UDPConn
}

func newRaw(t *testing.T, to *net.UDPAddr) *raw {
	t.Helper()
	conn, err := net.DialUDP("udp4", nil, to)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &raw{t, conn}
}

// exchange sends a request and returns the datagram that comes back.
func (r *raw) exchange(m message.Message) (message.Message, []byte) {
	r.t.Helper()
	b := make([]byte, 2048)
	n, err := coder.DefaultCoder.Encode(m, b)
	if err != nil {
		r.t.Fatal(err)
	}
	if _, err := r.conn.Write(b[:n]); err != nil {
		r.t.Fatal(err)
	}
	in := make([]byte, 2048)
	if err := r.conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		r.t.Fatal(err)
	}
	if n, err = r.conn.Read(in); err != nil {
		r.t.Fatal(err)
	}
	out := message.Message{Options: make(message.Options, 0, 16)}
	if _, err := coder.DefaultCoder.Decode(in[:n], &out); err != nil {
		r.t.Fatal(err)
	}
	return out, in[:n]
}

func get(mid int32, path string, more ...message.Option) message.Message {
	p := Request{Method: codes.GET, Path: path, Accept: NoFormat, Format: NoFormat}.packet(-1)
	return message.Message{Code: codes.GET, Type: message.Confirmable, MessageID: mid, Token: message.Token{1, 2}, Options: withBlock(p.options, more...)}
}

// TestDuplicates: a request that comes again is answered from memory, and
// executed once; one with the same message ID and another token is new.
func TestDuplicates(t *testing.T) {
	w := newWorld(t, DeviceConfig{Endpoint: "dev1"}, ServerConfig{})
	r := newRaw(t, w.device.Addr())
	m := get(7, "/3/0/4")
	m.Code = codes.POST
	first, bytes1 := r.exchange(m)
	_, bytes2 := r.exchange(m)
	if first.Code != codes.Changed || first.Type != message.Acknowledgement || first.MessageID != 7 || !bytes.Equal(bytes1, bytes2) {
		t.Errorf("%v\n%x\n%x", first, bytes1, bytes2)
	}
	if n := w.device.Objects().Executed(lwm2m.MustPath("/3/0/4")); n != 1 {
		t.Errorf("executed %d times", n)
	}
	m.Token = message.Token{3}
	r.exchange(m)
	if n := w.device.Objects().Executed(lwm2m.MustPath("/3/0/4")); n != 2 {
		t.Errorf("executed %d times", n)
	}
}

// TestRetransmission: the device's radio is off when a request is sent first.
func TestRetransmission(t *testing.T) {
	w := newWorld(t, DeviceConfig{Endpoint: "dev1"}, ServerConfig{AckTimeout: 50 * time.Millisecond})
	w.device.Sleep()
	done := make(chan error, 1)
	go func() { done <- w.server.Execute(w.ctx, "dev1", "/3/0/4", "") }()
	select {
	case err := <-done:
		t.Fatalf("answered asleep: %v", err)
	case <-time.After(20 * time.Millisecond):
	}
	w.device.wake()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if n := w.device.Objects().Executed(lwm2m.MustPath("/3/0/4")); n != 1 {
		t.Errorf("executed %d times", n)
	}
}

// TestBlocksOnTheWire: sizes that the peer asks for, blocks out of order, and
// blocks of one body under different tokens.
func TestBlocksOnTheWire(t *testing.T) {
	w := newWorld(t, DeviceConfig{Endpoint: "dev1"}, ServerConfig{})
	r := newRaw(t, w.device.Addr())
	mid := int32(100)
	next := func(m message.Message) message.Message {
		mid++
		m.MessageID, m.Token = mid, message.Token{byte(mid), byte(mid >> 8)}
		out, _ := r.exchange(m)
		return out
	}
	var body []byte
	for num, more := uint32(0), true; more; num++ {
		out := next(get(0, "/19/0/0/0", blockOption(message.Block2, coap.Block{Num: num, SZX: 5})))
		b, has, err := blockOf(packet{options: out.Options}, message.Block2)
		if err != nil || !has || b.Num != num || b.SZX != 5 || out.Code != codes.Content {
			t.Fatalf("block %d: %+v %v", num, b, out.Code)
		}
		if size, err := out.Options.GetUint32(message.Size2); num == 0 && (err != nil || size != lwm2m.Large) {
			t.Errorf("Size2 %d %v", size, err)
		}
		body, more = append(body, out.Payload...), b.More
	}
	if !bytes.Equal(body, lwm2m.LargeBody()) {
		t.Errorf("%d bytes", len(body))
	}
	if out := next(get(0, "/19/0/0/0", blockOption(message.Block2, coap.Block{Num: 999, SZX: 5}))); out.Code != codes.BadRequest {
		t.Errorf("a block that there is not: %v", out.Code)
	}
	put := func(num uint32, more bool, n int) codes.Code {
		m := get(0, "/19/1/0/0", blockOption(message.Block1, coap.Block{Num: num, More: more, SZX: 0}))
		m.Code, m.Payload = codes.PUT, Pattern(n)
		m.Options = withFormat(m.Options)
		return next(m).Code
	}
	for _, c := range []struct {
		num  uint32
		more bool
		n    int
		want codes.Code
	}{
		{1, true, 16, codes.RequestEntityIncomplete}, // nothing came before
		{0, true, 16, codes.Continue},
		{2, true, 16, codes.RequestEntityIncomplete}, // a gap
		{0, true, 15, codes.BadRequest},              // not its size
		{0, true, 16, codes.Continue},
		{1, false, 3, codes.Changed},
	} {
		if got := put(c.num, c.more, c.n); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
	if v, _ := w.device.Objects().Get(lwm2m.MustPath("/19/1/0/0")); len(v.Bytes) != 19 {
		t.Errorf("%d bytes", len(v.Bytes))
	}
}

func withFormat(o message.Options) message.Options {
	block, _ := o.GetBytes(message.Block1)
	list := optionList{withBlock(o)}
	list.number(message.ContentFormat, lwm2m.Octets)
	return withBlock(list.Options, message.Option{ID: message.Block1, Value: block})
}

// TestFresher has RFC 7641 §3.4's cases.
func TestFresher(t *testing.T) {
	at := time.Unix(0, 0)
	for _, c := range []struct {
		last, next int
		after      time.Duration
		want       bool
	}{
		{1, 2, 0, true},
		{2, 2, 0, false},
		{2, 1, 0, false},
		{0xffffff, 0, 0, true},
		{0, 0xffffff, 0, false},
		{5, 4, 128 * time.Second, false},
		{5, 4, 129 * time.Second, true},
	} {
		if got := fresher(c.last, c.next, at, at.Add(c.after)); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
}

// TestCriticalOptions: in plain, OSCORE and unknown options are refused.
func TestCriticalOptions(t *testing.T) {
	w := newWorld(t, DeviceConfig{Endpoint: "dev1"}, ServerConfig{})
	r := newRaw(t, w.device.Addr())
	for i, id := range []message.OptionID{9, 65001, message.ProxyURI} {
		m := get(int32(i), "/3/0/0", message.Option{ID: id, Value: []byte{1}})
		if out, _ := r.exchange(m); out.Code != codes.BadOption {
			t.Errorf("option %d: %v", id, out.Code)
		}
	}
}

// TestAnswerFromElsewhere: a request to the device is open until the device
// itself answers; a response from another port is reset.
func TestAnswerFromElsewhere(t *testing.T) {
	w := newWorld(t, DeviceConfig{Endpoint: "dev1"}, ServerConfig{})
	r := newRaw(t, w.server.Addr())
	out, _ := r.exchange(message.Message{Code: codes.Content, Type: message.NonConfirmable, MessageID: 5, Token: message.Token{9, 9}, Payload: []byte("x")})
	if out.Type != message.Reset || out.MessageID != 5 || out.Code != codes.Empty {
		t.Errorf("%v", out)
	}
}

// TestBadRegistrations are refused, and say why.
func TestBadRegistrations(t *testing.T) {
	both(t, nil, func(w *world) {
		for _, c := range []struct {
			query  []string
			format int
			body   string
		}{
			{[]string{"lwm2m=1.1"}, lwm2m.LinkFormat, "</3/0>"},
			{[]string{"ep=x"}, lwm2m.LinkFormat, "</3/0>"},
			{[]string{"ep=x", "lwm2m=1.1", "lt=0"}, lwm2m.LinkFormat, "</3/0>"},
			{[]string{"ep=x", "lwm2m=1.1"}, lwm2m.Text, "</3/0>"},
			{[]string{"ep=x", "lwm2m=1.1"}, lwm2m.LinkFormat, ""},
		} {
			r := Request{Method: codes.POST, Path: "/rd", Query: c.query, Accept: NoFormat, Format: c.format, Payload: []byte(c.body)}
			if resp, err := w.device.Do(w.ctx, r); err != nil || resp.Code != codes.BadRequest || len(resp.Payload) == 0 {
				w.t.Errorf("%v: %v %+v", c, err, resp)
			}
		}
		if _, ok := w.server.Registration("x"); ok {
			w.t.Error("registered")
		}
	})
}

// FuzzBlocks: whatever blocks come, in whatever order, a body is whole or
// refused.
func FuzzBlocks(f *testing.F) {
	f.Add([]byte{0x08, 16, 0x10, 3}, []byte{0x00})
	f.Add([]byte{0x0e}, []byte{0x26, 0x07})
	f.Fuzz(func(t *testing.T, up, down []byte) {
		b := newBlocks(64)
		for i := 0; i+1 < len(up); i += 2 {
			in := packet{code: codes.PUT, payload: Pattern(int(up[i+1])), options: message.Options{{ID: message.Block1, Value: up[i : i+1]}}}
			whole, out, done := b.receive("a", in)
			if done == (out.code == 0) {
				t.Fatalf("%v %+v %+v", done, whole, out)
			}
		}
		in := packet{code: codes.GET, options: message.Options{{ID: message.Block2, Value: down}}}
		for range 2 {
			whole, out, done := b.receive("a", in)
			if !done {
				out = b.answer("a", in, whole, packet{code: codes.Content, payload: Pattern(1000)})
			}
			if len(out.payload) > 64 {
				t.Fatalf("%d bytes", len(out.payload))
			}
		}
	})
}
