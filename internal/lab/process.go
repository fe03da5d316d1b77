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
	"sync"
	"time"
)

// line is what both children print: see serve --json and agent.
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
}

// process is a child that prints JSON lines.
type process struct {
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
	p := &process{cmd: exec.CommandContext(ctx, exe, args...), change: make(chan struct{}), done: make(chan struct{})}
	var err error
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.cmd.Stderr = &p.stderr
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go p.read(stdout)
	if _, err := p.wait(20*time.Second, 0, func(l line) bool { return l.Event == "ready" }); err != nil {
		p.kill()
		return nil, fmt.Errorf("%s %s does not get ready: %w\n%s", exe, args[0], err, p.stderr.String())
	}
	return p, nil
}

func (p *process) read(stdout io.Reader) {
	s := bufio.NewScanner(stdout)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		var l line
		if json.Unmarshal(s.Bytes(), &l) != nil {
			continue // a line cut short by kill -9
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

// mark returns the number of lines so far, to wait for later ones.
func (p *process) mark() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.lines)
}

// quiet is how long a process must have printed nothing until its lines count
// as read: an answer can overtake the line that tells of its request.
const quiet = 50 * time.Millisecond

// settle waits until the process prints nothing for a moment.
func (p *process) settle() {
	for {
		p.mu.Lock()
		change, ended := p.change, p.ended
		p.mu.Unlock()
		if ended {
			return
		}
		still := time.NewTimer(quiet)
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
