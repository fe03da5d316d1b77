package oscore

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/oscorelay/oscorelay/internal/coap"
)

func FuzzParseOption(f *testing.F) {
	for _, value := range malformedOptions {
		f.Add(value)
	}
	for _, value := range [][]byte{{}, {0x09, 0x14}, {0x09, 0x14, 0x00}, {0x19, 0x14, 0x02, 1, 2, 3}, {0x01, 0x00}, {0x0d, 1, 2, 3, 4, 5, 6}, {0x10, 0x00}, {0x08}} {
		f.Add(value)
	}
	f.Fuzz(func(t *testing.T, value []byte) {
		o, err := ParseOption(value)
		if err != nil {
			if err != ErrDecode || o.PartialIV != nil || o.KIDContext != nil || o.KID != nil {
				t.Fatalf("%v with %+v", err, o)
			}
			return
		}
		if o.Size() != len(value) || !bytes.Equal(o.Append(nil), value) {
			t.Fatalf("parsed %+v appends as %x, %d bytes", o, o.Append(nil), o.Size())
		}
		if o.PartialIV != nil {
			var buf [maxPIVLen]byte
			if piv := buf[:putPIV(&buf, o.Sequence())]; !bytes.Equal(piv, o.PartialIV) {
				t.Fatalf("Partial IV %x is number %d, which is %x", o.PartialIV, o.Sequence(), piv)
			}
		}
		// An option in a message is found by both ways in.
		m := Message{codePOST, append(append(coap.AppendOption(nil, 0, coap.OSCORE, value), 0xff), "ciphertext"...)}
		found, protected, err := FindOption(m)
		var short, long envelope
		if err != nil || !protected || short.unwrap(m) != nil || long.unwrapMixed(m.Body) != nil {
			t.Fatalf("FindOption: %v %v", protected, err)
		}
		for _, other := range []Option{found, short.opt, long.opt} {
			if fmt.Sprintf("%#v", other) != fmt.Sprintf("%#v", o) {
				t.Fatalf("found %#v, want %#v", other, o)
			}
		}
	})
}

func FuzzOpenRequest(f *testing.F) {
	client, server := testPair(f)
	server.jump(1 << 30)
	var pending Pending
	genuine := must(client.SealRequest(nil, &pending, msg(coap.PUT, "payload", option{coap.URIHost, "h"}, option{coap.URIPath, "a"})))(f)
	f.Add(genuine.Body, false)
	f.Add(genuine.Body, true)
	f.Add([]byte{0x92, 0x09, 0x00, 0xff, 1, 2, 3, 4, 5, 6, 7, 8, 9}, false)
	f.Add([]byte{0x9d, 0x00, 0xff, 0x01}, true)
	f.Fuzz(func(t *testing.T, body []byte, lost bool) {
		server.SetWindow(Fresh(0))
		if lost {
			server.SetWindow(Window{})
		}
		before := fmt.Sprint(server.window.State())
		next := server.NextSequence()
		var r Request
		opened, err := server.OpenRequest(nil, &r, Message{codePOST, body})
		if err == nil || errors.Is(err, ErrUnproven) {
			if !outsideOnlyFuzz(genuine.Body, body) {
				t.Fatalf("%x was never sealed: opened as %x", body, opened)
			}
			if r.Proven() == lost {
				t.Fatal("proven without a window, or the reverse")
			}
			return
		}
		switch err {
		case ErrUnprotected, ErrDecode, ErrNoContext, ErrDecrypt:
		default:
			t.Fatalf("unexpected error %v", err)
		}
		if r.valid() || opened.Body != nil || fmt.Sprint(server.window.State()) != before || server.NextSequence() != next {
			t.Fatalf("a refused message left its mark: %v", err)
		}
	})
}

// outsideOnlyFuzz reports whether two bodies have the same kid, Partial IV and
// ciphertext.
func outsideOnlyFuzz(a, b []byte) bool {
	oa, _, erra := FindOption(Message{0, a})
	ob, _, errb := FindOption(Message{0, b})
	_, pa, _ := coap.Split(a)
	_, pb, _ := coap.Split(b)
	return erra == nil && errb == nil && bytes.Equal(oa.PartialIV, ob.PartialIV) && bytes.Equal(oa.KID, ob.KID) && bytes.Equal(pa, pb)
}

