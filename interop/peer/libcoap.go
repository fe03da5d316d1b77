package peer

import (
	"fmt"
	"os/exec"
	"testing"
)

// LibcoapServer starts Debian's libcoap server, which knows no OSCORE.
// more holds further arguments, such as -P ,proxy.test (forward proxy).
func LibcoapServer(t testing.TB, port uint16, more ...string) *Process {
	t.Helper()
	Component(t, "debian")
	path, err := exec.LookPath("coap-server-notls")
	if err != nil {
		t.Skip("coap-server-notls is not installed (Debian: libcoap3-bin)")
	}
	p := Start(t, Spec{
		Name: "libcoap server", Path: path,
		Args: append([]string{"-A", "127.0.0.1", "-p", fmt.Sprint(port)}, more...),
	})
	p.AwaitPing(port)
	return p
}
