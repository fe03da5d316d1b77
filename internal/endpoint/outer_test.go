package endpoint

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"github.com/oscorelay/oscorelay/internal/coap"
	"github.com/oscorelay/oscorelay/internal/proof"
	"github.com/oscorelay/oscorelay/oscore"
)

// hop cuts a protected message into outer blocks, as a proxy does.
func hop(m oscore.Message, number uint16, szx uint8, more ...coap.Option) (out []oscore.Message) {
	opts, payload, _ := coap.Split(m.Body)
	for num := uint32(0); ; num++ {
		b := coap.Block{Num: num, SZX: szx}
		to := min(b.Offset()+b.Size(), len(payload))
		b.More = to < len(payload)
		o := append(append(coap.Options{}, opts...), more...)
		out = append(out, oscore.Message{Code: m.Code, Body: coap.AppendBody(nil, append(o, option(number, b.Append(nil)...)), payload[b.Offset():to])})
		if !b.More {
			return out
		}
	}
}

func TestOuterBlocks(t *testing.T) {
	proof.Checklist(t, "O-4.1.3.4.2-3", "O-4.1.3.4.1-2")
	p := newPair(t, Config{}, Config{}, oscore.Settings{})
	body := pattern(900)
	p.handle = func(r *Incoming) oscore.Message {
		if !bytes.Equal(payloadOf(t, r.Message), body) {
			t.Error("body differs")
		}
		return content(body)
	}
	a := NewReassembler(4096, 1<<20, time.Minute)
	x, m := p.begin(message(t, coap.PUT, "/x", body, option(coap.URIHost, 'h')))
	var whole oscore.Message
	blocks := hop(m, coap.Block1, 2, option(coap.RequestTag, 1))
	for i, b := range blocks {
		out, ok := a.Request(p.now, "hop", b)
		if ok != (i == len(blocks)-1) || !ok && coap.Code(out.Code) != coap.Continue {
			t.Fatalf("block %d: %v %v", i, ok, coap.Code(out.Code))
		}
		whole = out
	}
	answer, ok := p.serve(whole, "t")
	if !ok {
		t.Fatalf("%+v", p.last())
	}
	blocks = hop(answer, coap.Block2, 2)
	for i, b := range blocks {
		out, ok, next, fine := a.Response(p.now, "x", b)
		if !fine || ok != (i == len(blocks)-1) || !ok && next != (coap.Block{Num: uint32(i) + 1, SZX: 2}) {
			t.Fatalf("block %d: %v %v %+v", i, ok, fine, next)
		}
		whole = out
	}
	if s := x.Receive(p.now, whole); s.Kind != Response || !bytes.Equal(payloadOf(t, s.Message), body) {
		t.Errorf("%+v", s)
	}
	if a.held != 0 || len(a.parts) != 0 || a.idle.Len() != 0 {
		t.Errorf("%d bytes in %d parts are left", a.held, len(a.parts))
	}
	if out, whole := a.Request(p.now, "hop", m); !whole || !bytes.Equal(out.Body, m.Body) {
		t.Error("a message without blocks was changed")
	}
}

