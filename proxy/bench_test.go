package proxy_test

import (
	"encoding/binary"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/oscorelay/oscorelay/internal/coap"
	"github.com/oscorelay/oscorelay/proxy"
)

// forwarder is the least that can stand between two sockets: it looks at
// nothing, and remembers one client.
func forwarder(b *testing.B, to netip.AddrPort) netip.AddrPort {
	front, back := open(b).conn, open(b).conn
	var mu sync.Mutex
	var client netip.AddrPort
	go func() {
		buf := make([]byte, 2048)
		for {
			n, from, err := front.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			mu.Lock()
			client = from
			mu.Unlock()
			_, _ = back.WriteToUDPAddrPort(buf[:n], to)
		}
	}()
	go func() {
		buf := make([]byte, 2048)
		for {
			n, _, err := back.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			mu.Lock()
			to := client
			mu.Unlock()
			_, _ = front.WriteToUDPAddrPort(buf[:n], to)
		}
	}()
	return front.LocalAddr().(*net.UDPAddr).AddrPort()
}

// origin answers every request at once.
func origin(b *testing.B) netip.AddrPort {
	s := open(b)
	go func() {
		buf := make([]byte, 2048)
		for {
			n, from, err := s.conn.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			d, err := coap.ParseDatagram(buf[:n])
			if err != nil {
				continue
			}
			if d.Type == coap.Confirmable {
				d.Type = coap.Acknowledgement
			}
			d.Code, d.Body = coap.Changed, coap.AppendBody(nil, coap.Options{{Number: coap.OSCORE}}, make([]byte, 32))
			_, _ = s.conn.WriteToUDPAddrPort(d.Append(nil), from)
		}
	}()
	return s.conn.LocalAddr().(*net.UDPAddr).AddrPort()
}

// BenchmarkHop is a request and its answer, 64 under way, over the loopback:
// straight, through a forwarder that looks at nothing, and through the proxy.
// cpu-µs/op is that of the whole process: client, server and what is between.
func BenchmarkHop(b *testing.B) {
	for _, c := range []struct {
		name string
		via  func(b *testing.B, to netip.AddrPort) netip.AddrPort
	}{
		{"direct", func(_ *testing.B, to netip.AddrPort) netip.AddrPort { return to }},
		{"forwarder", forwarder},
		{"proxy", func(b *testing.B, to netip.AddrPort) netip.AddrPort {
			p := start(b, proxy.Config{Routes: reverse(to.String()), MaxUpstream: 1024})
			return p.Addr()
		}},
	} {
		b.Run(c.name, func(b *testing.B) {
			to := c.via(b, origin(b))
			client := open(b)
			window := make(chan struct{}, 64)
			go func() {
				buf := make([]byte, 2048)
				for {
					if _, _, err := client.conn.ReadFromUDPAddrPort(buf); err != nil {
						return
					}
					select {
					case <-window:
					default:
					}
				}
			}()
			body := coap.AppendBody(nil, coap.Options{{Number: coap.OSCORE, Value: []byte{9, 0, 1}}}, make([]byte, 48))
			var token [4]byte
			out := make([]byte, 0, 256)
			before := cpu(b)
			b.ReportAllocs()
			b.ResetTimer()
			for i := range b.N {
				select {
				case window <- struct{}{}:
				case <-time.After(time.Second):
					b.Fatal("answers are lost")
				}
				binary.BigEndian.PutUint32(token[:], uint32(i))
				d := coap.Datagram{Type: coap.NonConfirmable, Code: coap.POST, MessageID: uint16(i), Token: token[:], Body: body}
				out = d.Append(out[:0])
				if _, err := client.conn.WriteToUDPAddrPort(out, to); err != nil {
					b.Fatal(err)
				}
			}
			b.StopTimer()
			b.ReportMetric(float64(cpu(b)-before)/1e3/float64(b.N), "cpu-µs/op")
			runtime.GC()
		})
	}
}

// cpu is the processor time that the process has taken.
func cpu(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
