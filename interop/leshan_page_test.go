//go:build interop

package interop

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/oscorelay/oscorelay/internal/proof"
	"github.com/oscorelay/oscorelay/internal/sim"
	"github.com/oscorelay/oscorelay/interop/peer"
)

// press presses a button (OBS, R, W, EXE) of a resource on the page of
// Leshan's demo server: of the innermost element that holds the path and it.
const press = `(path, name) => {
	const shown = e => e.innerText.trim();
	let e = [...document.querySelectorAll("main *")].find(e => e.children.length == 0 && shown(e) == path);
	for (; e && e.tagName != "MAIN"; e = e.parentElement) {
		const b = [...e.querySelectorAll("button")].find(b => shown(b) == name);
		if (b) { b.click(); return true; }
	}
	return false;
}`

// TestLeshanDemoPage uses the demo server's page in a real browser, as a
// person would, on a sealed device behind the daemon. OSCORELAY_PICTURES
// names a folder for pictures of it.
func TestLeshanDemoPage(t *testing.T) {
	t.Parallel()
	b := newBehindOscored(t, leshanServers[0])
	b.register(t)
	page := peer.OpenPage(t, b.server.Page+"/#/clients")
	picture := func(name string) {
		if dir := os.Getenv("OSCORELAY_PICTURES"); dir != "" {
			page.Screenshot(filepath.Join(dir, name))
		}
	}
	shows := func(what string) {
		page.Await(what, fmt.Sprintf("document.body.innerText.includes(%q)", what))
	}
	button := func(path, name string) {
		page.Await(name+" of "+path, fmt.Sprintf("(%s)(%q, %q)", press, path, name))
	}
	shows(meter)
	picture("clients.png")
	page.Eval(fmt.Sprintf("location.hash = '#/clients/%s/3'", meter))
	button("/3/0/0", "R")
	shows(b.device.Manufacturer())
	button("/3/0/9", "OBS")
	shows("100")
	b.device.Battery(t, 57)
	shows("57")
	b.daemon.Crash()
	b.device.Battery(t, 58)
	shows("58")
	mark := b.device.Mark()
	button("/3/0/4", "EXE")
	b.device.AwaitEvent(t, mark, "execution", func(e sim.Event) bool { return e.Event == "executed" && e.Path == "/3/0/4" })
	if n := b.device.Executed(); n != 1 {
		t.Errorf("/3/0/4 ran %d times", n)
	}
	picture("device.png")
	b.sealed(t)
	proof.Interop(t, peer.Version(t, "leshan-demo"), "our device → oscored → its plain server", "its web page in a browser: Read, Observe, Execute, kill -9 of oscored")
}
