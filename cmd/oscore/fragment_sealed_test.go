package main

import (
	"bytes"
	"crypto/rand"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The manifest comes sealed from a server with keys, the blocks from a plain
// mirror that nobody trusts.
func TestFragmentSealedManifest(t *testing.T) {
	x := newTool(t)
	dir := t.TempDir()
	image := make([]byte, 100_000)
	_, _ = rand.Read(image)
	if err := os.WriteFile(filepath.Join(dir, "firmware.bin"), image, 0o600); err != nil {
		t.Fatal(err)
	}
	runTool(t, dir, "fragment", "keygen")
	runTool(t, dir, "fragment", "sign", "-key", "author.key", "-seq", "1", "-vendor", "v", "-class", "c", "firmware.bin")
	runTool(t, dir, "fragment", "cut", "-manifest", "firmware.bin.cose", "-unit", "256", "firmware.bin")
	x.run(0, "put", "--format", "octets", "--data", "@"+filepath.Join(dir, "firmware.bin.cose"), "coap://"+x.addr+"/large")

	server := exec.Command("oscore", "fragment", "serve", "-quiet", "-listen", "127.0.0.1:0", "-uris", "uris", ".")
	server.Dir = dir
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Process.Kill(); _ = server.Wait() })
	var uri string
	waitFor(t, "the mirror", func() bool {
		b, _ := os.ReadFile(filepath.Join(dir, "uris"))
		uri = strings.TrimSpace(string(b))
		return uri != ""
	})
	runTool(t, dir, "fragment", "fetch", "-key", "author.pub", "-vendor", "v", "-class", "c", "-o", "got.bin",
		"-manifest", "coap://"+x.addr+"/large", "-keys", x.dir, uri)
	got, err := os.ReadFile(filepath.Join(dir, "got.bin"))
	if err != nil || !bytes.Equal(got, image) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	asked := false
	for len(x.serverLine) > 0 {
		l := <-x.serverLine
		asked = asked || l.Event == "handled" && l.Method == "GET" && l.Path == "/large" && l.Peer == "client"
	}
	if !asked {
		t.Error("the manifest was not asked of the sealed server")
	}
	// A sealed resource that is not the pinned manifest is refused.
	x.run(0, "put", "--data", "something else", "coap://"+x.addr+"/large")
	cmd := exec.Command("oscore", "fragment", "fetch", "-key", "author.pub", "-vendor", "v", "-class", "c", "-o", "other.bin",
		"-manifest", "coap://"+x.addr+"/large", "-keys", x.dir, uri)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "manifest") {
		t.Errorf("%v %s", err, out)
	}
}
