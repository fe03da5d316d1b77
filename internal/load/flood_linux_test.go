package load

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"sync/atomic"
	"testing"

	"github.com/oscorelay/oscorelay/internal/coap"
	"github.com/oscorelay/oscorelay/internal/udp"
	"github.com/oscorelay/oscorelay/oscore"
)

// flood is a kind of datagram that an attacker, or a device run wild, sends.
type flood struct {
	name string
	make func(f *flooder, buf []byte) []byte

	malformed bool // no CoAP
	silent    bool // the server does not answer it
}

// flooder sends floods from random addresses, or from those of devices.
type flooder struct {
	sock *udp.Socket
	to   netip.AddrPort
	rng  *rand.Rand
	n    uint32
	own  *fleet // devices that are there, and take part
	sent atomic.Int64
}

func newFlooder(t testing.TB, to netip.AddrPort, own *fleet) *flooder {
	t.Helper()
	s, err := udp.Listen(netip.MustParseAddrPort("0.0.0.0:0"), udp.Options{Local: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return &flooder{sock: s, to: to, rng: rand.New(rand.NewPCG(1, 2)), own: own}
}

func (f *flooder) datagram(typ coap.Type, code coap.Code, opts coap.Options, payload []byte, buf []byte) []byte {
	f.n++
	var token [8]byte
	binary.BigEndian.PutUint64(token[:], f.rng.Uint64())
	return coap.Datagram{Type: typ, Code: code, MessageID: uint16(f.n), Token: token[:], Body: coap.AppendBody(nil, opts, payload)}.Append(buf[:0])
}

func (f *flooder) random(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(f.rng.Uint32())
	}
	return b
}

// option9 is an OSCORE option with a Partial IV of four bytes.
func (f *flooder) option9(kid []byte) coap.Options {
	o := oscore.Option{PartialIV: f.random(4), KID: kid}
	o.PartialIV[0] |= 1
	return coap.Options{{Number: coap.OSCORE, Value: o.Append(nil)}}
}

var floods = []flood{
	{"garbage", func(f *flooder, _ []byte) []byte { return f.random(8 + f.rng.IntN(100)) }, true, false},
	{"forged option 9, a device's kid", func(f *flooder, buf []byte) []byte {
		return f.datagram(coap.Confirmable, coap.POST, f.option9(kid(f.rng.IntN(len(f.own.devices)))), f.random(40), buf)
	}, false, false},
	{"forged option 9, unknown kid", func(f *flooder, buf []byte) []byte {
		return f.datagram(coap.Confirmable, coap.POST, f.option9(f.random(5)), f.random(40), buf)
	}, false, false},
	{"block-wise starts", func(f *flooder, buf []byte) []byte {
		opts := append(f.option9(kid(f.rng.IntN(len(f.own.devices)))), coap.Option{Number: coap.Block1, Value: coap.Block{More: true, SZX: 6}.Append(nil)})
		return f.datagram(coap.Confirmable, coap.POST, opts, f.random(1024), buf)
	}, false, false},
	{"plain requests", func(f *flooder, buf []byte) []byte {
		return f.datagram(coap.Confirmable, coap.POST, registration(f.rng.IntN(len(f.own.devices))), objects, buf)
	}, false, false},
	{"responses nobody asked for", func(f *flooder, buf []byte) []byte {
		return f.datagram(coap.Confirmable, coap.Content, coap.Options{{Number: coap.OSCORE}}, f.random(40), buf)
	}, false, false},
	{"half-open exchanges", func(f *flooder, buf []byte) []byte {
		return f.datagram(coap.NonConfirmable, coap.POST, coap.Options{{Number: coap.URIPath, Value: void}}, f.random(40), buf)
	}, false, true},
}

// burst sends k datagrams, each from another address.
func (f *flooder) burst(kind *flood, k int) {
	out := make([]udp.Packet, k)
	for i := range out {
		out[i] = udp.Packet{
			Peer: f.to, Local: netip.AddrFrom4([4]byte{127, 32 + byte(f.rng.Uint32()&15), byte(f.rng.Uint32()), byte(f.rng.Uint32())}),
			Data: kind.make(f, nil),
		}
	}
	f.sock.Write(out)
	f.sent.Add(int64(k))
}
