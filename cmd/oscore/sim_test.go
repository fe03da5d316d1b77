package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/oscorelay/oscorelay/internal/sim"
)

// asTool names the environment variable that makes the test binary the tool, as
// a process of its own.
const asTool = "OSCORE_TEST_AS_TOOL"

// simProcess is a device or a server as a process.
type simProcess struct {
	t      *testing.T
	cmd    *exec.Cmd
	in     io.WriteCloser
	lines  chan sim.Event
	stderr bytes.Buffer
	next   int
}

func startSim(t *testing.T, args ...string) *simProcess {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := &simProcess{t: t, cmd: exec.Command(exe, append([]string{"sim"}, args...)...), lines: make(chan sim.Event, 4096), next: 100}
	p.cmd.Env = append(os.Environ(), asTool+"=1")
	p.cmd.Stderr = &p.stderr
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.lines)
		s := bufio.NewScanner(out)
		s.Buffer(nil, 4<<20)
		for s.Scan() {
			var e sim.Event
			if json.Unmarshal(s.Bytes(), &e) == nil { // a line may be cut short by kill
				p.lines <- e
			}
		}
	}()
	t.Cleanup(p.kill)
	return p
}

// kill is kill -9.
func (p *simProcess) kill() {
	_ = p.cmd.Process.Kill() // it may have ended
	for range p.lines {      // to its end, as Wait wants
	}
	_ = p.cmd.Wait()
}

// wait returns the next event that ok accepts.
func (p *simProcess) wait(ok func(sim.Event) bool) sim.Event {
	p.t.Helper()
	limit := time.After(20 * time.Second)
	for {
		select {
		case e, open := <-p.lines:
			if !open {
				p.t.Fatalf("%v ended: %s", p.cmd.Args, p.stderr.String())
			}
			if ok(e) {
				return e
			}
		case <-limit:
			p.t.Fatalf("%v: nothing came", p.cmd.Args)
		}
	}
}

// do sends a command and returns its answer.
func (p *simProcess) do(c sim.Command) sim.Event {
	p.t.Helper()
	p.next++
	c.ID = p.next
	b, err := json.Marshal(c)
	if err != nil {
		p.t.Fatal(err)
	}
	if _, err := fmt.Fprintf(p.in, "%s\n", b); err != nil {
		p.t.Fatal(err)
	}
	return p.wait(func(e sim.Event) bool { return e.ID == c.ID && (e.Event == "answer" || e.Event == "error") })
}

// want fails the test unless the answer has the code.
func (p *simProcess) want(code string, c sim.Command) sim.Event {
	p.t.Helper()
	e := p.do(c)
	if e.Event != "answer" || e.Code != code {
		p.t.Fatalf("%s %s: %+v, want %s", c.Cmd, c.Path, e, code)
	}
	return e
}

// TestSimProcesses runs a device and a server as processes, kills each with -9
// and starts it again.
func TestSimProcesses(t *testing.T) {
	for _, mode := range []string{"plain", "sealed"} {
		t.Run(mode, func(t *testing.T) {
			dir := t.TempDir()
			var deviceKeys, serverKeys []string
			if mode == "sealed" {
				deviceKeys = []string{"--keys", filepath.Join(dir, "d"), "--anchors", filepath.Join(dir, "da")}
				serverKeys = []string{"--keys", filepath.Join(dir, "s"), "--anchors", filepath.Join(dir, "sa")}
				peer := filepath.Join(dir, "peer.toml")
				for _, args := range [][]string{
					append([]string{"oscore", "keys", "new", "server", "--peer-out", peer}, deviceKeys...),
					append([]string{"oscore", "keys", "import", "--fresh", peer}, serverKeys...),
				} {
					var out bytes.Buffer
					if status := run(context.Background(), args, nil, &out, &out); status != 0 {
						t.Fatalf("%v: %s", args, out.String())
					}
				}
			}
			server := startSim(t, append([]string{"server", "--listen", "127.0.0.1:0"}, serverKeys...)...)
			addr := server.wait(sim.Named("ready")).Addr
			device := startSim(t, append([]string{"device", "--server", addr, "--ep", "dev1", "--retry", "100ms", "--timeout", "1s", "--lifetime", "2s"}, deviceKeys...)...)
			at := device.wait(sim.Named("ready")).Addr
			server.wait(sim.Named("registered"))
			if e := server.want("2.05", sim.Command{Cmd: "read", Endpoint: "dev1", Path: "/3/0/0"}); e.Text != "Open Mobile Device" {
				t.Errorf("%+v", e)
			}
			if e := server.want("2.04", sim.Command{Cmd: "write", Endpoint: "dev1", Path: "/5/0/0", Size: 102400}); e.Error != "" {
				t.Errorf("%+v", e)
			}
			if e := device.wait(sim.Named("package")); e.Bytes != 102400 {
				t.Errorf("%+v", e)
			}
			server.want("2.04", sim.Command{Cmd: "execute", Endpoint: "dev1", Path: "/3/0/4"})
			if e := device.do(sim.Command{Cmd: "executed", Path: "/3/0/4"}); e.Count != 1 {
				t.Errorf("%+v", e)
			}

			server.kill()
			server = startSim(t, append([]string{"server", "--listen", addr}, serverKeys...)...)
			server.wait(sim.Named("ready"))
			e := server.wait(sim.Named("registered")) // told 4.04 to its update, or out of time
			if e.Addr != at {
				t.Errorf("the device came from %s, want %s", e.Addr, at)
			}
			server.want("2.05", sim.Command{Cmd: "observe", Endpoint: "dev1", Path: "/3303/0/5700"})
			value := "22.5"
			if e := device.do(sim.Command{Cmd: "set", Path: "/3303/0/5700", Value: &value}); e.Event != "answer" {
				t.Errorf("%+v", e)
			}
			if e := server.wait(sim.Named("notification")); e.Text != value {
				t.Errorf("%+v", e)
			}

			device.kill()
			device = startSim(t, append([]string{"device", "--server", addr, "--listen", at, "--ep", "dev1", "--retry", "100ms", "--timeout", "1s"}, deviceKeys...)...)
			device.wait(sim.Named("registered"))
			server.want("2.05", sim.Command{Cmd: "read", Endpoint: "dev1", Path: "/3/0", Format: ref(11542)})
			if e := device.do(sim.Command{Cmd: "deregister"}); e.Event != "answer" {
				t.Errorf("%+v", e)
			}
			if e := server.do(sim.Command{Cmd: "read", Endpoint: "dev1", Path: "/3/0/0"}); e.Event != "error" || e.Error == "" {
				t.Errorf("%+v", e)
			}
			if e := server.do(sim.Command{Cmd: "clients"}); len(e.Clients) != 0 {
				t.Errorf("%+v", e)
			}
			for _, p := range []*simProcess{device, server} {
				if e := p.do(sim.Command{Cmd: "quit"}); e.Event != "answer" {
					t.Errorf("%+v", e)
				}
				for range p.lines {
				}
				if err := p.cmd.Wait(); err != nil {
					t.Errorf("%v: %s", err, p.stderr.String())
				}
			}
		})
	}
}

func ref[T any](v T) *T { return &v }
