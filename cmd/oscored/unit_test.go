package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/oscorelay/oscorelay/keys"
	"github.com/oscorelay/oscorelay/keys/bolt"
)

// TestLimiter: a flood of one kind becomes ten records and a count; another kind
// is not in its way.
func TestLimiter(t *testing.T) {
	var out bytes.Buffer
	l := newLimiter(slog.NewTextHandler(&out, nil))
	log := slog.New(l)
	for range 1000 {
		log.Warn("refused", "reason", "decrypt", "source", "192.0.2.1")
	}
	log.With("reason", "replay").Warn("refused")
	if n := strings.Count(out.String(), "reason=decrypt"); n != limitBurst {
		t.Errorf("%d records, not %d", n, limitBurst)
	}
	if !strings.Contains(out.String(), "reason=replay") {
		t.Error("one kind hides another")
	}
	out.Reset()
	l.flush(t.Context(), time.Now().Add(limitEvery))
	if got := out.String(); !strings.Contains(got, `msg="repeated: refused" times=990 reason=decrypt`) || strings.Contains(got, "replay") {
		t.Error(got)
	}
	log.Warn("refused", "reason", "decrypt")
	if !strings.Contains(out.String(), "msg=refused") {
		t.Error("the next interval lets nothing through")
	}
}

// TestLimiterBounded: kinds that a foreigner invents take no memory.
func TestLimiterBounded(t *testing.T) {
	l := newLimiter(slog.DiscardHandler)
	for i := range 10 * limitKinds {
		r := slog.NewRecord(time.Now(), slog.LevelWarn, "x", 0)
		r.Add("reason", i)
		_ = l.Handle(context.Background(), r)
	}
	if n := len(l.state.kinds); n > limitKinds+1 {
		t.Errorf("%d kinds", n)
	}
}

