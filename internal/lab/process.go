package lab

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// line is what children print: see serve --json, agent, sim device and sim
// server. What a daemon logs is in log alone.
type line struct {
	Event   string `json:"event"`
	Addr    string `json:"addr"`
	ID      int    `json:"id"`
	Code    string `json:"code"`
	Payload []byte `json:"payload"`
	Error   string `json:"error"`
	Method  string `json:"method"`
	Path    string `json:"path"`
	Peer    string `json:"peer"`
	Sum     string `json:"sum"`
	// PartialIV is that of a request handled.
	PartialIV uint64 `json:"piv"`
	Endpoint  string `json:"ep"`
	Query     string `json:"query"`
	Text      string `json:"text"`
	Bytes     int    `json:"bytes"`
	Location  string `json:"location"`
	log       string
}

// text is a line for people.
func (l line) text() string {
	if l.log != "" {
		return l.log
	}
	var b strings.Builder
	b.WriteString(l.Event)
	for _, x := range []struct{ name, value string }{
		{"ep", l.Endpoint}, {"", l.Method}, {"path", l.Path}, {"query", l.Query}, {"", l.Code}, {"text", l.Text}, {"location", l.Location}, {"addr", l.Addr}, {"error", l.Error},
	} {
		switch {
		case x.value == "":
		case x.name == "":
			b.WriteString(" " + x.value)
		default:
			b.WriteString(" " + x.name + "=" + x.value)
		}
	}
	if l.Bytes > 0 {
		fmt.Fprintf(&b, " %d B", l.Bytes)
	}
	return b.String()
}

// process is a child that prints JSON lines, or a daemon that logs.
type process struct {
	name  string
	cmd   *exec.Cmd
	stdin io.WriteCloser

	mu     sync.Mutex
	lines  []line
	stderr bytes.Buffer
	change chan struct{} // closed and replaced when a line comes
	ended  bool
	done   chan struct{}
}

// start runs the executable and waits until it says that it is ready.
func start(ctx context.Context, exe string, args ...string) (*process, error) {
	p := newProcess(ctx, exe, args...)
	p.cmd.Stderr = &p.stderr
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	return p.ready(stdout, func(l line) bool { return l.Event == "ready" })
}

// startDaemon runs the executable until it logs that it is ready.
func startDaemon(ctx context.Context, ready, exe string, args ...string) (*process, error) {
	p := newProcess(ctx, exe, args...)
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	return p.ready(stderr, func(l line) bool { return strings.Contains(l.log, ready) })
}

func newProcess(ctx context.Context, exe string, args ...string) *process {
	name := filepath.Base(exe)
	if len(args) > 1 && args[0] == "sim" {
		name = args[1]
	}
	return &process{name: name, cmd: exec.CommandContext(ctx, exe, args...), change: make(chan struct{}), done: make(chan struct{})}
}

func (p *process) ready(out io.Reader, ok func(line) bool) (*process, error) {
	var err error
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go p.read(out)
	if _, err := p.wait(20*time.Second, 0, ok); err != nil {
		p.kill()
		said := p.stderr.String()
		for _, l := range p.lines {
			said += l.log
		}
		return nil, fmt.Errorf("%s does not get ready: %w\n%s", strings.Join(p.cmd.Args, " "), err, said)
	}
	return p, nil
}

func (p *process) read(stdout io.Reader) {
	s := bufio.NewScanner(stdout)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		var l line
		if json.Unmarshal(s.Bytes(), &l) != nil {
			l = line{log: s.Text()} // a log, or a line cut short by kill -9
		}
		p.mu.Lock()
		p.lines = append(p.lines, l)
		close(p.change)
		p.change = make(chan struct{})
		p.mu.Unlock()
	}
	_ = p.cmd.Wait() // how it ended is the killer's business
	p.mu.Lock()
	p.ended = true
	close(p.change)
	p.change = make(chan struct{})
	p.mu.Unlock()
	close(p.done)
}

var (
	errTime  = errors.New("time is up")
	errEnded = errors.New("the process ended")
)

// wait returns the first line from the given one on that ok accepts.
func (p *process) wait(limit time.Duration, from int, ok func(line) bool) (line, error) {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	for {
		p.mu.Lock()
		lines, change, ended := p.lines[min(from, len(p.lines)):], p.change, p.ended
		p.mu.Unlock()
		for _, l := range lines {
			if ok(l) {
				return l, nil
			}
		}
		if ended {
			return line{}, errEnded
		}
		select {
		case <-change:
		case <-timer.C:
			return line{}, errTime
		}
	}
}

// since returns the lines from the given one on.
func (p *process) since(from int) []line {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.lines[min(from, len(p.lines)):len(p.lines):len(p.lines)]
}

// mark returns the number of lines so far, to wait for later ones.
func (p *process) mark() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.lines)
}

// stillness is how long a process must have printed nothing until its lines count
// as read: an answer can overtake the line that tells of its request.
const stillness = 50 * time.Millisecond

// settle waits until the process prints nothing for a moment.
func (p *process) settle() {
	for {
		p.mu.Lock()
		change, ended := p.change, p.ended
		p.mu.Unlock()
		if ended {
			return
		}
		still := time.NewTimer(stillness)
		select {
		case <-change:
			still.Stop()
		case <-still.C:
			return
		}
	}
}

// count returns how many lines ok accepts.
func (p *process) count(ok func(line) bool) (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, l := range p.lines {
		if ok(l) {
			n++
		}
	}
	return n
}

// settled returns a count of what processes say, once it is at least n: what one
// says of a request may come after what another says of its answer.
func settled(n int, count func() int) int {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(5 * time.Second); count() < n && time.Now().Before(end); {
		<-tick.C
	}
	return count()
}

// send writes a line to the child.
func (p *process) send(v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, err = p.stdin.Write(append(b, '\n'))
	return err
}

// kill is kill -9.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // it may have ended by itself
	<-p.done
}
