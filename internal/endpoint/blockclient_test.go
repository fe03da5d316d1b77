package endpoint

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"github.com/oscorelay/oscorelay/internal/coap"
	"github.com/oscorelay/oscorelay/internal/proof"
	"github.com/oscorelay/oscorelay/oscore"
)

// handServer is the server's side of block-wise transfers, by hand: what it
// collects, and how it answers a block.
type handServer struct {
	t      *testing.T
	got    []byte
	blocks []coap.Block
	tags   [][]byte
	answer func(s *handServer, b coap.Block, inner oscore.Message) oscore.Message
}

func (s *handServer) serve(inner oscore.Message) oscore.Message {
	v, ok := optionOf(inner, coap.Block1)
	if !ok {
		return s.answer(s, coap.Block{Num: 1 << 21}, inner)
	}
	b, err := coap.ParseBlock(v)
	if err != nil {
		s.t.Fatal(err)
	}
	if b.Num == 0 {
		s.got = nil
	}
	if b.Offset() != len(s.got) {
		s.t.Errorf("block %+v after %d bytes", b, len(s.got))
	}
	s.got = append(s.got, payloadOf(s.t, inner)...)
	s.blocks = append(s.blocks, b)
	tag, _ := optionOf(inner, coap.RequestTag)
	s.tags = append(s.tags, bytes.Clone(tag))
	return s.answer(s, b, inner)
}

func code(c coap.Code, opts ...coap.Option) oscore.Message {
	return oscore.Message{Code: byte(c), Body: coap.AppendBody(nil, opts, nil)}
}

func TestUploadAnswers(t *testing.T) {
	proof.Checklist(t, "O-4.1.3.4.1-1", "O-4.1.3.4.2-2")
	body := pattern(3000)
	next := func(b coap.Block) oscore.Message { return code(coap.Continue, option(coap.Block1, b.Append(nil)...)) }
	done := func(b coap.Block) oscore.Message {
		if b.More {
			return next(b)
		}
		return code(coap.Changed, option(coap.Block1, b.Append(nil)...))
	}
	once := func(n int, m oscore.Message) func(*handServer, coap.Block, oscore.Message) oscore.Message {
		asked := 0
		return func(_ *handServer, b coap.Block, _ oscore.Message) oscore.Message {
			if asked++; asked == n {
				return m
			}
			return done(b)
		}
	}
	for _, c := range []struct {
		name   string
		answer func(s *handServer, b coap.Block, inner oscore.Message) oscore.Message
		code   coap.Code // of the Response
		err    error     // or of the failure
		whole  bool      // the server got all of it
		blocks int
	}{
		{"plain", func(_ *handServer, b coap.Block, _ oscore.Message) oscore.Message { return done(b) }, coap.Changed, nil, true, 3},
		{"smaller blocks from the second on", func(_ *handServer, b coap.Block, _ oscore.Message) oscore.Message {
			if b.Num == 0 {
				b.SZX = 2
			}
			return done(b)
		}, coap.Changed, nil, true, 1 + (3000-1024+63)/64},
		{"4.13 with a smaller size", once(1, code(coap.RequestEntityTooLarge, block(coap.Block1, 0, true, 4))), coap.Changed, nil, true, 1 + 12},
		{"4.13 under way", once(3, code(coap.RequestEntityTooLarge, block(coap.Block1, 2, true, 4))), coap.Changed, nil, true, 3 + 12},
		{"4.13 with Size1", once(1, code(coap.RequestEntityTooLarge, option(coap.Size1, 100))), coap.RequestEntityTooLarge, nil, false, 1},
		{"4.13 with the same size", once(1, code(coap.RequestEntityTooLarge, block(coap.Block1, 0, true, 6))), coap.RequestEntityTooLarge, nil, false, 1},
		{"4.08 once", once(2, code(coap.RequestEntityIncomplete)), coap.Changed, nil, true, 2 + 3},
		{"4.08 to the last", once(3, code(coap.RequestEntityIncomplete)), coap.Changed, nil, true, 3 + 3},
		{"4.08 for ever", func(*handServer, coap.Block, oscore.Message) oscore.Message {
			return code(coap.RequestEntityIncomplete)
		}, coap.RequestEntityIncomplete, nil, false, 1 + maxRestarts},
		{"an early error", once(2, code(coap.Forbidden)), coap.Forbidden, nil, false, 2},
		{"an early error with Block1", once(1, code(coap.NotFound, block(coap.Block1, 0, false, 6))), coap.NotFound, nil, false, 1},
		{"an early success", once(2, code(coap.Changed)), 0, ErrTransfer, false, 2},
		{"a server without memory", func(_ *handServer, b coap.Block, _ oscore.Message) oscore.Message {
			b.More = false
			return code(coap.Changed, option(coap.Block1, b.Append(nil)...))
		}, coap.Changed, nil, true, 3},
		{"2.31 to the last", func(_ *handServer, b coap.Block, _ oscore.Message) oscore.Message { return next(b) }, 0, ErrTransfer, true, 3},
		{"2.31 without Block1", once(1, code(coap.Continue)), 0, ErrTransfer, false, 1},
		{"another block's number", once(2, code(coap.Continue, block(coap.Block1, 7, true, 6))), 0, ErrTransfer, false, 2},
		{"a broken Block1", once(1, code(coap.Continue, option(coap.Block1, 7))), 0, ErrTransfer, false, 1},
		{"Block1 twice", once(1, code(coap.Continue, block(coap.Block1, 0, true, 6), block(coap.Block1, 0, true, 6))), 0, ErrTransfer, false, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newPair(t, Config{}, Config{}, oscore.Settings{})
			s := &handServer{t: t, answer: c.answer}
			x, m := p.begin(message(t, coap.PUT, "/u", body))
			step := p.drive(x, m, s.serve)
			if c.err != nil {
				if !errors.Is(step.Err, c.err) {
					t.Errorf("%+v", step)
				}
			} else if step.Kind != Response || coap.Code(step.Message.Code) != c.code {
				t.Errorf("%+v", step)
			}
			if bytes.Equal(s.got, body) != c.whole || len(s.blocks) != c.blocks {
				t.Errorf("%d bytes in %d blocks", len(s.got), len(s.blocks))
			}
			if _, ok := optionOf(step.Message, coap.Block1); ok {
				t.Error("the application saw Block1")
			}
		})
	}
}

