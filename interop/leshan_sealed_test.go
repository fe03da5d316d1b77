//go:build interop

package interop

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/oscorelay/oscorelay/internal/proof"
	"github.com/oscorelay/oscorelay/internal/sim"
	"github.com/oscorelay/oscorelay/interop/ours"
	"github.com/oscorelay/oscorelay/interop/peer"
)

// TestHarnessLeshanSealed lets Leshan's own client and server speak OSCORE to
// each other.
func TestHarnessLeshanSealed(t *testing.T) {
	t.Parallel()
	ctx := lwm2mContext(1)
	server := peer.Leshan15Sealed(t, map[string]peer.Context{"sealed": ctx})
	relay := peer.NewRelay(t, server.Addr)
	device := peer.LeshanDeviceSealed(t, relay.URI(), "sealed", ctx)
	server.AwaitRegistered(t, 0, "sealed")
	everySealedOperation(t, server, device)
	hidesDevice(t, relay, device)
	relay.Capture().SingleUse(t)
}

// lwm2mContext is a device's context: its kid ends with the number.
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
	mark := device.Mark()
	writeImage(ep).must(t, server)
	device.AwaitPackage(t, mark, largeImage)
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

// hidesDevice fails the test unless the leg shows OSCORE alone and nothing of
// what the operations on the device say.
func hidesDevice(t *testing.T, leg *peer.Relay, devices ...lwm2mDevice) {
	t.Helper()
	leg.Capture().Sealed(t)
	leg.Capture().Hides(t, "lwm2m", "+07", "\xa5\xa5\xa5\xa5\xa5\xa5\xa5\xa5")
	for _, d := range devices {
		leg.Capture().Hides(t, d.Name(), d.Manufacturer())
	}
}

// behindProxy is Leshan's own OSCORE server, which finds a device's context by
// the device's address, behind the keyless proxy: that gives each device an
// upstream port of its own.
type behindProxy struct {
	server        *peer.Leshan
	front, behind *peer.Relay
}

// proxyPath names the path in docs/REQUIREMENTS.md.
const proxyPath = "udp-proxy (oscore-proxy, LwM2M)"

func newBehindProxy(t *testing.T, contexts map[string]peer.Context) behindProxy {
	t.Helper()
	server := peer.Leshan15Sealed(t, contexts)
	behind := peer.NewRelay(t, server.Addr)
	port := peer.FreePort(t)
	// Without a Hop-Limit, what the proxy passes is protected to the last bit.
	config := fmt.Sprintf("listen = %q\nper_client = true\nhop_limit = -1\n[[route]]\nto = %q\n", peer.Loopback(port), behind.Addr())
	file := filepath.Join(t.TempDir(), "proxy.toml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	ours.Program(t, "oscore-proxy", "-config", file).AwaitPing(port)
	return behindProxy{server, peer.NewRelay(t, peer.Loopback(port)), behind}
}

// join starts one of our devices and has it register.
func (p behindProxy) join(t *testing.T, ep string, ctx peer.Context) *ours.Device {
	t.Helper()
	d := ours.StartDevice(t, p.front.Addr(), ep, &ctx, sim.DeviceConfig{})
	from := p.server.Seen()
	d.Register(t)
	p.server.AwaitRegistered(t, from, ep)
	return d
}

// TestLeshanBehindProxy has two of our devices, and two of Leshan's, do and
// undergo everything through the proxy, which sees nothing of it.
func TestLeshanBehindProxy(t *testing.T) {
	t.Parallel()
	contexts := map[string]peer.Context{"first": lwm2mContext(1), "second": lwm2mContext(2), "third": lwm2mContext(3), "fourth": lwm2mContext(4)}
	p := newBehindProxy(t, contexts)
	var devices []lwm2mDevice
	for _, ep := range []string{"first", "second"} {
		devices = append(devices, p.join(t, ep, contexts[ep]))
	}
	for _, ep := range []string{"third", "fourth"} {
		devices = append(devices, peer.LeshanDeviceSealed(t, p.front.URI(), ep, contexts[ep]))
		p.server.AwaitRegistered(t, 0, ep)
	}
	addresses := map[string]bool{}
	for _, c := range p.server.Clients(t) {
		addresses[c.Address] = true
	}
	if len(addresses) != len(devices) {
		t.Errorf("the server sees %d devices at %v", len(devices), addresses)
	}
	for _, d := range devices {
		everySealedOperation(t, p.server, d)
	}
	for _, leg := range []*peer.Relay{p.front, p.behind} {
		hidesDevice(t, leg, devices...)
		for _, c := range leg.Capture().ByClient() {
			c.SingleUse(t)
		}
	}
	version := peer.Version(t, "leshan")
	for _, feature := range []string{
		"register, update", "Read, Write, Execute, Discover", "Read-Composite, Observe-Composite, notifications",
		"Write of 100 KB (Block1)", "Send",
	} {
		proof.Interop(t, version, "our device → oscore-proxy → its OSCORE server", feature)
		proof.Interop(t, version, "its OSCORE client → oscore-proxy → its OSCORE server", feature)
	}
	proof.Requirement(t, proxyPath, "E2E-2")
}
