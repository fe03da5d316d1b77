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

// pattern is a body in which no two blocks are alike.
func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*7 + i>>8*13 + i>>4)
	}
	return b
}

// upload sends one block by hand and returns the answer's code and Block1.
func (p *pair) upload(code coap.Code, path string, body []byte, b coap.Block, more ...coap.Option) (oscore.Message, coap.Code) {
	p.t.Helper()
	to := min(b.Offset()+b.Size(), len(body))
	from := min(b.Offset(), to)
	resp, ok := p.ask(message(p.t, code, path, body[from:to], append(more, option(coap.Block1, b.Append(nil)...))...), "t")
	if !ok {
		p.t.Fatal("no answer")
	}
	return resp, coap.Code(resp.Code)
}

func TestUploadByHand(t *testing.T) {
	proof.Checklist(t, "O-4.1.3.4.1-2")
	body := pattern(100)
	for _, code := range []coap.Code{coap.PUT, coap.POST, coap.FETCH, coap.PATCH, coap.IPATCH} {
		p := newPair(t, Config{}, Config{}, oscore.Settings{})
		p.handle = func(r *Incoming) oscore.Message {
			if !bytes.Equal(payloadOf(t, r.Message), body) || coap.Code(r.Message.Code) != code {
				t.Errorf("%v: body %x", code, payloadOf(t, r.Message))
			}
			for _, n := range []uint16{coap.Block1, coap.Size1, coap.RequestTag} {
				if _, ok := optionOf(r.Message, n); ok {
					t.Errorf("%v: option %d left", code, n)
				}
			}
			return changed()
		}
		for num := range uint32(4) {
			b := coap.Block{Num: num, More: num < 3, SZX: 1}
			resp, got := p.upload(code, "/u", body, b, option(coap.Size1, 100), option(coap.RequestTag, 9))
			want := coap.Continue
			if num == 3 {
				want = coap.Changed
			}
			if v, _ := optionOf(resp, coap.Block1); got != want || !bytes.Equal(v, b.Append(nil)) {
				t.Errorf("%v block %d: %v %x", code, num, got, v)
			}
			if _, ok := optionOf(resp, coap.RequestTag); ok {
				t.Error("Request-Tag in a response")
			}
		}
		if p.calls != 1 {
			t.Errorf("%v: handler ran %d times", code, p.calls)
		}
	}
}

// Uploads of other cache keys and of other Request-Tags go on side by side;
// blocks that do not follow are refused, and apply nothing.
func TestUploadsSideBySide(t *testing.T) {
	proof.Checklist(t, "E-19", "E-23")
	proof.Requirement(t, "in-memory endpoint", "E2E-5")
	bodies := [][]byte{pattern(64), bytes.Repeat([]byte{1}, 64), bytes.Repeat([]byte{2}, 64), bytes.Repeat([]byte{3}, 64)}
	ids := [][]coap.Option{nil, {option(coap.RequestTag)}, {option(coap.RequestTag, 1)}, {option(coap.RequestTag, 1), option(coap.RequestTag, 2)}}
	p := newPair(t, Config{}, Config{}, oscore.Settings{})
	var got [][]byte
	p.handle = func(r *Incoming) oscore.Message {
		got = append(got, bytes.Clone(payloadOf(t, r.Message)))
		return changed()
	}
	for num := range uint32(4) {
		for i := range bodies {
			if _, code := p.upload(coap.PUT, "/u", bodies[i], coap.Block{Num: num, More: num < 3}, ids[i]...); num < 3 && code != coap.Continue {
				t.Fatalf("%d of %d: %v", num, i, code)
			}
		}
	}
	for i := range bodies {
		if !bytes.Equal(got[i], bodies[i]) {
			t.Errorf("upload %d: %x", i, got[i])
		}
	}
}

