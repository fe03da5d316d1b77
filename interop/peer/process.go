package peer

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// startPatience bounds how long a peer may take until it is ready. A JVM on a
// busy machine needs a second or two; the bound only ends a hopeless wait.
const startPatience = 60 * time.Second

// Spec is a program to start.
type Spec struct {
	Name string // for messages
	Path string
	Args []string
	Env  []string // beyond the own environment
	Dir  string   // working directory; a fresh one if empty
	// Files are further ones that it has open, from number 3 on.
	Files []*os.File
}

// Process is a peer that runs in a process group of its own. The end of the
// test kills the whole group; if the test failed its output goes to the log.
type Process struct {
	t    testing.TB
	name string
	cmd  *exec.Cmd
	in   io.WriteCloser
	done chan struct{}

	mu      sync.Mutex
	changed *sync.Cond
	lines   []string // standard output
	stderr  bytes.Buffer
	ended   bool
	err     error
}

// Start starts the program.
func Start(t testing.TB, s Spec) *Process {
	t.Helper()
	if s.Dir == "" {
		s.Dir = t.TempDir()
	}
	cmd := exec.Command(s.Path, s.Args...)
	cmd.Dir = s.Dir
	cmd.Env = append(os.Environ(), s.Env...)
	cmd.ExtraFiles = s.Files
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	p := &Process{t: t, name: s.Name, cmd: cmd, done: make(chan struct{})}
	p.changed = sync.NewCond(&p.mu)
	cmd.Stderr = &locked{&p.mu, &p.stderr}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.in = in
	if err := cmd.Start(); err != nil {
		t.Fatalf("%s does not start: %v", s.Name, err)
	}
	go p.read(out)
	t.Cleanup(func() {
		p.Kill(syscall.SIGKILL)
		if t.Failed() {
			t.Logf("%s wrote:\n%s", p.name, p.Output())
		}
	})
	return p
}

func (p *Process) read(out io.Reader) {
	s := bufio.NewScanner(out)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		p.mu.Lock()
		p.lines = append(p.lines, s.Text())
		p.changed.Broadcast()
		p.mu.Unlock()
	}
	err := p.cmd.Wait()
	p.mu.Lock()
	p.ended, p.err = true, err
	p.changed.Broadcast()
	p.mu.Unlock()
	close(p.done)
}

// Kill sends the signal to the whole group and waits for its first process to
// end; one that does not heed the signal in time is killed.
func (p *Process) Kill(sig syscall.Signal) {
	_ = syscall.Kill(-p.cmd.Process.Pid, sig)
	select {
	case <-p.done:
	case <-time.After(10 * time.Second):
		_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
		<-p.done
	}
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) // children that outlived it
}

// PID is the process's number.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Stop asks the process to end cleanly.
func (p *Process) Stop() { p.Kill(syscall.SIGTERM) }

// shownWidth bounds a line of output; payloads of 20 KB are not worth more.
const shownWidth = 200

// Output gives standard output and standard error.
func (p *Process) Output() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var b strings.Builder
	for _, l := range p.lines {
		if len(l) > shownWidth {
			l = l[:shownWidth] + " …"
		}
		b.WriteString(l + "\n")
	}
	b.WriteString(p.stderr.String())
	return b.String()
}

// Lines gives the lines of standard output with the prefix.
func (p *Process) Lines(prefix string) []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var found []string
	for _, l := range p.lines {
		if strings.HasPrefix(l, prefix) {
			found = append(found, l)
		}
	}
	return found
}

// quiet is how long a process must have written nothing until its output
// counts as read: an answer can overtake the line that tells of it.
const quiet = 100 * time.Millisecond

// Handled counts the requests that reached a resource of a peer's server.
func (p *Process) Handled(path string) int {
	p.settle()
	n := 0
	for _, l := range p.Lines("HANDLED ") {
		if strings.Contains(l, " "+path+" ") {
			n++
		}
	}
	return n
}

// settle waits until the process writes nothing for a moment.
func (p *Process) settle() {
	for before := -1; ; time.Sleep(quiet) {
		p.mu.Lock()
		now := len(p.lines)
		p.mu.Unlock()
		if now == before {
			return
		}
		before = now
	}
}

var (
	errEnded   = errors.New("the process ended")
	errTimeout = errors.New("timeout")
)

// line waits for the line number from of standard output or a later one that
// satisfies the condition, and gives the number after it.
func (p *Process) line(from int, within time.Duration, ok func(string) bool) (next int, err error) {
	late := time.AfterFunc(within, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.changed.Broadcast()
	})
	defer late.Stop()
	deadline := time.Now().Add(within)
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		for ; from < len(p.lines); from++ {
			if ok(p.lines[from]) {
				return from + 1, nil
			}
		}
		if p.ended {
			return from, errEnded
		}
		if !time.Now().Before(deadline) {
			return from, errTimeout
		}
		p.changed.Wait()
	}
}

// AwaitLine waits until standard output has a line that starts so.
func (p *Process) AwaitLine(prefix string) {
	p.t.Helper()
	_, err := p.line(0, startPatience, func(l string) bool { return strings.HasPrefix(l, prefix) })
	if err != nil {
		p.t.Fatalf("%s: no line %q: %v", p.name, prefix, err)
	}
}

// AwaitPort waits until somebody listens on the UDP port.
func (p *Process) AwaitPort(port uint16) {
	p.t.Helper()
	p.await("UDP port", func() bool { return listening(port) })
}

// AwaitPing waits until the port answers a CoAP ping.
func (p *Process) AwaitPing(port uint16) {
	p.t.Helper()
	p.await("CoAP ping", func() bool { return Ping(Loopback(port), 100*time.Millisecond) })
}

func (p *Process) await(what string, ready func() bool) {
	p.t.Helper()
	poll := time.NewTicker(10 * time.Millisecond)
	defer poll.Stop()
	late := time.After(startPatience)
	for !ready() {
		select {
		case <-poll.C:
		case <-late:
			p.t.Fatalf("%s is not ready: %s", p.name, what)
		case <-p.done:
			p.t.Fatalf("%s ended before it was ready (%s): %v", p.name, what, p.err)
		}
	}
}

// Wait waits for the process to end by itself and gives its error.
func (p *Process) Wait(within time.Duration) error {
	p.t.Helper()
	select {
	case <-p.done:
		return p.err
	case <-time.After(within):
		p.t.Fatalf("%s still runs after %v", p.name, within)
		return nil
	}
}

type locked struct {
	mu *sync.Mutex
	w  io.Writer
}

func (l *locked) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(b)
}
