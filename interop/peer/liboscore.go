package peer

import (
	"net/netip"
	"path/filepath"
	"testing"
)

// LibOSCOREServer starts libOSCORE's server. more holds further arguments,
// such as echo=1 (Appendix B.1.2) or seq=N.
func LibOSCOREServer(t testing.TB, port uint16, c Context, more ...string) *Process {
	t.Helper()
	p := Start(t, Spec{
		Name: "libOSCORE server", Path: liboscorePeer(t),
		Args: append(append([]string{"server", Loopback(port).String()}, c.words("", false)...), more...),
	})
	p.AwaitLine("READY")
	return p
}

// LibOSCOREClient starts libOSCORE's client. It persists nothing: a second
// one on the same context needs seq=N.
func LibOSCOREClient(t testing.TB, server netip.AddrPort, c Context, more ...string) *Client {
	t.Helper()
	args := append([]string{"client", server.String()}, c.words("", true)...)
	if c.IDContext != nil && !c.OmitKIDContext {
		args = append(args, "kidctx=1")
	}
	return (&Client{Process: Start(t, Spec{
		Name: "libOSCORE client", Path: liboscorePeer(t), Args: append(args, more...),
	})}).ready()
}

func liboscorePeer(t testing.TB) string {
	t.Helper()
	return filepath.Join(Component(t, "liboscore"), "bin", "liboscore-peer")
}
