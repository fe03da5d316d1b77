package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/oscorelay/oscorelay/keys"
	"github.com/oscorelay/oscorelay/oscore/gocoap"
)

// TestDemonstration: without a configuration there are fresh keys, a store, and a
// server that answers under them, after a restart too; and never the same keys for
// two people.
func TestDemonstration(t *testing.T) {
	self, err := exec.LookPath("oscored")
	if err != nil {
		t.Fatal(err)
	}
	secrets := map[string]bool{}
	for range 2 {
		home := t.TempDir()
		var ring *keys.Keyring
		for start := range 2 {
			p := &process{t: t, dir: home}
			p.cmd = exec.Command(self, "-listen", "127.0.0.1:0")
			p.cmd.Stdout, p.cmd.Stderr = p, p
			p.cmd.Env = []string{"HOME=" + home}
			if err := p.cmd.Start(); err != nil {
				t.Fatal(err)
			}
			p.done = make(chan error, 1)
			go func() { p.done <- p.cmd.Wait() }()
			t.Cleanup(func() { _ = p.cmd.Process.Kill() })
			p.eventually("says what to do", func() bool { return strings.Contains(p.said(), "Ctrl-C ends it.") })
			addr := regexp.MustCompile(`OSCORE at (\S+),`).FindStringSubmatch(p.said())
			if addr == nil {
				t.Fatal(p.said())
			}
			if start == 0 {
				name := filepath.Join(home, ".local", "state", "oscored", "device.toml")
				info, err := os.Stat(name)
				if err != nil || info.Mode().Perm() != 0o600 {
					t.Fatal(info, err)
				}
				files, err := readKeyFiles([]string{name})
				if err != nil || len(files.entries) != 1 {
					t.Fatal(files, err)
				}
				secrets[string(files.entries[0].Params.MasterSecret)] = true
				ring = keys.New(keys.NewMemory())
				if _, err := ring.AddNew(t.Context(), files.entries[0]); err != nil {
					t.Fatal(err)
				}
			}
			c, err := gocoap.New(gocoap.Config{Keyring: ring}).DialUDP(addr[1], "oscored", nil)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := c.Get(t.Context(), "/oscore/hello/1")
			if err != nil {
				t.Fatal(err, p.said())
			}
			if b, err := resp.ReadBody(); err != nil || string(b) != "Hello World!" {
				t.Errorf("%q, %v", b, err)
			}
			_ = c.Close()
			if status := p.end(syscall.SIGINT); status != exitOK {
				t.Errorf("status %d\n%s", status, p.said())
			}
		}
	}
	if len(secrets) != 2 {
		t.Error("two demonstrations have the same keys")
	}
}

// TestReloadExchanges: what comes may have the identifiers of what goes, and two of
// one pair are refused with nothing changed.
func TestReloadExchanges(t *testing.T) {
	entry := func(name string, secret byte) keys.Entry {
		e := keys.Entry{Name: name}
		e.Params.MasterSecret = []byte("0123456789abcde" + string(rune(secret)))
		e.Params.SenderID, e.Params.RecipientID, e.Params.IDContext = []byte{0}, []byte{1}, []byte{10}
		return e
	}
	p := newProcess(t, "127.0.0.1:9", []keys.Entry{entry("a", 'a')}, "")
	p.start(nil, "-init", "-fresh")
	reload := func(says string, entries ...keys.Entry) {
		t.Helper()
		text, err := keyFileText(entries)
		if err != nil {
			t.Fatal(err)
		}
		p.write("keys.toml", text)
		before := len(p.said())
		if err := p.cmd.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		p.eventually(says, func() bool { return strings.Contains(p.said()[before:], says) })
	}
	names := func() (out string) {
		var v contextsView
		p.api("GET", "/api/contexts", &v)
		for _, c := range v.Contexts {
			out += c.Name + " "
		}
		return out
	}
	reload("msg=reloaded", entry("b", 'b'))
	if got := names(); got != "b " {
		t.Errorf("contexts %s", got)
	}
	reload("reload refused: nothing changed", entry("c", 'c'), entry("d", 'd'))
	if got := names(); got != "b " {
		t.Errorf("contexts %s\n%s", got, p.said())
	}
	reload("msg=reloaded", entry("a", 'a'))
	var v contextsView
	p.api("GET", "/api/contexts", &v)
	if len(v.Contexts) != 1 || v.Contexts[0].Name != "a" || v.Contexts[0].Tainted != "" {
		t.Errorf("the first keys put back are %+v", v.Contexts)
	}
	// The note of what was taken in cannot be written, as on a full disk.
	blocked := filepath.Join(p.dir, p.store, "key-files.json.new")
	if err := os.Mkdir(blocked, 0o700); err != nil {
		t.Fatal(err)
	}
	e := entry("e", 'e')
	e.Params.IDContext = []byte{11}
	reload("reload broke off", entry("a", 'a'), e)
	if got := names(); got != "a e " {
		t.Errorf("contexts %s", got)
	}
	if err := os.Remove(blocked); err != nil {
		t.Fatal(err)
	}
	reload("msg=reloaded", entry("a", 'a'), e)
	p.end(syscall.SIGTERM)
}

// TestKillDuringReload: whatever a kill interrupts, the next start makes the store
// hold what the key files do.
func TestKillDuringReload(t *testing.T) {
	fleet := func(from, to int) (out []keys.Entry) {
		for i := from; i < to; i++ {
			e := keys.Entry{Name: "dev-" + string(rune('a'+i/26)) + string(rune('a'+i%26))}
			e.Params.MasterSecret = []byte("0123456789abcd" + e.Name[4:])
			e.Params.SenderID, e.Params.RecipientID = []byte{0}, []byte{1, byte(i)}
			out = append(out, e)
		}
		return out
	}
	p := newProcess(t, "127.0.0.1:9", fleet(0, 100), "")
	p.start(nil, "-init", "-fresh")
	for round := range 12 {
		from := round * 17 % 60
		want := fleet(from, from+40+round)
		b, err := keyFileText(want)
		if err != nil {
			t.Fatal(err)
		}
		p.write("keys.toml", b)
		if err := p.cmd.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		// A moment later each time: in the look at the files, the removal, the import.
		<-time.After(time.Duration(round) * 700 * time.Microsecond)
		p.end(syscall.SIGKILL)
		p.start(nil)
		var v contextsView
		p.api("GET", "/api/contexts?limit=1000", &v)
		if len(v.Contexts) != len(want) {
			t.Fatalf("round %d: %d contexts, and the file has %d\n%s", round, len(v.Contexts), len(want), p.said())
		}
		for i, c := range v.Contexts {
			if c.Name != want[i].Name || filepath.Base(c.Source) != "keys.toml" {
				t.Fatalf("round %d: %+v, not %s", round, c, want[i].Name)
			}
		}
	}
	p.end(syscall.SIGTERM)
}
