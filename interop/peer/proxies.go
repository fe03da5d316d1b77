package peer

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// CaliforniumProxy starts Californium's forward proxy, which knows no OSCORE.
func CaliforniumProxy(t testing.TB, port uint16) *Process {
	t.Helper()
	dir := Component(t, "californium-proxy")
	java, err := exec.LookPath("java")
	if err != nil {
		t.Skip("java is not installed")
	}
	p := Start(t, Spec{Name: "Californium proxy", Path: java, Args: []string{
		"-Xmx128m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Dorg.slf4j.simpleLogger.defaultLogLevel=error",
		"-cp", filepath.Join(dir, "classes") + ":" + filepath.Join(dir, "lib", "*"), "peer.CfProxy", fmt.Sprint(port),
	}})
	p.AwaitLine("READY")
	return p
}

// LibcoapProxy starts libcoap's server as a forward proxy that knows no OSCORE:
// to the servers that clients name, or to a next proxy if one is given.
func LibcoapProxy(t testing.TB, port uint16, next netip.AddrPort) *Process {
	t.Helper()
	upstream := ""
	if next.IsValid() {
		upstream = "coap://" + next.String()
	}
	return LibcoapServer(t, port, "-P", upstream+",proxy.test")
}

// OSCOREProxy starts this project's keyless proxy in a process of its own.
func OSCOREProxy(t testing.TB, port uint16, more ...string) *Process {
	t.Helper()
	p := Start(t, Spec{Name: "oscore-proxy", Path: Program(t, "oscore-proxy"), Args: append([]string{"-listen", Loopback(port).String()}, more...)})
	p.AwaitPing(port)
	return p
}

var built struct {
	sync.Mutex
	dir   string
	files map[string]string
}

// Program builds a command of this project, once for all tests, and gives its
// file. [RemovePrograms] takes it away.
func Program(t testing.TB, name string) string {
	t.Helper()
	built.Lock()
	defer built.Unlock()
	if file, ok := built.files[name]; ok {
		return file
	}
	if built.dir == "" {
		dir, err := os.MkdirTemp("", "interop-bin-")
		if err != nil {
			t.Fatal(err)
		}
		built.dir, built.files = dir, map[string]string{}
	}
	file := filepath.Join(built.dir, name)
	build := exec.Command("go", "build", "-o", file, "./cmd/"+name)
	build.Dir = Root(t)
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build ./cmd/%s: %v\n%s", name, err, out)
	}
	built.files[name] = file
	return file
}

// RemovePrograms removes what [Program] built, at the end of all tests.
func RemovePrograms() error {
	built.Lock()
	defer built.Unlock()
	return os.RemoveAll(built.dir)
}
