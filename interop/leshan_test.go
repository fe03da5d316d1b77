//go:build interop

package interop

import (
	"slices"
	"strings"
	"testing"

	"github.com/oscorelay/oscorelay/internal/sim"
	"github.com/oscorelay/oscorelay/interop/ours"
	"github.com/oscorelay/oscorelay/interop/peer"
)

// leshanServer is one version of Leshan's server that speaks plain CoAP.
type leshanServer struct {
	name, component string
	start           func(t testing.TB) *peer.Leshan
	composite       bool // its interface has composite operations
}

var leshanServers = []leshanServer{
	{"M4", "leshan-demo", peer.LeshanDemo, false},
	{"M15", "leshan", func(t testing.TB) *peer.Leshan { return peer.Leshan15(t) }, true},
	{"M18", "leshan18", func(t testing.TB) *peer.Leshan { return peer.Leshan18(t) }, true},
}

// lwm2mDevice is a device that registered: ours, or Leshan's own client.
type lwm2mDevice interface {
	Name() string
	Manufacturer() string
	Battery(t testing.TB, level int)
	Executed() int
	Update(t testing.TB)
	Send(t testing.TB, paths ...string)
	Leave(t testing.TB)
	Mark() int
	AwaitPackage(t testing.TB, mark, bytes int)
}

// TestHarnessLeshan lets Leshan's own client, and then our device, stand before
// each server with nothing in between: what fails here is the harness, a
// device or Leshan.
func TestHarnessLeshan(t *testing.T) {
	t.Parallel()
	for _, s := range leshanServers {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			server := s.start(t)
			theirs := peer.LeshanDevicePlain(t, "coap://"+server.Addr.String(), "theirs")
			server.AwaitRegistered(t, 0, "theirs")
			everyLeshanOperation(t, s, server, theirs)
			ours := ours.StartDevice(t, server.Addr, "ours", nil, sim.DeviceConfig{})
			ours.Register(t)
			server.AwaitRegistered(t, 0, "ours")
			everyLeshanOperation(t, s, server, ours)
		})
	}
}

// largeImage is what is written as firmware, in bytes.
const largeImage = 100_000

// everyLeshanOperation plays what a server can do to a device, and a device to
// a server.
func everyLeshanOperation(t *testing.T, s leshanServer, server *peer.Leshan, device lwm2mDevice) {
	t.Helper()
	ep := device.Name()
	if got := server.Read(t, ep, "/3/0/0").Values["/3/0/0"]; got != device.Manufacturer() {
		t.Errorf("/3/0/0 is %q", got)
	}
	server.Write(t, ep, "/3/0/14", "+07")
	if got := server.Read(t, ep, "/3/0/14").Values["/3/0/14"]; got != "+07" {
		t.Errorf("/3/0/14 is %q after the write", got)
	}
	server.Execute(t, ep, "/3/0/4")
	if n := device.Executed(); n != 1 {
		t.Errorf("/3/0/4 ran %d times", n)
	}
	if links := server.Discover(t, ep, "/3"); !slices.ContainsFunc(links, func(l string) bool { return strings.Contains(l, "/3/0/9") }) {
		t.Errorf("the links below /3: %q", links)
	}

	from := server.Seen()
	server.Observe(t, ep, "/3/0/9")
	device.Battery(t, 77)
	server.AwaitNotification(t, from, ep, "/3/0/9", "77")
	server.CancelObserve(t, ep, "/3/0/9")

	if s.composite {
		from = server.Seen()
		both := server.ObserveComposite(t, ep, "/3/0/9", "/3/0/14").Values
		if both["/3/0/9"] != "77" || both["/3/0/14"] != "+07" {
			t.Errorf("the composite observation begins with %v", both)
		}
		device.Battery(t, 78)
		server.AwaitNotification(t, from, ep, "/3/0/9", "78")
		if got := server.ReadComposite(t, ep, "/3/0/0", "/3/0/9").Values["/3/0/0"]; got != device.Manufacturer() {
			t.Errorf("the composite read has /3/0/0 %q", got)
		}
	}

	mark := device.Mark()
	writeImage(ep).must(t, server)
	device.AwaitPackage(t, mark, largeImage)

	server.Trace(t, ep)
	from = server.Seen()
	device.Send(t, "/3/0/9")
	server.Await(t, from, "Send", func(e peer.LeshanEvent) bool { return e.Kind == "send" && e.Endpoint == ep })
	device.Update(t)
	server.Await(t, from, "update", func(e peer.LeshanEvent) bool { return e.Kind == "updated" && e.Endpoint == ep })
	device.Leave(t)
	server.Await(t, from, "deregistration", func(e peer.LeshanEvent) bool { return e.Kind == "deregistered" && e.Endpoint == ep })
}

// imageWrite is the command that writes the image.
type imageWrite peer.LeshanCommand

func writeImage(ep string) imageWrite {
	return imageWrite{Op: "write", Endpoint: ep, Path: "/5/0/0", Opaque: strings.Repeat("a5", largeImage)}
}

func (w imageWrite) must(t *testing.T, server *peer.Leshan) {
	t.Helper()
	server.Do(t, peer.LeshanCommand(w)).Must(t, 204, "the write of the image")
}
