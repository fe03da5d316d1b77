package proxy_test

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"runtime/pprof"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/oscorelay/oscorelay/internal/coap"
	"github.com/oscorelay/oscorelay/internal/udp"
	"github.com/oscorelay/oscorelay/proxy"
)

// middleEnv makes the test binary what stands in the middle of a benchmark:
// "forwarder ORIGIN" or "proxy ORIGIN". It is a process of its own, so that the
// processor time it takes is known apart from that of its peers.
const middleEnv = "OSCORE_PROXY_MIDDLE"

func TestMain(m *testing.M) {
	kind, origin, ok := strings.Cut(os.Getenv(middleEnv), " ")
	if !ok {
		os.Exit(m.Run())
	}
	if err := middle(kind, origin); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// middle says its address, and after each line on its input the microseconds
// of processor time that it has taken and the memory that it holds.
func middle(kind, origin string) error {
	var at netip.AddrPort
	switch kind {
	case "forwarder":
		var err error
		if at, err = forwarder(netip.MustParseAddrPort(origin)); err != nil {
			return err
		}
	default:
		p, err := proxy.Listen(proxy.Config{Listen: "127.0.0.1:0", Routes: []proxy.Route{{Host: "silent", To: "127.0.0.1:9", BlockSize: 256}, {To: origin}}, Shards: 1})
		if err != nil {
			return err
		}
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
		defer stop()
		go func() { _ = p.Serve(ctx) }()
		at = p.Addr()
	}
	if name := os.Getenv(middleEnv + "_PROFILE"); name != "" && kind != "forwarder" {
		f, err := os.Create(name)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	fmt.Println(at)
	for s := bufio.NewScanner(os.Stdin); s.Scan(); {
		var u syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
			return err
		}
		fmt.Println((u.Utime.Nano()+u.Stime.Nano())/1000, resident())
	}
	return nil
}

// resident is the process's memory in KiB.
func resident() (kib int) {
	raw, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(raw)) {
		if n, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kib, _ = strconv.Atoi(strings.Fields(n)[0])
		}
	}
	return kib
}

// forwarder is the least that can stand between two sockets: it looks at
// nothing, and sends the answers back in the order of the requests. It waits,
// takes in and sends as the proxy does.
func forwarder(to netip.AddrPort) (netip.AddrPort, error) {
	listen := func() (*udp.Socket, error) {
		return udp.Listen(netip.MustParseAddrPort("127.0.0.1:0"), udp.Options{ReadBuffer: 4 << 20})
	}
	front, err := listen()
	if err != nil {
		return netip.AddrPort{}, err
	}
	back, err := listen()
	if err != nil {
		return netip.AddrPort{}, err
	}
	poll, err := udp.NewPoll[*udp.Socket]()
	if err != nil {
		return netip.AddrPort{}, err
	}
	for _, s := range []*udp.Socket{front, back} {
		if err := poll.Add(s, s); err != nil {
			return netip.AddrPort{}, err
		}
	}
	const ring = 1 << 12
	var clients [ring]netip.AddrPort
	var head, tail int
	go func() {
		in, inbox := make([]udp.Packet, 32), udp.Inbox{}
		for {
			ready, err := poll.Wait(time.Second)
			if err != nil {
				return
			}
			for _, from := range ready {
				n, _ := from.Take(&inbox, in)
				if from == back {
					for i := range in[:n] {
						in[i].Peer = clients[tail%ring]
						tail++
					}
					front.Write(in[:n])
					continue
				}
				for i := range in[:n] {
					clients[head%ring], in[i].Peer = in[i].Peer, to
					head++
				}
				back.Write(in[:n])
			}
		}
	}()
	return front.Addr(), nil
}

// process is a middle that runs.
type process struct {
	b    *testing.B
	at   netip.AddrPort
	in   *os.File
	out  *bufio.Scanner
	cpu  time.Duration // in the slices so far
	mark time.Duration
	kib  int
	done int
}

func startMiddle(b *testing.B, kind string, origin netip.AddrPort) *process {
	b.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		b.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), middleEnv+"="+kind+" "+origin.String())
	cmd.Stdin, cmd.Stderr = r, os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	_ = r.Close()
	b.Cleanup(func() {
		_ = w.Close() // it ends at the end of its input
		_ = cmd.Wait()
	})
	p := &process{b: b, in: w, out: bufio.NewScanner(out)}
	if !p.out.Scan() {
		b.Fatalf("%s does not start", kind)
	}
	p.at = netip.MustParseAddrPort(p.out.Text())
	return p
}

