package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/oscorelay/oscorelay/internal/mallory"
	"github.com/oscorelay/oscorelay/keys"
	"github.com/oscorelay/oscorelay/keys/file"
	"github.com/oscorelay/oscorelay/oscore"
)

// Config is what a run needs.
type Config struct {
	// Exe is the oscore program: it is started as servers and as devices.
	Exe string
	// Bin is the directory of oscored and oscore-proxy; empty: that of Exe.
	Bin string
	// Dir takes the key directories; it is the caller's to remove.
	Dir string
	// Row is called with each step as it ends; nil: nobody is told.
	Row func(Row)
	// Trace is called with what happens in a step of the chain, line by line,
	// before its row: processes, their logs, datagrams as the hostile proxy saw
	// them. Nil: nobody is told.
	Trace func(string)
}

// Row is one step of a run.
type Row struct {
	N       int    `json:"n"`    // from 1
	Part    string `json:"part"` // see Parts
	Step    string `json:"step"`
	Verdict string `json:"verdict"` // with a figure, or the error
	Saw     string `json:"saw"`     // what the hostile relay saw, in datagrams
	OK      bool   `json:"ok"`
}

// Parts of a run, in their order. The first four are the chain's, the others
// those of the library alone.
const (
	PartChain     = "chain"
	PartKill      = "kill"
	PartHostile   = "hostile"
	PartSight     = "sight"
	PartTraffic   = "traffic"
	PartAttack    = "attack"
	PartHandshake = "handshake"
)

// Lab is the parties of a run.
type Lab struct {
	cfg    Config
	ctx    context.Context
	relay  *mallory.Relay
	server *process
	device *process
	addr   string // the server's
	next   int    // id of the device's next request
	seen   int    // packets of the capture that earlier steps accounted for
	// handled counts what servers that were killed had handled.
	handled map[string]int
	// plain are words that must not appear in any datagram.
	plain []string
}

// echoLifetime is short, so that a delayed request can be shown within seconds.
const echoLifetime = 2 * time.Second

// Run runs the lab to its end. It returns an error if the parties cannot be
// started; a property that does not hold is a row that is not OK.
func Run(ctx context.Context, cfg Config) (ok bool, err error) {
	r := &run{ctx: ctx, cfg: cfg, ok: true}
	if err := runChain(r); err != nil {
		return false, err
	}
	if err := runLibrary(r); err != nil {
		return false, err
	}
	return r.ok, runHandshakes(r)
}

// run counts rows and remembers whether all were OK.
type run struct {
	ctx context.Context
	cfg Config
	n   int
	ok  bool
}

// row tells of a step.
func (r *run) row(part, step, verdict, saw string, err error) error {
	r.n++
	x := Row{N: r.n, Part: part, Step: step, Verdict: verdict, Saw: saw, OK: err == nil}
	if err != nil {
		x.Verdict = strings.ReplaceAll(err.Error(), "\n", "; ")
	}
	r.ok = r.ok && x.OK
	if r.cfg.Row != nil {
		r.cfg.Row(x)
	}
	return r.ctx.Err()
}

// runLibrary runs the device and the server that have OSCORE inside.
func runLibrary(r *run) error {
	l, err := newLab(r.ctx, r.cfg)
	if err != nil {
		return err
	}
	defer l.close()
	for _, part := range []struct {
		name  string
		steps []step[*Lab]
	}{{PartTraffic, traffic}, {PartAttack, attacks}} {
		for _, s := range part.steps {
			verdict, err := s.run(l)
			saw := l.saw()
			l.relay.SetScript(nil)
			if err := r.row(part.name, s.name, verdict, saw, err); err != nil {
				return err
			}
		}
	}
	return nil
}

// step is one row to be: it returns its verdict.
type step[L any] struct {
	name string
	run  func(L) (string, error)
}

func newLab(ctx context.Context, cfg Config) (_ *Lab, err error) {
	l := &Lab{cfg: cfg, ctx: ctx, handled: map[string]int{}, plain: []string{"value", "large", "counter", "callback", "Hello", "Open Mobile"}}
	defer func() {
		if err != nil {
			l.close()
		}
	}()
	secret := make([]byte, 16)
	copy(secret, fmt.Sprintf("lab %d", time.Now().UnixNano()))
	device := keys.Entry{Name: "server", Params: oscore.Params{MasterSecret: secret, SenderID: []byte("dev"), RecipientID: []byte("srv")}}
	server := device.Peer()
	server.Name = "device"
	for name, e := range map[string]keys.Entry{"device": device, "server": server} {
		if err := provision(ctx, filepath.Join(cfg.Dir, name), l.anchors(), e); err != nil {
			return nil, err
		}
	}
	l.addr = "127.0.0.1:0"
	if err := l.startServer(); err != nil {
		return nil, err
	}
	if l.relay, err = mallory.New(l.addr); err != nil {
		return nil, err
	}
	return l, l.startDevice()
}

// provision makes a party's key directory.
func provision(ctx context.Context, dir, anchors string, e keys.Entry) error {
	st, err := file.Open(dir, file.Options{AnchorDir: anchors})
	if err != nil {
		return err
	}
	return errors.Join(st.Put(ctx, true, e), st.Close())
}

