//go:build interop

package interop

import (
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/oscorelay/oscorelay/internal/proof"
	"github.com/oscorelay/oscorelay/internal/sim"
	"github.com/oscorelay/oscorelay/interop/ours"
	"github.com/oscorelay/oscorelay/interop/peer"
	"github.com/oscorelay/oscorelay/oscore/gocoap"
)

// The properties of the path device → oscore-proxy → Leshan's own OSCORE
// server. What a device of ours receives is tried to the full; what Leshan
// receives only as far as Leshan itself keeps the property: its replay window
// moves before authentication, it does not know Echo, and its restart forgets
// what it has seen.

// TestLeshanIntegrity flips every bit of an Execute on its way to the device,
// and of the answer to a Send, before the genuine message comes.
func TestLeshanIntegrity(t *testing.T) {
	t.Parallel()
	ctx := lwm2mContext(1)
	p := newBehindProxy(t, map[string]peer.Context{"one": ctx})
	device := p.join(t, "one", ctx)

	var mu sync.Mutex
	var once sync.Once
	flipped := map[uint16]bool{} // message IDs
	p.front.Forward(func(d peer.Datagram) (out [][]byte) {
		mu.Lock()
		defer mu.Unlock()
		m, err := peer.ParseMessage(d.Bytes)
		if err != nil {
			return [][]byte{d.Bytes}
		}
		if d.ToServer && flipped[m.ID] {
			if m.Code != 0 && !slices.Contains([]string{"4.00", "4.01", "4.02"}, peer.Dotted(m.Code)) {
				t.Errorf("a flipped message got %s", m)
			}
			return nil
		}
		if !d.ToServer && m.IsRequest() {
			once.Do(func() {
				for i, f := range flips(d.Bytes) {
					id := m.ID + uint16(i) + 1 // each a message of its own
					f[2], f[3] = byte(id>>8), byte(id)
					flipped[id] = true
					out = append(out, f)
				}
			})
		}
		return append(out, d.Bytes)
	})
	p.server.Execute(t, "one", "/3/0/4")
	if n := device.Executed(); n != 1 {
		t.Errorf("/3/0/4 ran %d times, want 1", n)
	}
	mu.Lock()
	if len(flipped) == 0 {
		t.Error("no request was flipped")
	}
	mu.Unlock()

	responses := 0
	p.front.Forward(func(d peer.Datagram) (out [][]byte) {
		mu.Lock()
		defer mu.Unlock()
		if m, err := peer.ParseMessage(d.Bytes); err == nil && !d.ToServer && m.IsResponse() {
			out = flips(d.Bytes)
			responses += len(out)
		}
		return append(out, d.Bytes)
	})
	from := p.server.Seen()
	device.Send(t, "/3/0/9")
	p.tookOneSend(t, from, device)
	if mu.Lock(); responses == 0 {
		t.Error("no response was flipped")
	}
	mu.Unlock()
	proof.Requirement(t, proxyPath, "E2E-1")
}

// tookOneSend counts the Sends that reached the server. It tells of them in
// their order, so an Update comes after all of them.
func (p behindProxy) tookOneSend(t *testing.T, from int, device *ours.Device) {
	t.Helper()
	device.Update(t)
	p.server.Await(t, from, "update", func(e peer.LeshanEvent) bool { return e.Kind == "updated" })
	p.server.Await(t, from, "Send", func(e peer.LeshanEvent) bool { return e.Kind == "send" })
	if n := p.server.Count(from, "send"); n != 1 {
		t.Errorf("the server took %d Sends, want 1", n)
	}
}

// TestLeshanReplay sends a Send to the server, and an Execute to the device, a
// second time; the latter again after the device was killed.
func TestLeshanReplay(t *testing.T) {
	t.Parallel()
	ctx := lwm2mContext(1)
	p := newBehindProxy(t, map[string]peer.Context{"one": ctx})
	device := p.join(t, "one", ctx)

	from := p.server.Seen()
	device.Send(t, "/3/0/9")
	sent := p.last(t, func(d peer.Datagram, m peer.Message) bool { return d.ToServer && m.IsRequest() })
	p.refused(t, sent)
	p.tookOneSend(t, from, device)

	p.server.Execute(t, "one", "/3/0/4")
	order := p.last(t, func(d peer.Datagram, m peer.Message) bool { return !d.ToServer && m.IsRequest() })
	p.refused(t, order)
	if n := device.Executed(); n != 1 {
		t.Errorf("/3/0/4 ran %d times, want 1", n)
	}
	device.Crash()
	p.refused(t, order)
	if n := device.Executed(); n != 0 {
		t.Errorf("after the crash /3/0/4 ran %d times by an old message", n)
	}
	proof.Requirement(t, proxyPath, "E2E-3")
}

