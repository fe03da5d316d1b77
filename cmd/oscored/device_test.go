package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/plgd-dev/go-coap/v3/message/codes"

	"github.com/oscorelay/oscorelay/internal/freeport"
	"github.com/oscorelay/oscorelay/internal/sim"
	"github.com/oscorelay/oscorelay/keys"
	"github.com/oscorelay/oscorelay/keys/keyfile"
	"github.com/oscorelay/oscorelay/oscore"
	"github.com/oscorelay/oscorelay/oscore/gocoap"
)

// process is an oscored of its own, with what it says.
type process struct {
	t     *testing.T
	dir   string
	file  string // of its configuration
	store string // its directory
	ports map[string]int
	cmd   *exec.Cmd
	done  chan error

	mu  sync.Mutex
	log strings.Builder
}

// Write implements io.Writer, for its log.
func (p *process) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.Write(b)
}

func (p *process) said() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.String()
}

// newProcess writes a configuration with one route to a backend, and keys.
func newProcess(t *testing.T, backend string, entries []keys.Entry, more string) *process {
	t.Helper()
	p := &process{t: t, dir: t.TempDir(), file: "oscored.toml", store: "store", ports: map[string]int{}}
	for _, name := range []string{"listen", "upstream", "admin", "metrics"} {
		p.ports[name] = int(freeport.Get(t))
	}
	text, err := keyFileText(entries)
	if err != nil {
		t.Fatal(err)
	}
	p.write("keys.toml", text)
	p.write("oscored.toml", fmt.Sprintf(`keys.files = ["keys.toml"]
[store]
dir = "store"
anchor_dir = "anchors"
[admin]
listen = "127.0.0.1:%d"
[metrics]
listen = "127.0.0.1:%d"
[[terminate]]
name = "main"
listen = "127.0.0.1:%d"
backend = %q
upstream_port = %d
%s`, p.ports["admin"], p.ports["metrics"], p.ports["listen"], backend, p.ports["upstream"], more))
	return p
}

func keyFileText(entries []keys.Entry) (string, error) {
	b, err := keyfile.Append(nil, keyfile.TOML, entries, true)
	return string(b), err
}

func (p *process) write(name, text string) {
	p.t.Helper()
	if err := os.WriteFile(filepath.Join(p.dir, name), []byte(text), 0o600); err != nil {
		p.t.Fatal(err)
	}
}

