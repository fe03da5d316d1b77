package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/oscorelay/oscorelay/internal/freeport"
	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"oscored": main})
}

// TestScripts runs the daemon as a person does.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(e *testscript.Env) error {
			for k, dir := range map[string]string{"HOME": "home", "XDG_CONFIG_HOME": "home/.config", "XDG_STATE_HOME": "home/.state"} {
				name := filepath.Join(e.WorkDir, dir)
				if err := os.MkdirAll(name, 0o700); err != nil {
					return err
				}
				e.Setenv(k, name)
			}
			// Key files are for their owner: archives have no modes.
			files, err := filepath.Glob(filepath.Join(e.WorkDir, "*keys*"))
			if err != nil {
				return err
			}
			for _, f := range files {
				if err := os.Chmod(f, 0o600); err != nil {
					return err
				}
			}
			return freePorts(e)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"daemon": startDaemon, "waitlog": waitLog, "signal": signalDaemon, "ended": endedDaemon, "subst": subst,
		},
	})
}

// freePorts sets $PORT1 to $PORT6.
func freePorts(e *testscript.Env) error {
	for i := range 6 {
		port, err := freeport.Find()
		if err != nil {
			return err
		}
		e.Setenv(fmt.Sprintf("PORT%d", i+1), strconv.Itoa(int(port)))
	}
	return nil
}

// subst replaces $NAME in files by the environment's values.
func subst(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: subst FILE...")
	}
	for _, name := range args {
		b := os.Expand(ts.ReadFile(name), ts.Getenv)
		ts.Check(os.WriteFile(ts.MkAbs(name), []byte(b), 0o600))
	}
}

// running is a daemon of a script.
type running struct {
	cmd  *exec.Cmd
	done chan error
}

var daemons sync.Map // *running, by its *testscript.TestScript

// startDaemon is "daemon ARGUMENTS...": it starts oscored in the background, its
// log in the file log, its output in the file out.
func startDaemon(ts *testscript.TestScript, neg bool, args []string) {
	if neg {
		ts.Fatalf("unsupported: ! daemon")
	}
	self, err := exec.LookPath("oscored")
	ts.Check(err)
	out, err := os.Create(ts.MkAbs("out"))
	ts.Check(err)
	log, err := os.OpenFile(ts.MkAbs("log"), os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	ts.Check(err)
	cmd := exec.CommandContext(context.Background(), self, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = ts.MkAbs("."), out, log
	cmd.Env = []string{"PATH=" + ts.Getenv("PATH"), "HOME=" + ts.Getenv("HOME"), "XDG_CONFIG_HOME=" + ts.Getenv("XDG_CONFIG_HOME"), "XDG_STATE_HOME=" + ts.Getenv("XDG_STATE_HOME")}
	for _, name := range []string{"NOTIFY_SOCKET", "WATCHDOG_USEC"} {
		if v := ts.Getenv(name); v != "" {
			cmd.Env = append(cmd.Env, name+"="+v)
		}
	}
	ts.Check(cmd.Start())
	_ = out.Close()
	_ = log.Close()
	r := &running{cmd, make(chan error, 1)}
	go func() { r.done <- cmd.Wait() }()
	daemons.Store(ts, r)
	ts.Defer(func() {
		_ = cmd.Process.Kill()
		daemons.Delete(ts)
	})
}

// daemonOf returns the script's daemon.
func daemonOf(ts *testscript.TestScript) *running {
	r, ok := daemons.Load(ts)
	if !ok {
		ts.Fatalf("no daemon was started")
	}
	return r.(*running)
}

// waitLog is "waitlog TEXT [FILE]": it waits until the log holds a text.
func waitLog(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: waitlog TEXT [FILE]")
	}
	name := "log"
	if len(args) > 1 {
		name = args[1]
	}
	for end := time.Now().Add(20 * time.Second); ; {
		if strings.Contains(ts.ReadFile(name), args[0]) {
			return
		}
		if time.Now().After(end) {
			ts.Fatalf("no %q in %s:\n%s", args[0], name, ts.ReadFile(name))
		}
		time.Sleep(5 * time.Millisecond) // the deadline above decides
	}
}

// signalDaemon is "signal NAME".
func signalDaemon(ts *testscript.TestScript, _ bool, args []string) {
	sig := map[string]syscall.Signal{"HUP": syscall.SIGHUP, "TERM": syscall.SIGTERM, "INT": syscall.SIGINT, "KILL": syscall.SIGKILL}[args[0]]
	ts.Check(daemonOf(ts).cmd.Process.Signal(sig))
}

// endedDaemon is "ended STATUS": it waits for the daemon's end.
func endedDaemon(ts *testscript.TestScript, _ bool, args []string) {
	r := daemonOf(ts)
	select {
	case <-r.done:
	case <-time.After(30 * time.Second):
		ts.Fatalf("the daemon does not end:\n%s", ts.ReadFile("log"))
	}
	if got := strconv.Itoa(r.cmd.ProcessState.ExitCode()); got != args[0] {
		ts.Fatalf("exit status %s, not %s:\n%s", got, args[0], ts.ReadFile("log"))
	}
}
