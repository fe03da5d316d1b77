package terminate

import (
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/oscorelay/oscorelay/internal/coap"
	"github.com/oscorelay/oscorelay/internal/sim"
	"github.com/oscorelay/oscorelay/oscore"
)

// backend is a server that does just what a test tells it to.
type backend struct {
	t      *testing.T
	conn   *net.UDPConn
	device netip.AddrPort // where it sees the device
}

func newBackend(t *testing.T) *backend {
	t.Helper()
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &backend{t: t, conn: conn}
}

// receive returns the next message; ok is false if none came in time.
func (b *backend) receive(within time.Duration) (dg coap.Datagram, ok bool) {
	b.t.Helper()
	if err := b.conn.SetReadDeadline(time.Now().Add(within)); err != nil {
		b.t.Fatal(err)
	}
	buf := make([]byte, 2048)
	n, from, err := b.conn.ReadFromUDPAddrPort(buf)
	if err != nil {
		return dg, false
	}
	if dg, err = coap.ParseDatagram(buf[:n]); err != nil {
		b.t.Fatal(err)
	}
	b.device = from
	return dg, true
}

func (b *backend) send(dg coap.Datagram) {
	b.t.Helper()
	if _, err := b.conn.WriteToUDPAddrPort(dg.Append(nil), b.device); err != nil {
		b.t.Fatal(err)
	}
}

// takeRegistration answers a device that registers meanwhile.
func (b *backend) takeRegistration(w *world) {
	b.t.Helper()
	done := make(chan error, 1)
	go func() { done <- w.device.Register(w.ctx) }()
	in, ok := b.receive(10 * time.Second)
	if !ok {
		b.t.Fatal("no registration")
	}
	b.send(coap.Datagram{
		Type: coap.Acknowledgement, Code: coap.Created, MessageID: in.MessageID, Token: in.Token,
		Body: coap.AppendBody(nil, coap.Options{}.Add(coap.LocationPath, []byte("rd")).Add(coap.LocationPath, []byte("1")), nil),
	})
	if err := <-done; err != nil {
		b.t.Fatal(err)
	}
}

// Leshan M4 gives all blocks of a transfer one token. A request under the token of
// an earlier one says that the backend waits for the earlier no more: that is not
// taken up, lest its answer pass for the other's.
func TestKillTokenReused(t *testing.T) {
	b := newBackend(t)
	w := newWorld(t, func(s *settings, _ *sim.DeviceConfig) { s.Backend = b.conn.LocalAddr().String() })
	b.takeRegistration(w)
	var down [][]byte
	held := []chan struct{}{make(chan struct{}), make(chan struct{})}
	w.relay.setTap(func(up bool, data []byte) bool { // both reach the device's leg, and not the device
		if !up && !slices.ContainsFunc(down, func(d []byte) bool { return string(d) == string(data) }) {
			close(held[len(down)])
			down = append(down, data)
		}
		return false
	})
	body := coap.AppendBody(nil, coap.Options{}.Add(coap.URIPath, []byte("3")).Add(coap.URIPath, []byte("0")).Add(coap.URIPath, []byte("4")), nil)
	for mid := range uint16(2) {
		b.send(coap.Datagram{Type: coap.Confirmable, Code: coap.POST, MessageID: 100 + mid, Token: []byte{7}, Body: body})
		w.await(held[mid])
	}
	w.kill()
	w.relay.setTap(nil)
	w.start()
	answers := 0
	for {
		dg, ok := b.receive(3 * ackTimeout)
		if !ok {
			break
		}
		if dg.Code == coap.Changed {
			answers++
			b.send(coap.Datagram{Type: coap.Acknowledgement, MessageID: dg.MessageID})
		}
	}
	if n := w.executed("/3/0/4"); answers != 1 || n != 1 {
		t.Errorf("%d answers, it ran %d times; want 1 each, of the later request", answers, n)
	}
}

// A registration that comes with the request that completes Appendix B.2 belongs
// to the new context: its location is known for the Update.
func TestRegistrationCompletesRederivation(t *testing.T) {
	b := newBackend(t)
	w := newWorld(t, func(s *settings, _ *sim.DeviceConfig) {
		s.Backend = b.conn.LocalAddr().String()
		s.Context = oscore.Settings{Rederive: oscore.RoleServer}
	})
	b.takeRegistration(w)
	w.eventually("Appendix B.2", func(s state) bool { return s.Stats.Counters["rederived"] == 1 })
	for until := time.Now().Add(300 * time.Millisecond); time.Now().Before(until); {
		if s := w.state(); len(s.Devices) != 1 || s.Devices[0].Location != "/rd/1" {
			t.Fatalf("the location of the registration was forgotten: %+v", s.Devices)
		}
	}
}
