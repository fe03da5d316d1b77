package main

import (
	"bytes"
	"io"
	"net/http"
	"os"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/oscorelay/oscorelay/internal/endpoint"
	"github.com/oscorelay/oscorelay/keys"
)

func read(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestDocumentedConfiguration: docs/OPERATIONS.md has every key with its default,
// word for word.
func TestDocumentedConfiguration(t *testing.T) {
	var want bytes.Buffer
	if err := printConfig(&want, &flags{}); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(read(t, "../../docs/OPERATIONS.md"), "```toml\n"+want.String()+"```\n") {
		t.Errorf("docs/OPERATIONS.md has another configuration than:\n%s", want.String())
	}
}

// TestDocumentedMetrics: every metric, reason and event stands in docs/OPERATIONS.md,
// and the alarms ask for what there is.
func TestDocumentedMetrics(t *testing.T) {
	_, entry := pair(t, "a", 1)
	p := newProcess(t, "127.0.0.1:9", []keys.Entry{entry}, "[[proxy]]\nname = \"p\"\nlisten = \"127.0.0.1:0\"\nvia = \"127.0.0.1:9\"\n")
	p.start(nil, "-init", "-fresh")
	defer p.end(syscall.SIGTERM)
	resp, err := http.Get(p.metrics("/metrics"))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	doc := read(t, "../../docs/OPERATIONS.md")
	there := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^# TYPE (oscored_\w+) `).FindAllStringSubmatch(string(b), -1) {
		there[m[1]] = true
		if !strings.Contains(doc, "| `"+m[1]+"`") && !strings.Contains(doc, "| `"+m[1]+"{") {
			t.Errorf("docs/OPERATIONS.md does not tell of %s", m[1])
		}
	}
	if len(there) < 15 {
		t.Errorf("only %d metrics", len(there))
	}
	names := 0
	for _, m := range regexp.MustCompile(`(?:reason|event)="(\w+)"`).FindAllStringSubmatch(string(b), -1) {
		names++
		if !strings.Contains(doc, "`"+m[1]+"`") {
			t.Errorf("docs/OPERATIONS.md does not tell of the reason %s", m[1])
		}
	}
	if names < 20 {
		t.Errorf("only %d reasons", names)
	}
	for _, name := range regexp.MustCompile(`oscored_\w+`).FindAllString(read(t, "../../packaging/alerts.yml"), -1) {
		if !there[name] {
			t.Errorf("packaging/alerts.yml asks for %s, which there is not", name)
		}
	}
	for name := range events {
		if !strings.Contains(string(b), `event="`+name+`"`) {
			t.Errorf("no gateway counts %s", name)
		}
	}
	if !events[string(endpoint.ReasonChallenge)] {
		t.Error("a challenge is no refusal")
	}
}

// TestPackaging: what the unit and the package say is so.
func TestPackaging(t *testing.T) {
	const file = "../../packaging/oscored.toml"
	c, l, err := readConfig(file)
	if err == nil {
		err = checkConfig(file, c, l)
	}
	if err != nil {
		t.Fatal(err)
	}
	unit := read(t, "../../packaging/oscored.service")
	for _, want := range []string{"ExecStart=/usr/bin/oscored -config " + systemConfig, "RestartPreventExitStatus=2 3", "StateDirectory=oscored oscored-anchors"} {
		if !strings.Contains(unit, want+"\n") {
			t.Errorf("the unit has no %q", want)
		}
	}
	if c.Store.Dir != "/var/lib/oscored" || c.Store.AnchorDir != "/var/lib/oscored-anchors" {
		t.Errorf("%+v is not where the unit lets it write", c.Store)
	}
	if exitConfig != 2 || exitStore != 3 {
		t.Error("the unit knows other exit statuses")
	}
	for _, name := range []string{"../../packaging/Dockerfile", "../../packaging/deb/postinst"} {
		if !strings.Contains(read(t, name), c.Store.AnchorDir) {
			t.Errorf("%s knows nothing of %s", name, c.Store.AnchorDir)
		}
	}
}