// A request that fitted one message is cut when the server says so.
func TestUploadBegunByTheServer(t *testing.T) {
	p := newPair(t, Config{}, Config{}, oscore.Settings{})
	body := pattern(500)
	s := &handServer{t: t}
	s.answer = func(_ *handServer, b coap.Block, _ oscore.Message) oscore.Message {
		switch {
		case b.Num == 1<<21: // no Block1
			return code(coap.RequestEntityTooLarge, block(coap.Block1, 0, true, 2))
		case b.More:
			return code(coap.Continue, option(coap.Block1, b.Append(nil)...))
		}
		return changed()
	}
	x, m := p.begin(message(t, coap.PUT, "/u", body))
	if step := p.drive(x, m, s.serve); step.Kind != Response || !bytes.Equal(s.got, body) || len(s.blocks) != 8 {
		t.Errorf("%+v, %d bytes", step, len(s.got))
	}
}

// The peer's limit holds for every message, its options counted.
func TestMaxUnfragmented(t *testing.T) {
	proof.Checklist(t, "O-4.1.3.4.2-1", "O-4.1.3.4.2-2")
	for _, n := range []int{64, 100, 128, 256, 500, 1024} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			p := newPair(t, Config{}, Config{}, oscore.Settings{MaxUnfragmented: n})
			body := pattern(1500)
			p.handle = func(r *Incoming) oscore.Message {
				if !bytes.Equal(payloadOf(t, r.Message), body) {
					t.Error("body differs")
				}
				return content(body)
			}
			x, m := p.begin(message(t, coap.POST, "/u", body))
			for {
				if got := len(m.Body); got > n+30 { // option 9, marker, code and tag around it
					t.Fatalf("a request of %d bytes", got)
				}
				answer, _ := p.serve(m, "t")
				if got := len(answer.Body); got > n+20 {
					t.Fatalf("an answer of %d bytes", got)
				}
				s := x.Receive(p.now, answer)
				if s.Kind == Response {
					if !bytes.Equal(payloadOf(t, s.Message), body) {
						t.Error("answer differs")
					}
					return
				}
				if s.Kind != Send {
					t.Fatalf("%+v", s)
				}
				m = s.Message
			}
		})
	}
}