func FuzzOpenResponse(f *testing.F) {
	x := newTrip(f, observe)
	x.server.jump(300)
	genuine := [][]byte{x.seal(f, notify).Body, x.number(f, notify).Body, x.number(f, msg(coap.NotFound, "", option{coap.URIHost, "h"})).Body}
	for _, body := range genuine {
		f.Add(body)
	}
	f.Add([]byte{0x90, 0xff, 1, 2, 3, 4, 5, 6, 7, 8, 9})
	f.Add([]byte{0x93, 0x02, 0x01, 0x2c, 0xff, 1, 2, 3, 4, 5, 6, 7, 8, 9})
	f.Fuzz(func(t *testing.T, body []byte) {
		p := &x.p
		p.done, p.nonceUsed, p.notified, p.notification = false, false, false, 0
		opened, err := p.Open(nil, Message{codeContent, body})
		if err == nil {
			for _, g := range genuine {
				og, _, _ := FindOption(Message{0, g})
				ob, _, _ := FindOption(Message{0, body})
				_, pg, _ := coap.Split(g)
				_, pb, _ := coap.Split(body)
				if bytes.Equal(og.PartialIV, ob.PartialIV) && bytes.Equal(pg, pb) {
					return
				}
			}
			t.Fatalf("%x was never sealed: opened as %x", body, opened)
		}
		switch err {
		case ErrUnprotected, ErrDecode, ErrDecrypt:
		default:
			t.Fatalf("unexpected error %v", err)
		}
		if p.done || p.nonceUsed || p.notified || opened.Body != nil {
			t.Fatalf("a refused message left its mark: %v", err)
		}
	})
}

// FuzzSealRequest seals any message. What opens at the other end has the same
// code, options and payload; Class E options are nowhere outside, Class U ones
// nowhere inside; the server's answer with the same body comes back too.
func FuzzSealRequest(f *testing.F) {
	for _, m := range []Message{
		get, observe, content, msg(coap.PUT, "p", option{coap.URIHost, "h"}, option{coap.URIPort, "\x01"}, option{coap.HopLimit, "\x01"}, option{300, "x"}),
		msg(coap.GET, "", option{coap.ProxyURI, "coap://h/a?b"}, option{coap.URIPath, "x"}), msg(coap.CSM, "", option{6, "\x01\x02\x03\x04"}),
		msg(coap.GET, "", option{coap.ETag, "x"}, option{coap.Observe, "\x01"}, option{coap.ProxyScheme, "coap"}, option{65000, strings.Repeat("x", 300)}),
		msg(coap.GET, "", option{coap.OSCORE, ""}),
	} {
		f.Add(m.Code, m.Body, byte(0), byte(10))
	}
	algs := AEADs()
	f.Fuzz(func(t *testing.T, code byte, body []byte, alg, room byte) {
		p := testParams()
		p.AEAD = algs[int(alg)%len(algs)]
		client, server := newPair(t, p, p.Swap())
		m := Message{code, bytes.Clone(body)}
		x := &trip{client: client, server: server}
		sealed, err := client.SealRequest(make([]byte, 0, int(room)*4), &x.p, m)
		if !bytes.Equal(m.Body, body) {
			t.Fatal("the message was changed")
		}
		if err != nil {
			if client.NextSequence() != 0 || x.p.valid() {
				t.Fatalf("%v, and a number was spent", err)
			}
			return
		}
		plaintext := server.plaintext(t, sealed, x.p.nonceBytes(), x.p.aadBytes())
		checkDivision(t, code, options(t, sealed.Body), options(t, plaintext[1:]))
		opened, err := server.OpenRequest(make([]byte, 0, int(room)*4), &x.r, sealed)
		if err != nil {
			t.Fatalf("sealed %x %x does not open: %v", code, body, err)
		}
		before, payload, _ := coap.Split(body)
		after, got, err := coap.Split(opened.Body)
		if err != nil || opened.Code != code || !bytes.Equal(got, payload) {
			t.Fatalf("%x %x came as %x %x, %v", code, body, opened.Code, opened.Body, err)
		}
		if uri, ok := before.Get(coap.ProxyURI); ok && !isSignal(code) {
			origin, _, _, err := divideURI(string(uri))
			if err != nil {
				t.Fatalf("Proxy-Uri %q was sealed: %v", uri, err)
			}
			if origin != string(uri) {
				drop := []uint16{coap.ProxyURI, coap.URIHost, coap.URIPort, coap.URIPath, coap.URIQuery}
				before, after = before.Without(drop...), after.Without(drop...)
			}
		}
		if !before.Equal(after) {
			t.Fatalf("options %v came as %v", before, after)
		}
		// Back again with the same options.
		answer := Message{byte(coap.Content), body}
		sealed, err = server.SealResponse(nil, &x.r, answer)
		if err != nil {
			return // Observe without registration, and signals
		}
		opened, err = x.p.Open(make([]byte, 0, int(room)*4), sealed)
		if err != nil {
			t.Fatalf("the answer %x does not open: %v", body, err)
		}
		before, _, _ = coap.Split(body)
		after, got, err = coap.Split(opened.Body)
		if err != nil || !bytes.Equal(got, payload) || !before.Without(coap.Observe).Equal(after.Without(coap.Observe)) {
			t.Fatalf("the answer %x came as %x, %v", body, opened.Body, err)
		}
	})
}