// TestToken: made once, for its owner alone, compared as a whole.
func TestToken(t *testing.T) {
	name := filepath.Join(t.TempDir(), "sub", "token")
	a, err := loadToken(name)
	if err != nil {
		t.Fatal(err)
	}
	s, err := readToken(name)
	if err != nil || len(s) != 43 {
		t.Fatalf("%d characters, %v", len(s), err)
	}
	b, err := loadToken(name)
	if err != nil || !b.is(s) || !a.is(s) {
		t.Errorf("another token after a restart: %v", err)
	}
	for _, wrong := range []string{"", s[1:], s + "x", strings.ToUpper(s)} {
		if a.is(wrong) {
			t.Errorf("%d characters are taken for the token", len(wrong))
		}
	}
	if err := os.Chmod(name, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := loadToken(name); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Error(err)
	}
	short := filepath.Join(t.TempDir(), "short")
	if err := os.WriteFile(short, []byte("hunter2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := loadToken(short); err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Error(err)
	}
	if _, err := readToken(name + "x"); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

func TestLoopbackHost(t *testing.T) {
	for host, want := range map[string]bool{
		"127.0.0.1:5680": true, "127.8.9.1": true, "localhost:1": true, "[::1]:5680": true, "::1": true,
		"evil.example:5680": false, "localhost.evil.example": false, "": false, "192.0.2.1": false, "127.0.0.1.evil.example": false,
	} {
		if got := isLoopbackHost(host); got != want {
			t.Errorf("%q: %v", host, got)
		}
	}
}

func TestPolicy(t *testing.T) {
	p := newPolicy(&routeConfig{Contexts: []string{"boiler", "meter-*"}, Endpoints: map[string]string{"boiler": "urn:1", "pump": "boiler"}})
	for name, want := range map[string]bool{"boiler": true, "meter-7": true, "meter": false, "pump": false, "": false} {
		if got := p.accepts(name); got != want {
			t.Errorf("accepts(%q) is %v", name, got)
		}
	}
	if !newPolicy(&routeConfig{Contexts: []string{"*"}}).accepts("any/thing") {
		t.Error("* is not all")
	}
	for context, ep := range map[string]string{"boiler": "urn:1", "pump": "boiler", "meter-7": "meter-7"} {
		if got := p.endpoint(context); got != ep {
			t.Errorf("endpoint(%q) is %q", context, got)
		}
		if got := p.contextOf(ep); got != context {
			t.Errorf("contextOf(%q) is %q", ep, got)
		}
	}
	// An endpoint name is never that of two contexts.
	if got := p.contextOf("pump"); got != "" {
		t.Errorf("pump stands for boiler, and contextOf(pump) is %q", got)
	}
}

func TestDuration(t *testing.T) {
	for _, s := range []string{"10s", "2m", "1h", "1h30m", "500ms", "1m30s"} {
		var d duration
		if err := d.UnmarshalText([]byte(s)); err != nil {
			t.Fatal(err)
		}
		if b, err := d.MarshalText(); err != nil || string(b) != s {
			t.Errorf("%s is written %s, %v", s, b, err)
		}
	}
	for _, s := range []string{"", "5", "-1s", "0s", "never"} {
		if new(duration).UnmarshalText([]byte(s)) == nil {
			t.Errorf("%q is taken", s)
		}
	}
}

func TestClean(t *testing.T) {
	for in, want := range map[string]string{"boiler 7": "boiler 7", "a\x1b[2Jb": `"a\x1b[2Jb"`, "urn:ü": "urn:ü", "a\nb": `"a\nb"`} {
		if got := clean(in); got != want {
			t.Errorf("%q is shown as %s", in, got)
		}
	}
}

func TestWatchdog(t *testing.T) {
	env := map[string]string{}
	get := func(k string) string { return env[k] }
	if d, err := watchdogInterval(get); d != 0 || err != nil {
		t.Error(d, err)
	}
	env["WATCHDOG_USEC"] = "30000000"
	if d, err := watchdogInterval(get); d != 15*time.Second || err != nil {
		t.Error(d, err)
	}
	env["WATCHDOG_PID"] = "1"
	if d, err := watchdogInterval(get); d != 0 || err != nil {
		t.Error(d, err)
	}
	delete(env, "WATCHDOG_PID")
	env["WATCHDOG_USEC"] = "soon"
	if _, err := watchdogInterval(get); err == nil {
		t.Error("taken")
	}
}

// TestNextSteps: what a gateway says of a device has an answer, and the fallback
// is for what it does not say yet.
func TestNextSteps(t *testing.T) {
	if nextStep("") != "" {
		t.Error("a device that is well needs no help")
	}
	if got := nextStep("its context may not seal: " + keys.ErrTainted.Error()); got != keys.Mend {
		t.Error(got)
	}
	if nextStep("something new") == "" {
		t.Error("nobody is left without a word")
	}
	sources, err := filepath.Glob("../../internal/terminate/*.go")
	if err != nil || len(sources) == 0 {
		t.Fatal(err)
	}
	var all []byte
	for _, name := range sources {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, b...)
	}
	for _, s := range nextSteps {
		if !bytes.Contains(all, []byte(s.why)) {
			t.Errorf("no gateway says %q any more", s.why)
		}
	}
}

// TestHealthy: a store that writes no more is noticed without writing to it.
func TestHealthy(t *testing.T) {
	dir := t.TempDir()
	st, err := bolt.Open(filepath.Join(dir, "store"), bolt.Options{Init: true, AnchorDir: filepath.Join(dir, "anchors")})
	if err != nil {
		t.Fatal(err)
	}
	r := &registry{store: st}
	if err := r.healthy(t.Context()); err != nil {
		t.Error(err)
	}
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	if err := r.healthy(t.Context()); err == nil {
		t.Error("a store that is closed is said to write")
	}
}

// TestUntilTold: a signal ends a start, and none is lost to it otherwise.
func TestUntilTold(t *testing.T) {
	signals := make(chan os.Signal, 2)
	signals <- syscall.SIGHUP
	signals <- syscall.SIGTERM
	ctx, told := untilTold(t.Context(), signals)
	<-ctx.Done()
	if !told() {
		t.Error("the signal is not told of")
	}
	ctx, told = untilTold(t.Context(), signals)
	if told() || ctx.Err() == nil {
		t.Error("a start that nobody ended was ended")
	}
	signals <- syscall.SIGTERM
	if s := <-signals; s != syscall.SIGTERM {
		t.Error(s)
	}
}

// FuzzConfig: no file makes the reader panic, and what it takes it can write and
// take again.
func FuzzConfig(f *testing.F) {
	f.Add([]byte("drain = \"5s\"\n[[terminate]]\nname = \"a\"\nlisten = \":5683\"\nbackend = \"127.0.0.1:5783\"\n[terminate.endpoints]\na = \"b\"\n"))
	f.Add([]byte("[[proxy]]\nname='p'\nlisten=':1'\nforward=['any']\n[[proxy.route]]\nkid='01'\nto='h:1'\n"))
	f.Add([]byte("a.b.c = [1,\n2]\n[x.y]\nz = {q = 1}\n"))
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, b []byte) {
		name := filepath.Join(dir, "c.toml")
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
		c, l, err := readConfig(name)
		if err != nil {
			if !errors.Is(err, errConfig) {
				t.Errorf("%v is no configuration error", err)
			}
			return
		}
		if err := checkConfig(name, c, l); err != nil {
			if !errors.Is(err, errConfig) {
				t.Errorf("%v is no configuration error", err)
			}
			return
		}
		var out bytes.Buffer
		if err := printConfig(&out, &flags{config: name}); err != nil {
			t.Fatal(err)
		}
		again := filepath.Join(dir, "again.toml")
		if err := os.WriteFile(again, out.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
		c2, l2, err := readConfig(again)
		if err == nil {
			err = checkConfig(again, c2, l2)
		}
		if err != nil {
			t.Errorf("%v\n%s", err, out.Bytes())
		}
	})
}

// A page ends where a name does, which several routes may have.
func TestPage(t *testing.T) {
	name := func(s *string) string { return *s }
	for _, c := range []struct {
		limit     int
		out, next string
	}{{1, "[a]", "a"}, {2, "[a b b b]", "b"}, {3, "[a b b b]", "b"}, {4, "[a b b b]", "b"}, {5, "[a b b b c]", ""}, {9, "[a b b b c]", ""}} {
		out, next := page([]string{"a", "b", "b", "b", "c"}, c.limit, name)
		if fmt.Sprint(out) != c.out || next != c.next {
			t.Errorf("%d: %v, then %q", c.limit, out, next)
		}
	}
}
