package lab

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/oscorelay/oscorelay/internal/mallory"
	"github.com/oscorelay/oscorelay/internal/sim"
	"github.com/oscorelay/oscorelay/keys"
	"github.com/oscorelay/oscorelay/keys/keyfile"
	"github.com/oscorelay/oscorelay/oscore"
)

// chain is the parties between a sealed device and a plain server, each but the
// wires a process of its own.
type chain struct {
	cfg Config
	ctx context.Context
	dir string

	device, proxy, gateway, server *process

	// The wires, each with a relay on it. The first belongs to the hostile proxy;
	// the others listen.
	hostile, inner, plain *mallory.Relay

	deviceAt, proxyAt, gatewayAt string
	upstreamPort, metricsPort    int

	seen   int               // packets of the hostile proxy that earlier steps accounted for
	told   map[*process]int  // lines that were traced
	lives  []*process        // of the device, those before this one
	next   int               // id of the latest command
	runs   int               // executes that the server asked for
	sends  int               // Sends that the device was told to do
	kills  int               // of the gateway
	same   string            // the registration, as the server has it
	single int               // id of the server's observation of the sensor
	many   int               // and of a composite one
	value  int               // of the sensor, in quarters
	events map[string]uint64 // of the gateway's lives before this one
}

// endpointName is the device's.
const endpointName = "lab-device"

// errMissing is about a program that is not beside the caller's.
var errMissing = errors.New("lab: a program is missing")

// program finds a program beside the one that runs.
func (c Config) program(name string) (string, error) {
	dir := c.Bin
	if dir == "" {
		dir = filepath.Dir(c.Exe)
	}
	path := filepath.Join(dir, name+filepath.Ext(c.Exe))
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("%w: no %s in %s: run 'make build' in the repository, or 'go build -o %s/ ./cmd/...'", errMissing, name, dir, dir)
	}
	return path, nil
}

func newChain(ctx context.Context, cfg Config) (_ *chain, err error) {
	c := &chain{cfg: cfg, ctx: ctx, dir: filepath.Join(cfg.Dir, "chain"), told: map[*process]int{}, events: map[string]uint64{}, value: 80}
	for _, name := range []string{"oscored", "oscore-proxy"} {
		if _, err := cfg.program(name); err != nil {
			return nil, err
		}
	}
	defer func() {
		if err != nil {
			c.close()
		}
	}()
	if err := c.provision(); err != nil {
		return nil, err
	}
	// From the server on, so that each finds the next.
	if c.server, err = start(ctx, cfg.Exe, "sim", "server", "--listen", "127.0.0.1:0", "--ack-timeout", "300ms", "--timeout", "20s"); err != nil {
		return nil, err
	}
	ready, err := c.server.wait(time.Second, 0, named("ready"))
	if err != nil {
		return nil, err
	}
	if c.plain, err = mallory.New(ready.Addr); err != nil {
		return nil, err
	}
	if err := c.startGateway("-init", "-fresh"); err != nil {
		return nil, err
	}
	if c.inner, err = mallory.New(c.gatewayAt); err != nil {
		return nil, err
	}
	c.proxyAt = "127.0.0.1:0"
	if err := c.startProxy(); err != nil {
		return nil, err
	}
	if c.hostile, err = mallory.New(c.proxyAt); err != nil {
		return nil, err
	}
	c.deviceAt = "127.0.0.1:0"
	return c, c.startDevice()
}

// provision makes the device's keys and the gateway's configuration.
func (c *chain) provision() error {
	secret := make([]byte, 16)
	if _, err := rand.Read(secret); err != nil {
		return err
	}
	device := keys.Entry{Name: "server", Params: oscore.Params{MasterSecret: secret, SenderID: []byte("dev"), RecipientID: []byte("srv")}}
	gateway := device.Peer()
	gateway.Name = endpointName
	if err := provision(c.ctx, filepath.Join(c.dir, "device"), c.anchors(), device); err != nil {
		return err
	}
	b, err := keyfile.Append(nil, keyfile.TOML, []keys.Entry{gateway}, true)
	if err == nil {
		err = os.WriteFile(filepath.Join(c.dir, "keys.toml"), b, 0o600)
	}
	return err
}

