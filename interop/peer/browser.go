package peer

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"
)

// Page is a page in a real browser, driven by its DevTools protocol over a
// pair of pipes.
type Page struct {
	t       testing.TB
	to      *os.File
	pipe    *os.File
	from    *bufio.Reader // of pipe
	session string
	number  int
}

// OpenPage starts a browser of its own and opens the address in it. Where no
// browser is installed the test is skipped.
func OpenPage(t testing.TB, url string) *Page {
	t.Helper()
	browser, err := exec.LookPath("chromium")
	if err != nil {
		t.Skip("chromium is not installed; run interop/setup.sh chromium")
	}
	commands, to, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	from, answers, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	Start(t, Spec{
		Name: "chromium", Path: browser, Dir: dir, Files: []*os.File{commands, answers},
		// Its own sandbox does not start for root; the page is ours.
		Args: []string{"--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--window-size=1280,900", "--user-data-dir=" + dir, "--remote-debugging-pipe"},
	})
	commands.Close()
	answers.Close()
	t.Cleanup(func() {
		to.Close()
		from.Close()
	})
	p := &Page{t: t, to: to, pipe: from, from: bufio.NewReader(from)}
	var target struct{ TargetID string }
	p.call("Target.createTarget", map[string]any{"url": url}, &target)
	var session struct{ SessionID string }
	p.call("Target.attachToTarget", map[string]any{"targetId": target.TargetID, "flatten": true}, &session)
	p.session = session.SessionID
	return p
}

// call sends a command and reads its result, past all events.
func (p *Page) call(method string, params, result any) {
	p.t.Helper()
	p.number++
	m := map[string]any{"id": p.number, "method": method, "params": params}
	if p.session != "" {
		m["sessionId"] = p.session
	}
	b, err := json.Marshal(m)
	if err == nil {
		_, err = p.to.Write(append(b, 0))
	}
	for err == nil {
		if err = p.pipe.SetReadDeadline(time.Now().Add(startPatience)); err != nil {
			break
		}
		if b, err = p.from.ReadBytes(0); err != nil {
			break
		}
		var r struct {
			ID     int
			Result json.RawMessage
			Error  *struct{ Message string }
		}
		if err = json.Unmarshal(bytes.TrimSuffix(b, []byte{0}), &r); err != nil || r.ID != p.number {
			continue
		}
		if r.Error != nil {
			err = fmt.Errorf("%s", r.Error.Message)
			break
		}
		if err = json.Unmarshal(r.Result, result); err == nil {
			return
		}
	}
	p.t.Fatalf("browser: %s: %v", method, err)
}

// Eval gives the value of a JavaScript expression as text.
func (p *Page) Eval(expression string) string {
	p.t.Helper()
	var r struct {
		Result struct {
			Value       any
			Description string
		}
		ExceptionDetails *struct{ Text string }
	}
	p.call("Runtime.evaluate", map[string]any{"expression": expression, "returnByValue": true}, &r)
	if r.ExceptionDetails != nil {
		return "exception: " + r.Result.Description
	}
	return fmt.Sprint(r.Result.Value)
}

// Await waits until the expression is true.
func (p *Page) Await(what, expression string) {
	p.t.Helper()
	poll := time.NewTicker(50 * time.Millisecond)
	defer poll.Stop()
	late := time.After(awaitPatience)
	for {
		v := p.Eval(expression)
		if v == "true" {
			return
		}
		select {
		case <-poll.C:
		case <-late:
			p.t.Fatalf("the page shows no %s (%s), but:\n%s", what, v, p.Eval("document.body.innerText"))
		}
	}
}

// Screenshot writes a picture of the page (PNG).
func (p *Page) Screenshot(file string) {
	p.t.Helper()
	var r struct{ Data string }
	p.call("Page.captureScreenshot", map[string]any{}, &r)
	b, err := base64.StdEncoding.DecodeString(r.Data)
	if err == nil {
		err = os.WriteFile(file, b, 0o600)
	}
	if err != nil {
		p.t.Fatalf("browser: screenshot: %v", err)
	}
}
