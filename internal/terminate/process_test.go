package terminate

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/oscorelay/oscorelay/internal/endpoint"
	"github.com/oscorelay/oscorelay/keys"
	"github.com/oscorelay/oscorelay/keys/bolt"
	"github.com/oscorelay/oscorelay/oscore"
)

// childEnv makes the test binary a gateway that can be killed: the variable holds
// its settings.
const childEnv = "TERMINATE_CHILD"

const ackTimeout = 400 * time.Millisecond

// settings are what a gateway in a process of its own is made of.
type settings struct {
	Base            string
	Listen          string
	Backend         string
	Upstream        string
	UpstreamPort    uint16
	UpstreamPorts   int
	Plain           Plain
	Refuses         string // a context of another route
	Freshness       *endpoint.Freshness
	DeviceExchanges int
	Revive          int
	TimeoutMS       int
	Context         oscore.Settings // of the device's context
}

func TestMain(m *testing.M) {
	if v := os.Getenv(childEnv); v != "" {
		if err := child(v); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// child works until its input ends. Each line that it reads it answers with its
// state, as a line of JSON.
func child(v string) error {
	var s settings
	if err := json.Unmarshal([]byte(v), &s); err != nil {
		return err
	}
	store, err := openStore(s.Base, false)
	if err != nil {
		return err
	}
	ring, err := store.Keyring(context.Background())
	if err != nil {
		return err
	}
	cfg := Config{
		Name: "test", Listen: netip.MustParseAddrPort(s.Listen), Backend: netip.MustParseAddrPort(s.Backend), UpstreamPort: s.UpstreamPort,
		Store: store, Keyring: ring, Plain: s.Plain, Freshness: endpoint.FreshUnsafe, AckTimeout: ackTimeout,
		DeviceExchanges: s.DeviceExchanges, Revive: s.Revive, Timeout: time.Duration(s.TimeoutMS) * time.Millisecond,
		Accepts: func(name string) bool { return name != s.Refuses },
		Logger:  slog.New(slog.NewTextHandler(os.Stderr, nil)),
	}
	if s.Upstream != "" {
		cfg.Upstream = netip.MustParsePrefix(s.Upstream)
	}
	cfg.UpstreamPorts = s.UpstreamPorts
	if s.Freshness != nil {
		cfg.Freshness = *s.Freshness
	}
	g, err := Listen(cfg)
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(context.Background())
	go func() {
		in := bufio.NewScanner(os.Stdin)
		fmt.Println(g.Addr())
		for in.Scan() {
			st := state{Stats: g.Stats()}
			g.Devices(func(d Device) bool {
				st.Devices = append(st.Devices, d)
				return true
			})
			b, err := json.Marshal(st)
			if err != nil {
				b = []byte(err.Error())
			}
			fmt.Println(string(b))
		}
		stop()
	}()
	err = g.Serve(ctx)
	return errors.Join(err, ring.Close(context.Background()), store.Close())
}

func openStore(base string, init bool) (*bolt.Store, error) {
	return bolt.Open(filepath.Join(base, "store"), bolt.Options{Init: init, AnchorDir: filepath.Join(base, "anchors")})
}

// makeStore makes a store with contexts that nobody has used.
func makeStore(t *testing.T, base string, entries ...keys.Entry) {
	t.Helper()
	store, err := openStore(base, true)
	if err != nil {
		t.Fatal(err)
	}
	if err := store.Put(t.Context(), true, entries...); err != nil {
		t.Fatal(err)
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
}

// state is what a gateway says of itself.
type state struct {
	Stats   Stats
	Devices []Device
}

// process is a gateway in a process of its own.
type process struct {
	t    *testing.T
	cmd  *exec.Cmd
	in   io.WriteCloser
	out  *bufio.Scanner
	addr netip.AddrPort
}

// start starts the gateway.
func (w *world) start() {
	w.t.Helper()
	v, err := json.Marshal(w.cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	p := &process{t: w.t, cmd: exec.Command(os.Args[0], "-test.run=^$")}
	p.cmd.Env = append(os.Environ(), childEnv+"="+string(v))
	p.cmd.Stderr = w.t.Output()
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		w.t.Fatal(err)
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		w.t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	p.out = bufio.NewScanner(out)
	p.out.Buffer(nil, 1<<20)
	if !p.out.Scan() {
		w.t.Fatal("the gateway does not start")
	}
	if p.addr, err = netip.ParseAddrPort(p.out.Text()); err != nil {
		w.t.Fatal(err)
	}
	w.run = p
	w.t.Cleanup(func() {
		if w.run == p {
			w.stop()
		}
	})
}

// kill is kill -9.
func (w *world) kill() {
	w.t.Helper()
	if err := w.run.cmd.Process.Kill(); err != nil {
		w.t.Fatal(err)
	}
	_ = w.run.cmd.Wait()
	w.run = nil
}

// stop ends it in order.
func (w *world) stop() {
	w.t.Helper()
	p := w.run
	w.run = nil
	_ = p.in.Close()
	if err := p.cmd.Wait(); err != nil {
		w.t.Errorf("the gateway: %v", err)
	}
}

// state asks the gateway for its state.
func (w *world) state() (s state) {
	w.t.Helper()
	if _, err := io.WriteString(w.run.in, "\n"); err != nil {
		w.t.Fatal(err)
	}
	if !w.run.out.Scan() {
		w.t.Fatal("the gateway has gone")
	}
	if err := json.Unmarshal(w.run.out.Bytes(), &s); err != nil {
		w.t.Fatal(err, w.run.out.Text())
	}
	return s
}

// eventually waits until the gateway's state is as wanted.
func (w *world) eventually(what string, ok func(state) bool) state {
	w.t.Helper()
	t := time.NewTicker(10 * time.Millisecond)
	defer t.Stop()
	for {
		s := w.state()
		if ok(s) {
			return s
		}
		select {
		case <-w.ctx.Done():
			w.t.Fatalf("never: %s\n%+v", what, s)
		case <-t.C:
		}
	}
}
