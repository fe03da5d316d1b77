package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func write(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "proxy.toml")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// TestMistakes: each is named with its place, and ends with status 2.
func TestMistakes(t *testing.T) {
	for name, c := range map[string]struct {
		args []string
		file string
		want string
	}{
		"nothing":        {nil, "", "give -forward, -via or -reverse"},
		"argument":       {[]string{"-reverse", "127.0.0.1:1", "extra"}, "", `unexpected argument "extra"`},
		"network":        {[]string{"-forward", "10.0.0"}, "", `"10.0.0" is no network`},
		"route, port":    {[]string{"-reverse", "127.0.0.1"}, "", `route to "127.0.0.1": address 127.0.0.1: missing port`},
		"route, hex":     {[]string{"-reverse", "kid=xy,127.0.0.1:1"}, "", `kid "xy" is not hexadecimal`},
		"route, word":    {[]string{"-reverse", "colour=a,127.0.0.1:1"}, "", `unknown condition "colour"`},
		"route, block":   {[]string{"-reverse", "block=x,127.0.0.1:1"}, "", `block "x" is no number: write 16,`},
		"route, size":    {[]string{"-reverse", "block=100,127.0.0.1:1"}, "", `block size 100 is none of 16,`},
		"shards":         {[]string{"-reverse", "127.0.0.1:1", "-shards", "-2"}, "", "-shards -2: give 1 or more"},
		"shards, kid":    {[]string{"-reverse", "127.0.0.1:1", "-shards", "2", "-by-kid"}, "", "ByKID with 2 Shards"},
		"file, key":      {nil, "listen = \":0\"\nrout = 1\n", `:2: unknown key "rout"`},
		"file, nested":   {nil, "[limits]\npeer = 1\n", `:2: unknown key "limits.peer"`},
		"file, type":     {nil, "listen = 5683\n", ":1: "},
		"file, syntax":   {nil, "listen = \":0\"\n[route\n", ":2: "},
		"file, duration": {nil, "timeout = \"never\"\n", `"never" is no duration`},
		"file, route":    {nil, "[[route]]\nto = \"h:1\"\n[[route]]\nkid = \"0\"\nto = \"h:1\"\n", "route 2: kid \"0\" is not hexadecimal"},
		"file, empty":    {nil, "listen = \":0\"\n", "give -forward, -via or -reverse"},
	} {
		t.Run(name, func(t *testing.T) {
			args := append([]string{"-check"}, c.args...)
			if c.file != "" {
				args = append(args, "-config", write(t, c.file))
			}
			var out bytes.Buffer
			if status := run(t.Context(), args, &out, nil); status != 2 || !strings.Contains(out.String(), c.want) {
				t.Errorf("status %d, %s\nwant %s", status, out.String(), c.want)
			}
		})
	}
}

// TestRun: a proxy by file and flags starts, says so, and ends when told to.
func TestRun(t *testing.T) {
	file := write(t, "listen = \"127.0.0.1:0\"\ndrain = \"1s\"\n[[route]]\nkid = \"\"\nto = \"127.0.0.1:1\"\n")
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	var out bytes.Buffer
	if status := run(ctx, []string{"-config", file, "-forward", "127.0.0.0/8"}, &out, nil); status != 0 {
		t.Fatalf("status %d: %s", status, out.String())
	}
	for _, want := range []string{"proxy listens", "forward=true", "routes=1", "proxy ends"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in %s", want, out.String())
		}
	}
}
