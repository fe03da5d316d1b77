//go:build interop

package interop

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/oscorelay/oscorelay/interop/peer"
)

// BenchmarkForwardProxy is the processor time that a forward proxy takes for a
// sealed request and its answer, by number of requests under way: libcoap's,
// which knows no OSCORE, ours, and the limit, which is a forwarder that looks at
// nothing. They have turns of a thousand requests, so that the machine's other
// work falls on all alike. Confirmable requests over the loopback; each is a
// process of its own, and what it took is what the system says. ns/op is ours.
//
// libcoap/limit is what a proxy could be better by at most: alone, a request
// costs two wake-ups and six system calls whoever makes them.
func BenchmarkForwardProxy(b *testing.B) {
	const turn, turns = 1000, 5
	for _, underWay := range []int{1, 16, 64} {
		b.Run(fmt.Sprint(underWay), func(b *testing.B) {
			origin := answerAll(b)
			all := []struct {
				name   string
				start  func(port uint16) *peer.Process
				pid    int
				client *benchClient
				took   time.Duration
			}{
				{name: "libcoap", start: func(port uint16) *peer.Process { return peer.LibcoapProxy(b, port, netip.AddrPort{}) }},
				{name: "proxy", start: func(port uint16) *peer.Process {
					return peer.OSCOREProxy(b, port, "-forward", "127.0.0.0/8")
				}},
				{name: "limit", start: func(port uint16) *peer.Process { return bareForwarder(b, port, origin.Port()) }},
			}
			for i := range all {
				c, port := &all[i], peer.FreePort(b)
				c.pid = c.start(port).PID()
				c.client = newBenchClient(b, peer.Loopback(port), origin)
				c.client.run(b, 2*turn, underWay) // warm
			}
			b.ResetTimer()
			done := 0
			for ; done < max(b.N, turns*turn); done += turn {
				for i := range all {
					before := cpuTime(b, all[i].pid)
					all[i].client.run(b, turn, underWay)
					all[i].took += cpuTime(b, all[i].pid) - before
				}
			}
			b.StopTimer()
			for i := range all {
				b.ReportMetric(float64(all[i].took.Nanoseconds())/1e3/float64(done), all[i].name+"-µs")
			}
			libcoap, ours, limit := all[0].took.Seconds(), all[1].took.Seconds(), all[2].took.Seconds()
			b.ReportMetric(libcoap/ours, "libcoap/proxy")
			b.ReportMetric(libcoap/limit, "libcoap/limit")
			b.ReportMetric(ours/limit, "proxy/limit")
			b.ReportMetric(float64(all[1].took.Nanoseconds())/float64(done), "ns/op")
		})
	}
}

// cpuTime is the time that a process has taken, by the clock of the scheduler.
func cpuTime(b *testing.B, pid int) (sum time.Duration) {
	b.Helper()
	threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		b.Fatal(err)
	}
	for _, t := range threads {
		raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/schedstat", pid, t.Name()))
		if err != nil {
			b.Skip("this system does not count the time of threads in nanoseconds: ", err)
		}
		n, err := strconv.ParseInt(strings.Fields(string(raw))[0], 10, 64)
		if err != nil {
			b.Fatal(err)
		}
		sum += time.Duration(n)
	}
	return sum
}

// answerAll answers every request at once with a sealed response's shape.
func answerAll(b *testing.B) netip.AddrPort {
	conn, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(peer.Loopback(0)))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { conn.Close() })
	answer := append([]byte{0x90, 0xff}, make([]byte, 32)...) // an empty OSCORE option, a ciphertext
	go func() {
		buf, out := make([]byte, 2048), make([]byte, 0, 128)
		for {
			n, from, err := conn.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			if n < 4 || buf[1] == 0 {
				continue
			}
			out = append(out[:0], buf[:4+int(buf[0]&15)]...)
			out[0], out[1] = out[0]&0xcf|0x20, 0x44 // ACK 2.04
			if _, err := conn.WriteToUDPAddrPort(append(out, answer...), from); err != nil {
				return
			}
		}
	}()
	return conn.LocalAddr().(*net.UDPAddr).AddrPort()
}

// benchClient keeps a number of requests under way and counts the answers.
type benchClient struct {
	conn *net.UDPConn
	body []byte
	sent uint64
}

func newBenchClient(b *testing.B, proxy, origin netip.AddrPort) *benchClient {
	conn, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(proxy))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { conn.Close() })
	c := &benchClient{conn: conn}
	c.body = append(c.body, 0x39)
	c.body = append(c.body, "127.0.0.1"...) // Uri-Host
	c.body = append(c.body, 0x42)
	c.body = binary.BigEndian.AppendUint16(c.body, origin.Port())
	c.body = append(c.body, 0x23, 9, 1, 1)                // OSCORE
	c.body = append(c.body, 0xd4, 17, 'c', 'o', 'a', 'p') // Proxy-Scheme
	c.body = append(append(c.body, 0xff), make([]byte, 48)...)
	return c
}

func (c *benchClient) send(b *testing.B) {
	out := make([]byte, 0, 160)
	out = append(out, 0x48, 2, byte(c.sent>>8), byte(c.sent))
	out = binary.BigEndian.AppendUint64(out, c.sent)
	c.sent++
	if _, err := c.conn.Write(append(out, c.body...)); err != nil {
		b.Fatal(err)
	}
}

// run has n requests answered. Each answer lets the next request go.
func (c *benchClient) run(b *testing.B, n, underWay int) {
	b.Helper()
	first := min(n, underWay)
	for range first {
		c.send(b)
	}
	buf := make([]byte, 2048)
	for answered := 0; answered < n; {
		if err := c.conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
			b.Fatal(err)
		}
		k, err := c.conn.Read(buf)
		if err != nil {
			b.Fatalf("after %d of %d answers: %v", answered, n, err)
		}
		switch {
		case k < 4 || buf[1] == 0: // an empty acknowledgement
			continue
		case buf[1] != 0x44:
			b.Fatalf("the proxy answers %s", peer.Dotted(buf[1]))
		}
		if buf[0]>>4&3 == 0 {
			if _, err := c.conn.Write([]byte{0x60, 0, buf[2], buf[3]}); err != nil {
				b.Fatal(err)
			}
		}
		if answered++; answered+first <= n {
			c.send(b)
		}
	}
}
