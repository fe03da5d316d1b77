package peer

import (
	"fmt"
	"testing"
)

func cfPeer(t testing.TB, name string, args ...string) Spec {
	t.Helper()
	return javaSpec(t, name, "californium", quietLogs, "peer.CfPeer", args...)
}

// CaliforniumServer starts Californium's server. more holds further arguments,
// such as --b2 (Appendix B.2).
func CaliforniumServer(t testing.TB, port uint16, c Context, more ...string) *Process {
	t.Helper()
	args := append([]string{"server", fmt.Sprintf("--port=%d", port)}, c.words("--", false)...)
	p := Start(t, cfPeer(t, "Californium server", append(args, more...)...))
	p.AwaitLine("READY")
	return p
}

// CaliforniumClient starts Californium's client for the server at the URI.
func CaliforniumClient(t testing.TB, uri string, c Context, more ...string) *Client {
	t.Helper()
	args := append([]string{"client", "--uri=" + uri}, c.words("--", true)...)
	return (&Client{Process: Start(t, cfPeer(t, "Californium client", append(args, more...)...))}).ready()
}
