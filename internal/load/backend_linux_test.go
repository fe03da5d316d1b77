package load

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

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
	slow   atomic.Int64 // how long an answer takes, in ns

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
	var done sync.WaitGroup
	late := make(chan lateAnswers, 1<<12)
	done.Go(func() {
		defer close(late)
		b.serve(late)
	})
	done.Go(func() {
		for l := range late {
			time.Sleep(time.Until(l.due))
			b.sock.Write(l.answers)
		}
	})
	t.Cleanup(func() {
		_ = s.Close()
		done.Wait()
	})
	return b
}

// void is the path of what is never answered.
var void = []byte("void")

// lateAnswers are those of a slow server.
type lateAnswers struct {
	due     time.Time
	answers []udp.Packet
}

func (b *backend) serve(late chan<- lateAnswers) {
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
			if path, ok := coap.Find(d.Body, coap.URIPath); ok && bytes.Equal(path, void) {
				continue
			}
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
		if slow := time.Duration(b.slow.Load()); slow > 0 && k > 0 {
			late <- lateAnswers{time.Now().Add(slow), slices.Clone(in[:k])}
			clear(bufs)
			continue
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