// Request-Tag: nothing tells this process what the one before left
// unanswered, so its uploads are tagged; under a context of its own they are
// not, unless one of the same key has not concluded.
func TestRequestTags(t *testing.T) {
	proof.Checklist(t, "E-19", "E-20", "E-23", "E-24", "E-25")
	p := newPair(t, Config{}, Config{}, bothRoles)
	p.handle = func(*Incoming) oscore.Message { return changed() }
	body := pattern(2500)
	tag := func(m oscore.Message) (string, bool) {
		t.Helper()
		inner, err := p.sp.OpenRequest(nil, new(oscore.Request), m)
		if err != nil {
			t.Fatal(err)
		}
		v, ok := optionOf(inner, coap.RequestTag)
		return string(v), ok
	}
	seen := map[string]bool{}
	unique := func(v string, ok bool) {
		t.Helper()
		if !ok || seen[v] || len(v) > 8 {
			t.Fatalf("tag %x %v", v, ok)
		}
		seen[v] = true
	}
	// Of this process and of the next, under a context that was before them.
	for range 3 {
		for range 3 {
			x, m := p.begin(message(t, coap.PUT, "/u", body))
			unique(tag(m))
			x.Abandon()
			p.client.find("server").failures = 0
		}
		p.client = New(p.client.cfg, p.now)
	}
	x, m, err := p.client.Begin(p.now, "server", message(t, coap.GET, "/x", nil), RequestOptions{Rederive: true})
	if err != nil {
		t.Fatal(err)
	}
	if s := p.run(x, m, "t"); s.Kind != Response {
		t.Fatalf("%+v", s)
	}
	put := func(path string) *Exchange {
		t.Helper()
		x, m := p.begin(message(t, coap.PUT, path, body))
		if v, ok := tag(m); ok {
			t.Fatalf("tag %x", v)
		}
		return x
	}
	// Concluded: the absent tag again and again.
	for range 3 {
		x, m := p.begin(message(t, coap.PUT, "/u", body))
		if s := p.run(x, m, "t"); s.Kind != Response {
			t.Fatalf("%+v", s)
		}
	}
	// Under way, then given up: the absent tag stays taken for its key.
	x1 := put("/u")
	x2, m := p.begin(message(t, coap.PUT, "/u", body))
	unique(tag(m))
	x2.Close()
	put("/other").Close()
	x1.Abandon()
	_, m = p.begin(message(t, coap.PUT, "/u", body))
	unique(tag(m))
	// Options that nothing protects do not make another key.
	_, m = p.begin(message(t, coap.PUT, "/u", body, option(coap.URIHost, 'h'), option(coap.HopLimit, 9)))
	unique(tag(m))
	// All blocks of an upload, and the requests for its answer's blocks, carry it.
	first := ""
	x, m = p.begin(message(t, coap.POST, "/u", body))
	put("/third").Close()
	x.upload.tag, x.upload.tagged = []byte("tag"), true
	sent := 0
	p.drive(x, m, func(inner oscore.Message) oscore.Message {
		sent++
		v, ok := optionOf(inner, coap.RequestTag)
		if first == "" {
			first = string(v)
		} else if !ok || string(v) != "tag" {
			t.Errorf("message %d: tag %x", sent, v)
		}
		if raw, ok := optionOf(inner, coap.Block1); ok {
			b, _ := coap.ParseBlock(raw)
			if b.More {
				return code(coap.Continue, option(coap.Block1, raw...))
			}
			return content(body[:1024], block(coap.Block1, b.Num, false, 6), block(coap.Block2, 0, true, 6))
		}
		return content(body[1024:], block(coap.Block2, 1, true, 6))
	})
	if sent < 4 {
		t.Errorf("%d messages", sent)
	}
}

func TestTagsAreBounded(t *testing.T) {
	p := newPair(t, Config{}, Config{}, oscore.Settings{})
	p.client.state("server").clean = true
	for i := range 3 * maxTags {
		x, _ := p.begin(message(t, coap.PUT, fmt.Sprint("/u", i), pattern(2000)))
		if x.upload.tagged != (i >= maxTags) {
			t.Fatalf("upload %d: tagged %v", i, x.upload.tagged)
		}
		x.Abandon()
	}
	if n := len(p.client.find("server").tags); n != maxTags {
		t.Errorf("%d keys", n)
	}
}

