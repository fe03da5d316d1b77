package bolt

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/oscorelay/oscorelay/internal/proof"
	"github.com/oscorelay/oscorelay/oscore"
)

// childEnv makes the test binary a process that uses a store: the variable holds
// what it does and the directory.
const childEnv = "KEYS_BOLT_CHILD"

func TestMain(m *testing.M) {
	if what, base, ok := strings.Cut(os.Getenv(childEnv), ":"); ok {
		if err := child(what, base); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// child opens the store. As "sender" it uses all of it for ever and writes out
// what it did, once that is durable; as "holder" it keeps it until its input ends.
//
//	s NUMBER  sealed a request under that number of device a
//	j NUMBER  is about to let an unsafe request go on: the journal said it is new
//	o NUMBER  holds an observation of that number
func child(what, base string) error {
	st, err := Open(filepath.Join(base, "store"), opts(base))
	if err != nil {
		return err
	}
	if what == "holder" {
		fmt.Println("open")
		_, _ = io.Copy(io.Discard, os.Stdin)
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
	// One write a line: what is read was done, and the last may be cut.
	say := func(kind string, n uint64) error {
		_, err := os.Stdout.WriteString(kind + " " + strconv.FormatUint(n, 10) + "\n")
		return err
	}
	for n := uint64(0); ; n++ {
		for range 20 {
			var p oscore.Pending
			if _, err := peer.SealRequest(nil, &p, oscore.Message{Code: 1}); err != nil {
				return err
			}
			if err := say("s", p.PartialIV()); err != nil {
				return err
			}
		}
		// Each process retransmits the requests of all before it.
		x := Exchange{"server", uint16(n), []byte{1}}
		_, repeated, err := st.Begin(ctx, x, nil, time.Unix(int64(n), 0))
		if err != nil {
			return err
		}
		if !repeated {
			if err := say("j", n); err != nil {
				return err
			}
			if err := st.Finish(ctx, x, []byte("done")); err != nil {
				return err
			}
		}
		token := []byte{byte(n >> 8), byte(n)}
		if err := st.Update(ctx, func(tx *Tx) error { return tx.PutObservation(Observation{"a", token, token}) }); err != nil {
			return err
		}
		if err := say("o", n&0xffff); err != nil {
			return err
		}
	}
}

func command(what, base string) *exec.Cmd {
	c := exec.Command(os.Args[0])
	c.Env = append(os.Environ(), childEnv+"="+what+":"+base)
	return c
}

// TestKill kills a process in the middle of all it does, again and again: no
// number is sealed twice, no unsafe request goes on twice, no observation that
// was acknowledged is lost.
func TestKill(t *testing.T) {
	proof.Checklist(t, "O-B.1.1-1")
	rounds := 30
	if testing.Short() {
		rounds = 5
	}
	base := t.TempDir()
	st := mustOpen(t, base)
	mustPut(t, st, true, "a")
	mustClose(t, st)
	did := map[string]int{}
	observed := map[string]bool{}
	for round := range rounds {
		c := command("sender", base)
		var text bytes.Buffer
		c.Stderr = &text
		out, err := c.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewReader(out)
		last, killed := 1+rand.IntN(3000), false
		for n := 0; ; n++ {
			line, err := lines.ReadString('\n')
			if err != nil {
				break // the pipe is empty and its writer dead
			}
			if line[0] == 'o' {
				observed[line] = true
			} else if first, ok := did[line]; ok {
				t.Fatalf("%s was done in round %d and in round %d", strings.TrimSpace(line), first, round)
			}
			did[line] = round
			if n == last {
				killed = true
				if err := c.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		_ = c.Wait() // killed
		if !killed {
			t.Fatalf("round %d ended by itself: %s", round, &text)
		}
	}
	st = mustOpen(t, base)
	defer mustClose(t, st)
	err := st.View(ctx, func(tx *Tx) error {
		return tx.Observations("a", func(o Observation) error {
			delete(observed, fmt.Sprintf("o %d\n", int(o.Token[0])<<8|int(o.Token[1])))
			return nil
		})
	})
	if err != nil || len(observed) > 0 {
		t.Errorf("%d observations are lost, %v", len(observed), err)
	}
	t.Logf("%d kills, %d things done", rounds, len(did))
}

func TestTwoProcesses(t *testing.T) {
	base := t.TempDir()
	mustClose(t, mustOpen(t, base))
	c := command("holder", base)
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "open\n" {
		t.Fatal(line, err)
	}
	_, err = Open(filepath.Join(base, "store"), opts(base))
	if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("in use by process %d", c.Process.Pid)) {
		t.Errorf("%v, want process %d", err, c.Process.Pid)
	}
	if err := in.Close(); err != nil {
		t.Fatal(err)
	}
	if err := c.Wait(); err != nil {
		t.Fatal(err)
	}
	mustClose(t, mustOpen(t, base))
}