func (c *chain) anchors() string { return filepath.Join(c.dir, "anchors") }

// startGateway starts oscored; its configuration is written at its first start.
func (c *chain) startGateway(args ...string) error {
	config := filepath.Join(c.dir, "oscored.toml")
	if c.gateway == nil {
		ports, err := freePorts("127.0.0.1:0", "0.0.0.0:0", "127.0.0.1:0")
		if err != nil {
			return err
		}
		c.gatewayAt, c.upstreamPort, c.metricsPort = fmt.Sprintf("127.0.0.1:%d", ports[0]), ports[1], ports[2]
		err = os.WriteFile(config, fmt.Appendf(nil, `keys.files = ["keys.toml"]
[store]
dir = "store"
anchor_dir = "gateway-anchors"
[admin]
listen = ""
[metrics]
listen = "127.0.0.1:%d"
[[terminate]]
name = "lab"
listen = %q
backend = %q
upstream_port = %d
ack_timeout = "400ms"
limits.nstart = 16 # the hostile proxy occupies some
`, c.metricsPort, c.gatewayAt, c.plain.Addr(), c.upstreamPort), 0o600)
		if err != nil {
			return err
		}
	}
	exe, err := c.cfg.program("oscored")
	if err != nil {
		return err
	}
	p, err := startDaemon(c.ctx, "terminating OSCORE", exe, append([]string{"-config", config}, args...)...)
	if err == nil {
		c.gateway = p
	}
	return err
}

// freePorts returns ports that were free a moment ago, for UDP and for TCP.
func freePorts(addresses ...string) (ports []int, err error) {
	for _, a := range addresses {
		u, err := net.ListenPacket("udp", a)
		if err != nil {
			return nil, err
		}
		defer u.Close()
		ports = append(ports, u.LocalAddr().(*net.UDPAddr).Port)
	}
	return ports, nil
}

func (c *chain) startProxy() error {
	exe, err := c.cfg.program("oscore-proxy")
	if err != nil {
		return err
	}
	p, err := startDaemon(c.ctx, "proxy listens", exe, "-listen", c.proxyAt, "-per-client", "-reverse", c.inner.Addr())
	if err != nil {
		return err
	}
	c.proxy = p
	said, err := p.wait(time.Second, 0, func(l line) bool { return strings.Contains(l.log, "proxy listens") })
	if err != nil {
		return err
	}
	_, rest, _ := strings.Cut(said.log, "address=")
	c.proxyAt, _, _ = strings.Cut(rest, " ")
	return nil
}

func (c *chain) startDevice() error {
	p, err := start(c.ctx, c.cfg.Exe, "sim", "device", "--keys", filepath.Join(c.dir, "device"), "--anchors", c.anchors(), "--listen", c.deviceAt,
		"--server", c.hostile.Addr(), "--ep", endpointName, "--ack-timeout", "300ms", "--retry", "300ms", "--manual", "--timeout", "15s")
	if err != nil {
		return err
	}
	c.device = p
	ready, err := p.wait(time.Second, 0, named("ready"))
	c.deviceAt = ready.Addr
	return err
}

func (c *chain) close() {
	for _, p := range []*process{c.device, c.proxy, c.gateway, c.server} {
		if p != nil {
			p.kill()
		}
	}
	for _, r := range []*mallory.Relay{c.hostile, c.inner, c.plain} {
		if r != nil {
			_ = r.Close() // its sockets are closed
		}
	}
}

// killGateway is kill -9 and a new start, with nothing but its store.
func (c *chain) killGateway() error {
	if err := c.gatherEvents(); err != nil {
		return err
	}
	c.gateway.kill()
	c.kills++
	c.hostile.SetScript(nil)
	return c.startGateway()
}

func named(event string) func(line) bool { return func(l line) bool { return l.Event == event } }

// ask gives a process a command and returns what waits for its answer.
func (c *chain) ask(p *process, cmd sim.Command) func() (line, error) {
	c.next++
	cmd.ID = c.next
	if p == c.server {
		cmd.Endpoint = endpointName
	}
	from := p.mark()
	err := p.send(cmd)
	return func() (line, error) {
		if err != nil {
			return line{}, err
		}
		x, err := p.wait(25*time.Second, from, func(x line) bool { return x.ID == cmd.ID && (x.Event == "answer" || x.Event == "error") })
		if err == nil && x.Event == "error" {
			err = errors.New(x.Error)
		}
		if err != nil {
			err = fmt.Errorf("%s %s: %w", cmd.Cmd, cmd.Path, err)
		}
		return x, err
	}
}

