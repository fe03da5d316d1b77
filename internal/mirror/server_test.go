package mirror

import (
	"bytes"
	"net"
	"testing"

	"github.com/oscorelay/oscorelay/internal/coap"
)

// file is 2500 bytes under /fw/a.
func server() (*Server, []byte) {
	file := bytes.Repeat([]byte("0123456789"), 250)
	return &Server{Lookup: func(path string) (File, bool) {
		return File{ReaderAt: bytes.NewReader(file), Size: int64(len(file)), ETag: []byte{7}, MaxAge: 86400}, path == "/fw/a"
	}}, file
}

func request(code coap.Code, path string, extra coap.Options) []byte {
	opts, err := coap.Options{}.AddPath(path)
	if err != nil {
		panic(err)
	}
	return coap.Datagram{Type: coap.Confirmable, Code: code, MessageID: 9, Token: []byte{1, 2}, Body: coap.AppendBody(nil, append(opts, extra...), nil)}.Append(nil)
}

func block(num uint32, szx uint8) coap.Options {
	return coap.Options{}.Add(coap.Block2, coap.Block{Num: num, SZX: szx}.Append(nil))
}

func TestAnswers(t *testing.T) {
	s, file := server()
	small, _ := server()
	small.MaxSZX = 4
	for name, c := range map[string]struct {
		s       *Server
		in      []byte
		code    coap.Code
		block   coap.Block
		payload []byte
	}{
		"no block asked":  {s, request(coap.GET, "/fw/a", nil), coap.Content, coap.Block{More: true, SZX: 6}, file[:1024]},
		"first":           {s, request(coap.GET, "/fw/a", block(0, 6)), coap.Content, coap.Block{More: true, SZX: 6}, file[:1024]},
		"last":            {s, request(coap.GET, "/fw/a", block(2, 6)), coap.Content, coap.Block{Num: 2, SZX: 6}, file[2048:]},
		"small":           {s, request(coap.GET, "/fw/a", block(5, 2)), coap.Content, coap.Block{Num: 5, More: true, SZX: 2}, file[320:384]},
		"bounded":         {small, request(coap.GET, "/fw/a", block(1, 6)), coap.Content, coap.Block{Num: 4, More: true, SZX: 4}, file[1024:1280]},
		"request tag":     {s, request(coap.GET, "/fw/a", block(0, 6).Add(coap.RequestTag, []byte{1})), coap.Content, coap.Block{More: true, SZX: 6}, file[:1024]},
		"beyond":          {s, request(coap.GET, "/fw/a", block(3, 6)), coap.BadRequest, coap.Block{}, nil},
		"reserved size":   {s, request(coap.GET, "/fw/a", block(0, 7)), coap.BadRequest, coap.Block{}, nil},
		"other path":      {s, request(coap.GET, "/fw/b", nil), coap.NotFound, coap.Block{}, nil},
		"other method":    {s, request(coap.PUT, "/fw/a", nil), coap.MethodNotAllowed, coap.Block{}, nil},
		"critical option": {s, request(coap.GET, "/fw/a", coap.Options{}.Add(coap.OSCORE, nil)), coap.BadOption, coap.Block{}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			d, err := coap.ParseDatagram(c.s.answer(nil, c.in, &net.UDPAddr{}))
			if err != nil {
				t.Fatal(err)
			}
			if d.Type != coap.Acknowledgement || d.MessageID != 9 || !bytes.Equal(d.Token, []byte{1, 2}) || d.Code != c.code {
				t.Fatalf("%v %v %d %x, want code %v", d.Type, d.Code, d.MessageID, d.Token, c.code)
			}
			opts, payload, err := coap.Split(d.Body)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(payload, c.payload) {
				t.Fatalf("%d bytes, want %d", len(payload), len(c.payload))
			}
			if c.code != coap.Content {
				return
			}
			value, _ := opts.Get(coap.Block2)
			if b, err := coap.ParseBlock(value); err != nil || b != c.block {
				t.Fatalf("block %+v, want %+v", b, c.block)
			}
			if size, ok := opts.Uint(coap.Size2); c.block.Num == 0 && (!ok || size != 2500) {
				t.Fatal("Size2 is missing")
			}
		})
	}
}

func TestMessageLayer(t *testing.T) {
	s, _ := server()
	ping := coap.Datagram{Type: coap.Confirmable, MessageID: 5}.Append(nil)
	if d, err := coap.ParseDatagram(s.answer(nil, ping, nil)); err != nil || d.Type != coap.Reset || d.MessageID != 5 {
		t.Fatalf("a ping: %+v, %v", d, err)
	}
	non := coap.Datagram{Type: coap.NonConfirmable, Code: coap.GET, MessageID: 6}.Append(nil)
	if d, err := coap.ParseDatagram(s.answer(nil, non, nil)); err != nil || d.Type != coap.NonConfirmable || d.Code != coap.NotFound {
		t.Fatalf("a NON: %+v, %v", d, err)
	}
	for name, in := range map[string][]byte{
		"empty":    nil,
		"response": coap.Datagram{Type: coap.Confirmable, Code: coap.Content}.Append(nil),
		"ack":      coap.Datagram{Type: coap.Acknowledgement, Code: coap.GET}.Append(nil),
		"reset":    coap.Datagram{Type: coap.Reset}.Append(nil),
		"garbage":  {0xff, 1, 2, 3, 4},
	} {
		if out := s.answer(nil, in, nil); len(out) != 0 {
			t.Errorf("%s is answered with %x", name, out)
		}
	}
}

func FuzzAnswer(f *testing.F) {
	f.Add(request(coap.GET, "/fw/a", block(1, 4)))
	f.Add([]byte{0x40, 1, 0, 0})
	s, file := server()
	f.Fuzz(func(t *testing.T, in []byte) {
		out := s.answer(nil, in, nil)
		if len(out) == 0 {
			return
		}
		d, err := coap.ParseDatagram(out)
		if err != nil {
			t.Fatal(err)
		}
		if err := coap.Check(d.Body); err != nil {
			t.Fatal(err)
		}
		if len(out) > 1024+len(in)+64 || len(file) != 2500 {
			t.Fatalf("%d bytes answer %d", len(out), len(in))
		}
	})
}
