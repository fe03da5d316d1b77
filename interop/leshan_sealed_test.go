//go:build interop

package interop

import (
	"testing"

	"github.com/oscorelay/oscorelay/interop/ours"
	"github.com/oscorelay/oscorelay/interop/peer"
)

// TestHarnessLeshanSealed lets Leshan's own client and server speak OSCORE to
// each other, with Appendix B.2 and without.
func TestHarnessLeshanSealed(t *testing.T) {
	t.Parallel()
	ctx := lwm2mContext(1)
	server := peer.Leshan15Sealed(t, map[string]peer.Context{"sealed": ctx})
	relay := peer.NewRelay(t, server.Addr)
	device := peer.LeshanDeviceSealed(t, relay.URI(), "sealed", ctx)
	server.AwaitRegistered(t, 0, "sealed")
	everySealedOperation(t, server, device)
	relay.Capture().Sealed(t)
	relay.Capture().SingleUse(t)
	relay.Capture().Hides(t, "sealed", "lwm2m", "peer", "+07")
}

// lwm2mContext is a device's context: its kid is the number.
func lwm2mContext(device byte) peer.Context {
	c := peer.Interop(false)
	c.ClientID, c.ServerID = []byte{0xd0, device}, []byte{0x5e}
	c.Secret = append([]byte{device}, c.Secret[1:]...)
	return c
}

// everySealedOperation plays what Leshan M15's own OSCORE server can do. It
// takes single observations for composite ones once they are sealed.
func everySealedOperation(t *testing.T, server *peer.Leshan, device lwm2mDevice) {
	t.Helper()
	ep := device.Name()
	if got := server.Read(t, ep, "/3/0/0").Values["/3/0/0"]; got != device.Manufacturer() {
		t.Errorf("/3/0/0 is %q", got)
	}
	server.Write(t, ep, "/3/0/14", "+07")
	server.Execute(t, ep, "/3/0/4")
	server.Discover(t, ep, "/3")
	from := server.Seen()
	server.ObserveComposite(t, ep, "/3/0/9", "/3/0/14")
	device.Battery(t, 77)
	server.AwaitNotification(t, from, ep, "/3/0/9", "77")
	server.ReadComposite(t, ep, "/3/0/0", "/3/0/9")
	device.Send(t, "/3/0/9")
	server.Await(t, from, "Send", func(e peer.LeshanEvent) bool {
		return e.Kind == "send" && e.Endpoint == ep && e.Values["/3/0/9"] == "77"
	})
	device.Update(t)
	server.Await(t, from, "update", func(e peer.LeshanEvent) bool { return e.Kind == "updated" && e.Endpoint == ep })
	if n := device.Executed(); n != 1 {
		t.Errorf("/3/0/4 ran %d times", n)
	}
}

// TestLeshanBehindProxy puts the keyless proxy before Leshan's own OSCORE
// server, which finds a device's context by the device's address: two devices,
// each with an upstream port of its own.
func TestLeshanBehindProxy(t *testing.T) {
	t.Parallel()
	contexts := map[string]peer.Context{"one": lwm2mContext(1), "two": lwm2mContext(2)}
	server := peer.Leshan15Sealed(t, contexts)
	behind := peer.NewRelay(t, server.Addr)
	port := peer.FreePort(t)
	ours.Program(t, "oscore-proxy", "-listen", peer.Loopback(port).String(), "-per-client", "-reverse", behind.Addr().String()).AwaitPing(port)
	front := peer.NewRelay(t, peer.Loopback(port))
	for ep, ctx := range contexts {
		device := peer.LeshanDeviceSealed(t, front.URI(), ep, ctx)
		server.AwaitRegistered(t, 0, ep)
		everySealedOperation(t, server, device)
	}
	for _, leg := range []*peer.Relay{front, behind} {
		leg.Capture().Sealed(t)
		for _, c := range leg.Capture().ByClient() {
			c.SingleUse(t)
		}
		leg.Capture().Hides(t, "lwm2m", "peer", "+07")
	}
}