// start starts it and waits until it serves.
func (p *process) start(env []string, args ...string) {
	p.t.Helper()
	p.run(env, args...)
	p.eventually("serves", func() bool {
		resp, err := http.Get(p.metrics("/healthz"))
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
}

// run starts it.
func (p *process) run(env []string, args ...string) {
	p.t.Helper()
	self, err := exec.LookPath("oscored")
	if err != nil {
		p.t.Fatal(err)
	}
	p.cmd = exec.Command(self, append([]string{"-config", p.file}, args...)...)
	p.cmd.Dir, p.cmd.Stdout, p.cmd.Stderr = p.dir, p, p
	p.cmd.Env = append([]string{"HOME=" + p.dir, "PATH=" + os.Getenv("PATH")}, env...)
	if err := p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	p.done = make(chan error, 1)
	go func(cmd *exec.Cmd, done chan error) { done <- cmd.Wait() }(p.cmd, p.done)
	p.t.Cleanup(func() { _ = p.cmd.Process.Kill() })
}

// exits waits for it to end by itself with a status.
func (p *process) exits(status int) {
	p.t.Helper()
	select {
	case <-p.done:
	case <-time.After(30 * time.Second):
		p.t.Fatalf("it does not end\n%s", p.said())
	}
	if got := p.cmd.ProcessState.ExitCode(); got != status {
		p.t.Errorf("status %d, want %d\n%s", got, status, p.said())
	}
}

func (p *process) metrics(path string) string {
	return fmt.Sprintf("http://127.0.0.1:%d%s", p.ports["metrics"], path)
}

func (p *process) addr() string { return fmt.Sprintf("127.0.0.1:%d", p.ports["listen"]) }

// eventually waits until something holds; a deadline decides.
func (p *process) eventually(what string, ok func() bool) {
	p.t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(30 * time.Second); !ok(); <-tick.C {
		if time.Now().After(end) {
			p.t.Fatalf("never: %s\n%s", what, p.said())
		}
	}
}

// end sends a signal and returns the exit status.
func (p *process) end(s syscall.Signal) int {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
	select {
	case <-p.done:
	case <-time.After(30 * time.Second):
		p.t.Fatalf("it does not end\n%s", p.said())
	}
	return p.cmd.ProcessState.ExitCode()
}

// api asks the administration API.
func (p *process) api(method, path string, into any) (status int) {
	p.t.Helper()
	token, err := os.ReadFile(filepath.Join(p.dir, p.store, "admin.token"))
	if err != nil {
		p.t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(p.t.Context(), method, fmt.Sprintf("http://127.0.0.1:%d%s", p.ports["admin"], path), nil)
	if err != nil {
		p.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		p.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	if s, ok := into.(*string); ok {
		*s = string(b)
	} else if err := json.Unmarshal(b, into); err != nil {
		p.t.Fatalf("%s %s: %s", method, path, b)
	}
	return resp.StatusCode
}

// pair is a device's keyring and the entry that oscored has for it.
func pair(t *testing.T, name string, id byte) (*keys.Keyring, keys.Entry) {
	t.Helper()
	e := keys.Entry{Name: "server", Params: oscore.Params{MasterSecret: random(16), SenderID: []byte{id}, RecipientID: []byte("srv")}}
	ring := keys.New(keys.NewMemory())
	if _, err := ring.AddNew(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	p := e.Peer()
	p.Name = name
	return ring, p
}

func newDevice(t *testing.T, p *process, ep string, ring *keys.Keyring) *sim.Device {
	t.Helper()
	cfg := sim.DeviceConfig{Endpoint: ep, Server: p.addr(), AckTimeout: 300 * time.Millisecond, Timeout: 20 * time.Second}
	if ring != nil {
		cfg.OSCORE, cfg.Peer = &gocoap.Config{Keyring: ring}, "server"
	}
	d, err := sim.NewDevice(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	return d
}

func newServer(t *testing.T) *sim.Server {
	t.Helper()
	s, err := sim.NewServer(sim.ServerConfig{Timeout: 20 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// TestDevice: a sealed device and a plain server with oscored between them, which
// is killed and started again. The server notices nothing.
func TestDevice(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	server := newServer(t)
	ring, entry := pair(t, "boiler", 1)
	p := newProcess(t, server.Addr().String(), []keys.Entry{entry}, "[terminate.endpoints]\nboiler = \"urn:dev:1\"\n")
	p.start(nil, "-init", "-fresh")
	device := newDevice(t, p, "urn:dev:1", ring)
	if err := device.Register(ctx); err != nil {
		t.Fatal(err, p.said())
	}
	read := func(want string) {
		t.Helper()
		resp, err := server.Read(ctx, "urn:dev:1", "/3303/0/5700", 0)
		if err != nil || string(resp.Payload) != want {
			t.Fatalf("%q, %v, not %q\n%s", resp.Payload, err, want, p.said())
		}
	}
	set := func(want string) {
		t.Helper()
		v := want
		if _, err := device.Command(ctx, sim.Command{Cmd: "set", Path: "/3303/0/5700", Value: &v}); err != nil {
			t.Fatal(err)
		}
	}
	set("21.5")
	read("21.5")
	obs, _, err := server.Observe(ctx, "urn:dev:1", sim.ReadRequest("/3303/0/5700", 0), nil)
	if err != nil {
		t.Fatal(err)
	}
	notified := func(value string) {
		t.Helper()
		mark := server.Log().Mark()
		set(value)
		_, err := server.Log().Wait(ctx, mark, func(e sim.Event) bool { return e.Event == "notification" && e.ID == obs.ID && e.Text == value })
		if err != nil {
			t.Fatalf("no notification of %s: %v\n%s", value, err, p.said())
		}
	}
	notified("22")

	var list devicesView
	if status := p.api("GET", "/api/devices/boiler", &list); status != 200 || len(list.Devices) != 1 {
		t.Fatalf("%d, %+v", status, list)
	}
	if d := list.Devices[0]; d.Endpoint != "urn:dev:1" || !d.Sealed || d.Observations != 1 || !strings.HasPrefix(d.Location, "/rd/") || !strings.HasPrefix(d.Upstream, "127.64.1.") || d.Stuck != "" {
		t.Errorf("%+v", d)
	}
	upstream := list.Devices[0].Upstream

	if status := p.end(syscall.SIGKILL); status != -1 {
		t.Fatalf("killed, and status %d", status)
	}
	p.start(nil)
	if err := device.Update(ctx); err != nil {
		t.Fatal(err, p.said())
	}
	read("22")
	notified("23")
	p.api("GET", "/api/devices/boiler", &list)
	if got := list.Devices[0].Upstream; got != upstream {
		t.Errorf("the server knows the device as %s, and before the kill as %s", got, upstream)
	}
	count := device.Log().Mark()
	if err := server.Execute(ctx, "urn:dev:1", "/3/0/4", ""); err != nil {
		t.Fatal(err)
	}
	ran := 0
	for _, e := range device.Log().Since(count) {
		if e.Event == "executed" {
			ran++
		}
	}
	if ran != 1 {
		t.Errorf("an execute ran %d times", ran)
	}
	var page string
	if p.api("GET", "/", &page); !strings.Contains(page, "urn:dev:1") || !strings.Contains(page, upstream) {
		t.Errorf("the page has no device:\n%s", page)
	}
	if status := p.end(syscall.SIGTERM); status != 0 {
		t.Errorf("status %d\n%s", status, p.said())
	}
	if said := p.said(); strings.Contains(said, fmt.Sprintf("%x", entry.Params.MasterSecret)) {
		t.Error("the log shows a secret")
	}
}

// TestMigration: devices without OSCORE are served and counted, and one that was
// heard sealed does not go back.
func TestMigration(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	server := newServer(t)
	ring, entry := pair(t, "new", 1)
	_, other := pair(t, "old", 2)
	p := newProcess(t, server.Addr().String(), []keys.Entry{entry, other}, "plain = \"accept\"\n")
	p.start(nil, "-init", "-fresh")
	sealed, plain := newDevice(t, p, "new", ring), newDevice(t, p, "old", nil)
	for _, d := range []*sim.Device{sealed, plain} {
		if err := d.Register(ctx); err != nil {
			t.Fatal(err, p.said())
		}
	}
	var v []struct {
		Plain      string
		Sealed     int
		StillPlain int      `json:"still_plain"`
		Names      []string `json:"still_plain_names"`
		Next       string
	}
	p.api("GET", "/api/migration", &v)
	if len(v) != 1 || v[0].Sealed != 1 || v[0].StillPlain != 1 || len(v[0].Names) != 1 || v[0].Names[0] != "old" || v[0].Next == "" {
		t.Errorf("%+v", v)
	}
	if err := newDevice(t, p, "new", nil).Register(ctx); err == nil {
		t.Error("a device that was heard sealed registers in plain")
	}
	var stuck devicesView
	p.api("GET", "/api/stuck", &stuck)
	if len(stuck.Devices) != 1 || stuck.Devices[0].Name != "new" || !strings.Contains(stuck.Devices[0].Stuck, "registers in plain") || stuck.Devices[0].Next == "" {
		t.Errorf("%+v", stuck)
	}
	resp, err := http.Get(p.metrics("/metrics"))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`oscored_devices{route="main",security="plain"} 1`, `oscored_devices{route="main",security="sealed"} 1`, `oscored_devices_stuck{route="main"} 1`,
		`oscored_refused_total{reason="plain_downgrade",route="main"} 1`, `oscored_contexts_tainted 0`, `oscored_forward_seconds_count{route="main"}`,
	} {
		if !strings.Contains(string(b), want) {
			t.Errorf("no %s in\n%s", want, b)
		}
	}
}

// TestMigrationByReload: a fleet is told by reloads what it may do. After the last
// one nothing is taken or sent in plain; sealed devices notice nothing.
func TestMigrationByReload(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	server := newServer(t)
	ring, entry := pair(t, "new", 1)
	_, other := pair(t, "old", 2)
	p := newProcess(t, server.Addr().String(), []keys.Entry{entry, other}, "plain = \"observe\"\nfreshness = \"window\"\n")
	p.start(nil, "-init", "-fresh")
	sealed, plain := newDevice(t, p, "new", ring), newDevice(t, p, "old", nil)
	for _, d := range []*sim.Device{sealed, plain} {
		if err := d.Register(ctx); err != nil {
			t.Fatal(err, p.said())
		}
	}
	if resp, err := server.Read(ctx, "old", "/3/0/0", 0); err != nil || sim.CodeText(resp.Code) != "2.05" {
		t.Fatalf("%v, %v", resp, err)
	}
	b, err := os.ReadFile(filepath.Join(p.dir, p.file))
	if err != nil {
		t.Fatal(err)
	}
	text := strings.NewReplacer(`"observe"`, `"refuse"`, `"window"`, `"always"`).Replace(string(b))
	p.write(p.file, text)
	var done map[string]string
	if status := p.api("POST", "/api/reload", &done); status != 200 {
		t.Fatalf("%d, %v\n%s", status, done, p.said())
	}
	if err := plain.Update(ctx); err == nil {
		t.Error("an Update in plain was passed after the reload")
	}
	if resp, err := server.Do(ctx, "old", sim.ReadRequest("/3/0/0", 0)); err != nil || sim.CodeText(resp.Code) != "5.03" {
		t.Errorf("%v, %v: it went out in plain", sim.CodeText(resp.Code), err)
	}
	if err := sealed.Update(ctx); err != nil {
		t.Error(err, p.said())
	}
	if resp, err := server.Read(ctx, "new", "/3/0/0", 0); err != nil || sim.CodeText(resp.Code) != "2.05" {
		t.Errorf("%v, %v", resp, err)
	}
	var counters map[string]map[string]uint64
	p.api("GET", "/api/counters", &counters)
	if counters["main"]["echo_challenge"] == 0 {
		t.Errorf("no Echo was asked for under freshness = \"always\": %v", counters)
	}
}

// TestOtherName: a device whose context stands for another endpoint name from now
// on, by a reload or over a restart, has no registration left: the old one, which
// the server has under the old name, is not its own.
func TestOtherName(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for _, by := range []string{"reload", "restart", "other keys"} {
		t.Run(by, func(t *testing.T) {
			server := newServer(t)
			ring, entry := pair(t, "boiler", 1)
			p := newProcess(t, server.Addr().String(), []keys.Entry{entry}, "[terminate.endpoints]\nboiler = \"urn:dev:1\"\n")
			p.start(nil, "-init", "-fresh")
			device := newDevice(t, p, "urn:dev:1", ring)
			if err := device.Register(ctx); err != nil {
				t.Fatal(err, p.said())
			}
			reg, _ := server.Registration("urn:dev:1")
			update := sim.Request{Method: codes.POST, Path: "/rd/" + reg.ID, Format: sim.NoFormat, Accept: sim.NoFormat}
			if resp, err := device.Do(ctx, update); err != nil || sim.CodeText(resp.Code) != "2.04" {
				t.Fatalf("%s: %v, %v", update.Path, sim.CodeText(resp.Code), err)
			}
			b, err := os.ReadFile(filepath.Join(p.dir, p.file))
			if err != nil {
				t.Fatal(err)
			}
			if by == "other keys" {
				ring, entry = pair(t, "boiler", 1)
				text, err := keyFileText([]keys.Entry{entry})
				if err != nil {
					t.Fatal(err)
				}
				p.write("keys.toml", text)
			} else {
				p.write(p.file, strings.ReplaceAll(string(b), "urn:dev:1", "urn:dev:2"))
			}
			if by == "restart" {
				p.end(syscall.SIGKILL)
				p.start(nil)
			} else {
				var done map[string]string
				if status := p.api("POST", "/api/reload", &done); status != 200 {
					t.Fatalf("%d, %v\n%s", status, done, p.said())
				}
			}
			if by == "other keys" { // the operator knows that they are new
				p.ctl("contexts", "add", "-fresh", "keys.toml")
				device = newDevice(t, p, "urn:dev:1", ring)
			}
			if resp, err := device.Do(ctx, update); err != nil || sim.CodeText(resp.Code) != "4.04" {
				t.Errorf("an Update of the old registration: %v, %v\n%s", sim.CodeText(resp.Code), err, p.said())
			}
		})
	}
}

// ctl runs oscored ctl.
func (p *process) ctl(args ...string) string {
	p.t.Helper()
	self, err := exec.LookPath("oscored")
	if err != nil {
		p.t.Fatal(err)
	}
	cmd := exec.Command(self, append([]string{"ctl", "-config", p.file}, args...)...)
	cmd.Dir = p.dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		p.t.Fatalf("ctl %v: %v\n%s", args, err, out)
	}
	return string(out)
}
