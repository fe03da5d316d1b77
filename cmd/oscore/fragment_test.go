package main

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// runTool runs the tool in a directory and returns what it prints.
func runTool(t *testing.T, dir string, args ...string) string {
	t.Helper()
	cmd := exec.Command("oscore", args...)
	cmd.Dir = dir
	out, err := cmd.Output()
	if err != nil {
		var stderr []byte
		if x, ok := err.(*exec.ExitError); ok {
			stderr = x.Stderr
		}
		t.Fatalf("oscore %s: %v\n%s", strings.Join(args, " "), err, stderr)
	}
	return string(out)
}

// waitFor waits until the condition holds, or fails the test.
func waitFor(t *testing.T, what string, holds func() bool) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !holds() {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// A real fetch process is killed, again and again, without a chance to tidy
// up; the next one goes on with what was verified, and at no moment does the
// file hold a byte that is not the image's.
func TestFragmentFetchSurvivesKill(t *testing.T) {
	dir := t.TempDir()
	image := make([]byte, 3<<20)
	_, _ = rand.Read(image)
	if err := os.WriteFile(filepath.Join(dir, "firmware.bin"), image, 0o600); err != nil {
		t.Fatal(err)
	}
	runTool(t, dir, "fragment", "keygen")
	runTool(t, dir, "fragment", "sign", "-key", "author.key", "-seq", "1", "-vendor", "v", "-class", "c", "firmware.bin")
	runTool(t, dir, "fragment", "cut", "-manifest", "firmware.bin.cose", "-unit", "256", "firmware.bin")
	server := exec.Command("oscore", "fragment", "serve", "-quiet", "-listen", "127.0.0.1:0", "-uris", "uris", ".")
	server.Dir = dir
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Process.Kill(); _ = server.Wait() })
	var uri string
	waitFor(t, "the server", func() bool {
		b, _ := os.ReadFile(filepath.Join(dir, "uris"))
		uri = strings.TrimSpace(string(b))
		return uri != ""
	})
	args := []string{"fragment", "fetch", "-json", "-key", "author.pub", "-vendor", "v", "-class", "c", "-window", "1", "-o", "got.bin", uri}
	part := filepath.Join(dir, "got.bin.part")
	progress := func() int64 {
		info, err := os.Stat(part)
		if err != nil {
			return 0
		}
		return info.Size()
	}
	killed := 0
	for target := int64(300_000); target < 2_000_000; target += 500_000 {
		cmd := exec.Command("oscore", args...)
		cmd.Dir = dir
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan struct{})
		go func() { _ = cmd.Wait(); close(ended) }()
		waitFor(t, "progress", func() bool {
			select {
			case <-ended:
				return true
			default:
				return progress() > target
			}
		})
		_ = cmd.Process.Kill()
		<-ended
		if _, err := os.Stat(filepath.Join(dir, "got.bin")); err == nil {
			break // it was faster than the kill
		}
		killed++
		got, err := os.ReadFile(part)
		if err != nil {
			t.Fatal(err)
		}
		// Holes that were not written yet read as zeros.
		for at := 0; at < len(got); at += 256 {
			unit := got[at:min(at+256, len(got))]
			if !bytes.Equal(unit, image[at:at+len(unit)]) && !bytes.Equal(unit, make([]byte, len(unit))) {
				t.Fatalf("unverified bytes in the file at %d", at)
			}
		}
	}
	if killed == 0 {
		t.Skip("this machine downloads faster than it can kill: nothing to resume")
	}
	var result struct {
		Resumed int64 `json:"resumed_bytes"`
	}
	if err := json.Unmarshal([]byte(runTool(t, dir, args...)), &result); err != nil {
		t.Fatal(err)
	}
	if result.Resumed < 250_000 {
		t.Fatalf("after %d kills only %d bytes were resumed", killed, result.Resumed)
	}
	got, err := os.ReadFile(filepath.Join(dir, "got.bin"))
	if err != nil || !bytes.Equal(got, image) {
		t.Fatalf("the image differs: %v", err)
	}
	t.Logf("%d kills, %d bytes resumed at the last", killed, result.Resumed)
}

// firmwareLike returns a file of a Debian package that is the like of a
// device's firmware.
func firmwareLike(t *testing.T) string {
	t.Helper()
	for _, pattern := range []string{
		"/lib/firmware/*.bin", "/lib/firmware/*/*.bin", "/usr/lib/u-boot/*/u-boot.bin", "/boot/vmlinuz-*",
		"/var/cache/apt/archives/*.deb", "/usr/lib/x86_64-linux-gnu/libc.so.6", "/usr/lib/aarch64-linux-gnu/libc.so.6", "/bin/bash",
	} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range found {
			if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Size() > 100_000 && info.Size() < 64<<20 {
				return path
			}
		}
	}
	t.Skip("no file of a Debian package found that is the like of a firmware")
	return ""
}

// One signature over a real file, cut for blocks of 64 bytes and of 1024: both
// are downloaded, and give the same bytes.
func TestFragmentRealFileOneSignatureTwoLayouts(t *testing.T) {
	source := firmwareLike(t)
	image, err := os.ReadFile(source)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "firmware.bin"), image, 0o600); err != nil {
		t.Fatal(err)
	}
	runTool(t, dir, "fragment", "keygen", "-alg", "ESP256")
	runTool(t, dir, "fragment", "sign", "-key", "author.key", "-seq", "1", "-vendor", "v", "-class", "c", "-leaf", "64", "firmware.bin")
	for _, unit := range []string{"64", "1024"} {
		runTool(t, dir, "fragment", "cut", "-manifest", "firmware.bin.cose", "-unit", unit, "firmware.bin")
	}
	server := exec.Command("oscore", "fragment", "serve", "-quiet", "-listen", "127.0.0.1:0", "-uris", "uris", ".")
	server.Dir = dir
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Process.Kill(); _ = server.Wait() })
	var uris []string
	waitFor(t, "the server", func() bool {
		b, _ := os.ReadFile(filepath.Join(dir, "uris"))
		uris = strings.Fields(string(b))
		return len(uris) == 2
	})
	for _, uri := range uris {
		out := "got" + uri[len(uri)-8:]
		t.Log(strings.TrimSpace(runTool(t, dir, "fragment", "fetch", "-key", "author.pub", "-vendor", "v", "-class", "c", "-o", out, uri)))
		got, err := os.ReadFile(filepath.Join(dir, out))
		if err != nil || !bytes.Equal(got, image) {
			t.Fatalf("%s: the image differs: %v", uri, err)
		}
	}
	t.Logf("%s, %d bytes", source, len(image))
}