func TestUploadRefused(t *testing.T) {
	body := pattern(96)
	first := func(p *pair) { p.upload(coap.PUT, "/u", body, coap.Block{More: true}) }
	for _, c := range []struct {
		name  string
		setup func(*pair)
		b     coap.Block
		body  []byte
		want  coap.Code
	}{
		{"no first block", func(*pair) {}, coap.Block{Num: 1, More: true}, body, coap.RequestEntityIncomplete},
		{"the last alone", func(*pair) {}, coap.Block{Num: 3}, body[:64], coap.RequestEntityIncomplete},
		{"a block left out", first, coap.Block{Num: 2, More: true}, body, coap.RequestEntityIncomplete},
		{"short block", first, coap.Block{Num: 1, More: true}, body[:20], coap.BadRequest},
		{"far block", first, coap.Block{Num: 1 << 19, More: true}, nil, coap.BadRequest},
		{"beyond the bound", first, coap.Block{Num: 63, More: true, SZX: 6}, pattern(64 << 10), coap.RequestEntityTooLarge},
		{"once more, another content", first, coap.Block{Num: 1, More: true, SZX: 6}, pattern(4096), coap.RequestEntityIncomplete},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newPair(t, Config{}, Config{MaxBody: 60 << 10}, oscore.Settings{})
			p.handle = func(*Incoming) oscore.Message { return changed() }
			c.setup(p)
			resp, code := p.upload(coap.PUT, "/u", c.body, c.b)
			if code != c.want || p.calls != 0 {
				t.Errorf("%v, %d calls", code, p.calls)
			}
			if size, _ := optionOf(resp, coap.Size1); code == coap.RequestEntityTooLarge && !bytes.Equal(size, coap.AppendUint(nil, 60<<10)) {
				t.Errorf("Size1 %x", size)
			}
		})
	}
	t.Run("Size1 beyond the bound", func(t *testing.T) {
		p := newPair(t, Config{}, Config{MaxBody: 1000}, oscore.Settings{})
		if _, code := p.upload(coap.PUT, "/u", body, coap.Block{More: true}, option(coap.Size1, 0x03, 0xe9)); code != coap.RequestEntityTooLarge {
			t.Error(code)
		}
	})
	for name, m := range map[string]struct {
		opts []coap.Option
		want coap.Code
	}{
		"reserved size": {[]coap.Option{option(coap.Block1, 7)}, coap.BadRequest},
		"long option":   {[]coap.Option{option(coap.Block1, 1, 0, 0, 0)}, coap.BadRequest},
		"Block2 of 7":   {[]coap.Option{option(coap.Block2, 7)}, coap.BadRequest},
		"Block1 twice":  {[]coap.Option{block(coap.Block1, 0, true, 0), block(coap.Block1, 0, false, 0)}, coap.BadOption},
		"Block2 twice":  {[]coap.Option{block(coap.Block2, 0, false, 0), block(coap.Block2, 1, false, 0)}, coap.BadOption},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPair(t, Config{}, Config{}, oscore.Settings{})
			if resp, _ := p.ask(message(t, coap.PUT, "/u", body[:16], m.opts...), "t"); coap.Code(resp.Code) != m.want {
				t.Error(coap.Code(resp.Code))
			}
		})
	}
}

// A block sent anew because its answer was lost is acknowledged once more.
func TestUploadBlockRepeated(t *testing.T) {
	body := pattern(48)
	p := newPair(t, Config{}, Config{}, oscore.Settings{})
	p.handle = func(r *Incoming) oscore.Message {
		if !bytes.Equal(payloadOf(t, r.Message), body) {
			t.Errorf("%x", payloadOf(t, r.Message))
		}
		return changed()
	}
	for _, num := range []uint32{0, 0, 1, 1, 1, 2} {
		if _, code := p.upload(coap.POST, "/u", body, coap.Block{Num: num, More: num < 2}); (code == coap.Changed) != (num == 2) || code.Class() != 2 {
			t.Fatalf("%d: %v", num, code)
		}
	}
}

func TestUploadKeepsIfNoneMatch(t *testing.T) {
	p := newPair(t, Config{}, Config{}, oscore.Settings{})
	p.handle = func(r *Incoming) oscore.Message {
		if _, ok := optionOf(r.Message, coap.IfNoneMatch); !ok {
			t.Error("If-None-Match is gone")
		}
		return changed()
	}
	if s := p.do(message(t, coap.PUT, "/u", pattern(5000), option(coap.IfNoneMatch))); s.Kind != Response || p.calls != 1 {
		t.Errorf("%+v", s)
	}
}