func checkDivision(t *testing.T, code byte, outer, inner coap.Options) {
	for _, o := range outer {
		if o.Number != coap.OSCORE && (isSignal(code) || o.Number != coap.Observe && !isClassU(o.Number)) {
			t.Fatalf("option %d travels outside", o.Number)
		}
	}
	for _, o := range inner {
		if isClassU(o.Number) && !isSignal(code) {
			t.Fatalf("option %d travels inside", o.Number)
		}
	}
	if uri, ok := outer.Get(coap.ProxyURI); ok {
		if _, rest, _ := strings.Cut(string(uri), "://"); strings.ContainsAny(rest, "/?#@") {
			t.Fatalf("outer Proxy-Uri %q tells more than the origin", uri)
		}
	}
}

// FuzzMerge holds the merge in place to one that sorts.
func FuzzMerge(f *testing.F) {
	f.Add([]byte("\x31h\x61x\x90\xd1\x07x"), []byte("\x11x\xa1a\xffp"))
	f.Add([]byte{}, []byte{0xff, 1})
	f.Fuzz(func(t *testing.T, outer, body []byte) {
		outerOpts, outerPayload, err := coap.Split(outer)
		inner, payload, err2 := coap.Split(body)
		if err != nil || err2 != nil || outerPayload != nil {
			return
		}
		wanted := inner
		for _, o := range outerOpts {
			if _, inside := inner.Get(o.Number); !inside && o.Number != coap.OSCORE && isClassU(o.Number) {
				wanted = append(wanted[:len(wanted):len(wanted)], o)
			}
		}
		buf := make([]byte, len(outer)+len(body))
		copy(buf[len(outer):], body)
		got := merge(buf[:0], buf[len(outer):], outer)
		if len(got) > 0 && &got[0] != &buf[0] {
			t.Fatal("merged elsewhere")
		}
		if w := coap.AppendBody(nil, wanted, payload); !bytes.Equal(got, w) {
			t.Fatalf("merged %x into %x: %x, want %x", outer, body, got, w)
		}
	})
}

// FuzzUnwrap holds the short way into a message to the long one.
func FuzzUnwrap(f *testing.F) {
	for _, b := range []string{
		"\x92\x09\x00\xffx", "\x9d\x00\x09123456789012\xffx", "\x60\x32\x09\x00\xffx", "\x63abc\x30\xffx", "\x64abcd\x30\xffx", "\x6d\x00abcdefghijklm\x30\xffx",
		"\x6d\x00abcdefghijkl\x30\xffx", "\x60\x90\xffx", "\x90", "\x90\xff", "\x91\xff", "\x9e\x00\x00\xffx", "\x9f\xffx", "\x90\x00\xffx", "\x60\x30\x00\xffx",
	} {
		f.Add([]byte(b))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		var short, long envelope
		err, wanted := short.unwrap(Message{codePOST, body}), long.unwrapMixed(body)
		if err != wanted {
			t.Fatalf("%v, want %v", err, wanted)
		}
		if err == nil && fmt.Sprintf("%#v", short) != fmt.Sprintf("%#v", long) {
			t.Fatalf("%#v, want %#v", short, long)
		}
	})
}

func FuzzPlain(f *testing.F) {
	f.Add([]byte{0xd1, 0x01, 1, 0x0d, 0x00})
	f.Fuzz(func(t *testing.T, body []byte) {
		if !plain(body) {
			return
		}
		w := coap.Walk(body)
		for w.Next() {
			if w.Number == coap.Observe || isClassU(w.Number) {
				t.Fatalf("option %d passes as plain", w.Number)
			}
		}
		if w.Err() != nil {
			t.Fatal("passes as plain:", w.Err())
		}
	})
}

