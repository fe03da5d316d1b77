package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/oscorelay/oscorelay/internal/demo"
	"github.com/oscorelay/oscorelay/keys"
	"github.com/oscorelay/oscorelay/keys/file"
	"github.com/oscorelay/oscorelay/oscore"
)

// tool is the command line with its key directories.
type tool struct {
	t          *testing.T
	dir, addr  string
	serverLine chan serveLine
}

// newTool starts "oscore serve" and returns what talks to it.
func newTool(t *testing.T) *tool {
	t.Helper()
	anchors := t.TempDir()
	t.Setenv("OSCORE_ANCHORS", anchors)
	e := keys.Entry{Name: "server", Params: oscore.Params{MasterSecret: oscore.Secret("one 16-byte key."), SenderID: []byte("c"), RecipientID: []byte("s")}}
	p := e.Peer()
	p.Name = "client"
	put := func(e keys.Entry) string {
		dir := filepath.Join(t.TempDir(), "keys")
		st, err := file.Open(dir, file.Options{AnchorDir: anchors})
		if err != nil {
			t.Fatal(err)
		}
		if err := st.Put(t.Context(), true, e); err != nil {
			t.Fatal(err)
		}
		if err := st.Close(); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	return serveKeys(t, put(p), put(e))
}

// serveKeys starts "oscore serve" with one key directory for a client with the
// other.
func serveKeys(t *testing.T, serverDir, clientDir string) *tool {
	t.Helper()
	x := &tool{t: t, dir: clientDir, serverLine: make(chan serveLine, 100)}
	ctx, cancel := context.WithCancel(t.Context())
	r, w := io.Pipe()
	done := make(chan int, 1)
	go func() {
		done <- run(ctx, []string{"oscore", "serve", "--keys", serverDir, "--listen", "127.0.0.1:0", "--json", "--interval", "20ms"}, nil, w, w)
		w.Close()
	}()
	t.Cleanup(func() {
		cancel()
		go io.Copy(io.Discard, r)
		if code := <-done; code != 0 {
			t.Errorf("serve ended with %d", code)
		}
	})
	ready := make(chan string, 1)
	go func() {
		s := bufio.NewScanner(r)
		for s.Scan() {
			var l serveLine
			if err := json.Unmarshal(s.Bytes(), &l); err != nil {
				t.Errorf("line %q: %v", s.Text(), err)
				return
			}
			if l.Event == "ready" {
				ready <- l.Addr
				continue
			}
			select {
			case x.serverLine <- l:
			default:
			}
		}
	}()
	select {
	case x.addr = <-ready:
	case <-time.After(20 * time.Second):
		t.Fatal("the server does not get ready")
	}
	return x
}

// run executes one command and returns its output.
func (x *tool) run(wantCode int, args ...string) (stdout string) {
	x.t.Helper()
	var out, errs bytes.Buffer
	args = append([]string{"oscore", args[0], "--keys", x.dir}, args[1:]...)
	if code := run(x.t.Context(), args, strings.NewReader(""), &out, &errs); code != wantCode {
		x.t.Errorf("%v: exit code %d, want %d\n%s%s", args, code, wantCode, out.String(), errs.String())
	}
	return out.String() + errs.String()
}

func TestRequests(t *testing.T) {
	x := newTool(t)
	coap, tcp := "coap://"+x.addr, "coap+tcp://"+x.addr
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"get", coap + "/oscore/hello/1"}, 0, "Hello World!\n"},
		{[]string{"get", tcp + "/oscore/hello/1"}, 0, "Hello World!\n"},
		{[]string{"get", "--json", coap + "/oscore/hello/2?first=1"}, 0, `"ETag": "2b"`},
		{[]string{"get", coap + "/.well-known/core"}, 0, "\n</large>;osc;sz=20480\n"},
		{[]string{"get", "--raw", coap + "/large"}, 0, string(demo.Large())},
		{[]string{"post", "--data", "echo", coap + "/oscore/hello/6"}, 0, "echo\n"},
		{[]string{"put", "--data", strings.Repeat("x", 5000), coap + "/large"}, 0, "2.04 Changed\n"},
		{[]string{"put", "--option", "1=aa", "--data", "v", coap + "/oscore/hello/7"}, 1, "4.12 Precondition Failed (protected)"},
		{[]string{"delete", coap + "/oscore/test"}, 0, "2.02 Deleted\n"},
		{[]string{"get", coap + "/nothing"}, 1, "4.04 Not Found (protected)"},
		{[]string{"observe", "--count", "3", coap + "/oscore/observe1"}, 0, "one\ntwo\nthree\n"},
		{[]string{"get", "http://x/"}, 2, "coap://"},
		{[]string{"get", "--peer", "nobody", coap + "/"}, 1, `no peer "nobody"`},
	} {
		if out := x.run(c.code, c.args...); !strings.Contains(out, c.want) {
			t.Errorf("%v printed %.200q, want %.200q", c.args, out, c.want)
		}
	}
}