// One authenticated peer cannot make more grow than its share.
func TestTransfersAreBounded(t *testing.T) {
	p := newPair(t, Config{}, Config{MaxTransfers: 4, MaxBody: 1000}, oscore.Settings{})
	p.handle = func(*Incoming) oscore.Message { return content(pattern(3000)) }
	held := func() *transfers { return &p.server.find("client").transfers }
	check := func() {
		t.Helper()
		h, n := held(), 0
		for _, u := range h.uploads {
			n += len(u.body)
		}
		for _, d := range h.downloads {
			n += len(d.resp.payload)
		}
		if n != h.held || n > 4000 || len(h.uploads) > 4 || len(h.downloads) > 4 {
			t.Fatalf("%d bytes held, %d counted, %d uploads, %d downloads", n, h.held, len(h.uploads), len(h.downloads))
		}
	}
	refused := 0
	for i := range 100 {
		if _, code := p.upload(coap.PUT, fmt.Sprint("/u", i), pattern(512), coap.Block{More: true, SZX: 5}); code == coap.ServiceUnavailable {
			refused++
		}
		p.ask(message(t, coap.GET, fmt.Sprint("/d", i), nil), "t")
		check()
	}
	if refused != 96 {
		t.Errorf("%d refused", refused)
	}
	p.now = p.now.Add(248 * time.Second)
	p.server.Expire(p.now)
	if h := held(); len(h.uploads)+len(h.downloads)+h.held != 0 {
		t.Errorf("%+v", h)
	}
	if _, code := p.upload(coap.PUT, "/u", pattern(512), coap.Block{More: true, SZX: 5}); code != coap.Continue {
		t.Error(code)
	}
}

// POST with a large answer: further blocks come from memory, never from the
// handler.
func TestUnsafeHandlerRunsOnce(t *testing.T) {
	for _, code := range []coap.Code{coap.POST, coap.PUT, coap.IPATCH, coap.DELETE} {
		p := newPair(t, Config{}, Config{}, oscore.Settings{})
		p.handle = func(*Incoming) oscore.Message { return content(pattern(2500)) }
		p.ask(message(t, code, "/x", nil), "t")
		for num := range uint32(3) {
			if num == 0 {
				continue
			}
			if resp, _ := p.ask(message(t, code, "/x", nil, block(coap.Block2, num, false, 6)), "t"); coap.Code(resp.Code) != coap.Content {
				t.Errorf("%v block %d: %v", code, num, coap.Code(resp.Code))
			}
		}
		p.server.Forget("client")
		if resp, _ := p.ask(message(t, code, "/x", nil, block(coap.Block2, 1, false, 6)), "t"); coap.Code(resp.Code) != coap.RequestEntityIncomplete {
			t.Errorf("%v: what was lost: %v", code, coap.Code(resp.Code))
		}
		if p.calls != 1 {
			t.Errorf("%v: handler ran %d times", code, p.calls)
		}
	}
}

func TestDownloadByHand(t *testing.T) {
	proof.Checklist(t, "E-26")
	body := pattern(2500)
	for _, c := range []struct {
		name      string
		blockSize int
		settings  oscore.Settings
		ask       uint8 // the client's size
		szx       uint8 // what it gets
	}{
		{"as asked", 1024, oscore.Settings{}, 4, 4},
		{"the server's is smaller", 64, oscore.Settings{}, 6, 2},
		{"the peer's limit", 1024, oscore.Settings{MaxUnfragmented: 200}, 6, 3},
		{"a tiny limit", 1024, oscore.Settings{MaxUnfragmented: 20}, 6, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newPair(t, Config{}, Config{BlockSize: c.blockSize}, c.settings)
			p.handle = func(*Incoming) oscore.Message { return content(body, option(coap.ContentFormat, 42)) }
			var got, etag []byte
			b := coap.Block{SZX: c.ask}
			for {
				resp, _ := p.ask(message(t, coap.GET, "/x", nil, option(coap.Block2, b.Append(nil)...)), "t")
				v, _ := optionOf(resp, coap.Block2)
				in, err := coap.ParseBlock(v)
				if err != nil || in.SZX != c.szx || in.Offset() != len(got) {
					t.Fatalf("%+v %v at %d", in, err, len(got))
				}
				if n := c.settings.MaxUnfragmented; n > blockOverhead && len(resp.Body) > n {
					t.Errorf("%d bytes", len(resp.Body))
				}
				e, ok := optionOf(resp, coap.ETag)
				if !ok || etag != nil && !bytes.Equal(e, etag) {
					t.Errorf("ETag %x", e)
				}
				etag = bytes.Clone(e)
				got = append(got, payloadOf(t, resp)...)
				if !in.More {
					break
				}
				b = coap.Block{Num: in.Num + 1, SZX: in.SZX}
			}
			if !bytes.Equal(got, body) || p.calls != 1 {
				t.Errorf("%d bytes, %d calls", len(got), p.calls)
			}
			if resp, _ := p.ask(message(t, coap.GET, "/x", nil, block(coap.Block2, 1000, false, 6)), "t"); coap.Code(resp.Code) != coap.BadRequest {
				t.Errorf("beyond the end: %v", coap.Code(resp.Code))
			}
		})
	}
}