// last gives the last datagram of the front leg that the condition holds for.
func (p behindProxy) last(t *testing.T, ok func(peer.Datagram, peer.Message) bool) peer.Datagram {
	t.Helper()
	for _, d := range slices.Backward(p.front.Capture()) {
		if m, err := peer.ParseMessage(d.Bytes); err == nil && ok(d, m) {
			return d
		}
	}
	t.Fatal("no such datagram was seen")
	return peer.Datagram{}
}

// refused sends a captured request again, as a message of its own, and wants
// 4.01.
func (p behindProxy) refused(t *testing.T, d peer.Datagram) {
	t.Helper()
	again := slices.Clone(d.Bytes)
	again[2] ^= 0x55
	seen := len(p.front.Capture())
	if d.ToServer {
		p.front.Send(d.Client, again)
	} else {
		p.front.SendBack(d.Client, again)
	}
	var answer peer.Message
	p.front.Await(t, "answer to the replayed request", func(c peer.Capture) bool {
		for _, a := range c[seen:] {
			m, err := peer.ParseMessage(a.Bytes)
			if err == nil && a.ToServer != d.ToServer && m.IsResponse() && m.ID == uint16(again[2])<<8|uint16(again[3]) {
				answer = m
				return true
			}
		}
		return false
	})
	if peer.Dotted(answer.Code) != "4.01" {
		if _, sealed := answer.Option(peer.OptOSCORE); !sealed {
			t.Errorf("the replayed request got %s", answer)
		}
	}
}

// TestLeshanAuthentication has devices register with a wrong secret, with
// somebody else's name, and with the identifiers exchanged.
func TestLeshanAuthentication(t *testing.T) {
	t.Parallel()
	contexts := map[string]peer.Context{"one": lwm2mContext(1), "two": lwm2mContext(2), "three": lwm2mContext(3)}
	p := newBehindProxy(t, contexts)
	p.join(t, "one", contexts["one"])
	registered := p.server.Client(t, "one")

	wrongSecret, swapped := contexts["two"], contexts["two"]
	wrongSecret.Secret = slices.Clone(wrongSecret.Secret)
	wrongSecret.Secret[3] ^= 1
	swapped.ClientID, swapped.ServerID = swapped.ServerID, swapped.ClientID
	for _, c := range []struct {
		what, ep string
		ctx      peer.Context
	}{
		{"a wrong secret", "two", wrongSecret},
		{"exchanged identifiers", "two", swapped},
		{"the name of another device", "one", contexts["three"]}, // two's window has moved
	} {
		device := ours.StartDevice(t, p.front.Addr(), c.ep, &c.ctx, sim.DeviceConfig{OSCORE: &gocoap.Config{PlainErrorWait: 100 * time.Millisecond}})
		if err := device.Device.Register(t.Context()); err == nil {
			t.Errorf("%s: the device is registered", c.what)
		} else {
			t.Logf("%s: %v", c.what, err)
		}
	}
	if all := p.server.Clients(t); len(all) != 1 || all[0] != registered {
		t.Errorf("the server has %+v, want %+v alone", all, registered)
	}
	proof.Requirement(t, proxyPath, "E2E-4")
}

// TestLeshanBinding delivers the answer of one request for another one, with
// token and message ID rewritten, before the genuine one: to the device, and
// to the server.
func TestLeshanBinding(t *testing.T) {
	t.Parallel()
	ctx := lwm2mContext(1)
	p := newBehindProxy(t, map[string]peer.Context{"one": ctx})
	device := p.join(t, "one", ctx)
	splice := func(toServer bool) {
		var mu sync.Mutex
		var first []byte
		p.front.Forward(func(d peer.Datagram) [][]byte {
			mu.Lock()
			defer mu.Unlock()
			if m, err := peer.ParseMessage(d.Bytes); err != nil || d.ToServer != toServer || !m.IsResponse() {
				return [][]byte{d.Bytes}
			}
			head := 4 + int(d.Bytes[0]&15)
			if first == nil {
				first = slices.Clone(d.Bytes[head:])
				return [][]byte{d.Bytes}
			}
			return [][]byte{slices.Concat(d.Bytes[:head], first), d.Bytes}
		})
	}
	splice(false)
	refused := device.Events("decrypt")
	for range 3 {
		device.Send(t, "/3/0/9")
	}
	if n := device.Events("decrypt") - refused; n != 2 {
		t.Errorf("the device refused %d answers, want 2", n)
	}

	splice(true)
	p.server.Read(t, "one", "/3/0/0")
	r := p.server.Do(t, peer.LeshanCommand{Op: "read", Endpoint: "one", Path: "/3/0/15", Timeout: 3000})
	if got := r.Values["/3/0/15"]; got == device.Manufacturer() {
		t.Errorf("the server took the answer about /3/0/0 for /3/0/15")
	} else {
		t.Logf("the server, given the wrong answer first, says %q %s", got, r.Error)
	}
	proof.Requirement(t, proxyPath, "E2E-5")
}
