package load

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/metrics"
	"runtime/pprof"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/oscorelay/oscorelay/internal/endpoint"
	"github.com/oscorelay/oscorelay/internal/terminate"
	"github.com/oscorelay/oscorelay/internal/udp"
	"github.com/oscorelay/oscorelay/keys/bolt"
	"github.com/oscorelay/oscorelay/proxy"
	"golang.org/x/sys/unix"
)

// middleEnv makes the test binary what stands in the middle: it holds settings.
const middleEnv = "OSCORE_LOAD_MIDDLE"

// profileEnv names a directory for processor profiles of the middles.
const profileEnv = "OSCORE_LOAD_PROFILE"

// settings are what a middle is made of.
type settings struct {
	Kind    string // forwarder, proxy or gateway
	Name    string // of the profile
	Binary  string // the test binary that it is; this one if empty
	Backend string

	// Of a gateway, and partly of a proxy.
	Base            string // where its store is
	Hot             int    // contexts ready in memory; the store's default if zero
	Listen          string // 127.0.0.1:0 if empty
	UpstreamPort    uint16
	Plain           terminate.Plain
	Freshness       endpoint.Freshness
	DeviceExchanges int
	MaxExchanges    int
	MaxBytes        int
	MaxDevices      int
	Timeout         time.Duration
	AckTimeout      time.Duration

	Core int // the processor that it has, from 1 on; all of them if zero
}

func TestMain(m *testing.M) {
	v, ok := os.LookupEnv(middleEnv)
	if !ok {
		os.Exit(m.Run())
	}
	if err := middle(v); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// usage is what a middle has taken so far.
type usage struct {
	CPU time.Duration
	KiB int // resident
	// Allocations made.
	Allocs uint64
	terminate.Stats
}

// middle works until its input ends. Each line on it is answered by the usage.
func middle(v string) (err error) {
	var s settings
	if err := json.Unmarshal([]byte(v), &s); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	var at netip.AddrPort
	stats := func() terminate.Stats { return terminate.Stats{} }
	end := func() error { return nil }
	if s.Core > 0 {
		runtime.GOMAXPROCS(1)
		if err := pin(s.Core - 1); err != nil {
			return err
		}
	}
	switch s.Kind {
	case "forwarder":
		at, err = forwarder(netip.MustParseAddrPort(s.Backend))
	case "proxy":
		var p *proxy.Proxy
		p, err = proxy.Listen(proxy.Config{
			Listen: "127.0.0.1:0", Routes: []proxy.Route{{To: s.Backend}}, Shards: 1,
			MaxExchanges: s.MaxExchanges, PeerExchanges: s.DeviceExchanges, MaxBytes: s.MaxBytes, MaxPeers: s.MaxDevices, Timeout: s.Timeout,
		})
		if err == nil {
			at, stats = p.Addr(), func() terminate.Stats { return ofProxy(p.Stats()) }
			go func() { _ = p.Serve(ctx) }()
		}
	case "gateway":
		var g *terminate.Gateway
		g, end, err = gateway(ctx, &s)
		if err == nil {
			at, stats = g.Addr(), g.Stats
		}
	default:
		err = fmt.Errorf("no such middle: %q", s.Kind)
	}
	if err != nil {
		return err
	}
	if dir := os.Getenv(profileEnv); dir != "" {
		f, err := os.Create(filepath.Join(dir, s.Name+".pprof"))
		if err != nil {
			return err
		}
		defer f.Close()
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
		heap, err := os.Create(filepath.Join(dir, s.Name+".heap"))
		if err != nil {
			return err
		}
		defer heap.Close()
		defer func() { _ = pprof.Lookup("allocs").WriteTo(heap, 0) }()
	}
	fmt.Println(at)
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		var r syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
			return err
		}
		u := usage{CPU: time.Duration(r.Utime.Nano() + r.Stime.Nano()), KiB: resident(), Allocs: allocations()}
		if in.Text() != "" { // they take the gateway's lock
			u.Stats = stats()
		}
		b, err := json.Marshal(u)
		if err != nil {
			return err
		}
		fmt.Println(string(b))
	}
	stop()
	return end()
}