// downloadServer answers with blocks of a body, one hand-made answer at a time.
func TestDownloadAnswers(t *testing.T) {
	body, other := pattern(100), bytes.Repeat([]byte("x"), 90)
	etag := func(b byte) coap.Option { return option(coap.ETag, b) }
	cut := func(whole []byte, num uint32, szx uint8, tag byte, more ...coap.Option) oscore.Message {
		b := coap.Block{Num: num, SZX: szx}
		from := min(b.Offset(), len(whole))
		to := min(from+b.Size(), len(whole))
		b.More = to < len(whole)
		return content(whole[from:to], append(more, etag(tag), option(coap.Block2, b.Append(nil)...))...)
	}
	asked := func(inner oscore.Message) coap.Block {
		v, ok := optionOf(inner, coap.Block2)
		if !ok {
			return coap.Block{SZX: 1}
		}
		b, _ := coap.ParseBlock(v)
		return b
	}
	for _, c := range []struct {
		name   string
		answer func(n int, b coap.Block) oscore.Message
		want   []byte
		err    error
	}{
		{"plain", func(_ int, b coap.Block) oscore.Message { return cut(body, b.Num, b.SZX, 1) }, body, nil},
		{"smaller under way", func(n int, b coap.Block) oscore.Message {
			if n > 1 && b.SZX == 1 {
				b.Num, b.SZX = b.Num<<1, 0
			}
			return cut(body, b.Num, b.SZX, 1)
		}, body, nil},
		{"changed under way", func(n int, b coap.Block) oscore.Message {
			if n > 2 {
				return cut(other, b.Num, b.SZX, 2)
			}
			return cut(body, b.Num, b.SZX, 1)
		}, other, nil},
		{"changed, from its beginning", func(n int, b coap.Block) oscore.Message {
			if n == 3 {
				b.Num = 0
			}
			if n >= 3 {
				return cut(other, b.Num, b.SZX, 2)
			}
			return cut(body, b.Num, b.SZX, 1)
		}, other, nil},
		{"always changing", func(n int, b coap.Block) oscore.Message { return cut(body, b.Num, b.SZX, byte(n)) }, nil, ErrTransfer},
		{"became short", func(n int, b coap.Block) oscore.Message {
			if n > 1 {
				return content([]byte("short"))
			}
			return cut(body, b.Num, b.SZX, 1)
		}, []byte("short"), nil},
		{"a block left out", func(_ int, b coap.Block) oscore.Message {
			if b.Num > 0 {
				b.Num++
			}
			return cut(body, b.Num, b.SZX, 1)
		}, nil, ErrTransfer},
		{"a block twice", func(n int, b coap.Block) oscore.Message {
			if n == 3 {
				b.Num--
			}
			return cut(body, b.Num, b.SZX, 1)
		}, nil, ErrTransfer},
		{"begins in the middle", func(_ int, b coap.Block) oscore.Message { return cut(body, b.Num+1, b.SZX, 1) }, nil, ErrTransfer},
		{"More on a short block", func(int, coap.Block) oscore.Message {
			return content([]byte("short"), block(coap.Block2, 0, true, 1))
		}, nil, ErrTransfer},
		{"a long block", func(int, coap.Block) oscore.Message {
			return content(make([]byte, 33), block(coap.Block2, 0, true, 1))
		}, nil, ErrTransfer},
		{"never ends", func(_ int, b coap.Block) oscore.Message {
			b.More = true
			return content(make([]byte, b.Size()), option(coap.Block2, b.Append(nil)...))
		}, nil, ErrTooLarge},
		{"Size2 beyond the bound", func(_ int, b coap.Block) oscore.Message {
			return cut(body, b.Num, b.SZX, 1, option(coap.Size2, 1, 0, 0, 0))
		}, nil, ErrTooLarge},
		{"Size2 that lies", func(_ int, b coap.Block) oscore.Message {
			return cut(body, b.Num, b.SZX, 1, option(coap.Size2, 3))
		}, body, nil},
		{"an empty end", func(_ int, b coap.Block) oscore.Message { return cut(body[:64], b.Num, b.SZX, 1) }, body[:64], nil},
		{"reserved size", func(int, coap.Block) oscore.Message { return content(nil, option(coap.Block2, 15)) }, nil, ErrTransfer},
		{"Block2 twice", func(int, coap.Block) oscore.Message {
			return content(make([]byte, 16), block(coap.Block2, 0, true, 0), block(coap.Block2, 0, true, 0))
		}, nil, ErrTransfer},
		{"2.31 to a GET", func(int, coap.Block) oscore.Message { return code(coap.Continue) }, nil, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newPair(t, Config{MaxBody: 5000}, Config{}, oscore.Settings{})
			done, total := 0, 0
			x, m, err := p.client.Begin(p.now, "server", message(t, coap.GET, "/d", nil), RequestOptions{Progress: func(d, n int) { done, total = d, n }})
			if err != nil {
				t.Fatal(err)
			}
			n := 0
			s := p.drive(x, m, func(inner oscore.Message) oscore.Message {
				n++
				return c.answer(n, asked(inner))
			})
			switch {
			case c.err != nil:
				if !errors.Is(s.Err, c.err) {
					t.Errorf("%+v", s)
				}
			case c.want == nil:
				// A 2.31 outside an upload is a response without meaning.
				if s.Kind != Response && s.Kind != Failed {
					t.Errorf("%+v", s)
				}
			case s.Kind != Response || !bytes.Equal(payloadOf(t, s.Message), c.want):
				t.Errorf("%+v", s)
			default:
				if len(c.want) > 16 && (done != len(c.want) || total != done) {
					t.Errorf("progress %d of %d", done, total)
				}
				for _, o := range []uint16{coap.Block2, coap.Size2} {
					if _, ok := optionOf(s.Message, o); ok {
						t.Errorf("the application saw option %d", o)
					}
				}
			}
		})
	}
}

