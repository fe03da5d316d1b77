package main

import (
	"bufio"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/oscorelay/oscorelay/internal/freeport"
)

// BenchmarkStart is the daemon itself with OSCORED_FLEET contexts in a CSV file,
// 100000 unless it is set: -init -fresh -once, then a start until /healthz. Anon is
// the process's own memory; file is pages of files, which the kernel takes back.
func BenchmarkStart(b *testing.B) {
	if runtime.GOOS != "linux" {
		b.Skip("needs /proc")
	}
	n := 100_000
	if s := os.Getenv("OSCORED_FLEET"); s != "" {
		var err error
		if n, err = strconv.Atoi(s); err != nil {
			b.Fatal(err)
		}
	}
	self, err := exec.LookPath("oscored")
	if err != nil {
		b.Fatal(err)
	}
	dir := b.TempDir()
	f, err := os.OpenFile(filepath.Join(dir, "keys.csv"), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		b.Fatal(err)
	}
	w := bufio.NewWriter(f)
	fmt.Fprintln(w, "name,master_secret_hex,sender_id_hex,recipient_id_hex")
	for i := range n {
		fmt.Fprintf(w, "urn:dev:os:32473-%07d,%016x%016x,01,%08x\n", i, (i+1)*0x9e3779b9, i+1, i)
	}
	if err := w.Flush(); err != nil {
		b.Fatal(err)
	}
	if err := f.Close(); err != nil {
		b.Fatal(err)
	}
	run := func(args ...string) *exec.Cmd {
		c := exec.Command(self, append([]string{"-config", "oscored.toml"}, args...)...)
		c.Dir, c.Env = dir, append(os.Environ(), "HOME="+dir)
		if err := c.Start(); err != nil {
			b.Fatal(err)
		}
		return c
	}
	for b.Loop() {
		for _, name := range []string{"store", "anchors"} {
			if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
				b.Fatal(err)
			}
		}
		listen, metrics := freeport.Get(b), freeport.Get(b)
		config := fmt.Sprintf("keys.files = [\"keys.csv\"]\n[store]\ndir = \"store\"\nanchor_dir = \"anchors\"\n[metrics]\nlisten = \"127.0.0.1:%d\"\n"+
			"[[terminate]]\nname = \"r\"\nlisten = \"127.0.0.1:%d\"\nbackend = \"127.0.0.1:9\"\n", metrics, listen)
		if err := os.WriteFile(filepath.Join(dir, "oscored.toml"), []byte(config), 0o600); err != nil {
			b.Fatal(err)
		}
		begun := time.Now()
		c := run("-init", "-fresh", "-once")
		if err := c.Wait(); err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(time.Since(begun).Seconds(), "import-s")
		b.ReportMetric((c.ProcessState.UserTime() + c.ProcessState.SystemTime()).Seconds(), "import-cpu-s")
		b.ReportMetric(float64(c.ProcessState.SysUsage().(*syscall.Rusage).Maxrss)/1024, "import-peak-MB")
		begun = time.Now()
		c = run()
		for ready := false; !ready; {
			if time.Since(begun) > time.Minute {
				_ = c.Process.Kill()
				b.Fatal("it does not serve")
			}
			resp, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/healthz", metrics))
			if err == nil {
				ready = resp.StatusCode == http.StatusOK
				_ = resp.Body.Close()
			}
			time.Sleep(time.Millisecond) // the figure's grain
		}
		b.ReportMetric(time.Since(begun).Seconds(), "ready-s")
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.Process.Pid))
		if err != nil {
			b.Fatal(err)
		}
		for line := range strings.Lines(string(status)) {
			for kind, unit := range map[string]string{"RssAnon:": "ready-anon-MB", "RssFile:": "ready-file-MB"} {
				if rest, ok := strings.CutPrefix(line, kind); ok {
					kB, err := strconv.Atoi(strings.Fields(rest)[0])
					if err != nil {
						b.Fatal(err)
					}
					b.ReportMetric(float64(kB)/1024, unit)
				}
			}
		}
		begun = time.Now()
		if err := c.Process.Signal(syscall.SIGTERM); err != nil {
			b.Fatal(err)
		}
		if err := c.Wait(); err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(time.Since(begun).Seconds(), "stop-s")
	}
	b.ReportMetric(0, "ns/op")
}
