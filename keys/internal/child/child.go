// Package child runs a test binary as a process that uses a store, and kills it,
// for the tests of stores.
//
//	test ── Command ──▶ child: opens the store, says what it did, a line each
//	     ◀── its lines ──        ✗ kill -9
package child

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
)

// env makes the test binary a child: the variable holds what it does and the
// directory.
const env = "KEYS_CHILD"

// Main runs the tests of a package, or, in a child, what it is to do.
func Main(m *testing.M, do func(what, base string) error) {
	if what, base, ok := strings.Cut(os.Getenv(env), ":"); ok {
		if err := do(what, base); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// Command is a child that is to be started.
func Command(what, base string) *exec.Cmd {
	c := exec.Command(os.Args[0])
	c.Env = append(os.Environ(), env+"="+what+":"+base)
	return c
}

// Hold keeps in a child what it has opened until its input ends.
func Hold() {
	fmt.Println("open")
	_, _ = io.Copy(io.Discard, os.Stdin)
}

// Opened is what Hold says.
const Opened = "open\n"

// Say writes out in a child what was done. One write a line: what is read was
// done, and the last may be cut.
func Say(kind string, n uint64) error {
	_, err := os.Stdout.WriteString(kind + " " + strconv.FormatUint(n, 10) + "\n")
	return err
}

// Kill lets a child do what it does and kills it, again and again, and returns how
// many things it said it did. Those for which once is true are done once at most.
func Kill(t *testing.T, what, base string, rounds int, once func(line string) bool) int {
	t.Helper()
	did := map[string]int{}
	for round := range rounds {
		c := Command(what, base)
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
			first, repeated := did[line]
			if once(line) && repeated {
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
	return len(did)
}
