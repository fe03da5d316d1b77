package main

import (
	"bytes"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// silence is a UDP socket on which nothing may arrive.
type silence struct {
	t *testing.T
	c *net.UDPConn
}

func newSilence(t *testing.T) *silence {
	t.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return &silence{t, c}
}

func (s *silence) addr() string { return s.c.LocalAddr().String() }

// heard returns how many datagrams came. A mark of the test's own comes after
// them all, since loopback keeps the order.
func (s *silence) heard() (n int) {
	s.t.Helper()
	mark := []byte("the end of the test")
	out, err := net.Dial("udp4", s.addr())
	if err != nil {
		s.t.Fatal(err)
	}
	defer out.Close()
	if _, err := out.Write(mark); err != nil {
		s.t.Fatal(err)
	}
	buf := make([]byte, 2048)
	for ; ; n++ {
		if err := s.c.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
			s.t.Fatal(err)
		}
		k, err := s.c.Read(buf)
		if err != nil {
			s.t.Fatal(err)
		}
		if bytes.Equal(buf[:k], mark) {
			return n
		}
	}
}

func copyDir(t *testing.T, from, to string) {
	t.Helper()
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"root.key", "keys", "state"} {
		if err := os.Chmod(filepath.Join(to, name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// TestUnknownHistorySendsNothing: a key directory whose sequence numbers are
// not known any more sends nothing at all, and says what to do.
func TestUnknownHistorySendsNothing(t *testing.T) {
	for _, c := range []struct {
		name  string
		spoil func(t *testing.T, x *tool) (dir string)
		says  string
	}{
		{"directory copied and used there", func(t *testing.T, x *tool) string {
			dir := filepath.Join(t.TempDir(), "second")
			copyDir(t, x.dir, dir)
			return dir
		}, "is a copy of "},
		{"state deleted", func(t *testing.T, x *tool) string {
			if err := os.Remove(filepath.Join(x.dir, "state")); err != nil {
				t.Fatal(err)
			}
			return x.dir
		}, "without its state file"},
		{"yesterday's state restored", func(t *testing.T, x *tool) string {
			state := filepath.Join(x.dir, "state")
			yesterday, err := os.ReadFile(state)
			if err != nil {
				t.Fatal(err)
			}
			x.run(0, "get", "coap://"+x.addr+"/oscore/hello/1")
			if err := os.WriteFile(state, yesterday, 0o600); err != nil {
				t.Fatal(err)
			}
			return x.dir
		}, "an old state was restored"},
		{"anchor lost", func(t *testing.T, x *tool) string {
			t.Setenv("OSCORE_ANCHORS", t.TempDir())
			return x.dir
		}, "no anchor for the store"},
	} {
		t.Run(c.name, func(t *testing.T) {
			x := newTool(t)
			x.run(0, "get", "coap://"+x.addr+"/oscore/hello/1")
			s := newSilence(t)
			for s.heard() == 0 { // with its history known the directory is heard there
				x.run(1, "get", "--timeout", "100ms", "coap://"+s.addr()+"/oscore/hello/1")
			}
			dir := c.spoil(t, x)
			for range 2 { // the taint lasts
				for _, args := range [][]string{
					{"get", "coap://" + s.addr() + "/oscore/hello/1"},
					{"put", "--data", "21.5", "coap://" + s.addr() + "/value"},
					{"observe", "--count", "1", "coap://" + s.addr() + "/value"},
					{"get", "--non", "coap://" + s.addr() + "/value"},
				} {
					var out, errs bytes.Buffer
					args = append([]string{"oscore", args[0], "--keys", dir, "--timeout", "5s"}, args[1:]...)
					code := run(t.Context(), args, strings.NewReader(""), &out, &errs)
					text := errs.String()
					if code == 0 || out.Len() > 0 {
						t.Errorf("%v: exit code %d, output %q", args[1:], code, out.String())
					}
					for _, want := range []string{c.says, "nothing was sent", "--rederive", "oscore keys new"} {
						if !strings.Contains(text, want) {
							t.Errorf("%v does not say %q:\n%s", args[1:], want, text)
						}
					}
				}
			}
			if n := s.heard(); n != 0 {
				t.Errorf("%d datagrams went out", n)
			}
			if dir != x.dir { // the original goes on undisturbed
				x.run(0, "get", "coap://"+x.addr+"/oscore/hello/1")
			}
		})
	}
}

// TestUnknownHistoryAnswersNothing: the same for the serving end. It may read
// a request, but seals no answer to it.
func TestUnknownHistoryAnswersNothing(t *testing.T) {
	x := newTool(t)
	x.run(0, "get", "coap://"+x.addr+"/oscore/hello/1")
	// The client's own keys, looked at from the other end, in a directory that
	// never saw them.
	var peer, errs bytes.Buffer
	if code := run(t.Context(), []string{"oscore", "keys", "export", "--peer", "--secrets", "--dir", x.dir}, nil, &peer, &errs); code != 0 {
		t.Fatal(errs.String())
	}
	exported := filepath.Join(t.TempDir(), "peer.toml")
	if err := os.WriteFile(exported, peer.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "imported")
	if code := run(t.Context(), []string{"oscore", "keys", "import", exported, "--dir", dir}, nil, io.Discard, &errs); code != 0 {
		t.Fatal(errs.String())
	}
	second := serveKeys(t, dir, x.dir)
	var out bytes.Buffer
	errs.Reset()
	code := run(t.Context(), []string{"oscore", "get", "--keys", x.dir, "--timeout", "1s", "coap://" + second.addr + "/oscore/hello/1"}, strings.NewReader(""), &out, &errs)
	if code == 0 || out.Len() > 0 || !strings.Contains(errs.String(), "no answer from") {
		t.Errorf("exit code %d: %s%s", code, out.String(), errs.String())
	}
	select {
	case l := <-second.serverLine:
		if l.Event != "tainted" {
			t.Errorf("the server says %+v", l)
		}
	case <-time.After(10 * time.Second):
		t.Error("the server does not say why it is silent")
	}
}