// Wrong turn 14: outer blocks, which nothing vouches for, are bounded: a
// message by MAX_UNFRAGMENTED_SIZE, all of them by the total, whatever they
// consist of.
func TestWrongTurn14_OuterBlocksAreBounded(t *testing.T) {
	proof.Checklist(t, "O-4.1.3.4.2-4")
	now := time.Unix(1e9, 0)
	sealed := withOSCORE([]byte{0x09, 1, 1}, pattern(5000))
	t.Run("a message", func(t *testing.T) {
		a := NewReassembler(2000, 1<<20, time.Minute)
		for i, b := range hop(sealed, coap.Block1, 5) {
			out, whole := a.Request(now, "s", b)
			want := coap.Continue
			switch {
			case i == 3:
				want = coap.RequestEntityTooLarge
			case i > 3:
				want = coap.RequestEntityIncomplete
			}
			if whole || coap.Code(out.Code) != want {
				t.Fatalf("block %d: %v %v", i, whole, coap.Code(out.Code))
			}
			if v, _ := optionOf(out, coap.Size1); i == 3 && !bytes.Equal(v, []byte{2000 >> 8, 2000 & 0xff}) {
				t.Errorf("Size1 %x", v)
			}
		}
		for i, b := range hop(sealed, coap.Block2, 5) {
			if _, whole, _, ok := a.Response(now, "s", b); whole || ok != (i < 3) {
				t.Fatalf("response block %d: %v %v", i, whole, ok)
			}
		}
		if out, _ := a.Request(now, "s", hop(sealed, coap.Block1, 5, option(coap.Size1, 0x10, 0))[0]); coap.Code(out.Code) != coap.RequestEntityTooLarge {
			t.Errorf("Size1 beyond: %v", coap.Code(out.Code))
		}
		if a.held != 0 {
			t.Errorf("%d bytes held", a.held)
		}
	})
	t.Run("a flood", func(t *testing.T) {
		const total = 1 << 20
		a := NewReassembler(64<<10, total, time.Minute)
		filler := bytes.Repeat([]byte{1}, 200)
		one := withOSCORE([]byte{0x09, 1, 1}, pattern(1025))
		for i := range 6000 {
			opts := []coap.Option{option(coap.RequestTag, byte(i), byte(i>>8))}
			for range i % 50 { // options weigh too
				opts = append(opts, option(coap.ProxyScheme, filler...))
			}
			a.Request(now, fmt.Sprint("s", i), hop(one, coap.Block1, 6, opts...)[0])
			real := 0
			if i%1000 == 0 {
				for _, el := range a.parts {
					real += el.Value.(*part).cost()
				}
				if real != a.held || real > total || a.idle.Len() != len(a.parts) {
					t.Fatalf("%d bytes, %d counted, of %d", real, a.held, total)
				}
			}
		}
		// A genuine transfer goes through it nevertheless.
		blocks := hop(withOSCORE([]byte{0x09, 2, 1}, pattern(5000)), coap.Block1, 6)
		for i, b := range blocks {
			if out, whole := a.Request(now, "genuine", b); whole != (i == len(blocks)-1) {
				t.Fatalf("block %d: %v", i, coap.Code(out.Code))
			}
			for j := range 20 {
				a.Request(now, fmt.Sprint("f", i, j), hop(one, coap.Block1, 6)[0])
			}
		}
	})
	t.Run("a message above the total", func(t *testing.T) {
		a := NewReassembler(64<<10, 3000, time.Minute)
		var code coap.Code
		for _, b := range hop(sealed, coap.Block1, 6) {
			out, _ := a.Request(now, "s", b)
			if code = coap.Code(out.Code); code != coap.Continue {
				break
			}
		}
		if code != coap.ServiceUnavailable || a.held != 0 {
			t.Errorf("%v, %d bytes held", code, a.held)
		}
	})
	t.Run("lifetime", func(t *testing.T) {
		a := NewReassembler(64<<10, 1<<20, time.Minute)
		blocks := hop(sealed, coap.Block1, 6)
		a.Request(now, "s", blocks[0])
		if out, _ := a.Request(now.Add(61*time.Second), "s", blocks[1]); coap.Code(out.Code) != coap.RequestEntityIncomplete || a.held != 0 {
			t.Errorf("%v, %d bytes held", coap.Code(out.Code), a.held)
		}
	})
}

func TestOuterBlocksThatDoNotFit(t *testing.T) {
	proof.Checklist(t, "O-4.1.3.4.2-5")
	now := time.Unix(1e9, 0)
	blocks := hop(withOSCORE([]byte{0x09, 1, 1}, pattern(100)), coap.Block1, 0)
	other := hop(withOSCORE([]byte{0x09, 2, 1}, pattern(100)), coap.Block1, 0)
	tagged := hop(withOSCORE([]byte{0x09, 1, 1}, pattern(100)), coap.Block1, 0, option(coap.RequestTag, 1))
	short := withOSCORE([]byte{0x09, 1, 1}, []byte("x"))
	for _, c := range []struct {
		name   string
		source string
		m      oscore.Message
		want   coap.Code
	}{
		{"another source", "b", blocks[1], coap.RequestEntityIncomplete},
		{"another Partial IV", "a", other[1], coap.RequestEntityIncomplete},
		{"another Request-Tag", "a", tagged[1], coap.RequestEntityIncomplete},
		{"one left out", "a", blocks[2], coap.RequestEntityIncomplete},
		{"short", "a", hop(short, coap.Block1, 0)[0], coap.Continue}, // replaced below
		{"the next", "a", blocks[1], coap.Continue},
		{"reserved size", "a", oscore.Message{Code: 2, Body: coap.AppendBody(nil, coap.Options{option(coap.OSCORE, 9, 1, 1), option(coap.Block1, 15)}, []byte("x"))}, coap.BadRequest},
		{"twice", "a", oscore.Message{Code: 2, Body: coap.AppendBody(nil, coap.Options{option(coap.OSCORE, 9, 1, 1), option(coap.Block1, 8), option(coap.Block1, 8)}, []byte("x"))}, coap.BadOption},
		{"broken", "a", oscore.Message{Code: 2, Body: []byte{0xf0}}, coap.BadRequest},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := NewReassembler(4096, 1<<20, time.Minute)
			a.Request(now, "a", blocks[0])
			if c.name == "short" {
				opts, _, _ := coap.Split(c.m.Body)
				c.m.Body = coap.AppendBody(nil, opts.Without(coap.Block1).Add(coap.Block1, coap.Block{Num: 1, More: true}.Append(nil)), []byte("x"))
				c.want = coap.RequestEntityIncomplete
			}
			if out, whole := a.Request(now, c.source, c.m); whole || coap.Code(out.Code) != c.want {
				t.Errorf("%v %v", whole, coap.Code(out.Code))
			}
		})
	}
	// A request and a response under the same key stay apart.
	a := NewReassembler(4096, 1<<20, time.Minute)
	a.Request(now, "a", blocks[0])
	if _, _, _, ok := a.Response(now, "a", hop(short, coap.Block2, 0)[0]); !ok {
		t.Error("a short response")
	}
	if _, _, _, ok := a.Response(now, "a", oscore.Message{Code: 0x44, Body: []byte{0xf0}}); ok {
		t.Error("a broken response")
	}
}