// A POST whose answer changes or is lost under way is not sent again.
func TestDownloadOfAPOST(t *testing.T) {
	p := newPair(t, Config{}, Config{}, oscore.Settings{})
	posts := 0
	x, m := p.begin(message(t, coap.POST, "/d", []byte("do it")))
	s := p.drive(x, m, func(inner oscore.Message) oscore.Message {
		if v, ok := optionOf(inner, coap.Block2); ok {
			if payloadOf(t, inner) != nil {
				t.Error("the body was sent again")
			}
			b, _ := coap.ParseBlock(v)
			return content(make([]byte, 16), option(coap.ETag, byte(b.Num)), block(coap.Block2, b.Num, true, 0))
		}
		posts++
		return content(make([]byte, 16), option(coap.ETag, 0xff), block(coap.Block2, 0, true, 0))
	})
	if !errors.Is(s.Err, ErrTransfer) || posts != 1 {
		t.Errorf("%+v, posted %d times", s, posts)
	}
}

// An application that names blocks itself gets and sends them as they are.
func TestManualClient(t *testing.T) {
	p := newPair(t, Config{}, Config{}, oscore.Settings{})
	for _, o := range []coap.Option{block(coap.Block2, 3, false, 2), block(coap.Block1, 2, true, 6)} {
		payload := pattern(1024)
		if o.Number == coap.Block2 {
			payload = nil
		}
		x, m := p.begin(message(t, coap.PUT, "/m", payload, o))
		s := p.drive(x, m, func(inner oscore.Message) oscore.Message {
			if v, _ := optionOf(inner, o.Number); !bytes.Equal(v, o.Value) || !bytes.Equal(payloadOf(t, inner), payload) {
				t.Errorf("%x", inner.Body)
			}
			return code(coap.Continue, o)
		})
		if v, ok := optionOf(s.Message, o.Number); s.Kind != Response || !ok || !bytes.Equal(v, o.Value) {
			t.Errorf("%+v", s)
		}
	}
}

// The server restarts in the middle of either transfer, its window lost: the
// transfer goes on by itself.
func TestTransferOverRestart(t *testing.T) {
	proof.Requirement(t, "in-memory endpoint", "E2E-13")
	for restartAt := 1; restartAt < 14; restartAt++ {
		p := newPair(t, Config{}, Config{BlockSize: 512}, bothRoles)
		up, down := pattern(5000), pattern(3000)
		p.handle = func(r *Incoming) oscore.Message {
			if !bytes.Equal(payloadOf(t, r.Message), up) {
				t.Error("request body differs")
			}
			return content(down)
		}
		x, m := p.begin(message(t, coap.FETCH, "/fw", up))
		step := Step{Kind: Send, Message: m}
		for i := 0; step.Kind == Send && i < 100; i++ {
			if i == restartAt {
				p.server = New(p.server.cfg, p.now)
				p.sp.lose(t)
			}
			answer, ok := p.serve(step.Message, "t")
			if !ok {
				t.Fatalf("restart at %d: no answer: %+v", restartAt, p.last())
			}
			step = x.Receive(p.now, answer)
		}
		if step.Kind != Response || !bytes.Equal(payloadOf(t, step.Message), down) {
			t.Errorf("restart at %d: %v %v", restartAt, step.Kind, step.Err)
		}
	}
}