func (l *Lab) anchors() string { return filepath.Join(l.cfg.Dir, "anchors") }

func (l *Lab) startServer() (err error) {
	l.server, err = start(l.ctx, l.cfg.Exe, "serve", "--keys", filepath.Join(l.cfg.Dir, "server"), "--anchors", l.anchors(),
		"--listen", l.addr, "--json", "--freshness", "unsafe", "--echo-lifetime", echoLifetime.String(), "--interval", "100ms")
	if err != nil {
		return err
	}
	ready, err := l.server.wait(time.Second, 0, func(x line) bool { return x.Event == "ready" })
	l.addr = ready.Addr
	return err
}

func (l *Lab) startDevice() (err error) {
	l.device, err = start(l.ctx, l.cfg.Exe, "agent", "--keys", filepath.Join(l.cfg.Dir, "device"), "--anchors", l.anchors(), "coap://"+l.relay.Addr())
	return err
}

func (l *Lab) close() {
	for _, p := range []*process{l.device, l.server} {
		if p != nil {
			p.kill()
		}
	}
	if l.relay != nil {
		_ = l.relay.Close()
	}
}

// killServer is kill -9 and a new start on the same address.
func (l *Lab) killServer() error {
	l.server.kill()
	for _, x := range l.server.lines {
		if x.Event == "handled" {
			l.handled[x.Path]++
		}
	}
	return l.startServer()
}

// killDevice is kill -9 and a new start.
func (l *Lab) killDevice() error {
	l.device.kill()
	return l.startDevice()
}

// handledCount returns how many requests for a path reached the handler, over
// all lives of the server.
func (l *Lab) handledCount(path string) int {
	l.server.settle()
	return l.handled[path] + l.server.count(func(x line) bool { return x.Event == "handled" && x.Path == path })
}

// request is a command to the device.
type request struct {
	ID      int    `json:"id"`
	Method  string `json:"method"`
	Path    string `json:"path"`
	Payload []byte `json:"payload,omitempty"`
	NON     bool   `json:"non,omitempty"`
	Timeout int    `json:"timeout_ms,omitempty"`
}

// begin has the device send a request and returns what waits for its answer.
func (l *Lab) begin(r request) func() (line, error) {
	l.next++
	r.ID = l.next
	from := l.device.mark()
	err := l.device.send(r)
	limit := 15 * time.Second
	if r.Timeout > 0 {
		limit = time.Duration(r.Timeout)*time.Millisecond + 5*time.Second
	}
	return func() (line, error) {
		if err != nil {
			return line{}, err
		}
		x, err := l.device.wait(limit, from, func(x line) bool { return x.ID == r.ID })
		if err == nil && x.Event == "error" {
			err = errors.New(x.Error)
		}
		return x, err
	}
}

// do is a request and its answer.
func (l *Lab) do(method, path string, payload []byte) (line, error) {
	return l.begin(request{Method: method, Path: path, Payload: payload})()
}

// expect is do with the answer that must come.
func (l *Lab) expect(method, path string, payload []byte, code string, want []byte) error {
	x, err := l.do(method, path, payload)
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	return x.is(code, want)
}

// is compares an answer; a nil payload is not looked at.
func (x line) is(code string, want []byte) error {
	if x.Code != code || want != nil && !bytes.Equal(x.Payload, want) {
		return fmt.Errorf("answer is %s with %d bytes %.20q, not %s with %d bytes %.20q", x.Code, len(x.Payload), x.Payload, code, len(want), want)
	}
	return nil
}

// saw says what the relay saw since the last step: how many datagrams of what
// sizes, how many of them plain, and whether any betrayed something.
func (l *Lab) saw() string {
	packets := l.relay.Capture()
	n, plain, least, most := 0, 0, 1<<16, 0
	for _, p := range packets[l.seen:] {
		if p.Forged {
			continue
		}
		n++
		least, most = min(least, len(p.Data)), max(most, len(p.Data))
		if d, _, _, ok := mallory.Parse(p.Data); ok && d.Code != 0 && !mallory.Protected(p.Data) {
			plain++
		}
	}
	leaked := l.leak(packets[l.seen:])
	l.seen = len(packets)
	switch {
	case leaked != "":
		return fmt.Sprintf("LEAKED %q", leaked)
	case n == 0:
		return ""
	case plain > 0:
		return fmt.Sprintf("%d of %d-%d B, %d plain", n, least, most, plain)
	}
	return fmt.Sprintf("%d of %d-%d B", n, least, most)
}

// leak returns a path or payload that stands readable in a packet.
func (l *Lab) leak(packets []mallory.Packet) string {
	for _, p := range packets {
		for _, word := range l.plain {
			if bytes.Contains(p.Data, []byte(word)) {
				return word
			}
		}
	}
	return ""
}

// leaks returns an error if any datagram of the run shows a path or a payload.
func (l *Lab) leaks() error {
	if word := l.leak(l.relay.Capture()); word != "" {
		return fmt.Errorf("the relay could read %q", word)
	}
	return nil
}

// TempDir makes a directory for a run.
func TempDir() (string, error) { return os.MkdirTemp("", "oscore-lab-") }