// usage asks for the processor time taken so far.
func (p *process) usage() (cpu time.Duration) {
	p.b.Helper()
	if _, err := p.in.WriteString("\n"); err != nil || !p.out.Scan() {
		p.b.Fatal("the middle has ended", err)
	}
	var micro int64
	if _, err := fmt.Sscan(p.out.Text(), &micro, &p.kib); err != nil {
		p.b.Fatal(err)
	}
	return time.Duration(micro) * time.Microsecond
}

// load is clients and their origin.
type load struct {
	b        *testing.B
	clients  *udp.Socket
	answered atomic.Int64
	sent     int64
	typ      coap.Type
	body     []byte
	out      []udp.Packet
	bufs     [][]byte
	lost     int64
}

// inFlight is how many requests are under way at a time.
const inFlight = 256

func newLoad(b *testing.B, typ coap.Type) *load {
	b.Helper()
	s, err := udp.Listen(netip.MustParseAddrPort("0.0.0.0:0"), udp.Options{Local: true, ReadBuffer: 4 << 20})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = s.Close() })
	l := &load{b: b, clients: s, typ: typ, out: make([]udp.Packet, 32), bufs: make([][]byte, 32)}
	l.body = coap.AppendBody(nil, coap.Options{{Number: coap.OSCORE, Value: []byte{9, 0, 1}}}, make([]byte, 48))
	go func() {
		in := make([]udp.Packet, 64)
		for {
			n, err := s.Read(in)
			if err != nil {
				return
			}
			l.answered.Add(int64(n))
		}
	}()
	return l
}

// source is the address of a client: one in 127.0.0.0/8 for each.
func source(peer int) netip.Addr {
	return netip.AddrFrom4([4]byte{127, 1 + byte(peer>>16), byte(peer >> 8), byte(peer)})
}

// slice has n requests answered by way of a middle, from as many peers in turn.
func (l *load) slice(p *process, n, peers int) {
	p.mark = p.usage()
	start, base := l.answered.Load(), l.sent
	missing := int64(0)
	for at := 0; at < n; {
		for stalled := time.Now(); l.sent-base-(l.answered.Load()-start)-missing > inFlight-32; {
			time.Sleep(20 * time.Microsecond)
			if time.Since(stalled) > 300*time.Millisecond {
				missing = l.sent - base - (l.answered.Load() - start)
			}
		}
		k := min(32, n-at)
		for i := range k {
			var token [4]byte
			binary.BigEndian.PutUint32(token[:], uint32(l.sent))
			d := coap.Datagram{Type: l.typ, Code: coap.POST, MessageID: uint16(l.sent / int64(peers)), Token: token[:], Body: l.body}
			l.bufs[i] = d.Append(l.bufs[i][:0])
			l.out[i] = udp.Packet{Peer: p.at, Local: source(int(l.sent) % peers), Data: l.bufs[i]}
			l.sent++
		}
		l.clients.Write(l.out[:k])
		at += k
	}
	for waited := time.Now(); l.answered.Load()-start+missing < l.sent-base; {
		time.Sleep(100 * time.Microsecond)
		if time.Since(waited) > 300*time.Millisecond {
			break
		}
	}
	l.lost += l.sent - base - (l.answered.Load() - start)
	p.cpu += p.usage() - p.mark
	p.done += n
}

// origin answers every request at once.
func origin(b *testing.B) netip.AddrPort {
	b.Helper()
	s, err := udp.Listen(netip.MustParseAddrPort("127.0.0.1:0"), udp.Options{ReadBuffer: 4 << 20})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = s.Close() })
	body := coap.AppendBody(nil, coap.Options{{Number: coap.OSCORE}}, make([]byte, 32))
	go func() {
		in, bufs := make([]udp.Packet, 64), make([][]byte, 64)
		mid := uint16(0)
		for {
			n, err := s.Read(in)
			if err != nil {
				return
			}
			k := 0
			for i := range in[:n] {
				d, err := coap.ParseDatagram(in[i].Data)
				if err != nil || !d.Code.IsRequest() {
					continue
				}
				if d.Type == coap.Confirmable {
					d.Type = coap.Acknowledgement
				} else {
					d.MessageID = mid
					mid++
				}
				d.Code, d.Body = coap.Changed, body
				bufs[k] = d.Append(bufs[k][:0])
				in[k] = udp.Packet{Peer: in[i].Peer, Data: bufs[k]}
				k++
			}
			s.Write(in[:k])
		}
	}()
	return s.Addr()
}

