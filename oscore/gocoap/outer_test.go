package gocoap_test

import (
	"bytes"
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/oscorelay/oscorelay/internal/coap"
	"github.com/oscorelay/oscorelay/internal/proof"
	"github.com/oscorelay/oscorelay/oscore/gocoap"
	"github.com/plgd-dev/go-coap/v3/message"
	"github.com/plgd-dev/go-coap/v3/message/codes"
	"github.com/plgd-dev/go-coap/v3/mux"
)

// cutter is a hop that cuts the server's protected responses into outer blocks
// and serves them itself (RFC 8613 §4.1.3.4.2).
type cutter struct {
	t    testing.TB
	r    *relay
	size int
	mu   sync.Mutex
	last datagram // the response cut last
	asks atomic.Int32
}

func newCutter(t testing.TB, r *relay, szx uint8) *cutter {
	c := &cutter{t: t, r: r, size: coap.Block{SZX: szx}.Size()}
	r.set(c.hook)
	return c
}

func (c *cutter) block(d datagram, typ message.Type, mid int32, token message.Token, num int, observe bool) []byte {
	from := min(num*c.size, len(d.Payload))
	to := min(from+c.size, len(d.Payload))
	m := message.Message{Type: typ, MessageID: mid, Token: token, Code: d.Code, Payload: d.Payload[from:to]}
	for _, o := range d.Options {
		if o.ID != message.Observe || observe {
			m.Options = append(m.Options, o)
		}
	}
	szx := uint8(0)
	for coap.Block.Size(coap.Block{SZX: szx}) < c.size {
		szx++
	}
	b := coap.Block{Num: uint32(num), More: to < len(d.Payload), SZX: szx}
	m.Options = m.Options.Add(message.Option{ID: message.Block2, Value: b.Append(nil)})
	return build(c.t, m)
}

func (c *cutter) hook(d datagram) [][]byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	if d.from == fromServer {
		if !d.sealed() || len(d.Payload) <= c.size {
			return [][]byte{d.raw}
		}
		c.last = d
		return [][]byte{c.block(d, d.Type, d.MessageID, d.Token, 0, true)}
	}
	value, err := d.Options.GetBytes(message.Block2)
	if err != nil {
		return [][]byte{d.raw}
	}
	asks := c.asks.Add(1)
	b, err := coap.ParseBlock(value)
	if err != nil || !d.sealed() || d.Options.HasOption(message.Observe) {
		c.t.Errorf("request for an outer block: %v", d.Message.String())
		return nil
	}
	if asks%5 == 2 {
		c.r.send(fromServer, build(c.t, message.Message{Type: message.NonConfirmable, MessageID: d.MessageID, Token: d.Token, Code: codes.NotFound}))
	}
	c.r.send(fromServer, c.block(c.last, message.Acknowledgement, d.MessageID, d.Token, int(b.Num), false))
	return nil
}

func TestResponseCutByAHop(t *testing.T) {
	w := newWorld(t, setup{client: gocoap.Config{PlainErrorWait: time.Minute}})
	c := newCutter(t, w.relay, 2)
	body := strings.Repeat("0123456789abcdef", 100)
	for range 3 {
		w.mustPost(body) // in inner blocks of 1024 bytes, each cut into 64
	}
	if n := c.asks.Load(); n < 3*10 {
		t.Errorf("the hop was asked for %d blocks", n)
	}
	w.wantCalls(3)
	w.relay.checkSealed("secret")
	proof.Checklist(t, "O-4.1.3.4.2-3")
}

func TestNotificationCutByAHop(t *testing.T) {
	s := newSensor(t)
	w := newWorld(t, setup{handler: s})
	_, got := w.watch()
	w.want(got, "registered")
	newCutter(t, w.relay, 2)
	for _, n := range []int{10, 20, 30} {
		body := strings.Repeat("0123456789abcdef", n)
		s.mustNotify(message.NonConfirmable, body)
		w.want(got, body)
	}
}

// What is cut may not become larger than MAX_UNFRAGMENTED_SIZE.
func TestCutResponseIsBounded(t *testing.T) {
	w := newWorld(t, setup{handler: mux.HandlerFunc(func(rw mux.ResponseWriter, _ *mux.Message) {
		_ = rw.SetResponse(codes.Content, message.TextPlain, nil)
	})})
	var asked atomic.Int32
	w.relay.set(func(d datagram) [][]byte {
		num := 0
		switch {
		case isSealedRequest(d) && d.Options.HasOption(message.Block2):
			v, _ := d.Options.GetBytes(message.Block2)
			b, err := coap.ParseBlock(v)
			if err != nil {
				t.Error(err)
			}
			num = int(b.Num)
			asked.Add(1)
		case d.from == fromClient:
		default:
			return nil
		}
		m := message.Message{
			Type: message.Acknowledgement, MessageID: d.MessageID, Token: d.Token, Code: codes.Changed, Payload: bytes.Repeat([]byte("x"), 1024),
			Options: message.Options{{ID: 9}, {ID: message.Block2, Value: coap.Block{Num: uint32(num), More: true, SZX: 6}.Append(nil)}},
		}
		w.relay.send(fromServer, build(t, m))
		return nil
	})
	ctx, cancel := context.WithTimeout(w.ctx, 300*time.Millisecond)
	defer cancel()
	if _, err := w.client.Get(ctx, "/x"); err == nil {
		t.Error("an answer without end was taken")
	}
	w.relay.set(nil)
	if n := asked.Load(); n == 0 || n > 4 {
		t.Errorf("%d blocks of 1024 bytes were asked for, 4096 bytes are the limit", n)
	}
	proof.Checklist(t, "O-4.1.3.4.2-4")
}

// A hop cuts a request; its blocks are lost and doubled on the way.
func TestRequestCutByAHop(t *testing.T) {
	w := newWorld(t, setup{})
	c := stranger(t, w.server)
	w.relay.set(func(d datagram) [][]byte {
		if !isSealedRequest(d) {
			return [][]byte{d.raw}
		}
		const size = 64
		var got datagram
		for num := 0; num*size < len(d.Payload); num++ {
			to := min((num+1)*size, len(d.Payload))
			m := d.Message
			m.Payload = d.Payload[num*size : to]
			m.MessageID = (d.MessageID + int32(num)) & 0xffff
			m.Options = append(message.Options{}, d.Options...)
			m.Options = m.Options.Add(message.Option{ID: message.Block1, Value: coap.Block{Num: uint32(num), More: to < len(d.Payload), SZX: 2}.Append(nil)})
			raw := build(t, m)
			for range 3 { // the answer was lost twice
				got = ask(t, c, raw)
				if more := to < len(d.Payload); more && got.Code != codes.Continue || !more && !got.sealed() {
					t.Errorf("block %d: %v", num, got.Message.String())
				}
			}
		}
		m := got.Message
		m.MessageID = d.MessageID
		w.relay.send(fromServer, build(t, m))
		return nil
	})
	w.mustPost(strings.Repeat("0123456789abcdef", 40))
	w.wantCalls(1)
}
