package terminate

import (
	"bytes"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/oscorelay/oscorelay/internal/coap"
	"github.com/oscorelay/oscorelay/internal/endpoint"
	"github.com/oscorelay/oscorelay/internal/sim"
)

// A message that was held back and is delivered from elsewhere does not move the
// device's return address: it is asked for an Echo, which the device alone can
// give. The device itself moves with one round trip.
func TestMove(t *testing.T) {
	window := endpoint.FreshWindow
	w := newWorld(t, func(s *settings, _ *sim.DeviceConfig) { s.Freshness = &window })
	w.register()
	before := w.state().Devices[0].Address

	var kept []byte
	done := make(chan struct{})
	w.relay.setTap(func(up bool, data []byte) bool {
		if up && kept == nil {
			kept = bytes.Clone(data)
			close(done)
			return false
		}
		return !up || !bytes.Equal(data, kept) // its retransmissions too
	})
	go func() { _ = w.device.Send(w.ctx, 112, mustPath(t, "/3/0/0")) }()
	w.await(done)
	mark := w.server.Log().Mark()
	thief := dial(t, w.run.addr)
	answer := thief.ask(kept)
	if d, err := coap.ParseDatagram(answer); err != nil || d.Code != coap.Changed {
		t.Errorf("%x: %v", answer, err) // sealed, 4.01 with an Echo inside
	}
	s := w.state()
	if s.Devices[0].Address != before || s.Stats.Counters["echo_challenge"] != 1 || s.Stats.Counters["moved"] != 0 {
		t.Errorf("%+v", s)
	}
	for _, e := range w.server.Log().Since(mark) {
		t.Errorf("the server has heard %+v", e)
	}
	w.relay.setTap(nil)
	w.do("2.05", sim.ReadRequest("/3/0/0", 0)) // goes where the device is

	// Its address changes, as behind a NAT.
	moved := newRelay(t, w.run.addr)
	if err := w.device.SetServer(moved.addr.String()); err != nil {
		t.Fatal(err)
	}
	if err := w.device.Update(w.ctx); err != nil {
		t.Fatal(err)
	}
	s = w.state()
	if s.Devices[0].Address == before || s.Stats.Counters["moved"] != 1 {
		t.Errorf("%+v", s.Devices[0])
	}
	w.do("2.05", sim.ReadRequest("/3/0/0", 0))
}

// The path's own properties, on the device's leg: a flipped bit, a replay, a
// request held back, an answer to another request.
func TestHostilePath(t *testing.T) {
	w := newWorld(t, nil)
	w.register()
	capture := w.relay.capture()
	var request []byte // the last that was answered
	for _, data := range capture {
		if d, err := coap.ParseDatagram(data); err == nil && d.Code.IsRequest() {
			request = data
		}
	}
	mark := w.server.Log().Mark()
	thief := dial(t, w.run.addr)
	d, err := coap.ParseDatagram(thief.ask(request))
	if err != nil || d.Code != coap.Unauthorized {
		t.Errorf("a replay: %v, %v", d.Code, err)
	}
	if age, ok := coap.Find(d.Body, coap.MaxAge); !ok || len(age) != 0 {
		t.Errorf("Max-Age %x", age)
	}
	for bit := range len(request) * 8 {
		flipped := bytes.Clone(request)
		flipped[bit/8] ^= 1 << (bit % 8)
		thief.send(flipped)
	}
	// All of them have been judged when this one is answered.
	thief.ask([]byte{0x40, 0, 0x77, 0x77}) // a ping
	w.eventually("all are judged", func(s state) bool {
		c := s.Stats.Counters
		return c["replay"]+c["decrypt"]+c["no_context"]+c["decode"]+c["malformed"]+c["unprotected_request"]+c["unmatched"]+c["duplicate"] >= 100
	})
	for _, e := range w.server.Log().Since(mark) {
		t.Errorf("the server has heard %+v", e)
	}
	if err := w.device.Update(w.ctx); err != nil {
		t.Errorf("the genuine device: %v", err)
	}

	// The device's answer to one request as the answer to another.
	w.do("2.05", sim.ReadRequest("/3/0/0", 0))
	var first coap.Datagram
	for _, data := range w.relay.capture() {
		if d, err := coap.ParseDatagram(data); err == nil && d.Type == coap.Acknowledgement && d.Code.IsResponse() {
			first = d // the last
		}
	}
	var swapped atomic.Bool
	w.relay.setTap(func(up bool, data []byte) bool {
		if d, err := coap.ParseDatagram(data); !up && err == nil && d.Code.IsRequest() && swapped.CompareAndSwap(false, true) {
			forged := first
			forged.Token, forged.MessageID = d.Token, d.MessageID
			_, _ = w.relay.conn.WriteToUDPAddrPort(forged.Append(nil), w.run.addr)
		}
		return true
	})
	if resp := w.do("2.05", sim.ReadRequest("/3/0/14", 0)); string(resp.Payload) == "Open Mobile Device" {
		t.Error("the answer to another request was taken")
	}
	if c := w.state().Stats.Counters; c["decrypt"] == 0 || !swapped.Load() {
		t.Errorf("the forged answer was not judged: %v", c)
	}
}

// peer is a socket of somebody on the path.
type peer struct {
	t    *testing.T
	conn *net.UDPConn
}

func dial(t *testing.T, to netip.AddrPort) *peer {
	t.Helper()
	conn, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(to))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &peer{t, conn}
}

func (p *peer) send(data []byte) {
	p.t.Helper()
	if _, err := p.conn.Write(data); err != nil {
		p.t.Fatal(err)
	}
}

// ask sends a datagram and returns what comes back first.
func (p *peer) ask(data []byte) []byte {
	p.t.Helper()
	p.send(data)
	buf := make([]byte, 2048)
	if err := p.conn.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		p.t.Fatal(err)
	}
	n, err := p.conn.Read(buf)
	if err != nil {
		p.t.Fatal(err)
	}
	return buf[:n]
}
