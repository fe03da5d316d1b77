package load

import (
	"encoding/binary"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/oscorelay/oscorelay/internal/coap"
	"github.com/oscorelay/oscorelay/internal/udp"
)

// backend is a plain server that answers everything at once: a registration of
// the n-th device with the location /rd/n, whatever else with 2.04. It asks
// devices in turn.
type backend struct {
	sock   *udp.Socket
	mid    atomic.Uint32
	asked  turns
	method coap.Code
	got    atomic.Int64 // requests of devices

	mu    sync.Mutex
	known []netip.AddrPort // what a device is known by
}

func newBackend(t testing.TB, devices int) *backend {
	t.Helper()
	s, err := udp.Listen(netip.MustParseAddrPort("127.0.0.1:0"), udp.Options{ReadBuffer: 4 << 20, WriteBuffer: 4 << 20})
	if err != nil {
		t.Fatal(err)
	}
	b := &backend{sock: s, known: make([]netip.AddrPort, devices), method: coap.GET}
	done := make(chan struct{})
	go func() {
		defer close(done)
		b.serve()
	}()
	t.Cleanup(func() {
		_ = s.Close()
		<-done
	})
	return b
}

func (b *backend) serve() {
	in, bufs := make([]udp.Packet, 64), make([][]byte, 64)
	for {
		n, err := b.sock.Read(in)
		if err != nil {
			return
		}
		k := 0
		for i := range in[:n] {
			d, err := coap.ParseDatagram(in[i].Data)
			if err != nil {
				continue
			}
			if d.Code.IsResponse() {
				b.asked.answer(d, nil)
				continue
			}
			if !d.Code.IsRequest() {
				continue
			}
			b.got.Add(1)
			if d.Type == coap.Confirmable {
				d.Type = coap.Acknowledgement
			} else {
				d.MessageID = uint16(b.mid.Add(1))
			}
			d.Code, d.Body = b.answer(d, in[i].Peer)
			bufs[k] = d.Append(bufs[k][:0])
			in[k] = udp.Packet{Peer: in[i].Peer, Data: bufs[k]}
			k++
		}
		b.sock.Write(in[:k])
	}
}

func (b *backend) answer(d coap.Datagram, from netip.AddrPort) (coap.Code, []byte) {
	w := coap.Walk(d.Body)
	for w.Next() {
		if w.Number != coap.URIQuery {
			continue
		}
		ep, ok := strings.CutPrefix(string(w.Value), "ep=d")
		if !ok {
			continue
		}
		n, err := strconv.Atoi(ep)
		if err != nil || n >= len(b.known) {
			return coap.BadRequest, nil
		}
		b.mu.Lock()
		b.known[n] = from
		b.mu.Unlock()
		return coap.Created, coap.AppendBody(nil, coap.Options{{Number: coap.LocationPath, Value: []byte("rd")}, {Number: coap.LocationPath, Value: []byte(ep)}}, nil)
	}
	return coap.Changed, nil
}

var resource = coap.AppendBody(nil, coap.Options{{Number: coap.URIPath, Value: []byte("3")}, {Number: coap.URIPath, Value: []byte("0")}, {Number: coap.URIPath, Value: []byte("13")}}, nil)

// ask sends a request to a device.
func (b *backend) ask(to int, buf []byte) udp.Packet {
	var token [4]byte
	binary.BigEndian.PutUint32(token[:], b.asked.next(slot{device: to}))
	d := coap.Datagram{Type: coap.Confirmable, Code: b.method, MessageID: uint16(b.mid.Add(1)), Token: token[:], Body: resource}
	b.mu.Lock()
	peer := b.known[to]
	b.mu.Unlock()
	return udp.Packet{Peer: peer, Data: d.Append(buf[:0])}
}

// questions returns what asks all devices in turn.
func (b *backend) questions() func(k int) {
	out, bufs, at := make([]udp.Packet, burst), make([][]byte, burst), 0
	return func(k int) {
		for i := range k {
			out[i] = b.ask(at%len(b.known), bufs[i])
			bufs[i] = out[i].Data
			at++
		}
		b.sock.Write(out[:k])
	}
}
