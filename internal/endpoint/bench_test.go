package endpoint

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/oscorelay/oscorelay/internal/coap"
	"github.com/oscorelay/oscorelay/oscore"
)

// BenchmarkServe is one request at the server: Receive and Respond; sealing the
// request is part of the loop, and measured apart.
func BenchmarkServe(b *testing.B) {
	get := message(b, coap.GET, "/3/0/0", nil)
	small := content(make([]byte, 16), option(coap.ContentFormat, 42))
	for _, c := range []struct {
		name    string
		request oscore.Message
		answer  oscore.Message
		cfg     Config
	}{
		{"get", get, small, Config{}},
		{"get, observe", message(b, coap.GET, "/3/0/0", nil, option(coap.Observe)), content(make([]byte, 16), option(coap.Observe)), Config{}},
		{"put, fresh", message(b, coap.PUT, "/3/0/0", make([]byte, 16)), changed(), Config{Freshness: always(FreshUnsafe)}},
		{"get, 4 KiB", get, content(make([]byte, 4096)), Config{}},
	} {
		b.Run(c.name, func(b *testing.B) {
			p := newPair(b, Config{}, c.cfg, oscore.Settings{})
			request := c.request
			if c.cfg.Freshness != nil {
				request = message(b, coap.PUT, "/3/0/0", make([]byte, 16), option(coap.Echo, p.server.echo.value(p.now, "client")...))
			}
			pending := new(oscore.Pending)
			room, token := make([]byte, 0, 256), []byte("tokn")
			b.ReportAllocs()
			for b.Loop() {
				m, err := p.cp.SealRequest(room, pending, request)
				if err != nil {
					b.Fatal(err)
				}
				res := p.server.Receive(p.now, Inbound{Source: "s", Token: token, Message: m})
				if res.Verdict != Deliver {
					b.Fatal(res.Reason)
				}
				if _, _, err := res.Incoming.Respond(p.now, c.answer); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("sealing alone", func(b *testing.B) {
		p := newPair(b, Config{}, Config{}, oscore.Settings{})
		pending, room := new(oscore.Pending), make([]byte, 0, 256)
		for b.Loop() {
			if _, err := p.cp.SealRequest(room, pending, get); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkExchange is one request at the client: Begin and Receive; the
// server's part is measured apart.
func BenchmarkExchange(b *testing.B) {
	get, answer := message(b, coap.GET, "/3/0/0", nil), content(make([]byte, 16), option(coap.ContentFormat, 42))
	for _, whole := range []bool{true, false} {
		name := "get"
		if !whole {
			name = "server's part alone"
		}
		b.Run(name, func(b *testing.B) {
			p := newPair(b, Config{}, Config{}, oscore.Settings{})
			req, pending := new(oscore.Request), new(oscore.Pending)
			in, out, mine := make([]byte, 0, 256), make([]byte, 0, 256), make([]byte, 0, 256)
			b.ReportAllocs()
			for b.Loop() {
				var x *Exchange
				var m oscore.Message
				var err error
				if whole {
					x, m, err = p.client.Begin(p.now, "server", get, RequestOptions{})
				} else {
					m, err = p.cp.SealRequest(mine, pending, get)
				}
				if err != nil {
					b.Fatal(err)
				}
				if _, err := p.sp.OpenRequest(in, req, m); err != nil {
					b.Fatal(err)
				}
				sealed, err := req.Seal(out, answer)
				if err != nil {
					b.Fatal(err)
				}
				if whole {
					if s := x.Receive(p.now, sealed); s.Kind != Response {
						b.Fatal(s.Err)
					}
				}
			}
		})
	}
}

// BenchmarkRefuse is a forged request.
func BenchmarkRefuse(b *testing.B) {
	p := newPair(b, Config{}, Config{}, oscore.Settings{})
	forged := withOSCORE([]byte{0x09, 9, 1}, make([]byte, 20))
	b.ReportAllocs()
	for b.Loop() {
		p.server.Receive(p.now, Inbound{Source: "s", Message: forged})
	}
}

// BenchmarkMemory reports the bytes that an observation holds, and an idle peer.
func BenchmarkMemory(b *testing.B) {
	heap := func() uint64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	const n = 20000
	b.Run("observation", func(b *testing.B) {
		for b.Loop() {
			p := newPair(b, Config{}, Config{MaxObservations: n}, oscore.Settings{})
			answer := content(nil, option(coap.Observe))
			pending, request := new(oscore.Pending), message(b, coap.GET, "/3303/0/5700", nil, option(coap.Observe))
			before := heap()
			for i := range n {
				m, err := p.cp.SealRequest(nil, pending, request)
				if err != nil {
					b.Fatal(err)
				}
				res := p.server.Receive(p.now, Inbound{Token: fmt.Appendf(nil, "%08d", i), Message: m})
				if _, _, err := res.Incoming.Respond(p.now, answer); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(heap()-before)/n, "B/observation")
			runtime.KeepAlive(p)
		}
	})
	b.Run("peer", func(b *testing.B) {
		for b.Loop() {
			names := make([]string, n)
			for i := range names {
				names[i] = fmt.Sprint("urn:dev:", i)
			}
			e := New(Config{}, time.Unix(1e9, 0))
			before := heap()
			for _, name := range names {
				e.state(name).echo = "0123456789abcdef"
			}
			b.ReportMetric(float64(heap()-before)/n, "B/peer")
			runtime.KeepAlive(names)
			runtime.KeepAlive(e)
		}
	})
}
