package load

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/oscorelay/oscorelay/internal/coap"
	"github.com/oscorelay/oscorelay/internal/udp"
	"github.com/oscorelay/oscorelay/keys"
	"github.com/oscorelay/oscorelay/keys/bolt"
	"github.com/oscorelay/oscorelay/oscore"
)

// mode is how devices speak.
type mode int

const (
	sealed mode = iota
	plain
	opaque // something that looks sealed, for those that look at nothing
)

// device is one of a fleet.
type device struct {
	ctx        *oscore.Context
	echo       []byte
	registered bool
}

// fleet is devices behind one socket, each with a source address of its own.
type fleet struct {
	mode mode
	sock *udp.Socket
	up   turns
	mute atomic.Bool // requests of the server are not answered

	mu      sync.Mutex // of the devices
	devices []device
	room    [512]byte
	inner   []byte
	asked   atomic.Int64 // requests of the server
	failed  atomic.Int64 // messages that did not open
	turn    int
	greedy  bool // every other request is of the first device
	mid     uint16
	out     [burst]udp.Packet
	bufs    [burst][]byte
}

// kid is the Sender ID of a device.
func kid(n int) []byte { return []byte{0xd0 | byte(n>>16), byte(n >> 8), byte(n)} }

// source is the address of a device, place its inverse.
func source(n int) netip.Addr {
	return netip.AddrFrom4([4]byte{127, 1 + byte(n>>16), byte(n >> 8), byte(n)})
}

func place(a netip.Addr) int {
	b := a.As4()
	return int(b[1]-1)<<16 | int(b[2])<<8 | int(b[3])
}

// secret is what the keys of a run are made of.
var secret = func() (s [16]byte) {
	_, _ = rand.Read(s[:])
	return s
}()

// params are those of a device's context, seen from the gateway.
func params(n int) oscore.Params {
	s := binary.BigEndian.AppendUint32(bytes.Clone(secret[:]), uint32(n))
	return oscore.Params{MasterSecret: s, SenderID: []byte{0x51}, RecipientID: kid(n), WindowSize: 1024}
}