// FuzzWindow reads steps from bytes and holds the window to the model.
func FuzzWindow(f *testing.F) {
	f.Add(uint16(32), []byte{1, 1, 33, 200, 0, 255})
	f.Add(uint16(65), []byte{64, 65, 66, 128, 129})
	f.Fuzz(func(t *testing.T, size uint16, steps []byte) {
		if size == 0 || size > maxWindow {
			return
		}
		w := Fresh(int(size))
		m := windowModel{size: uint64(size), seen: map[uint64]bool{}}
		for _, s := range steps {
			n := int64(m.next) + int64(int8(s))*int64(size)/40
			if n < 0 {
				n = 0
			}
			err := w.Accept(uint64(n))
			if wanted := m.check(uint64(n)); err != wanted {
				t.Fatalf("Accept(%d): %v, want %v", n, err, wanted)
			}
			if err == nil {
				m.accept(uint64(n))
			}
			if s == 0 {
				state, _ := w.State()
				w = Restore(state)
			}
		}
	})
}

func FuzzUnwrapBstr(f *testing.F) {
	for _, b := range [][]byte{nil, {0x40}, {0x41, 1}, {0x58, 1, 1}, {0x59, 0, 1, 1}, {0x5f}, {0x60}, WrapBstr(make([]byte, 300))} {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if got, err := UnwrapBstr(WrapBstr(b)); len(b) < 1<<16 && (err != nil || !bytes.Equal(got, b)) {
			t.Fatalf("%x comes back as %x, %v", b, got, err)
		}
		content, err := UnwrapBstr(b)
		if err == nil && !bytes.HasSuffix(b, content) {
			t.Fatalf("content %x is not the end of %x", content, b)
		}
	})
}

func FuzzHTTPHeader(f *testing.F) {
	f.Add("AA", []byte{0x09, 0x14})
	f.Add("CSU\n", []byte{})
	f.Fuzz(func(t *testing.T, s string, value []byte) {
		if parsed, err := ParseHTTPHeader(s); err == nil && HTTPHeader(parsed) != s {
			t.Fatalf("%q parses as %x, which is %q", s, parsed, HTTPHeader(parsed))
		}
		if len(value) > maxOption || len(value) == 1 && value[0] == 0 {
			return
		}
		if parsed, err := ParseHTTPHeader(HTTPHeader(value)); err != nil || !bytes.Equal(parsed, value) {
			t.Fatalf("%x comes back as %x, %v", value, parsed, err)
		}
	})
}

func FuzzProxyURI(f *testing.F) {
	for _, uri := range []string{"coap://example.com/resource?q=1", "coap://h", "coap://[::1]:1/%41?", "a://b\\c", "x:///", "coap://h/a#b", "coap://u@h/"} {
		f.Add(uri)
	}
	f.Fuzz(func(t *testing.T, uri string) {
		if len(uri) > 60000 {
			return
		}
		body, err := splitProxyURI(coap.AppendOption(nil, 0, coap.ProxyURI, []byte(uri)))
		if err != nil {
			if !errors.Is(err, coap.ErrFormat) {
				t.Fatal(err)
			}
			return
		}
		opts := options(t, body)
		got, _ := opts.Get(coap.ProxyURI)
		origin := string(got)
		scheme, authority, ok := strings.Cut(origin, "://")
		if !ok || scheme == "" || authority == "" || strings.ContainsAny(authority, "/?#@ \\") {
			t.Fatalf("%q leaves %q outside", uri, origin)
		}
		if !strings.HasPrefix(strings.ToLower(uri), origin) {
			t.Fatalf("%q has the origin %q", uri, origin)
		}
		// What is left is stable.
		again, err := splitProxyURI(coap.AppendOption(nil, 0, coap.ProxyURI, got))
		if err != nil || !options(t, again).Equal(coap.Options{{Number: coap.ProxyURI, Value: got}}) {
			t.Fatalf("%q divides again into %x, %v", origin, again, err)
		}
	})
}

func FuzzOSCLinks(f *testing.F) {
	f.Add("</a>;osc,</b>;if=\"x;\\\",osc\"")
	f.Fuzz(func(t *testing.T, s string) {
		for target := range OSCLinks(s) {
			if !strings.Contains(s, "<"+target+">") {
				t.Fatalf("target %q is not in %q", target, s)
			}
		}
		for _, osc := range OSCLinks(MarkLink("</a>")) {
			if !osc {
				t.Fatal("a marked link is not marked")
			}
		}
	})
}
