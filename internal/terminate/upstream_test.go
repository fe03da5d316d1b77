package terminate

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"testing"

	"github.com/oscorelay/oscorelay/internal/coap"
	"github.com/oscorelay/oscorelay/internal/sim"
)

func TestUpstreamAddresses(t *testing.T) {
	for _, c := range []struct {
		prefix string
		index  uint32
		want   string // empty: no room
	}{
		{"127.64.0.0/10", 0, "127.64.1.0"},
		{"127.64.0.0/10", 1, "127.64.1.1"},
		{"127.64.0.0/10", 4194046, "127.127.255.254"},
		{"127.64.0.0/10", 4194047, ""},
		{"127.1.0.0/16", 65279, ""},
		{"fd5c:0:0:1::/64", 4294967295, "fd5c::1:0:1:0:ff"},
		{"fd5c::/48", 7, "fd5c::107"},
	} {
		p := netip.MustParsePrefix(c.prefix)
		got, ok := upstreamAddr(p, c.index)
		if ok != (c.want != "") || ok && got.String() != c.want {
			t.Errorf("%s, %d: %v, %v, want %q", c.prefix, c.index, got, ok, c.want)
		}
		if !ok {
			continue
		}
		if back, ok := upstreamIndex(p, got); !ok || back != c.index {
			t.Errorf("%v: %d, %v", got, back, ok)
		}
	}
	for _, addr := range []string{"127.64.0.0", "127.64.0.255", "127.0.0.1", "10.0.0.1", "::1"} {
		if i, ok := upstreamIndex(netip.MustParsePrefix("127.64.0.0/10"), netip.MustParseAddr(addr)); ok {
			t.Errorf("%s is that of %d", addr, i)
		}
	}
	if _, ok := upstreamIndex(netip.MustParsePrefix("fd5c::/48"), netip.MustParseAddr("fd5c:0:0:1::107")); ok {
		t.Error("another subnet's address is a device's")
	}
}

// A port a device, where no network can be had: over a crash as well.
func TestPortADevice(t *testing.T) {
	w := newWorld(t, func(s *settings, _ *sim.DeviceConfig) { s.UpstreamPorts = 8 })
	w.register()
	reg, _ := w.server.Registration("dev1")
	if reg.Addr.Port != int(w.cfg.UpstreamPort) || !reg.Addr.IP.IsLoopback() {
		t.Errorf("registered from %v", reg.Addr)
	}
	w.do("2.05", sim.ReadRequest("/3/0/0", 0))
	w.kill()
	w.start()
	w.do("2.05", sim.ReadRequest("/3/0/0", 0))
	if err := w.device.Update(w.ctx); err != nil {
		t.Error(err)
	}
	if after, _ := w.server.Registration("dev1"); after.Addr.String() != reg.Addr.String() {
		t.Errorf("it moved to %v", after.Addr)
	}
}

// An IPv6 network that is routed to this machine, for a backend on another.
func TestUpstreamIPv6(t *testing.T) {
	site := fmt.Sprintf("fd5c:6f:%x", os.Getpid()&0xfff|0x1000) // others may run this test at the same time
	prefix, backend := site+":1::/64", site+":2::1"
	for _, args := range [][]string{{"route", "replace", "local", prefix, "dev", "lo"}, {"addr", "replace", backend + "/128", "dev", "lo", "nodad"}} {
		if out, err := exec.Command("ip", append([]string{"-6"}, args...)...).CombinedOutput(); err != nil {
			t.Skipf("addresses cannot be set here: %v %s", err, out)
		}
	}
	t.Cleanup(func() {
		_ = exec.Command("ip", "-6", "route", "del", "local", prefix, "dev", "lo").Run()
		_ = exec.Command("ip", "-6", "addr", "del", backend+"/128", "dev", "lo").Run()
	})
	conn, err := net.ListenUDP("udp6", &net.UDPAddr{IP: net.ParseIP(backend)})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	from := make(chan netip.AddrPort, 1)
	go func() {
		buf := make([]byte, 2048)
		n, peer, err := conn.ReadFromUDPAddrPort(buf)
		d, bad := coap.ParseDatagram(buf[:n])
		if err != nil || bad != nil {
			return
		}
		d.Type, d.Code = coap.Acknowledgement, coap.Created
		d.Body = coap.AppendBody(nil, coap.Options{{Number: coap.LocationPath, Value: []byte("rd")}, {Number: coap.LocationPath, Value: []byte("x")}}, nil)
		_, _ = conn.WriteToUDPAddrPort(d.Append(nil), peer)
		from <- peer
	}()
	w := newWorld(t, func(s *settings, _ *sim.DeviceConfig) {
		s.Backend, s.Upstream = conn.LocalAddr().String(), prefix
	})
	w.register()
	if got := (<-from).Addr().String(); got != site+":1::100" {
		t.Errorf("registered from %v", got)
	}
	if s := w.state(); s.Devices[0].Location != "/rd/x" {
		t.Errorf("%+v", s.Devices[0])
	}
}
