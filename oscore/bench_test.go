package oscore

import (
	"fmt"
	"testing"
	"unsafe"

	"github.com/oscorelay/oscorelay/internal/ccm/limit"
	"github.com/oscorelay/oscorelay/internal/coap"
)

// The message of the measurements: Uri-Path sensors/temp, Content-Format, a
// one-byte kid, AES-CCM-16-64-128, and a payload of so many bytes.
var benchSizes = []int{0, 16, 64, 256, 1024}

func benchRequest(n int) Message {
	return msg(coap.PUT, string(make([]byte, n)), option{coap.URIPath, "sensors"}, option{coap.URIPath, "temp"}, option{coap.ContentFormat, "\x3c"})
}

func benchResponse(n int) Message {
	return msg(coap.Content, string(make([]byte, n)), option{coap.ContentFormat, "\x3c"})
}

func benchNotification(n int) Message {
	return msg(coap.Content, string(make([]byte, n)), option{coap.Observe, "\x12\x34"}, option{coap.ContentFormat, "\x3c"})
}

func bench(b *testing.B, f func(*testing.B, int)) {
	for _, n := range benchSizes {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.ReportAllocs()
			f(b, n)
		})
	}
}

func BenchmarkSealRequest(b *testing.B) {
	bench(b, func(b *testing.B, n int) {
		client, _ := testPair(b)
		m, dst := benchRequest(n), make([]byte, 0, 2048)
		var p Pending
		for b.Loop() {
			if _, err := client.SealRequest(dst, &p, m); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkOpenRequest opens 256 distinct requests in turn; at the end of a
// turn the window is opened anew.
func BenchmarkOpenRequest(b *testing.B) {
	bench(b, func(b *testing.B, n int) {
		client, server := testPair(b)
		var sealed [256]Message
		for i := range sealed {
			var p Pending
			sealed[i] = must(client.SealRequest(nil, &p, benchRequest(n)))(b)
		}
		dst := make([]byte, 0, 2048)
		var r Request
		i := 0
		for b.Loop() {
			if i == len(sealed) {
				i = 0
				server.SetWindow(Fresh(0))
			}
			if _, err := server.OpenRequest(dst, &r, sealed[i]); err != nil {
				b.Fatal(err)
			}
			i++
		}
	})
}

// BenchmarkSealResponse seals under the request's nonce. Putting the guard of
// the nonce back is measured with it.
func BenchmarkSealResponse(b *testing.B) {
	bench(b, func(b *testing.B, n int) {
		x := newTrip(b, get)
		m, dst := benchResponse(n), make([]byte, 0, 2048)
		for b.Loop() {
			x.r.spent.Store(false)
			if _, err := x.r.Seal(dst, m); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkOpenResponse(b *testing.B) {
	bench(b, func(b *testing.B, n int) {
		x := newTrip(b, get)
		sealed, dst := x.seal(b, benchResponse(n)), make([]byte, 0, 2048)
		for b.Loop() {
			x.p.done = false
			if _, err := x.p.Open(dst, sealed); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkSealNotification(b *testing.B) {
	bench(b, func(b *testing.B, n int) {
		x := newTrip(b, observe)
		m, dst := benchNotification(n), make([]byte, 0, 2048)
		for b.Loop() {
			if _, err := x.server.SealResponse(dst, &x.r, m); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkOpenNotification(b *testing.B) {
	bench(b, func(b *testing.B, n int) {
		x := newTrip(b, observe)
		x.server.jump(1 << 20)
		sealed, dst := x.number(b, benchNotification(n)), make([]byte, 0, 2048)
		for b.Loop() {
			x.p.notified = false
			if _, err := x.p.Open(dst, sealed); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkSerialLimit is the chain of dependent AES blocks that the CBC-MAC of
// SealRequest's message needs: no implementation can be faster for one message.
func BenchmarkSerialLimit(b *testing.B) {
	bench(b, func(b *testing.B, n int) {
		client, _ := testPair(b)
		m := benchRequest(n)
		var p Pending
		must(client.SealRequest(nil, &p, m))(b)
		blocks := limit.Blocks(1+len(m.Body), len(p.aadBytes()))
		var x [16]byte
		for b.Loop() {
			limit.Chain(&x, blocks)
		}
	})
}

// BenchmarkDerive is the HKDF alone, BenchmarkNew a whole context.
func BenchmarkDerive(b *testing.B) {
	for _, h := range HKDFs() {
		b.Run(h.String(), func(b *testing.B) {
			p := testParams()
			p.HKDF = h
			b.ReportAllocs()
			var d derived
			for b.Loop() {
				if err := p.derive(&d); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkExpand is what a context costs that is kept as derived keys.
func BenchmarkExpand(b *testing.B) {
	p := testParams()
	var d derived
	if err := p.derive(&d); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	var k keyset
	for b.Loop() {
		if err := k.expand(AESCCM16_64_128, &d, p.SenderID, p.RecipientID); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkNew(b *testing.B) {
	for _, a := range []AEAD{AESCCM16_64_128, A128GCM, ChaCha20Poly1305} {
		b.Run(a.String(), func(b *testing.B) {
			p := testParams()
			p.AEAD = a
			b.ReportAllocs()
			for b.Loop() {
				if _, err := New(p); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// TestNoAllocations: with room in dst nothing on the hot path allocates, under
// any algorithm, refusals included.
func TestNoAllocations(t *testing.T) {
	for _, a := range AEADs() {
		for _, size := range benchSizes {
			t.Run(fmt.Sprintf("%v/%d", a, size), func(t *testing.T) {
				if aeads[a].ccm && !ccmAllocatesNothing(t, a, size) {
					t.Skip("the portable AES-CCM of this build allocates for long messages")
				}
				noAllocations(t, a, size)
			})
		}
	}
}

func noAllocations(t *testing.T, a AEAD, size int) {
	p := testParams()
	p.AEAD = a
	client, server := newPair(t, p, p.Swap())
	x, o := request(t, client, server, get), request(t, client, server, observe)
	dst := make([]byte, 0, 2048)
	var pending Pending
	var r Request
	var sealed [64]Message
	for i := range sealed {
		sealed[i] = must(client.SealRequest(nil, &pending, benchRequest(size)))(t)
	}
	response, notification := x.seal(t, benchResponse(size)), o.number(t, benchNotification(size))
	forged := Message{sealed[63].Code, append([]byte(nil), sealed[63].Body...)}
	forged.Body[len(forged.Body)-1] ^= 1
	hosted := msg(coap.GET, "", option{coap.URIHost, "h"}, option{coap.URIPath, "a"})
	rq, rs, nt := benchRequest(size), benchResponse(size), benchNotification(size)
	i := 0
	for name, f := range map[string]func() error{
		"SealRequest":                func() error { _, err := client.SealRequest(dst, &pending, rq); return err },
		"SealRequest with Uri-Host":  func() error { _, err := client.SealRequest(dst, &pending, hosted); return err },
		"SealRequestAs":              func() error { _, err := client.SealRequestAs(dst, &pending, rq, Message{Code: codePOST}); return err },
		"OpenRequest":                func() error { i++; _, err := server.OpenRequest(dst, &r, sealed[i-1]); return err },
		"OpenRequest refused":        func() error { _, err := server.OpenRequest(dst, &r, forged); return not(err, ErrDecrypt) },
		"Request.Seal":               func() error { x.r.spent.Store(false); _, err := x.r.Seal(dst, rs); return err },
		"SealResponse":               func() error { _, err := server.SealResponse(dst, &x.r, rs); return err },
		"SealResponse, notification": func() error { _, err := server.SealResponse(dst, &o.r, nt); return err },
		"Pending.Open":               func() error { x.p.done = false; _, err := x.p.Open(dst, response); return err },
		"Pending.Open, notification": func() error { o.p.notified = false; _, err := o.p.Open(dst, notification); return err },
	} {
		var err error
		allocs := testing.AllocsPerRun(50, func() {
			if e := f(); e != nil {
				err = e
			}
		})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if allocs != 0 {
			t.Errorf("%s: %v allocations", name, allocs)
		}
	}
}

func not(err, wanted error) error {
	if err == wanted {
		return nil
	}
	return fmt.Errorf("got %v, want %v", err, wanted)
}

// ccmAllocatesNothing tells the assembly from the portable twin, which
// allocates from some length on.
func ccmAllocatesNothing(t *testing.T, a AEAD, size int) bool {
	p := testParams()
	p.AEAD = a
	c := must(New(p))(t)
	buf, nonce := make([]byte, size+64, 2048), make([]byte, a.NonceLen())
	return testing.AllocsPerRun(10, func() { _, _ = c.keys.sender.ccm.Seal(buf[:0], nonce, buf, nil) }) == 0
}

// TestSizes keeps an eye on what an idle context costs.
func TestSizes(t *testing.T) {
	for name, c := range map[string]struct{ got, most uintptr }{
		"Context": {unsafe.Sizeof(Context{}), 144},
		"keyset":  {unsafe.Sizeof(keyset{}), 704},
		"Request": {unsafe.Sizeof(Request{}), 96},
		"Pending": {unsafe.Sizeof(Pending{}), 128},
	} {
		t.Logf("%s: %d bytes", name, c.got)
		if c.got > c.most {
			t.Errorf("%s has %d bytes, want %d at most", name, c.got, c.most)
		}
	}
}