// BenchmarkHop is a request and its answer over the loopback, 256 under way:
// the processor time that the keyless proxy takes for one, and that of a
// forwarder between two sockets that looks at nothing, in turns of 4096
// requests so that the machine's other work falls on both alike. There are at
// least six turns of each.
func BenchmarkHop(b *testing.B) {
	for _, typ := range []coap.Type{coap.Confirmable, coap.NonConfirmable} {
		for _, peers := range []int{1, 1000, 100_000} {
			b.Run(fmt.Sprintf("%v/peers=%d", typ, peers), func(b *testing.B) {
				at := origin(b)
				bare, through := startMiddle(b, "forwarder", at), startMiddle(b, "proxy", at)
				l := newLoad(b, typ)
				l.slice(bare, 1024, peers)
				l.slice(through, max(1024, peers), peers) // every peer is known
				bare.cpu, bare.done, through.cpu, through.done, l.lost = 0, 0, 0, 0, 0
				b.ResetTimer()
				const turn, turns = 4096, 6
				for n := 0; n < max(b.N, turns*turn); n += turn {
					l.slice(bare, turn, peers)
					l.slice(through, turn, peers)
				}
				b.StopTimer()
				f, p := float64(bare.cpu.Nanoseconds())/float64(bare.done)/1000, float64(through.cpu.Nanoseconds())/float64(through.done)/1000
				b.ReportMetric(f, "forwarder-cpu-µs")
				b.ReportMetric(p, "proxy-cpu-µs")
				b.ReportMetric(p/f, "×forwarder")
				b.ReportMetric(p*1000, "ns/op") // processor time, whatever the clock says
				b.ReportMetric(float64(max(l.lost, 0))/float64(bare.done+through.done)*100, "lost-%")
				b.ReportMetric(float64(through.kib)/1024, "proxy-MiB")
			})
		}
	}
}

// BenchmarkOverload is how much of genuine traffic, 2000 requests a second of
// 100 clients that retransmit nothing, is answered while 20000 datagrams a
// second of each kind of flood come from a thousand addresses. Nothing else is
// known of the clients than their addresses.
func BenchmarkOverload(b *testing.B) {
	for name, datagram := range floods {
		b.Run(strings.ReplaceAll(name, " ", "-"), func(b *testing.B) {
			through := startMiddle(b, "proxy", origin(b))
			l := newLoad(b, coap.Confirmable)
			attacker, err := udp.Listen(netip.MustParseAddrPort("0.0.0.0:0"), udp.Options{Local: true})
			if err != nil {
				b.Fatal(err)
			}
			defer attacker.Close()
			tick := time.NewTicker(time.Millisecond)
			defer tick.Stop()
			bad := make([]udp.Packet, 20)
			sent := 0
			b.ResetTimer()
			for l.sent < max(int64(b.N), 2000) {
				<-tick.C
				for i := range bad {
					n := sent + i
					bad[i] = udp.Packet{Peer: through.at, Local: netip.AddrFrom4([4]byte{127, 3, byte(n % 1000 >> 8), byte(n % 1000)}), Data: datagram(n)}
				}
				sent += len(bad)
				attacker.Write(bad)
				for i := range 2 {
					var token [4]byte
					binary.BigEndian.PutUint32(token[:], uint32(l.sent))
					d := coap.Datagram{Type: coap.Confirmable, Code: coap.POST, MessageID: uint16(l.sent), Token: token[:], Body: l.body}
					l.out[i] = udp.Packet{Peer: through.at, Local: source(int(l.sent % 100)), Data: d.Append(nil)}
					l.sent++
				}
				l.clients.Write(l.out[:2])
			}
			time.Sleep(200 * time.Millisecond) // the last answers are on their way
			b.StopTimer()
			cpu := through.usage()
			b.ReportMetric(100*float64(l.answered.Load())/float64(l.sent), "genuine-%")
			b.ReportMetric(float64(sent)/b.Elapsed().Seconds(), "flood/s")
			b.ReportMetric(100*cpu.Seconds()/b.Elapsed().Seconds(), "proxy-cpu-%")
			b.ReportMetric(float64(through.kib)/1024, "proxy-MiB")
		})
	}
}