// makeStore makes the gateway's store with a context for each device.
func makeStore(t testing.TB, devices int) (base string) {
	t.Helper()
	base = t.TempDir()
	store, err := openStore(base, bolt.Options{Init: true})
	if err != nil {
		t.Fatal(err)
	}
	err = store.Import(context.Background(), func(yield func(keys.Entry, error) bool) {
		for n := range devices {
			if !yield(keys.Entry{Name: "d" + strconv.Itoa(n), Params: params(n)}, nil) {
				return
			}
		}
	}, bolt.ImportOptions{Fresh: true, Expected: devices})
	if err != nil {
		t.Fatal(err)
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	return base
}

func newFleet(t testing.TB, m mode, devices int) *fleet {
	t.Helper()
	s, err := udp.Listen(netip.MustParseAddrPort("0.0.0.0:0"), udp.Options{Local: true, ReadBuffer: 4 << 20, WriteBuffer: 4 << 20})
	if err != nil {
		t.Fatal(err)
	}
	f := &fleet{mode: m, sock: s, devices: make([]device, devices)}
	if m == sealed {
		for n := range f.devices {
			p := params(n)
			if f.devices[n].ctx, err = oscore.New(p.Swap()); err != nil {
				t.Fatal(err)
			}
			f.devices[n].ctx.Begin()
		}
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		f.listen()
	}()
	t.Cleanup(func() {
		_ = s.Close()
		<-done
	})
	return f
}

// listen takes answers in, and answers the server.
func (f *fleet) listen() {
	in, bufs := make([]udp.Packet, 64), make([][]byte, 64)
	for {
		n, err := f.sock.Read(in)
		if err != nil {
			return
		}
		k := 0
		f.mu.Lock()
		for i := range in[:n] {
			d, err := coap.ParseDatagram(in[i].Data)
			switch {
			case err != nil:
			case d.Code.IsResponse():
				f.up.answer(d, func(s *slot) coap.Datagram { return f.opened(s, d) })
				if d.Type == coap.Confirmable { // a separate one (RFC 7252 §5.2.2)
					bufs[k] = coap.Datagram{Type: coap.Acknowledgement, MessageID: d.MessageID}.Append(bufs[k][:0])
					in[k] = udp.Packet{Peer: in[i].Peer, Local: in[i].Local, Data: bufs[k]}
					k++
				}
			case d.Code.IsRequest() && !f.mute.Load():
				at := in[i].Local
				if d, ok := f.answer(place(at), d); ok {
					bufs[k] = d.Append(bufs[k][:0])
					in[k] = udp.Packet{Peer: in[i].Peer, Local: at, Data: bufs[k]}
					k++
				}
			}
		}
		f.mu.Unlock()
		f.sock.Write(in[:k])
	}
}

// opened returns what a response holds.
func (f *fleet) opened(s *slot, d coap.Datagram) coap.Datagram {
	dev := &f.devices[s.device]
	switch f.mode {
	case opaque:
		return d
	case sealed:
		m, err := s.pending.Open(f.room[:0], oscore.Message{Code: byte(d.Code), Body: d.Body})
		if err != nil {
			f.failed.Add(1)
			return d // an error in plain
		}
		d.Code, d.Body = coap.Code(m.Code), m.Body
		if v, ok := coap.Find(d.Body, coap.Echo); ok {
			dev.echo = append(dev.echo[:0], v...)
		}
	}
	if d.Code == coap.Created {
		dev.registered = true
	}
	return d
}

var content = coap.AppendBody(nil, nil, []byte("2026-11-23T21:35:41Z"))

// answer answers a request of the server.
func (f *fleet) answer(n int, d coap.Datagram) (coap.Datagram, bool) {
	d.Type = coap.Acknowledgement
	f.asked.Add(1)
	if f.mode == plain {
		d.Code, d.Body = coap.Content, content
		return d, true
	}
	var r oscore.Request
	ctx := f.devices[n].ctx
	if _, err := ctx.OpenRequest(f.room[:0], &r, oscore.Message{Code: byte(d.Code), Body: d.Body}); err != nil {
		f.failed.Add(1)
		return d, false
	}
	m, err := r.Seal(nil, oscore.Message{Code: byte(coap.Content), Body: content})
	if err != nil {
		f.failed.Add(1)
		return d, false
	}
	d.Code, d.Body = coap.Code(m.Code), m.Body
	return d, true
}

// Requests of devices.
func registration(n int) coap.Options {
	return coap.Options{
		{Number: coap.URIPath, Value: []byte("rd")},
		{Number: coap.ContentFormat, Value: []byte{40}},
		{Number: coap.URIQuery, Value: []byte("lwm2m=1.1")},
		{Number: coap.URIQuery, Value: []byte("ep=d" + strconv.Itoa(n))},
		{Number: coap.URIQuery, Value: []byte("lt=86400")},
	}
}

func update(n int) coap.Options {
	return coap.Options{{Number: coap.URIPath, Value: []byte("rd")}, {Number: coap.URIPath, Value: strconv.AppendInt(nil, int64(n), 10)}}
}

var (
	objects    = []byte("</1/0>,</3/0>,</4/0>,</5/0>")
	opaqueBody = coap.AppendBody(nil, coap.Options{{Number: coap.OSCORE, Value: []byte{0x19, 1, 2, 3, 4, 5}}}, make([]byte, 24))
)

// request makes the i-th datagram of a burst: a registration, or an Update.
func (f *fleet) request(i, n int, to netip.AddrPort, registers bool) {
	dev := &f.devices[n]
	body := opaqueBody
	if f.mode != opaque {
		opts, payload := update(n), noPayload
		if registers {
			opts, payload = registration(n), objects
		}
		if f.mode == sealed && len(dev.echo) > 0 {
			opts = opts.Add(coap.Echo, dev.echo)
		}
		f.inner = coap.AppendBody(f.inner[:0], opts, payload)
		body = f.inner
	}
	s, m := slot{device: n}, oscore.Message{Code: byte(coap.POST), Body: body}
	if f.mode == sealed {
		var err error
		s.pending = new(oscore.Pending)
		if m, err = dev.ctx.SealRequest(f.room[:0], s.pending, m); err != nil {
			panic(err) // the context is a new one
		}
	}
	var token [4]byte
	binary.BigEndian.PutUint32(token[:], f.up.next(s))
	f.mid++
	d := coap.Datagram{Type: coap.Confirmable, Code: coap.Code(m.Code), MessageID: f.mid, Token: token[:], Body: m.Body}
	f.bufs[i] = d.Append(f.bufs[i][:0])
	f.out[i] = udp.Packet{Peer: to, Local: source(n), Data: f.bufs[i]}
}

var noPayload []byte

// updates returns what sends Updates of all devices in turn.
func (f *fleet) updates(to netip.AddrPort) func(k int) {
	return func(k int) {
		f.mu.Lock()
		for i := range k {
			n := f.turn % len(f.devices)
			if f.greedy && i%2 == 0 {
				n = 0
			} else {
				f.turn++
			}
			f.request(i, n, to, false)
		}
		f.mu.Unlock()
		f.sock.Write(f.out[:k])
	}
}

// register registers all devices, and returns how many requests it took.
func (f *fleet) register(t testing.TB, to netip.AddrPort, inFlight int) (requests int) {
	t.Helper()
	if f.mode == opaque {
		return 0
	}
	for end := time.Now().Add(5 * time.Minute); ; {
		var left []int
		f.mu.Lock()
		for n := range f.devices {
			if !f.devices[n].registered {
				left = append(left, n)
			}
		}
		f.mu.Unlock()
		if len(left) == 0 {
			return requests
		}
		if time.Now().After(end) {
			t.Fatalf("%d devices are not registered, %d messages did not open", len(left), f.failed.Load())
		}
		requests += len(left)
		f.up.closed(len(left), inFlight, func(k int) {
			f.mu.Lock()
			for i, n := range left[:k] {
				f.request(i, n, to, true)
			}
			left = left[k:]
			f.mu.Unlock()
			f.sock.Write(f.out[:k])
		})
	}
}