// A wish for blocks that the answer does not need is answered in one.
func TestDownloadThatFits(t *testing.T) {
	p := newPair(t, Config{}, Config{}, oscore.Settings{})
	p.handle = func(*Incoming) oscore.Message { return content([]byte("short")) }
	resp, _ := p.ask(message(t, coap.GET, "/x", nil, block(coap.Block2, 0, false, 2)), "t")
	if v, ok := optionOf(resp, coap.Block2); !ok || !bytes.Equal(v, []byte{2}) {
		t.Errorf("Block2 %x", v)
	}
	if resp, _ = p.ask(message(t, coap.GET, "/x", nil, block(coap.Block2, 3, false, 2)), "t"); coap.Code(resp.Code) != coap.BadRequest {
		t.Error(coap.Code(resp.Code))
	}
}

// An application that slices by itself is left to it.
func TestManualServer(t *testing.T) {
	p := newPair(t, Config{}, Config{}, oscore.Settings{})
	body := pattern(64)
	p.handle = func(*Incoming) oscore.Message { return content(body[:16], block(coap.Block2, 0, true, 0)) }
	resp, _ := p.ask(message(t, coap.GET, "/x", nil), "t")
	if v, _ := optionOf(resp, coap.Block2); !bytes.Equal(v, []byte{8}) || len(payloadOf(t, resp)) != 16 {
		t.Errorf("%x", resp.Body)
	}
}

// A FETCH is found by its payload, or where further requests leave it out by
// the latest with its options.
func TestFetchContinued(t *testing.T) {
	p := newPair(t, Config{}, Config{}, oscore.Settings{})
	bodies := map[string][]byte{"a": pattern(2500), "b": bytes.Repeat([]byte("b"), 2500)}
	p.handle = func(r *Incoming) oscore.Message { return content(bodies[string(payloadOf(t, r.Message))]) }
	for _, q := range []string{"a", "b"} {
		p.ask(message(t, coap.FETCH, "/x", []byte(q)), "t")
		p.now = p.now.Add(time.Second)
	}
	for _, c := range []struct{ send, want string }{{"a", "a"}, {"b", "b"}, {"", "b"}} {
		resp, _ := p.ask(message(t, coap.FETCH, "/x", []byte(c.send), block(coap.Block2, 1, false, 6)), "t")
		if !bytes.Equal(payloadOf(t, resp), bodies[c.want][1024:2048]) {
			t.Errorf("%q: %v", c.send, coap.Code(resp.Code))
		}
	}
	if p.calls != 2 {
		t.Errorf("handler ran %d times", p.calls)
	}
}

// Request-Tag and Echo without a block mean nothing to a request (RFC 9175
// §3.4), and the application does not see them.
func TestStrayOptions(t *testing.T) {
	proof.Checklist(t, "E-21", "E-22")
	p := newPair(t, Config{}, Config{}, oscore.Settings{})
	p.handle = func(r *Incoming) oscore.Message {
		want := message(t, coap.GET, "/x", nil, option(65000, 1))
		if !bytes.Equal(r.Message.Body, want.Body) {
			t.Errorf("%x", r.Message.Body)
		}
		return content(nil, option(coap.RequestTag, 1))
	}
	resp, _ := p.ask(message(t, coap.GET, "/x", nil, option(coap.RequestTag, 1), option(coap.Echo, 1), option(65000, 1)), "t")
	if _, ok := optionOf(resp, coap.RequestTag); ok || coap.Code(resp.Code) != coap.Content {
		t.Errorf("%+v", resp)
	}
}

// The application may use its buffer again once it has answered.
func TestResponseIsCopied(t *testing.T) {
	p := newPair(t, Config{}, Config{}, oscore.Settings{})
	buffer := pattern(2500)
	want := bytes.Clone(buffer)
	answer := content(buffer)
	p.handle = func(*Incoming) oscore.Message { return answer }
	x, m := p.begin(message(t, coap.GET, "/x", nil))
	first, _ := p.serve(m, "t")
	clear(answer.Body)
	s := x.Receive(p.now, first)
	if s = p.run(x, s.Message, "t"); s.Kind != Response || !bytes.Equal(payloadOf(t, s.Message), want) {
		t.Errorf("%v %v", s.Kind, s.Err)
	}
}