// want waits for an answer with the code; an empty one is not looked at.
func want(wait func() (line, error), code string) (line, error) {
	x, err := wait()
	if err == nil && code != "" && x.Code != code {
		err = fmt.Errorf("answer is %s, not %s", x.Code, code)
	}
	return x, err
}

// reads has the server read a resource and compares the answer.
func (c *chain) reads(path, text string) error {
	x, err := want(c.ask(c.server, sim.Command{Cmd: "read", Path: path, Format: formatText}), "2.05")
	if err == nil && string(x.Payload) != text {
		err = fmt.Errorf("%s holds %.40q, not %.40q", path, x.Payload, text)
	}
	return err
}

// executes has the server execute, with an argument that no other execute has,
// and returns what waits for its end and checks that it ran once.
func (c *chain) executes() (wait func() error) {
	c.runs++
	argument := runArgument(c.runs)
	answer := c.ask(c.server, sim.Command{Cmd: "execute", Path: "/3/0/4", Value: &argument})
	return func() error {
		if _, err := want(answer, "2.04"); err != nil {
			return err
		}
		if n := settled(1, func() int { return c.ran(argument) }); n != 1 {
			return fmt.Errorf("it ran %d times", n)
		}
		return nil
	}
}

// runArgument is the argument of the n-th execute, in LwM2M's format.
func runArgument(n int) string { return fmt.Sprintf("0='run-%d'", n) }

// ran counts how often the device ran an execute, in all its lives.
func (c *chain) ran(argument string) (n int) {
	for _, p := range append(c.lives[:len(c.lives):len(c.lives)], c.device) {
		n += p.count(func(x line) bool { return x.Event == "executed" && x.Query == argument })
	}
	return n
}

// sent counts the Sends that the server got.
func (c *chain) sent() int { return c.server.count(named("sent")) }

// sendsNow has the device send its battery level.
func (c *chain) sendsNow() (wait func() error) {
	c.sends++
	before := c.sent()
	answer := c.ask(c.device, sim.Command{Cmd: "send", Paths: []string{"/3/0/9"}})
	return func() error {
		if _, err := answer(); err != nil {
			return err
		}
		if n := settled(1, func() int { return c.sent() - before }); n != 1 {
			return fmt.Errorf("the server got it %d times", n)
		}
		return nil
	}
}

// counters reads those of the gateway's life: events and refusals by name, and
// what it passed on.
func (c *chain) counters() (map[string]uint64, error) {
	resp, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/metrics", c.metricsPort))
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	out := map[string]uint64{}
	s := bufio.NewScanner(resp.Body)
	for s.Scan() {
		name, value, _ := strings.Cut(s.Text(), " ")
		n, err := strconv.ParseFloat(value, 64)
		if err != nil || !strings.HasPrefix(name, "oscored_") {
			continue
		}
		if _, labels, ok := strings.Cut(name, `{`); ok {
			for _, label := range []string{"event", "reason", "direction", "state"} {
				if _, rest, ok := strings.Cut(","+labels, ","+label+`="`); ok {
					name, _, _ = strings.Cut(rest, `"`)
				}
			}
		}
		name, _, _ = strings.Cut(name, "{")
		out[strings.TrimPrefix(name, "oscored_")] += uint64(n)
	}
	return out, s.Err()
}

// gatherEvents adds the counters of a life that ends.
func (c *chain) gatherEvents() error {
	now, err := c.counters()
	for name, n := range now {
		c.events[name] += n
	}
	return err
}

// until waits until a counter of the gateway's life is at least n.
func (c *chain) until(name string, n uint64) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(15 * time.Second)
	for {
		now, err := c.counters()
		if err != nil || now[name] >= n {
			return err
		}
		select {
		case <-tick.C:
		case <-limit:
			return fmt.Errorf("oscored counts %d of %s, not %d", now[name], name, n)
		case <-c.ctx.Done():
			return c.ctx.Err()
		}
	}
}