// ofProxy gives a proxy's counters the gateway's form.
func ofProxy(s proxy.Stats) terminate.Stats {
	s.By["withheld"], s.By["unsent"], s.By["overrun"] = s.Withheld, s.Unsent, s.Overrun
	s.By["requests_up"], s.By["responses"] = s.Requests, s.Responses
	return terminate.Stats{Counters: s.By, Gauges: map[string]int{"exchanges": s.Exchanges, "bytes": s.Bytes, "peers": s.Peers, "observations": s.Relations}}
}

// pin has this process run on one processor alone: threads that are there, and
// those that they make.
func pin(core int) error {
	var set unix.CPUSet
	set.Set(core)
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return err
	}
	for _, task := range tasks {
		id, err := strconv.Atoi(task.Name())
		if err != nil {
			return err
		}
		if err := unix.SchedSetaffinity(id, &set); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("processor %d: %w", core, err)
		}
	}
	return nil
}

// gateway runs one on its store.
func gateway(ctx context.Context, s *settings) (g *terminate.Gateway, end func() error, err error) {
	store, err := openStore(s.Base, bolt.Options{Hot: s.Hot})
	if err != nil {
		return nil, nil, err
	}
	ring, err := store.Keyring(ctx)
	if err != nil {
		return nil, nil, err
	}
	g, err = terminate.Listen(terminate.Config{
		Name: s.Name, Listen: netip.MustParseAddrPort(s.Listen), Backend: netip.MustParseAddrPort(s.Backend), UpstreamPort: s.UpstreamPort,
		Store: store, Keyring: ring, Plain: s.Plain, Freshness: s.Freshness, Timeout: s.Timeout, AckTimeout: s.AckTimeout, Drain: time.Millisecond,
		DeviceNStart: s.DeviceExchanges, DeviceExchanges: s.DeviceExchanges, MaxExchanges: s.MaxExchanges, MaxBytes: s.MaxBytes, MaxDevices: s.MaxDevices,
		Logger: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError})),
	})
	if err != nil {
		return nil, nil, err
	}
	done := make(chan error, 1)
	go func() { done <- g.Serve(ctx) }()
	return g, func() error {
		return errors.Join(<-done, ring.Close(context.Background()), store.Close())
	}, nil
}

func openStore(base string, o bolt.Options) (*bolt.Store, error) {
	o.AnchorDir = filepath.Join(base, "anchors")
	return bolt.Open(filepath.Join(base, "store"), o)
}

func allocations() uint64 {
	s := []metrics.Sample{{Name: "/gc/heap/allocs:objects"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
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
	t   testing.TB
	cmd *exec.Cmd
	at  netip.AddrPort
	in  *os.File
	out *bufio.Scanner
}

// start runs a middle until the test ends.
func start(t testing.TB, s settings) *process {
	t.Helper()
	if s.Listen == "" {
		s.Listen = "127.0.0.1:0"
	}
	v, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	if s.Binary == "" {
		s.Binary = os.Args[0]
	}
	p := &process{t: t, cmd: exec.Command(s.Binary, "-test.run=^$"), in: w}
	p.cmd.Env = append(os.Environ(), middleEnv+"="+string(v))
	p.cmd.Stdin, p.cmd.Stderr = r, os.Stderr
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = r.Close()
	t.Cleanup(p.stop)
	p.out = bufio.NewScanner(out)
	p.out.Buffer(nil, 1<<16)
	if !p.out.Scan() {
		t.Fatalf("the %s does not start", s.Kind)
	}
	p.at = netip.MustParseAddrPort(p.out.Text())
	return p
}

// stop ends it in order.
func (p *process) stop() {
	if p.cmd == nil {
		return
	}
	_ = p.in.Close()
	if err := p.cmd.Wait(); err != nil {
		p.t.Errorf("a middle: %v", err)
	}
	p.cmd = nil
}

// kill is kill -9.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
	_ = p.in.Close()
	p.cmd = nil
}

// usage asks for what it has taken; with the gateway's counters if they are
// wanted.
func (p *process) usage(counters bool) (u usage) {
	p.t.Helper()
	line := "\n"
	if counters {
		line = "counters\n"
	}
	if _, err := p.in.WriteString(line); err != nil || !p.out.Scan() {
		p.t.Fatal("the middle has ended", err)
	}
	if err := json.Unmarshal(p.out.Bytes(), &u); err != nil {
		p.t.Fatal(err)
	}
	return u
}
