//go:build interop

package interop

import (
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/oscorelay/oscorelay/interop/peer"
)

// leshanServer is one version of Leshan's server that speaks plain CoAP.
type leshanServer struct {
	name, component string
	start           func(t testing.TB) *peer.Leshan
	composite       bool // its interface has composite operations
	octets          bool // it shows octets where the device's objects are newer than it: object 3 version 1.2
}

// text and number are how the server shows a value of Leshan's own client.
func (s leshanServer) text(v string) string {
	if s.octets {
		return hex.EncodeToString([]byte(v))
	}
	return v
}

func (s leshanServer) number(v int) string {
	if s.octets {
		return fmt.Sprintf("%02x", v)
	}
	return strconv.Itoa(v)
}

var leshanServers = []leshanServer{
	{"M4", "leshan-demo", peer.LeshanDemo, false, true},
	{"M15", "leshan", peer.Leshan15, true, false},
	{"M18", "leshan18", peer.Leshan18, true, false},
}

// TestHarnessLeshan lets Leshan's own client stand before each server, with
// nothing in between: what fails here is the harness or Leshan.
func TestHarnessLeshan(t *testing.T) {
	t.Parallel()
	for _, s := range leshanServers {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			server := s.start(t)
			device := peer.LeshanDevicePlain(t, "coap://"+server.Addr.String(), "plain")
			server.AwaitRegistered(t, 0, "plain")
			everyLeshanOperation(t, s, server, device)
		})
	}
}

// everyLeshanOperation plays what a server can do to Leshan's own client.
func everyLeshanOperation(t *testing.T, s leshanServer, server *peer.Leshan, device *peer.LeshanDevice) {
	t.Helper()
	ep := device.Endpoint
	if got := server.Read(t, ep, "/3/0/0").Values["/3/0/0"]; got != s.text("peer") {
		t.Errorf("/3/0/0 is %q", got)
	}
	server.Write(t, ep, "/3/0/14", "+07")
	if got := server.Read(t, ep, "/3/0/14").Values["/3/0/14"]; got != s.text("+07") {
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
	server.AwaitNotification(t, from, ep, "/3/0/9", s.number(77))
	server.CancelObserve(t, ep, "/3/0/9")

	if s.composite {
		from = server.Seen()
		both := server.ObserveComposite(t, ep, "/3/0/9", "/3/0/14").Values
		if both["/3/0/9"] != "77" || both["/3/0/14"] != "+07" {
			t.Errorf("the composite observation begins with %v", both)
		}
		device.Battery(t, 78)
		server.AwaitNotification(t, from, ep, "/3/0/9", "78")
		if got := server.ReadComposite(t, ep, "/3/0/0", "/3/0/9").Values["/3/0/0"]; got != "peer" {
			t.Errorf("the composite read has /3/0/0 %q", got)
		}
	}

	seen := device.Seen()
	image := strings.Repeat("a5", 100_000)
	server.Do(t, peer.LeshanCommand{Op: "write", Endpoint: ep, Path: "/5/0/0", Opaque: image}).Must(t, 204, "100 KB")
	device.Await(t, seen, "write of 100 KB", func(e peer.LeshanEvent) bool { return e.Path == "/5/0/0" && e.Bytes == 100_000 })

	server.Trace(t, ep)
	from = server.Seen()
	device.Send(t, "/3/0/9")
	server.Await(t, from, "Send", func(e peer.LeshanEvent) bool { return e.Kind == "send" && e.Endpoint == ep })
	device.Update(t)
	server.Await(t, from, "update", func(e peer.LeshanEvent) bool { return e.Kind == "updated" && e.Endpoint == ep })
	device.Leave(t)
	server.Await(t, from, "deregistration", func(e peer.LeshanEvent) bool { return e.Kind == "deregistered" && e.Endpoint == ep })
}
