package file

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/oscorelay/oscorelay/internal/proof"
	"github.com/oscorelay/oscorelay/keys/internal/child"
	"github.com/oscorelay/oscorelay/oscore"
)

func TestMain(m *testing.M) { child.Main(m, process) }

// process opens the store. As "sender" it seals requests for ever and writes
// their numbers out, as "holder" it keeps the store until its input ends.
func process(what, base string) error {
	st, err := Open(filepath.Join(base, "store"), Options{AnchorDir: filepath.Join(base, "anchors")})
	if err != nil {
		return err
	}
	if what == "holder" {
		child.Hold()
		return st.Close()
	}
	if st.Taint() != "" {
		return fmt.Errorf("tainted: %s", st.Taint())
	}
	ring, err := st.Keyring(ctx)
	if err != nil {
		return err
	}
	peer, _ := ring.Get("a")
	for {
		var p oscore.Pending
		if _, err := peer.SealRequest(nil, &p, oscore.Message{Code: 1}); err != nil {
			return err
		}
		if err := child.Say("s", p.PartialIV()); err != nil {
			return err
		}
	}
}

func newBase(t *testing.T) string {
	base := t.TempDir()
	st, err := Open(filepath.Join(base, "store"), Options{AnchorDir: filepath.Join(base, "anchors")})
	if err != nil {
		t.Fatal(err)
	}
	mustPut(t, st, true, "a")
	mustClose(t, st)
	return base
}

// TestKill kills a process in the middle of sealing, again and again: no number
// is ever sealed twice.
func TestKill(t *testing.T) {
	proof.Checklist(t, "O-B.1.1-1")
	rounds := 40
	if testing.Short() {
		rounds = 5
	}
	base := newBase(t)
	numbers := child.Kill(t, "sender", base, rounds, func(string) bool { return true })
	t.Logf("%d kills, %d numbers", rounds, numbers)
}

// TestRestoredState restores files behind the back of a process, as a roll-back
// or a backup does: the next one seals nothing.
func TestRestoredState(t *testing.T) {
	proof.Requirement(t, "the store of a device", "MaU-1")
	proof.Checklist(t, "O-B.1.1-1", "O-B.1.1-2")
	for _, c := range []struct {
		name    string
		restore func(t *testing.T, base, old string)
	}{
		{"the state of the last run", func(t *testing.T, base, old string) {
			b, err := os.ReadFile(filepath.Join(old, "state"))
			if err == nil {
				err = os.WriteFile(filepath.Join(base, "store", "state"), b, 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
		}},
		{"the whole directory", func(t *testing.T, base, old string) {
			if err := os.RemoveAll(filepath.Join(base, "store")); err != nil {
				t.Fatal(err)
			}
			if err := os.CopyFS(filepath.Join(base, "store"), os.DirFS(old)); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(filepath.Join(base, "store", "root.key"), 0o600); err != nil {
				t.Fatal(err)
			}
		}},
		{"no state at all", func(t *testing.T, base, _ string) {
			if err := os.Remove(filepath.Join(base, "store", "state")); err != nil {
				t.Fatal(err)
			}
		}},
		{"another machine's anchors", func(t *testing.T, base, _ string) {
			if err := os.RemoveAll(filepath.Join(base, "anchors")); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			base := newBase(t)
			old := filepath.Join(base, "old")
			if err := os.CopyFS(old, os.DirFS(filepath.Join(base, "store"))); err != nil {
				t.Fatal(err)
			}
			if n, text := sealSome(t, base, 500); n < 500 {
				t.Fatalf("%d numbers before: %s", n, text)
			}
			c.restore(t, base, old)
			if n, text := sealSome(t, base, 500); n != 0 || !strings.Contains(text, "tainted: ") {
				t.Errorf("%d numbers afterwards: %s", n, text)
			}
		})
	}
}

// sealSome runs a sender, kills it after so many numbers, and returns how many
// it sealed and what it said.
func sealSome(t *testing.T, base string, want int) (n int, text string) {
	t.Helper()
	c := child.Command("sender", base)
	var said bytes.Buffer
	c.Stderr = &said
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	for lines := bufio.NewScanner(out); lines.Scan(); n++ {
		if n == want {
			_ = c.Process.Kill()
		}
	}
	_ = c.Wait() // killed, or refused
	return n, said.String()
}

func TestTwoProcesses(t *testing.T) {
	base := newBase(t)
	type result struct {
		c     *exec.Cmd
		stdin io.Closer
		won   bool
		text  string
	}
	const n = 4
	results := make(chan result)
	for range n {
		go func() {
			c := child.Command("holder", base)
			var text bytes.Buffer
			c.Stderr = &text
			in, err := c.StdinPipe()
			out, err2 := c.StdoutPipe()
			if err != nil || err2 != nil {
				results <- result{text: fmt.Sprint(err, err2)}
				return
			}
			if err := c.Start(); err != nil {
				results <- result{text: err.Error()}
				return
			}
			line, _ := bufio.NewReader(out).ReadString('\n')
			r := result{c: c, stdin: in, won: line == child.Opened}
			if !r.won {
				_ = c.Wait()
				r.text = text.String()
			}
			results <- r
		}()
	}
	var winner *exec.Cmd
	var stdin io.Closer
	var losers []string
	deadline := time.After(time.Minute)
	for range n {
		select {
		case r := <-results:
			switch {
			case r.won && winner != nil:
				t.Fatal("two processes have the store open")
			case r.won:
				winner, stdin = r.c, r.stdin
			default:
				losers = append(losers, r.text)
			}
		case <-deadline:
			t.Fatal("no answer")
		}
	}
	if winner == nil {
		t.Fatalf("nobody got the store: %q", losers)
	}
	for _, text := range losers {
		if !strings.Contains(text, "is in use") {
			t.Errorf("a loser says %q", text)
		}
	}
	_, err := Open(filepath.Join(base, "store"), Options{AnchorDir: filepath.Join(base, "anchors")})
	if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("in use by process %d", winner.Process.Pid)) {
		t.Errorf("%v, want process %d", err, winner.Process.Pid)
	}
	if err := stdin.Close(); err != nil {
		t.Fatal(err)
	}
	if err := winner.Wait(); err != nil {
		t.Fatal(err)
	}
	st, err := Open(filepath.Join(base, "store"), Options{AnchorDir: filepath.Join(base, "anchors")})
	if err != nil {
		t.Fatal(err)
	}
	mustClose(t, st)
}
